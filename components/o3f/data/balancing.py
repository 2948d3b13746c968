"""Balanced replay: rows are drawn in proportion to how likely they are under what is collected now."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from o3f.data.mixing import OfflineOnlineSampler
from o3f.modules import EnsembleQValue, fit_normalisers

FIRST = 1_000
"""Online rows that have the share asked for, at first."""
LIMITS = (1e-3, 1e3)
"""Least and largest weight of a row that was weighed."""


class DensityRatio(nn.Module):
    r"""Learns the ratio of two densities of states and actions, :math:`w(s, a) = d^{on}(s, a) / d^{off}(s, a)`.

    With h = log w, a perceptron on z-scores, the loss of Lee et al. (2022, https://arxiv.org/abs/2107.00591), the
    variational form of the Jensen-Shannon divergence, is that of a classifier with as many rows of either kind:

    .. math:: L = \mathrm{mean}_{on} \log(1 + e^{-h}) + \mathrm{mean}_{off} \log(1 + e^{h})

    Their network gives w itself, by a ReLU, of inputs as they are.

    Args:
        rows: of the dataset, ``[D]``, for the sizes and the z-scores.
        hidden_sizes: widths of its layers; theirs.
        rate: of Adam; theirs.
    """

    def __init__(self, rows: TensorDictBase, hidden_sizes: Sequence[int] = (256, 256), rate: float = 3e-4) -> None:
        super().__init__()
        sizes = rows["observation"].shape[-1], rows["action"].shape[-1]
        generator = torch.Generator().manual_seed(0)  # what training draws stays what it was
        self.network = EnsembleQValue(*sizes, 1, hidden_sizes, init="default", normalise=True, generator=generator)
        fit_normalisers(self.network, rows)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=rate)

    def forward(self, rows: TensorDictBase) -> Tensor:
        """Return log w of rows ``[B]``, ``[B]``."""
        return self.network.values(torch.cat([rows["observation"], rows["action"]], -1)).squeeze(-1)

    def learn(self, online: TensorDictBase, offline: TensorDictBase) -> None:
        """Take a gradient step on rows of either kind, ``[B]``."""
        with torch.enable_grad():
            loss = F.softplus(-self(online)).mean() + F.softplus(self(offline)).mean()
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()


class BalancedSampler(OfflineOnlineSampler):
    r"""Draws rows by weights that follow how near they are to what is collected now (Lee et al., 2022).

    .. math::
        p_i \propto \mathrm{clip}\left( \frac{w(s_i, a_i)^{1/T}}{\mathrm{mean}_{off} \, w^{1/T}}, 10^{-3}, 10^3 \right)

    with w of a :class:`DensityRatio`, which takes a step on each sample, and the weights of the rows drawn brought up
    to date after it. Dataset rows begin with 1, online rows with the weight that gives the first thousand of them the
    share ``online_fraction``. Nothing but what is drawn depends on it. A draw takes time in proportion to the rows
    stored, and a step of the network. Before there are online rows the dataset is drawn from uniformly.

    Args:
        rows: ``[D + capacity]``, of which the first ``num_offline`` are filled.
        num_offline: D, at least 1.
        online_fraction: share of the first thousand online rows, in (0, 1).
        temperature: T, theirs by default.

    Raises:
        ValueError: without a dataset, or if a number is out of its range.
    """

    def __init__(
        self, rows: TensorDictBase, num_offline: int, online_fraction: float | None = None, temperature: float = 5.0
    ) -> None:
        fraction = 0.5 if online_fraction is None else online_fraction
        if num_offline < 1 or not 0.0 < fraction < 1.0 or temperature <= 0.0:
            raise ValueError(
                "Balanced replay needs a dataset, a share of online rows in (0, 1) and a positive temperature; found"
                f" {num_offline} rows, {online_fraction=} and {temperature=}."
            )
        super().__init__(num_offline)
        self.ratio = DensityRatio(rows[:num_offline])
        self.temperature = temperature
        self.weights = torch.ones(len(rows), dtype=torch.float64)
        self.first_weight = num_offline * fraction / ((1.0 - fraction) * FIRST)
        self._stored = num_offline

    def sample(self, storage: Any, batch_size: int) -> tuple[Tensor, dict[str, Any]]:
        """Draw ``batch_size`` indices, after a step of the density ratio.

        Raises:
            RuntimeError: if the buffer is empty.
        """
        self._stored = stored = len(storage)
        if stored == self.num_offline:
            return super().sample(storage, batch_size)
        offline = storage.get(self._draw(0, self.num_offline, batch_size))
        self.ratio.learn(storage.get(self._draw(self.num_offline, stored, batch_size)), offline)
        index = torch.multinomial(self.weights[:stored], batch_size, replacement=True, generator=self._rng)
        self._weigh(index, storage.get(index), offline)
        return index, {}

    @torch.no_grad()
    def _weigh(self, index: Tensor, drawn: TensorDictBase, offline: TensorDictBase) -> None:
        """Bring the weights of the rows drawn up to date."""
        usual = (self.ratio(offline).double() / self.temperature).exp().mean()
        self.weights[index] = ((self.ratio(drawn).double() / self.temperature).exp() / usual).clamp(*LIMITS)

    def add(self, index: int) -> None:
        """Give a new row its weight."""
        self.weights[index] = self.first_weight

    def extend(self, index: Tensor) -> None:
        """Give new rows their weight."""
        self.weights[index] = self.first_weight

    def metrics(self) -> dict[str, float]:
        r"""What is logged: how much of what is drawn is online, and how many dataset rows that is spread over.

        Returns:
            ``replay/online_share``, the expected share of online rows in a batch, and ``replay/effective_share``,
            :math:`(\sum w)^2 / \sum w^2` of the dataset's rows over their number: 1 where all weigh the same.
        """
        offline, online = self.weights[: self.num_offline], self.weights[self.num_offline : self._stored]
        total = offline.sum()
        effective = total.square() / (offline.square().sum() * self.num_offline)
        return {
            "replay/online_share": float(online.sum() / (total + online.sum())),
            "replay/effective_share": float(effective),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the network, its optimiser and the weights of the rows stored."""
        return {
            "network": dict(self.ratio.network.state_dict()),
            "optimiser": self.ratio.optimiser.state_dict(),
            "weights": self.weights[: self._stored].clone(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over such a state."""
        self.ratio.network.load_state_dict(state_dict["network"])
        self.ratio.optimiser.load_state_dict(copy.deepcopy(dict(state_dict["optimiser"])))
        self._stored = len(state_dict["weights"])
        self.weights[: self._stored] = state_dict["weights"]
