"""LAPO's policy: an actor chooses a latent, a decoder trained on the data turns it into an action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from torch import Tensor
from torchrl.data import Bounded, TensorSpec

from o3f.modules.acting import action_bounds, spec_of
from o3f.modules.arguments import whole_number
from o3f.modules.keys import key_list
from o3f.modules.latent_networks import latent_actor, latent_decoder
from o3f.modules.mlp import Init


class LatentPolicy(TensorDictModuleBase):
    r"""The action that a decoder makes of an actor's latent (LAPO, https://arxiv.org/abs/2203.08949).

    .. math:: z = \mathrm{actor}(s), \quad a = \mathrm{clip}(\mathrm{decoder}(s, z))

    Reads what the actor reads (``observation`` ``[*B, O]``), writes its latent ``[*B, Z]`` and the action
    ``[*B, A]``: the same one under every exploration type. LAPO acts with the *target* decoder. Its code does
    not clip the action; here it is clipped to the bounds of ``spec``, so that what is stored is what was done.

    Args:
        actor: module that writes the latent, see :func:`~o3f.modules.latent_actor`.
        decoder: module that writes the action, see :func:`~o3f.modules.latent_decoder`.
        spec: the action's bounded spec, or a composite that holds it.

    Raises:
        ValueError: if the decoder does not read what the actor writes, or ``spec`` is not bounded.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> policy = latent_policy(observation_dim=3, action_dim=2)
        >>> policy(TensorDict({"observation": torch.zeros(5, 3)}, [5]))["latent"].shape
        torch.Size([5, 4])
    """

    low: Tensor
    high: Tensor

    def __init__(self, actor: TensorDictModule, decoder: TensorDictModule, spec: TensorSpec) -> None:
        super().__init__()
        if not set(actor.out_keys) <= set(decoder.in_keys):
            raise ValueError(
                f"The decoder reads {decoder.in_keys}; expected it to read the latent {actor.out_keys} that "
                "the actor writes."
            )
        self.actor = actor
        self.decoder = decoder
        (self.action_key,) = key_list(decoder.out_keys[-1:])
        self.spec = spec_of(None, spec, self.action_key)
        bounds = action_bounds(self.spec, self.action_key)
        if bounds is None:
            raise ValueError("LatentPolicy needs the action's bounded spec, got None: its decoder is not bounded.")
        # Of the spec: a state loaded must not overwrite them.
        self.register_buffer("low", bounds["low"].clone(), persistent=False)
        self.register_buffer("high", bounds["high"].clone(), persistent=False)
        states = [key for key in decoder.in_keys if key not in actor.out_keys]
        self.in_keys = key_list([*actor.in_keys, *states])
        self.out_keys = key_list([*actor.out_keys, self.action_key])

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the latent and the action."""
        decoded = self.decoder(self.actor(tensordict.select(*self.in_keys)))
        for key in self.out_keys[:-1]:
            tensordict.set(key, decoded.get(key))
        return tensordict.set(self.action_key, decoded.get(self.action_key).clamp(self.low, self.high))


def latent_policy(
    observation_dim: int,
    action_dim: int,
    latent_dim: int | None = None,
    hidden_sizes: Sequence[int] = (256, 256, 256),
    *,
    max_latent: float = 2.0,
    init: Init = "default",
    device: torch.device | str | None = None,
) -> LatentPolicy:
    """Build LAPO's policy for actions in [-1, 1]; networks and defaults are LAPO's.

    Args:
        observation_dim: O.
        action_dim: A.
        latent_dim: Z, by default 2 A.
        hidden_sizes: widths of the hidden layers of both networks.
        max_latent: L, the largest entry of a latent.
        init: of every layer.
        device: where the parameters live.
    """
    latent_dim = 2 * whole_number("action_dim", action_dim) if latent_dim is None else latent_dim
    return LatentPolicy(
        latent_actor(observation_dim, latent_dim, hidden_sizes, max_latent=max_latent, init=init, device=device),
        latent_decoder(observation_dim, action_dim, latent_dim, hidden_sizes, init=init, device=device),
        Bounded(low=-1.0, high=1.0, shape=torch.Size((action_dim,)), device=device),
    )
