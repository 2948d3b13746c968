"""TD3+BC (Fujimoto & Gu, 2021, https://arxiv.org/abs/2106.06860): what would be objectives/td3_bc.py.

With targets Q̄ and π̄, α = ``alpha``, σ = ``policy_noise``, c = ``noise_clip`` and A actions:

    loss_qvalue = mean Σ_j (Q_j(s, a) - r - γ (1 - terminated) min_j Q̄_j(s', u))²
                  with u = clip(π̄(s') + clip(σ ε, ±c), ±1),  ε ~ N(0, I)
    loss_actor  = mean -λ Q_1(s, π(s)) + ‖π(s) - a‖² / A        with λ = α / mean |Q_1(s, π(s))|, a constant
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from o3f.objectives.actor_critic import ActorCriticLoss


class TD3BCLoss(ActorCriticLoss):
    """The two losses of TD3+BC over m critics.

    Args:
        actor_network: the policy, deterministic.
        qvalue_network: see :class:`~o3f.objectives.actor_critic.ActorCriticLoss`.
        alpha: α, the weight of the values beside the regression onto the data's actions.
        policy_noise: σ, standard deviation of the noise on target actions.
        noise_clip: c, its largest size.
        **kwargs: as of the base class.
    """

    target_actor = True
    _schedulable_buffers = frozenset({"alpha"})
    alpha: Tensor

    def __init__(
        self,
        actor_network: Any,
        qvalue_network: Any,
        *,
        alpha: float = 2.5,
        policy_noise: float = 0.2,
        noise_clip: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(actor_network, qvalue_network, **kwargs)
        self.out_keys = ["loss_actor", "loss_qvalue"]
        self.policy_noise, self.noise_clip = policy_noise, noise_clip
        self.register_coeff_buffer("alpha", alpha, device=self._default_device)

    @torch.no_grad()
    def next_state_value(self, tensordict: TensorDictBase) -> Tensor:
        """The smallest target critic's value ``[*B]`` of the target policy's action, smoothed."""
        following = tensordict["next"]
        action = self.target_actor_network(following.select(*self.actor_network.in_keys))["action"]
        noise = self.policy_noise * torch.randn_like(action)
        action = (action + noise.clamp(-self.noise_clip, self.noise_clip)).clamp(-1.0, 1.0)
        return self._aggregate(self.target_qvalue_network, following, action)

    def actor_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Ascend the first critic and stay with the data."""
        action = self._act(tensordict)
        with self._constant("qvalue_network") as critics:
            value = self._qvalues(critics, tensordict, action)[..., 0]
        scale = self.alpha / value.detach().abs().mean()
        distance = (action - tensordict["action"]).square().mean(-1)
        return self._reduce(distance - scale * value, tensordict), {}
