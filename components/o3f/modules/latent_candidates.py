"""Candidate actions around a latent: a spread along the data instead of along the action's axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor

from o3f.errors import number
from o3f.modules.arguments import check_module, check_per_dimension, check_switches, whole_number
from o3f.modules.candidates import Centre, Numbers, Spread
from o3f.modules.keys import key_list
from o3f.modules.noise_source import NoiseSource


class LatentCandidates(Spread):
    r"""Candidates decoded from Gaussian noise around the policy's latent, clipped to the action bounds.

    .. math::
        z_i = \mathrm{clip}(z + \sigma \epsilon_i, -L, L), \quad \epsilon_i \sim N(0, I), \quad
        c_i = \mathrm{clip}(\mathrm{decoder}(s, z_i)), \quad i = 1..N

    with N = ``num_candidates``, sigma = ``sigma``, L = ``max_latent``. Not part of the paper, which adds its
    noise to the action (:class:`~o3f.modules.GaussianCandidates`): here candidates stay among the actions
    that the decoder learnt from the data. Reads the decoder's inputs (``observation`` ``[*B, O]`` and
    ``latent_key`` ``[*B, Z]``, written by :class:`~o3f.modules.LatentPolicy`), writes ``out_key``
    (``[*B, N, A]``). ``sigma`` is a buffer, and no part of ``state_dict()``: change it between steps with
    ``candidates.sigma.fill_(0.1)``.

    Args:
        decoder: from state and latent to action; LAPO acts with its target decoder.
        num_candidates: N. The default is the paper's.
        sigma: standard deviation of the noise, one number or one per latent dimension, in units of the
            latent: where the decoder is well trained, the data are about N(0, 1). The default is ours.
        max_latent: L. The default is LAPO's.
        include_base: leave candidate 0 without noise: the policy's own action.
        low: lower action bound, one number or one per dimension. By default that of the action's spec, which the
            actor that takes the sampler knows; -1 outside of an actor.
        high: upper action bound, by default likewise, or 1. Bounds given hold; they may not be wider than the spec's.
        clip_margin: distance kept from the bounds.
        generator: source of the noise, see :class:`~o3f.modules.NoiseSource`.
        latent_key: the latent's entry.
        out_key: the candidates' entry.

    Raises:
        ValueError: if ``num_candidates`` is no whole number >= 1, ``sigma`` < 0, ``max_latent`` <= 0, the decoder does
            not read the latent, or no action lies between the bounds; at the call, if ``sigma`` or a bound does not
            have the width of latent or action.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from o3f.modules import latent_policy
        >>> policy = latent_policy(observation_dim=3, action_dim=2)
        >>> td = policy(TensorDict({"observation": torch.zeros(5, 3)}, [5]))
        >>> LatentCandidates(policy.decoder, num_candidates=10)(td)["candidates"].shape
        torch.Size([5, 10, 2])
    """

    centre: Centre = "sample"

    def __init__(
        self,
        decoder: TensorDictModule,
        num_candidates: int = 100,
        sigma: float | Sequence[float] | Tensor = 0.2,
        *,
        max_latent: float = 2.0,
        include_base: bool = False,
        low: Numbers | None = None,
        high: Numbers | None = None,
        clip_margin: float = 0.0,
        generator: torch.Generator | None = None,
        latent_key: NestedKey = "latent",
        out_key: NestedKey = "candidates",
    ) -> None:
        super().__init__(sigma, low, high, clip_margin)
        check_module("decoder", decoder)
        check_switches(include_base=include_base)
        self.in_keys = key_list(decoder.in_keys)
        self.out_keys = key_list([out_key])
        (self.latent_key,) = key_list([latent_key])
        if self.latent_key not in self.in_keys:
            raise ValueError(f"The decoder must read {latent_key!r}, but its in_keys are {decoder.in_keys}.")
        self.decoder = decoder
        self.num_candidates = whole_number("num_candidates", num_candidates)
        self.max_latent = number("max_latent", max_latent, "(0, inf)")
        self.include_base = include_base
        self.noise = NoiseSource(generator)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the candidates around the latent in ``tensordict``."""
        centre = tensordict[self.latent_key].unsqueeze(-2)
        batch = (*centre.shape[:-2], self.num_candidates)
        check_per_dimension("sigma", self.sigma, centre.shape[-1])
        offset = self.sigma * self.noise.normal((*batch, centre.shape[-1]), like=centre)
        if self.include_base:
            offset[..., 0, :] = 0.0
        inputs = {key: tensordict.get(key).unsqueeze(-2).expand(*batch, -1) for key in self.in_keys}
        inputs[self.latent_key] = (centre + offset).clamp(-self.max_latent, self.max_latent)
        decoded: Tensor = self.decoder(TensorDict(inputs, batch)).get(self.decoder.out_keys[-1])
        return tensordict.set(self.out_keys[0], self.clip(decoded))
