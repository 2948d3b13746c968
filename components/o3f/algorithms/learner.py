"""What the recipes expect of an algorithm, and how one is built from a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from o3f.options import check_keys

Config = TypeVar("Config")


class Learner(Protocol):
    """Networks, losses and optimisers of one algorithm.

    The same :meth:`update` serves offline and online training: only the batches change, never the objective.
    """

    policy: TensorDictModuleBase
    """Writes ``action`` ``[*B, A]`` in [-1, 1] from ``observation`` ``[*B, O]``."""

    critic: TensorDictModuleBase
    """Writes ``state_action_value`` ``[*B, m]``; shares its Parameters with what is trained."""

    def update(self, batches: Sequence[TensorDictBase]) -> dict[str, Tensor]:
        """Take one gradient step per batch; return 0-d tensors that describe the last one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that a learner of the same configuration needs to continue exactly as this one."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over such a state."""
        ...


def read_config(config_type: type[Config], name: str, options: Mapping[str, Any]) -> Config:
    """Build an algorithm's configuration, a dataclass, from a mapping.

    Raises:
        ConfigError: for a name the dataclass does not have (the message has the nearest ones), or a value
            out of its range.
    """
    known = [field.name for field in dataclasses.fields(config_type)]  # type: ignore[arg-type]
    check_keys(options, known, f"algorithm {name}")
    return config_type(**options)
