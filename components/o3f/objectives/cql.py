"""Conservative Q-learning, CQL(H) (Kumar et al., 2020, https://arxiv.org/abs/2006.04779), on soft actor-critic.

To the losses of :mod:`o3f.objectives.sac` it adds a term that pushes down the critics' values of proposed
actions and up those of the data. With w = ``conservative_weight``, τ = ``lagrange_threshold``, A actions,
n = ``num_random`` and 3 n proposals a_i of density p(a_i), n each from π(s), π(s') and uniform within bounds:

    gap_j       = log Σ_i exp(Q_j(s, a_i) - log p(a_i)) - Q_j(s, a)
    loss_qvalue = mean Σ_j distance(Q_j(s, a), r + γ (1 - terminated) V(s')) + α' reduce_j excess_j
                  with excess_j = w gap_j (then α' = 1), w gap_j - τ or w (gap_j - τ)
    loss_lagrange = mean -α' reduce_j excess_j              with α' = min(exp(log α'), 1e6)

With ``calibrate`` (Cal-QL, Nakamoto et al., 2023, https://arxiv.org/abs/2303.05479) max(Q_j(s, a_i), G) stands for
Q_j(s, a_i) in the sum, for the policy's proposals alone, where G is the return of the row's episode from s on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, dispatch
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules.distributions.utils import sample_and_log_prob

from o3f.errors import DivergenceError, first_lines
from o3f.modules.arguments import check_switches
from o3f.modules.keys import key_list
from o3f.objectives.base import stack_states
from o3f.objectives.critics import Critics
from o3f.objectives.functional import Lagrange, conservative_gap, weighted_gap
from o3f.objectives.loss_arguments import check_batch_size, check_shape
from o3f.objectives.ranges import check_ranges, coefficients_in_range
from o3f.objectives.sac import SACLoss
from o3f.objectives.uniform_actions import UniformActions

Backup: TypeAlias = Literal["deterministic", "sample"]
GapReduction: TypeAlias = Literal["mean", "sum"]
Proposals: TypeAlias = tuple[Tensor, Tensor]
MAX_MULTIPLIER = 1e6


class CQLLoss(SACLoss):
    """The losses of CQL(H) over m critics: those of soft actor-critic and the conservative term.

    The defaults are those of d3rlpy's first release, without the Lagrange multiplier (as in its scripts that
    reproduce the paper). Its second release sums the gap over the critics, so that there a weight of 5 weighs
    like 10 here for two critics. :class:`torchrl.objectives.CQLLoss` is another algorithm: its log Σ exp runs
    over three values, whatever the number of proposals, and its multiplier does not act on the critics.

    d3rlpy steps the losses in turn: temperature, multiplier, critics, policy, targets. Every ``*_loss`` method
    is public for that, and :meth:`evaluate_gap` serves two of them; :meth:`forward` is joint.

    Args:
        actor_network: the policy, with ``get_dist``, of a reparameterised distribution.
        qvalue_network: see :class:`~o3f.objectives.actor_critic.ActorCriticLoss`.
        conservative_weight: w. A buffer, set in place.
        lagrange: form of the excess whose multiplier α' is learned, see
            :func:`~o3f.objectives.functional.weighted_gap`; ``None`` keeps it at 1.
        lagrange_threshold: τ. A buffer, set in place. A lower one makes α' grow, so is more conservative.
        num_random: n.
        gap_reduction: ``"mean"`` or ``"sum"`` over the critics. The TD losses are summed in both cases.
        backup: whether V(s') is of the policy's ``"deterministic"`` action or of a ``"sample"``.
        entropy_backup: whether V(s') counts the policy's entropy; only with samples.
        calibrate: do not push the policy's proposals below the returns of the data, the entry ``return_to_go``
            ``[*B, 1]`` of the batch, which ``load_minari(return_discount=gamma)`` gives rows. -inf bounds nothing.
        **kwargs: the other arguments of :class:`~o3f.objectives.sac.SACLoss`.

    Raises:
        ValueError: if an argument is out of its range, or the entropy is asked of a deterministic action.
        KeyError: at the call, if ``calibrate`` is set and the batch has no returns.
        DivergenceError: at the call, if the policy's actions cannot be drawn, of NaN in a state for example.

    Examples:
        >>> from o3f.modules import EnsembleQValue, tanh_gaussian_policy
        >>> from torchrl.objectives import SoftUpdate
        >>> loss = CQLLoss(tanh_gaussian_policy(3, 2), EnsembleQValue(3, 2, num_critics=2), lagrange="weighted_gap")
        >>> target_updater = SoftUpdate(loss, tau=0.005)
        >>> loss.conservative_weight = 2.5
    """

    @dataclass
    class _AcceptedKeys(SACLoss._AcceptedKeys):
        return_to_go: NestedKey = "return_to_go"

    tensor_keys: _AcceptedKeys  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    default_keys = _AcceptedKeys
    calibrate = False

    _schedulable_buffers = frozenset({"conservative_weight", "lagrange_threshold", "target_entropy"})
    conservative_weight: Tensor
    lagrange_threshold: Tensor

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
        *,
        conservative_weight: float = 5.0,
        lagrange: Lagrange | None = None,
        lagrange_threshold: float = 10.0,
        num_random: int = 10,
        gap_reduction: GapReduction = "mean",
        backup: Backup = "deterministic",
        entropy_backup: bool = False,
        calibrate: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(actor_network, qvalue_network, entropy_backup=entropy_backup, **kwargs)
        coefficients = coefficients_in_range(
            conservative_weight=conservative_weight, lagrange_threshold=lagrange_threshold
        )
        check_ranges({"num_random": num_random})
        check_switches(calibrate=calibrate)
        if gap_reduction not in get_args(GapReduction):
            raise ValueError(f"gap_reduction is {gap_reduction!r}; expected 'mean' or 'sum'.")
        if backup not in get_args(Backup):
            raise ValueError(f"backup is {backup!r}; expected 'deterministic' or 'sample'.")
        if entropy_backup and backup == "deterministic":
            raise ValueError("entropy_backup needs backup='sample': a deterministic action has no entropy.")
        weighted_gap(torch.zeros(()), 0.0, lagrange=lagrange)  # an unknown form fails here
        self.lagrange: Lagrange | None = lagrange
        self.num_random = num_random
        self.gap_reduction: GapReduction = gap_reduction
        self.backup: Backup = backup
        self.calibrate = calibrate
        self._in_keys = None  # the returns are read, too
        device = self._default_device
        self.uniform_actions = UniformActions(actor_network, self.tensor_keys.action).to(device)
        for name, value in coefficients.items():
            self.register_coeff_buffer(name, value, device=device)
        if lagrange is not None:
            self.log_multiplier = nn.Parameter(torch.tensor(0.0, device=device))
            self.out_keys = ["loss_actor", "loss_qvalue", "loss_alpha", "loss_lagrange", "alpha", "entropy"]

    @torch.no_grad()
    def reset_parameters_recursive(self) -> None:
        """As in soft actor-critic; the multiplier goes back to 1."""
        super().reset_parameters_recursive()
        if self.lagrange is not None:
            self.log_multiplier.zero_()

    @property
    def multiplier(self) -> Tensor:
        """α', with its gradient; 1 without ``lagrange``."""
        if self.lagrange is None:
            return torch.ones_like(self.conservative_weight)
        return self.log_multiplier.exp().clamp_max(MAX_MULTIPLIER)

    @torch.no_grad()
    def next_state_value(self, tensordict: TensorDictBase) -> Tensor:
        """Value ``[*B]`` of the policy's action in s', judged by the target critics."""
        tensordict = self._prepared(tensordict)
        if self.backup == "sample":
            return super().next_state_value(tensordict)
        following = tensordict.get("next")
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action = self._act(following)
        return self._aggregate(self.target_qvalue_network, following, action)

    @torch.no_grad()
    def propose(self, tensordict: TensorDictBase) -> Proposals:
        """Draw actions ``[*B, 3 n, A]`` and the logarithms of their densities ``[*B, 3 n]``.

        The first 2 n are drawn from π(s) and π(s') by turns, the last n uniformly within the bounds of the policy's
        spec, or in [-1, 1] where it has none.
        """
        tensordict = self._prepared(tensordict)
        keys = key_list(self.actor_network.in_keys)
        both = TensorDict(stack_states(tensordict, keys), [2, *tensordict.batch_size])
        drawn = self._sample_some(both)
        action, log_prob = drawn[0].flatten(0, 1).movedim(0, -2), drawn[1].flatten(0, 1).movedim(0, -1)
        check_batch_size(tensordict, action[..., 0, :])
        shape = (*tensordict.batch_size, self.num_random)
        uniform = self.uniform_actions(shape, like=action)
        density = log_prob.new_full(shape, self.uniform_actions.log_density(action.shape[-1]))
        return torch.cat([action, uniform], -2), torch.cat([log_prob, density], -1)

    def _sample_some(self, tensordict: TensorDictBase) -> tuple[Any, Any]:
        """Actions ``[n, *B, A]`` of the policy and their log-probabilities ``[n, *B]``."""
        policy = self._distribution(tensordict)
        if torch.compiler.is_compiling():
            drawn: tuple[Any, Any] = sample_and_log_prob(policy, (self.num_random,))
            return drawn
        try:
            drawn = sample_and_log_prob(policy, (self.num_random,))
        except (RuntimeError, ValueError) as error:  # torch refuses to draw around NaN, and does not say from what
            raise DivergenceError(
                f"The policy's actions cannot be drawn ({first_lines(error, 1)}). Check the observations for NaN, then"
                " the policy's weights: training has probably diverged."
            ) from error
        return drawn

    def evaluate_gap(self, tensordict: TensorDictBase, proposals: Proposals | None = None) -> tuple[Tensor, Tensor]:
        """Evaluate the critics once, on the proposals and the batch's actions.

        Args:
            tensordict: the batch.
            proposals: actions ``[*B, K, A]`` and log-densities ``[*B, K]``, by default :meth:`propose`.

        Returns:
            The gap and the values of the batch's actions, ``[*B, m]`` each, with gradients.
        """
        tensordict = self._prepared(tensordict)
        action, log_density = self.propose(tensordict) if proposals is None else proposals
        data = tensordict[self.tensor_keys.action].unsqueeze(-2)
        check_shape("the action of the proposals", action, (*data.shape[:-2], log_density.shape[-1], data.shape[-1]))
        check_shape("the log-density of the proposals", log_density, action.shape[:-1])
        values = self._qvalues(self.qvalue_network, tensordict, torch.cat([action, data], -2))
        data_value = values[..., -1, :]
        floor = self._floor(tensordict, log_density) if self.calibrate else None
        return conservative_gap(values[..., :-1, :], log_density, data_value, floor), data_value

    def _read_keys(self) -> tuple[list[NestedKey], list[NestedKey]]:
        now, following = super()._read_keys()
        return [*now, *([self.tensor_keys.return_to_go] if self.calibrate else [])], following

    def _returns(self, tensordict: TensorDictBase) -> Tensor:
        """The data's returns ``[*B, 1]``."""
        key = self.tensor_keys.return_to_go
        returns: Tensor | None = tensordict.get(key, None)
        if returns is None:
            raise KeyError(
                f"calibrate=True needs the returns of the data, {key!r} [*B, 1]: load_minari, load_file and make_buffer"
                " give them to rows with return_discount= or return_rule=."
            )
        check_shape(repr(key), returns, (*tensordict.batch_size, 1))
        return returns

    def _floor(self, tensordict: TensorDictBase, log_density: Tensor) -> Tensor:
        """What proposals are not pushed below, ``[*B, K]``: the returns, and nothing for the uniform ones, the last."""
        floor = self._returns(tensordict).expand_as(log_density).clone()
        floor[..., -self.num_random :] = -torch.inf
        return floor

    def _excess(self, gap: Tensor) -> Tensor:
        excess = weighted_gap(gap, self.conservative_weight, self.lagrange_threshold, self.lagrange)
        return excess.mean(-1) if self.gap_reduction == "mean" else excess.sum(-1)

    def qvalue_loss(
        self,
        tensordict: TensorDictBase,
        next_value: Tensor | None = None,
        evaluated: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress all critics onto one bootstrapped target, conservatively.

        Args:
            tensordict: the batch.
            next_value: V(s') ``[*B]``, by default :meth:`next_state_value`.
            evaluated: by default :meth:`evaluate_gap`.
        """
        tensordict = self._prepared(tensordict)
        gap, values = self.evaluate_gap(tensordict) if evaluated is None else evaluated
        check_shape("gap", gap, values.shape)
        td_loss, info = self._td_losses(tensordict, values, next_value)
        loss = td_loss + self.multiplier.detach() * self._excess(gap)
        info["gap"] = gap.detach()
        if self.calibrate:
            info["below_return"] = (values.detach() < self._returns(tensordict)).to(values.dtype)
        return self._reduce(loss, tensordict), info

    def lagrange_loss(self, tensordict: TensorDictBase, gap: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Raise α' while the gap exceeds its threshold, lower it while it does not.

        Args:
            tensordict: the batch.
            gap: ``[*B, m]``, by default of :meth:`evaluate_gap`.

        Raises:
            ValueError: without ``lagrange``.
        """
        tensordict = self._prepared(tensordict)
        if self.lagrange is None:
            raise ValueError("There is no multiplier to train: build the loss with lagrange='weighted_gap'.")
        if gap is None:
            with torch.no_grad():
                gap = self.evaluate_gap(tensordict)[0]
        check_shape("gap", gap, (*tensordict.batch_size, self.critic.num_critics))
        loss = -self.multiplier * self._excess(gap.detach())
        return self._reduce(loss, tensordict), {"multiplier": self.multiplier.detach()}

    @dispatch()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return all losses, the temperature and the policy's entropy, from the networks as they are now.

        The proposals are drawn first, then the next action, then the action. Writes each element's largest
        squared TD error over the critics to the ``priority`` key.
        """
        evaluated = self.evaluate_gap(tensordict)
        loss_qvalue, info = self.qvalue_loss(tensordict, evaluated=evaluated)
        action, log_prob = self.draw(tensordict)
        tensordict.set(self.tensor_keys.priority, info["td_error"].amax(-1))
        losses = {
            "loss_actor": self.actor_loss(tensordict, (action, log_prob))[0],
            "loss_qvalue": loss_qvalue,
            "loss_alpha": self.alpha_loss(tensordict, log_prob)[0],
        }
        if self.lagrange is not None:
            losses["loss_lagrange"] = self.lagrange_loss(tensordict, info["gap"])[0]
        return self._collect_output(tensordict, losses, {"alpha": self.alpha, "entropy": -log_prob.detach()})
