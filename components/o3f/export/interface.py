"""What stands between a policy and its environment: how observations are laid out, and the actions' units."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from o3f.data import ObservationLayout, observation_layout
from o3f.envs import EnvConfig, make_raw_env

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Interface:
    """Units of an environment as a program needs them.

    Attributes:
        layout: order of the parts of an observation in the flat vector ``[O]``.
        low: lowest action that the environment accepts, ``[A]``.
        high: highest.
        centre: the environment's action for the agent's 0, ``[A]``.
        half: the environment's distance from ``centre`` for the agent's 1, ``[A]``.
    """

    layout: ObservationLayout
    low: Floats
    high: Floats
    centre: Floats
    half: Floats

    @classmethod
    def of(cls, config: EnvConfig) -> Interface:
        """Ask the environment of a task; errors as :func:`o3f.envs.make_raw_env`."""
        with contextlib.closing(make_raw_env(config)) as env:
            bounds: Any = env.get_wrapper_attr("bounds")
            centre, half = (np.asarray(env.get_wrapper_attr(name), np.float32) for name in ("centre", "half"))
            low, high = (bound.astype(np.float32) for bound in (bounds.low, bounds.high))
            # Of float64 bounds, the nearest float32 may lie outside of them.
            low = np.where(low < bounds.low, np.nextafter(low, np.float32(np.inf)), low)
            high = np.where(high > bounds.high, np.nextafter(high, np.float32(-np.inf)), high)
            layout = observation_layout(env.observation_space, config.observation_keys)
        return cls(layout, low, high, centre, np.float32(config.action_scale) * half)

    def parts(self) -> list[dict[str, Any]]:
        """The parts of the flat observation, in order: key, shape, and the slice they take."""
        parts: list[dict[str, Any]] = []
        start = 0
        for path, box in zip(self.layout.paths, self.layout.boxes, strict=True):
            stop = start + int(np.prod(box.shape))
            parts.append({"key": "/".join(path), "shape": list(box.shape), "start": start, "stop": stop})
            start = stop
        return parts
