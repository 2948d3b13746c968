"""LAPO (Chen et al., 2022, https://arxiv.org/abs/2203.08949) with an ensemble of critics.

In latent-variable advantage-weighted policy optimisation the policy is a latent actor z = π(s) followed by a
decoder a = D(s, z), which is trained with an encoder E as a conditional variational autoencoder. With targets
Q̄, π̄, D̄, with λ = ``min_weight``, w = ``advantage_weight``, β = ``kl_weight``, with γ given to
``make_value_estimator(gamma=γ)``, a random subset 𝓜 of k = ``subset_size`` of the m critics (drawn anew for
each use, the same for the whole batch) and

    q(s, a) = λ min_{j∈𝓜} Q̄_j(s, a) + (1 - λ) max_{j∈𝓜} Q̄_j(s, a)
    u = D̄(s, π̄(s) + clip(0.1 ε, ±0.2)),                         ε ~ N(0, I)
    A = r + γ (1 - terminated) q(s', D̄(s', π̄(s'))) - V(s)

the losses are

    loss_qvalue = mean  Σ_j (Q_j(s, a) - r - γ (1 - terminated) V(s'))²
    loss_value  = mean  (V(s) - clamp(q(s, u)))²
    loss_vae    = mean  (w if A > 0 else 1 - w) (‖D(s, z) - a‖² + β KL(E(s, a) || N(0, I))),  z ~ E(s, a)
    loss_actor  = mean  -1/m Σ_j Q_j(s, D̄(s, π(s)))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor

from o3f.modules.arguments import check_switches
from o3f.modules.noise_source import NoiseSource
from o3f.objectives.critics import Critics, critic_ensemble
from o3f.objectives.functional import divergence_from_normal, draw_members, mix_extremes, sign_weights
from o3f.objectives.latent import LatentLoss
from o3f.objectives.loss_arguments import Reduction, check_form, check_shape
from o3f.objectives.ranges import check_ranges, coefficients_in_range
from o3f.objectives.value_clamp import ClampMode, ValueClamp

ActorAggregation = Literal["mean", "first"]


class LAPOLoss(LatentLoss):
    """The four losses of LAPO over m critics.

    With m = 2, ``subset_size=None``, ``actor_aggregation="first"`` and ``value_clamp="fixed"`` these are the
    original's. The defaults are O3F's, which has five critics and takes the targets from a random subset; its
    paper leaves open the subset's size (here REDQ's 2), and what the latent actor ascends (here REDQ's mean).

    The original takes the steps in turn: critics and V together, autoencoder with the new V, latent actor with
    the new critics, targets. :meth:`qvalue_loss`, :meth:`value_loss`, :meth:`vae_loss` and :meth:`actor_loss`
    are public for that; :meth:`forward` is joint.

    States and actions are z-scored inside the networks (see :meth:`fit_normalisers`), so that all entries and
    the noise of an exploring actor are in the environment's units. Actions within the losses are not clipped, as
    in the original; :class:`~o3f.modules.LatentPolicy` clips those it executes.

    Args:
        actor_network: writes the latent, see :func:`~o3f.modules.latent_actor`.
        encoder_network: writes mean and log-variance of the latent, see :func:`~o3f.modules.latent_encoder`.
        decoder_network: writes the action, see :func:`~o3f.modules.latent_decoder`. Its reconstruction error
            counts in z-scores if its module has an ``action_normaliser``.
        qvalue_network: one :class:`~o3f.modules.EnsembleQValue` (its Parameters are shared; undrawn target
            critics cost nothing), a list of modules that write ``[*B, 1]``, or one such module to copy.
            :attr:`critic` is the ensemble that is trained.
        value_network: V(s), writes ``[*B, 1]``.
        num_qvalue_nets: m, needed only with one module to copy (then 2 by default).
        subset_size: k; None takes all critics.
        min_weight: λ in [0, 1]; LAPO: 1, and 0.7 on antmaze.
        advantage_weight: w in [0, 1]; LAPO's code calls it ``expectile``.
        kl_weight: β, at least 0; LAPO: 1, and 0.3 on maze2d.
        target_noise: standard deviation of the noise on target latents.
        target_noise_clip: its largest size.
        value_clamp: see :class:`~o3f.objectives.ValueClamp`; the module is :attr:`value_clamp`.
        value_bounds: of the values, where they are known.
        delay_value: bootstrap from a target V. Off: LAPO has none.
        actor_aggregation: the latent actor ascends the ``"mean"`` of the critics or the ``"first"`` (LAPO).
        reduction: ``"mean"`` (None is the same, as in TorchRL), ``"sum"`` or ``"none"``.
        generator: source of noise and subsets, saved in ``state_dict``; ``None`` for torch's global stream.

    Raises:
        ValueError: if an argument is out of its range.

    Examples:
        >>> from o3f.modules import EnsembleQValue, latent_actor, latent_decoder, latent_encoder, value_network
        >>> critic = EnsembleQValue(observation_dim=3, action_dim=2, num_critics=5)
        >>> networks = latent_actor(3, 4), latent_encoder(3, 2, 4), latent_decoder(3, 2, 4)
        >>> loss = LAPOLoss(*networks, critic, value_network(3))
        >>> loss.critic is critic
        True
    """

    _schedulable_buffers = frozenset({"min_weight", "advantage_weight", "kl_weight"})

    min_weight: Tensor
    advantage_weight: Tensor
    kl_weight: Tensor

    def __init__(
        self,
        actor_network: TensorDictModule,
        encoder_network: TensorDictModule,
        decoder_network: TensorDictModule,
        qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
        value_network: TensorDictModule,
        *,
        num_qvalue_nets: int | None = None,
        subset_size: int | None = 2,
        min_weight: float = 1.0,
        advantage_weight: float = 0.9,
        kl_weight: float = 1.0,
        target_noise: float = 0.1,
        target_noise_clip: float = 0.2,
        value_clamp: ClampMode = "running",
        value_bounds: Sequence[float] | None = None,
        delay_value: bool = False,
        actor_aggregation: ActorAggregation = "mean",
        reduction: Reduction | None = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        others = [actor_network, encoder_network, decoder_network, value_network]
        critic = critic_ensemble(qvalue_network, num_qvalue_nets, others)
        networks = actor_network, encoder_network, decoder_network, critic, value_network
        super().__init__(*networks, delay_value=delay_value)
        self.out_keys = ["loss_actor", "loss_qvalue", "loss_vae", "loss_value"]
        if subset_size is not None:  # impossible settings fail here, not in the first step
            draw_members(critic.num_critics, subset_size, torch.Generator())
        if actor_aggregation not in get_args(ActorAggregation):
            raise ValueError(f"actor_aggregation is {actor_aggregation!r}; expected 'mean' or 'first'.")
        coefficients = coefficients_in_range(
            min_weight=min_weight, advantage_weight=advantage_weight, kl_weight=kl_weight
        )
        check_ranges({"target_noise": target_noise, "target_noise_clip": target_noise_clip})
        check_switches(delay_value=delay_value)
        self.subset_size = subset_size
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.delay_value = delay_value
        self.actor_aggregation: ActorAggregation = actor_aggregation
        self.reduction = check_form(reduction)
        self.noise = NoiseSource(generator)
        self.value_clamp = ValueClamp(value_clamp, value_bounds).to(self._default_device)
        for name, value in coefficients.items():
            self.register_coeff_buffer(name, value, device=self._default_device)
        self.make_value_estimator()

    @torch.no_grad()
    def target_action(self, tensordict: TensorDictBase, noise: Tensor | None = None) -> Tensor:
        """The smoothed target action u ``[*B, A]``; ``noise`` is ε ``[*B, Z]``, drawn by default."""
        tensordict = self._prepared(tensordict)
        latent = self._latent(self.target_actor_network, tensordict)
        noise = self.noise.normal(latent.shape, like=latent) if noise is None else noise
        check_shape("noise", noise, latent.shape)
        offset = (self.target_noise * noise).clamp(-self.target_noise_clip, self.target_noise_clip)
        return self._decode(self.target_decoder_network, tensordict, latent + offset)

    @torch.no_grad()
    def target_qvalue(self, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """The value q ``[*B]`` of actions ``[*B, A]``, from target critics that are drawn now."""
        tensordict = self._prepared(tensordict)
        members = None
        if self.subset_size is not None:
            count = self.target_qvalue_network.num_critics
            members = draw_members(count, self.subset_size, self.noise.generator).to(action.device)
        return mix_extremes(self._qvalues(self.target_qvalue_network, tensordict, action, members), self.min_weight)

    @torch.no_grad()
    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """The advantage A ``[*B]`` of the batch's actions, with the networks as they are now."""
        tensordict = self._prepared(tensordict)
        following = tensordict.get("next")
        latent = self._latent(self.target_actor_network, following)
        action = self._decode(self.target_decoder_network, following, latent)
        value = self._target(tensordict, self.target_qvalue(following, action))
        return value.squeeze(-1) - self._state_value(self.value_network, tensordict)

    def qvalue_loss(
        self, tensordict: TensorDictBase, next_value: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress all critics onto one bootstrapped target; their losses are summed.

        Only ``terminated`` stops the bootstrap: a time limit (``truncated``) does not.

        Args:
            tensordict: the batch.
            next_value: V(s') ``[*B]``, by default that of the value network (or its target) as it is now.
        """
        tensordict = self._prepared(tensordict)
        with torch.no_grad():
            if next_value is None:
                network = self.target_value_network if self.delay_value else self.value_network
                next_value = self._state_value(network, tensordict.get("next"))
            target = self._target(tensordict, next_value)
        values = self._qvalues(self.qvalue_network, tensordict)
        error = (values - target).square()
        info = {"td_error": error.detach(), "state_action_value": values.detach()}
        return self._reduce(error.sum(-1), tensordict), info

    def value_loss(
        self, tensordict: TensorDictBase, target_action: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress V(s) onto the clamped value of ``target_action`` ``[*B, A]``, by default :meth:`target_action`.

        Shows the batch's rewards to :attr:`value_clamp` first.
        """
        tensordict = self._prepared(tensordict)
        with torch.no_grad():
            action = self.target_action(tensordict) if target_action is None else target_action
            unbounded = self.target_qvalue(tensordict, action)
            reward = tensordict["next", self.tensor_keys.reward]
            self.value_clamp.observe(reward, self._valid(tensordict, reward))
            target = self.value_clamp(unbounded, self.value_estimator.gamma)
        value = self._state_value(self.value_network, tensordict)
        loss = self._reduce((value - target).square(), tensordict)
        return loss, {"state_value": value.detach(), "target_value": target, "clamped": target != unbounded}

    def vae_loss(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct the batch's actions, those of positive advantage foremost.

        Args:
            tensordict: the batch.
            advantage: A ``[*B]``, by default :meth:`advantage`.
            noise: standard normal numbers ``[*B, Z]`` that make the latents, drawn by default.
        """
        tensordict = self._prepared(tensordict)
        advantage = self.advantage(tensordict) if advantage is None else advantage
        encoded = self.encoder_network(tensordict.select(*self.encoder_network.in_keys))
        mean, log_variance = (
            encoded.get(key) for key in (self.tensor_keys.latent_mean, self.tensor_keys.latent_log_variance)
        )
        noise = self.noise.normal(mean.shape, like=mean) if noise is None else noise
        action = self._decode(self.decoder_network, tensordict, mean + (0.5 * log_variance).exp() * noise)
        taken = tensordict[self.tensor_keys.action]
        check_shape("the decoder's action", action, taken.shape)
        error = (action - taken) / self._action_scale()
        reconstruction = error.square().sum(-1)
        divergence = divergence_from_normal(mean, log_variance)
        check_shape("advantage", advantage, reconstruction.shape)
        weights = sign_weights(advantage, self.advantage_weight)
        loss = self._reduce(weights * (reconstruction + self.kl_weight * divergence), tensordict)
        info = {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()}
        return loss, {**info, "advantage": advantage}

    def _action_scale(self) -> Tensor | float:
        normaliser = getattr(self.decoder_network.module, "action_normaliser", None)
        return 1.0 if normaliser is None else normaliser.scale

    def actor_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the latent actor ascend the critics through the target decoder."""
        tensordict = self._prepared(tensordict)
        latent = self._latent(self.actor_network, tensordict)
        action = self._decode(self.target_decoder_network, tensordict, latent)
        first = torch.zeros(1, dtype=torch.long, device=action.device)
        members = first if self.actor_aggregation == "first" else None
        with self._constant("qvalue_network") as critics:
            values = self._qvalues(critics, tensordict, action, members)
        return self._reduce(-values.mean(-1), tensordict), {"latent": latent.detach()}

    @dispatch()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return the four losses, all from the networks as they are now.

        Writes each element's largest squared TD error over the critics to the ``priority`` key.
        """
        loss_value, _ = self.value_loss(tensordict)
        loss_qvalue, info = self.qvalue_loss(tensordict)
        loss_vae, _ = self.vae_loss(tensordict)
        loss_actor, _ = self.actor_loss(tensordict)
        tensordict.set(self.tensor_keys.priority, info["td_error"].amax(-1))
        losses = {"loss_actor": loss_actor, "loss_qvalue": loss_qvalue, "loss_vae": loss_vae, "loss_value": loss_value}
        return self._collect_output(tensordict, losses, {})
