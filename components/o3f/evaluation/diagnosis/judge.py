"""Will O3F help? The critics' ranking of candidates, compared with the returns that these candidates really have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType

from o3f.data import RewardRule
from o3f.envs import EnvConfig
from o3f.evaluation.diagnosis.states import Action, Simulator, State, check_restores, chosen, visited_states
from o3f.evaluation.playing import isolated
from o3f.modules import GaussianCandidates
from o3f.modules.acting import evaluating
from o3f.modules.candidates import Centre, Numbers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One state: the policy's own action and N candidates around it, as the critics see them and as they are.

    Attributes:
        values: of the critics, ``[1 + N, m]``; the first row is the policy's own action.
        returns: true ones, ``[1 + N]``.
        clipped: components of the candidates that lie at the action's bound, ``[N, A]``.
    """

    values: Floats
    returns: Floats
    clipped: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    r"""What is called the true return of an action, and which actions are tried.

    .. math:: G(s, c) = \sum_{k < H} \gamma^k r_k + \gamma^H \bar Q(s_H, \pi(s_H))

    First the action c, then the policy's deterministic action; the rewards are the learner's, the last term is left
    out unless ``bootstrap`` and after the end of the task. Time limits do not end a rollout.

    Args:
        states: how many.
        every: agent steps of the policy between two of them.
        candidates: N.
        sigma: their standard deviation, one number or one per action dimension.
        centre: ``"sample"`` is the policy's own action as it samples, ``"mean"`` its deterministic one.
        horizon: H, agent steps.
        discount: gamma.
        rule: from raw rewards to those of the return.
        bootstrap: whether the critics' mean value stands for what comes after H steps.
        seed: of the episodes, of what the policy draws and of the candidates.
    """

    states: int
    every: int
    candidates: int
    sigma: Numbers
    centre: Centre
    horizon: int
    discount: float
    rule: RewardRule
    bootstrap: bool
    seed: int


def judge_states(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, config: EnvConfig, settings: Settings
) -> Iterator[Judged]:
    """Let the critics judge candidates in states that the policy meets, and play each of them from there.

    Args:
        policy: reads ``observation`` and writes ``action``.
        critic: writes ``state_action_value`` ``[*B, m]``.
        config: the environment.
        settings: see there.

    Raises:
        ConfigError: the environment cannot be set to a state exactly.
        EvaluationError: it failed.
    """
    check_restores(config, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    sampler = GaussianCandidates(settings.candidates, settings.sigma, generator=generator)
    with contextlib.ExitStack() as stack:
        stack.enter_context(isolated(policy, settings.seed))
        stack.enter_context(evaluating(critic))
        simulators = [Simulator(config) for _ in range(1 + settings.candidates)]
        for simulator in simulators:
            stack.callback(simulator.env.close)
        counts = {"count": settings.states, "every": settings.every, "seed": settings.seed}
        for state in visited_states(policy, config, **counts):
            own = state.action
            if settings.centre == "mean":
                own = chosen(policy, state.observation[None], ExplorationType.DETERMINISTIC)[0]
            around = sampler(TensorDict({"action": torch.from_numpy(own)}, []))["candidates"].numpy()
            actions = np.concatenate([own[None], around])
            values = critic_values(critic, np.repeat(state.observation[None], len(actions), 0), actions)
            returns = roll_out(policy, critic, simulators, state, actions, settings)
            yield Judged(values, returns, np.abs(around) >= 1.0)


def roll_out(
    policy: TensorDictModuleBase,
    critic: TensorDictModuleBase,
    simulators: Sequence[Simulator],
    state: State,
    actions: Action,
    settings: Settings,
) -> Floats:
    """Return the true return ``[B]`` of each action ``[B, A]`` in a state, see :class:`Settings`."""
    for simulator in simulators:
        simulator.restore(state)
    returns, alive = np.zeros(len(actions)), np.ones(len(actions), dtype=bool)
    raw = np.zeros(len(actions))  # rewards so far, from the state on
    observations = np.repeat(state.observation[None], len(actions), 0)
    for step in range(settings.horizon):
        for index in np.flatnonzero(alive).tolist():
            observations[index], reward, terminated = simulators[index].step(actions[index])
            returns[index] += settings.discount**step * settings.rule.online(reward, float(raw[index]))
            raw[index] += reward
            alive[index] = not terminated
        if not alive.any():
            return returns
        actions = chosen(policy, observations, ExplorationType.DETERMINISTIC)
    if settings.bootstrap:
        returns += alive * settings.discount**settings.horizon * critic_values(critic, observations, actions).mean(-1)
    return returns


@torch.no_grad()
def critic_values(critic: TensorDictModuleBase, observations: npt.NDArray[np.float32], actions: Action) -> Floats:
    """Return the values ``[B, m]`` of actions ``[B, A]`` in observations ``[B, O]``."""
    device = next((parameter.device for parameter in critic.parameters()), torch.device("cpu"))
    entries: Any = {"observation": torch.from_numpy(observations), "action": torch.from_numpy(actions)}
    values = critic(TensorDict(entries, [len(actions)], device=device)).get(critic.out_keys[-1])
    return np.asarray(values.cpu().double())


def action_noise(policy: TensorDictModuleBase, rows: TensorDictBase, count: int, seed: int) -> float:
    """Root mean square distance, a component, of recorded actions to the policy's deterministic action.

    Args:
        policy: reads ``observation`` and writes ``action``.
        rows: of a dataset, ``[D]``.
        count: most rows to take, drawn at random.
        seed: of that draw.
    """
    places = np.random.default_rng(seed).permutation(len(rows))[:count]
    sample: Any = rows[torch.from_numpy(places)]
    with isolated(policy, seed):
        means = chosen(policy, sample["observation"].numpy(), ExplorationType.DETERMINISTIC)
    return float(np.sqrt(np.mean((sample["action"].numpy() - means) ** 2)))
