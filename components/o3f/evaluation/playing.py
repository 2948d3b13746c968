"""One environment and a policy: how an evaluation plays, and what it leaves as it was."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase

from o3f.envs import EnvConfig, make_raw_env
from o3f.envs.flat_observation import FlatObservation
from o3f.envs.seeds import own_streams
from o3f.errors import ActionError, EvaluationError


def act(
    policy: TensorDictModuleBase, observations: npt.NDArray[np.float32], is_init: Sequence[bool]
) -> npt.NDArray[np.float32]:
    """Call a policy on observations ``[E, O]``; returns its actions ``[E, A]``.

    Args:
        policy: on any device.
        observations: one a row.
        is_init: whether each is the first of its episode, ``[E]``.

    Raises:
        ActionError: if there is not one vector for each.
    """
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    entries = {"observation": torch.from_numpy(observations), "is_init": torch.tensor(is_init)[:, None]}
    with torch.no_grad():
        actions = policy(TensorDict(entries, [len(observations)], device=device))["action"]
    if actions.shape[:-1] != (len(observations),):
        raise ActionError(f"The policy wrote actions {list(actions.shape)}, expected [{len(observations)}, A].")
    return np.asarray(actions.cpu(), dtype=np.float32)


@dataclass(frozen=True)
class Step:
    """One step of an episode: the observation ``[O]``, the action taken ``[A]``, the raw reward, and how it ended."""

    observation: npt.NDArray[np.float32]
    action: npt.NDArray[np.float32]
    reward: float
    terminated: bool


def play(policy: TensorDictModuleBase, env: Any, observation: npt.NDArray[np.float32]) -> Iterator[Step]:
    """Play one episode, by TorchRL's exploration type; ``env`` stands after each step as that step left it.

    Args:
        policy: as in :func:`~o3f.evaluation.episodes.evaluate`.
        env: with flat observations, just reset.
        observation: what its reset returned.

    Raises:
        EvaluationError: the environment failed.
        ActionError: the policy gave an action that no environment may receive.
    """
    done, count = False, 0
    while not done:
        (action,) = act(policy, observation[None], [count == 0])
        with with_place(f"at step {count} of an episode"):
            following, reward, terminated, truncated, _ = env.step(action)
        yield Step(observation, action, float(reward), bool(terminated))
        observation, done, count = following, terminated or truncated, count + 1


@contextlib.contextmanager
def isolated(policy: TensorDictModuleBase, seed: int) -> Iterator[None]:
    """Seed every random stream for the block and put it back afterwards; modules are in evaluation mode.

    Covers Python's, NumPy's and torch's global streams, the ``torch.Generator`` objects that modules of the
    policy hold, and what else those modules remember: buffers and attributes.

    Args:
        policy: the module about to be called.
        seed: for all the streams.
    """
    modules = list(policy.modules())
    generators = [v for module in modules for v in vars(module).values() if isinstance(v, torch.Generator)]
    saved_generators = [(generator, generator.get_state()) for generator in generators]
    saved_buffers = [(buffer, buffer.clone()) for buffer in policy.buffers()]
    saved_attributes = [(module, dict(vars(module))) for module in modules]
    try:
        with own_streams(seed):
            for generator in generators:
                generator.manual_seed(seed)
            policy.eval()
            yield
    finally:
        for generator, state in saved_generators:
            generator.set_state(state)
        for buffer, value in saved_buffers:
            buffer.copy_(value)
        for module, attributes in saved_attributes:
            vars(module).clear()
            vars(module).update(attributes)


@contextlib.contextmanager
def with_place(place: str) -> Iterator[None]:
    """Name the place in what an environment raises, and tell its failures from the policy's.

    Raises:
        ActionError: the policy gave an action that no environment may receive.
        EvaluationError: anything else.
    """
    try:
        yield
    except Exception as error:
        kind = ActionError if isinstance(error, ActionError) else EvaluationError
        raise kind(f"Evaluation stopped {place}: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """Return what an error says; of one that says nothing or little, such as a bare assertion, its kind and place."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error} ({type(error).__name__} in {where.name}, {where.filename}:{where.lineno})".lstrip()


def own_env(config: EnvConfig) -> FlatObservation:
    """Make an environment for an evaluation.

    Raises:
        EvaluationError: it cannot be made, though nothing is wrong with the configuration.
    """
    try:
        return FlatObservation(make_raw_env(config), config.observation_keys)
    except (ValueError, KeyError, ImportError):
        raise  # a mistake in the configuration
    except Exception as error:
        raise EvaluationError(
            f"The environment for an evaluation could not be made: {describe_error(error)}"
        ) from error
