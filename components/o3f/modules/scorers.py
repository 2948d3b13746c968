"""Rankings of candidate actions.

A scorer reads ``"candidates"`` ``[*B, N, A]`` or ``"candidate_values"`` ``[*B, N, m]`` (what m critics say of
each) from the private tensordict of an :class:`~o3f.modules.OptimisticActor` and writes ``"scores"``
``[*B, N]``. Critics are evaluated only for a scorer that lists ``"candidate_values"`` in its ``in_keys``; any
other entry it lists comes from the environment.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from o3f.errors import number
from o3f.modules.arguments import check_flags
from o3f.modules.keys import key_list
from o3f.modules.noise_source import NoiseSource
from o3f.modules.watched import check_written

Period = Literal["step", "episode"]


class MeanScore(TensorDictModuleBase):
    """The mean over critics, the paper's choice outside one ablation: ``[*B, N, m] -> [*B, N]``."""

    def __init__(self) -> None:
        super().__init__()
        self.in_keys = ["candidate_values"]
        self.out_keys = ["scores"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the scores."""
        return tensordict.set("scores", tensordict["candidate_values"].mean(-1))


class UpperConfidenceBound(TensorDictModuleBase):
    r"""The mean over critics plus a multiple of their disagreement: ``[*B, N, m] -> [*B, N]``.

    .. math:: f_i = \mathrm{mean}_j Q_j(s, c_i) + \omega \, \mathrm{std}_j Q_j(s, c_i)

    with the population standard deviation (divisor m, as in the paper) and omega = ``omega``. It is a buffer:
    change it between steps with ``scorer.omega.fill_(1.0)``.

    Args:
        omega: weight of the disagreement; positive is optimistic, negative cautious, 0 (the paper's value
            outside one ablation, where it is 1) ranks by the mean.

    Raises:
        ValueError: if ``omega`` is not finite.
    """

    omega: Tensor

    def __init__(self, omega: float = 0.0) -> None:
        super().__init__()
        omega = number("omega", omega)
        self.in_keys = ["candidate_values"]
        self.out_keys = ["scores"]
        self.register_buffer("omega", torch.tensor(omega), persistent=False)

    def _check_omega(self) -> None:
        number("omega", self.omega)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the scores."""
        check_written(self, ("omega",), self._check_omega)
        values = tensordict["candidate_values"]
        scores = values.mean(-1)
        if scores.numel():  # torch.std warns about an empty batch
            scores = scores + self.omega * values.std(-1, correction=0)
        return tensordict.set("scores", scores)


class RandomRank(TensorDictModuleBase):
    r"""A control that asks no critic: candidates ranked along a random direction, ``[*B, N, A] -> [*B, N]``.

    .. math:: f_i = u \cdot c_i, \quad u \sim N(0, I)

    The action chosen moves as far, in distribution, as with a critic that is linear in the action, but in a
    direction that has nothing to do with the reward. Not part of the paper.

    Args:
        per: draw u anew at every ``"step"``, or keep it for an ``"episode"``: then it is redrawn where
            ``is_init_key`` (``[*B, 1]``, written by TorchRL's ``InitTracker``) is true.
        generator: source of the directions, see :class:`~o3f.modules.NoiseSource`.
        is_init_key: entry that marks the first step of an episode.

    Raises:
        ValueError: if ``per`` is neither of the two.
        KeyError: at the call, if ``is_init_key`` is needed and missing.
    """

    def __init__(
        self,
        per: Period = "step",
        *,
        generator: torch.Generator | None = None,
        is_init_key: NestedKey = "is_init",
    ) -> None:
        super().__init__()
        self.per = _period(per)
        self.in_keys = key_list(["candidates"] if per == "step" else ["candidates", is_init_key])
        self.out_keys = ["scores"]
        self.noise = NoiseSource(generator)
        self._held = HeldForEpisode(is_init_key)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the scores."""
        candidates = tensordict.get("candidates")
        direction = self.noise.normal((*candidates.shape[:-2], candidates.shape[-1]), like=candidates)
        if self.per == "episode":
            direction = self._held(direction, tensordict)
        return tensordict.set("scores", (candidates * direction.unsqueeze(-2)).sum(-1))


class Thompson(TensorDictModuleBase):
    r"""The value of one critic, drawn at random: ``[*B, N, m] -> [*B, N]``.

    .. math:: f_i = Q_J(s, c_i), \quad J \sim U\{1, \ldots, m\}

    Posterior sampling over the ensemble: the critics' disagreement decides how much is explored. Not part of
    the paper.

    Args:
        per: keep J for an ``"episode"``, so that one critic is followed consistently: it is redrawn where
            ``is_init_key`` (``[*B, 1]``, written by TorchRL's ``InitTracker``) is true. Or draw it anew at
            every ``"step"``.
        generator: source of J, see :class:`~o3f.modules.NoiseSource`.
        is_init_key: entry that marks the first step of an episode.

    Raises:
        ValueError: if ``per`` is neither of the two.
        KeyError: at the call, if ``is_init_key`` is needed and missing.
    """

    def __init__(
        self,
        per: Period = "episode",
        *,
        generator: torch.Generator | None = None,
        is_init_key: NestedKey = "is_init",
    ) -> None:
        super().__init__()
        self.per = _period(per)
        self.in_keys = key_list(["candidate_values"] if per == "step" else ["candidate_values", is_init_key])
        self.out_keys = ["scores"]
        self.noise = NoiseSource(generator)
        self._held = HeldForEpisode(is_init_key)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the scores."""
        values = tensordict["candidate_values"]
        member = self.noise.integers(values.shape[-1], (*values.shape[:-2], 1), like=values)
        if self.per == "episode":
            member = self._held(member, tensordict)
        return tensordict.set("scores", values.take_along_dim(member.unsqueeze(-2), -1).squeeze(-1))


def _period(per: Period) -> Period:
    if per not in get_args(Period):
        raise ValueError(f"per must be one of {get_args(Period)}, got {per!r}.")
    return per


class HeldForEpisode(nn.Module):
    """Keeps what was drawn at the first step of an episode until the next one begins, row by row.

    Nothing of it needs saving: a run that resumes at the start of an episode draws anew, as it would have.

    Args:
        is_init_key: entry ``[*B, 1]`` that marks an episode's first step, written by TorchRL's ``InitTracker``.
    """

    def __init__(self, is_init_key: NestedKey = "is_init") -> None:
        super().__init__()
        self.is_init_key = is_init_key
        self._held: Tensor | None = None

    def forward(self, fresh: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Return ``fresh`` ``[*B, K]`` where an episode begins, and what is held elsewhere.

        Raises:
            KeyError: if ``is_init_key`` is missing.
            ValueError: if it is not ``[*B, 1]``.
            RuntimeError: if the batch is of another shape than before, and not all its rows begin an episode.
        """
        is_init = tensordict.get(self.is_init_key, None)
        if is_init is None:
            raise KeyError(
                f"Choosing once per episode needs {self.is_init_key!r}: "
                "add torchrl.envs.InitTracker() to the environment."
            )
        check_flags(self.is_init_key, is_init, fresh.shape[:-1])
        if self._held is None or self._held.shape != fresh.shape:
            if self._held is not None and not bool(is_init.all()):
                raise RuntimeError(
                    f"Choosing once per episode: {list(fresh.shape[:-1])} rows came in the middle of episodes, after"
                    f" {list(self._held.shape[:-1])}, so that what belongs to which is not known. Give another batch of"
                    " environments a copy of the actor, copy.deepcopy(actor), and this one always all its rows."
                )
            self._held = fresh
        self._held = torch.where(is_init, fresh, self._held)
        return self._held
