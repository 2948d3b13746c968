"""The networks of a latent policy with its critics, and how a loss evaluates them."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import NestedKey, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from o3f.modules.calls import critic_values, output, replace_entry
from o3f.objectives.base import BoundLoss
from o3f.objectives.critics import Critics
from o3f.objectives.loss_arguments import state_value


class LatentLoss(BoundLoss):
    """A latent actor, an encoder and a decoder, m critics and V(s), with targets for what LAPO has targets for.

    The encoder has none, V only with ``delay_value``.

    Args:
        actor_network: from state to latent.
        encoder_network: from state and action to mean and log-variance of the latent.
        decoder_network: from state and latent to action.
        critic: the ensemble.
        value_network: V(s), writes ``[*B, 1]``.
        delay_value: whether V has a target.
    """

    @dataclass
    class _AcceptedKeys(BoundLoss._AcceptedKeys):
        latent: NestedKey = "latent"
        latent_mean: NestedKey = "latent_mean"
        latent_log_variance: NestedKey = "latent_log_variance"

    tensor_keys: _AcceptedKeys  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    default_keys = _AcceptedKeys

    actor_network: TensorDictModule
    actor_network_params: TensorDictParams
    target_actor_network: TensorDictModule
    target_actor_network_params: TensorDictParams
    encoder_network: TensorDictModule
    encoder_network_params: TensorDictParams
    target_encoder_network_params: TensorDictParams
    decoder_network: TensorDictModule
    decoder_network_params: TensorDictParams
    target_decoder_network: TensorDictModule
    target_decoder_network_params: TensorDictParams
    value_network: TensorDictModule
    value_network_params: TensorDictParams
    target_value_network: TensorDictModule
    target_value_network_params: TensorDictParams

    def __init__(
        self,
        actor_network: TensorDictModule,
        encoder_network: TensorDictModule,
        decoder_network: TensorDictModule,
        critic: Critics,
        value_network: TensorDictModule,
        *,
        delay_value: bool,
    ) -> None:
        super().__init__()
        self._add_network("actor_network", actor_network, target=True)
        self._add_network("encoder_network", encoder_network)
        self._add_network("decoder_network", decoder_network, target=True)
        self._add_network("qvalue_network", critic, target=True)
        self._add_network("value_network", value_network, target=delay_value)
        _hold_as_buffers(self.target_decoder_network)
        self._adopt_keys(critic)

    def _adopt_keys(self, critic: Critics) -> None:
        self._adopt_key("latent", self.actor_network.out_keys)
        self._adopt_key("action", self.decoder_network.out_keys)
        self._adopt_key("latent_mean", self.encoder_network.out_keys[:1])
        self._adopt_key("latent_log_variance", self.encoder_network.out_keys[1:2])
        self._adopt_key("value", self.value_network.out_keys)
        self._adopt_key("state_action_value", critic.out_keys)

    def _read_keys(self) -> tuple[list[NestedKey], list[NestedKey]]:
        keys = self.tensor_keys
        acting = [*self.actor_network.in_keys, *self.decoder_network.in_keys, *self.qvalue_network.in_keys]
        acting = [key for key in (*acting, *self.value_network.in_keys) if key not in (keys.action, keys.latent)]
        now = [keys.action, *acting, *self.encoder_network.in_keys]
        return now, [keys.reward, keys.done, keys.terminated, *acting]

    def _latent(self, network: TensorDictModule, tensordict: TensorDictBase) -> Tensor:
        return output(network, tensordict, self.tensor_keys.latent)

    def _decode(self, network: TensorDictModule, tensordict: TensorDictBase, latent: Tensor) -> Tensor:
        inputs = replace_entry(network, tensordict, self.tensor_keys.latent, latent)
        return output(network, inputs, self.tensor_keys.action)

    def _state_value(self, network: TensorDictModule, tensordict: TensorDictBase) -> Tensor:
        return state_value(output(network, tensordict, self.tensor_keys.value))

    def _qvalues(
        self,
        network: Critics,
        tensordict: TensorDictBase,
        action: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tensor:
        inputs = tensordict if action is None else replace_entry(network, tensordict, self.tensor_keys.action, action)
        return critic_values(network, inputs, self.tensor_keys.state_action_value, members)


def _hold_as_buffers(module: nn.Module) -> None:
    """Make the plain tensors that a target holds its buffers, so that a policy with a target travels whole."""
    for part in module.modules():
        for name in [name for name, value in vars(part).items() if isinstance(value, Tensor)]:
            part.register_buffer(name, part.__dict__.pop(name))
