"""``python -m o3f.doctor``: what works on this machine, and how to mend the rest."""

from __future__ import annotations

from o3f.cli.doctor.__main__ import main

if __name__ == "__main__":
    main()
