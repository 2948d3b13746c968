"""The command ``python -m o3f.doctor``: exit code 0 if the core works."""

from __future__ import annotations

import sys
import warnings

from o3f.cli.doctor.datasets import check_datasets, check_tasks
from o3f.cli.doctor.findings import report
from o3f.cli.doctor.machine import check_disk, check_torch
from o3f.cli.doctor.packages import check_core_packages, check_extras
from o3f.cli.doctor.precision import check_precision
from o3f.cli.doctor.simulators import check_kitchen, check_mujoco, check_rendering

CORE = {"Packages": check_core_packages, "PyTorch": check_torch}
OTHERS = {
    "Extras": check_extras,
    "Precision": check_precision,
    "Simulators": check_mujoco,
    "Robotics": check_kitchen,
    "Rendering": check_rendering,
    "Datasets": check_datasets,
    "Tasks": check_tasks,
    "Disk": check_disk,
}


def main() -> None:
    """Say what works, and end the process."""
    warnings.simplefilter("ignore")  # other packages' deprecations
    sys.exit(report(CORE, OTHERS))


if __name__ == "__main__":
    main()
