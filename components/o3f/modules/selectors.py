"""Choices among scored candidates."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from o3f.errors import number
from o3f.modules.keys import key_list
from o3f.modules.noise_source import NoiseSource
from o3f.modules.watched import check_written


class Argmax(TensorDictModuleBase):
    """The candidate of the highest score, the first of them on ties.

    Reads ``"candidates"`` ``[*B, N, A]`` and ``"scores"`` ``[*B, N]``, writes ``action_key`` ``[*B, A]``. A
    candidate whose score is NaN is never chosen.

    Args:
        action_key: entry to write.

    Raises:
        ValueError: at the call, if there is not one score for each candidate.
        RuntimeError: at the call, on a CPU, if all candidates of a state have NaN scores. On a GPU, which would have to
            be waited for, and compiled, the action is NaN then.
    """

    def __init__(self, action_key: NestedKey = "action") -> None:
        super().__init__()
        self.in_keys = ["candidates", "scores"]
        self.out_keys = key_list([action_key])

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        chosen = _take_best(tensordict.get("candidates"), tensordict.get("scores"))
        return tensordict.set(self.out_keys[0], chosen)


class Softmax(TensorDictModuleBase):
    r"""A candidate drawn with a probability that grows with its score.

    .. math:: P(i) = \frac{\exp(f_i / T)}{\sum_k \exp(f_k / T)}

    with T = ``temperature``, in units of the critics' values: as T goes to 0 this is :class:`Argmax`. Reads
    ``"candidates"`` ``[*B, N, A]`` and ``"scores"`` ``[*B, N]``, writes ``action_key`` ``[*B, A]``. A
    candidate whose score is NaN is never chosen. Not part of the paper. ``temperature`` is a buffer: change it
    between steps with ``selector.temperature.fill_(0.5)``.

    Args:
        temperature: T, at least 0. The default is that of policy expansion (Zhang et al., 2023,
            https://arxiv.org/abs/2302.00935), which draws between two actions with 10 Q as logits.
        action_key: entry to write.
        generator: source of the draws, see :class:`~o3f.modules.NoiseSource`.

    Raises:
        ValueError: if ``temperature`` is negative or not finite, and as :class:`Argmax`.
        RuntimeError: as :class:`Argmax`.
    """

    temperature: Tensor

    def __init__(
        self,
        temperature: float = 0.1,
        action_key: NestedKey = "action",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        temperature = number("temperature", temperature, "[0, inf)")
        self.in_keys = ["candidates", "scores"]
        self.out_keys = key_list([action_key])
        self.noise = NoiseSource(generator)
        self.register_buffer("temperature", torch.tensor(temperature), persistent=False)

    def _check_temperature(self) -> None:
        number("temperature", self.temperature, "[0, inf)")

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        check_written(self, ("temperature",), self._check_temperature)
        scores = tensordict.get("scores")
        # The scores plus T times a Gumbel number have their maximum at i with the softmax's probability.
        perturbed = scores + self.temperature * self.noise.gumbel(scores.shape, like=scores)
        return tensordict.set(self.out_keys[0], _take_best(tensordict.get("candidates"), perturbed))


def check_scores(candidates: Tensor, scores: Tensor) -> None:
    """Check that there is one score for each candidate.

    Args:
        candidates: ``[*B, N, A]``.
        scores: ``[*B, N]``.

    Raises:
        ValueError: if the scores have another shape, or there are no candidates.
    """
    if candidates.shape[-2] == 0:
        raise ValueError(f"The sampler wrote no candidates, {list(candidates.shape)}, expected [*B, N, A] with N >= 1.")
    if scores.shape != candidates.shape[:-1]:
        raise ValueError(
            f"The scorer wrote scores {list(scores.shape)}, expected {list(candidates.shape[:-1])}: one for each"
            " candidate of each state."
        )


def _take_best(candidates: Tensor, scores: Tensor) -> Tensor:
    """The candidate ``[*B, A]`` of the highest score that is not NaN, the first on ties; NaN where all scores are."""
    check_scores(candidates, scores)
    best = torch.where(scores.isnan(), -torch.inf, scores).amax(-1, keepdim=True)
    is_best = scores == best
    known = is_best.any(-1, keepdim=True)
    # To look at it costs nothing on a CPU, and waits for a GPU in every step; there the NaN tells.
    if not torch.compiler.is_compiling() and known.device.type == "cpu" and not bool(known.all()):
        raise RuntimeError(
            "Every candidate of a state has the score NaN. Check the observation for non-finite entries, "
            "then the critics' and the policy's weights: training has probably diverged."
        )
    index = is_best.int().argmax(-1, keepdim=True).unsqueeze(-1)
    return torch.where(known, candidates.take_along_dim(index, -2).squeeze(-2), torch.nan)
