"""The losses of LAPO at fixed weights are the numbers that its authors' code gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.iql_cases import double_precision
from tests.support.lapo_cases import example_batch, example_loss, table


def close(found: Tensor, expected: Any, tolerance: float) -> None:
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


def target_noise() -> Tensor:
    return table(4, lambda b, j: 1.5 * torch.sin(3 * b + j))


def vae_noise() -> Tensor:
    return table(4, lambda b, j: 0.5 * torch.cos(b + 2 * j))


@pytest.fixture(params=["float32", "float64"], scope="module")
def example(request: pytest.FixtureRequest) -> Any:
    """All quantities of the example, with the tolerance that the precision allows."""
    if request.param == "float32":
        return compute()
    with double_precision():
        return compute()


def compute() -> dict[str, Tensor]:
    loss, batch = example_loss(), example_batch()
    action = loss.target_action(batch, target_noise())
    loss_value, value = loss.value_loss(batch, action)
    loss_qvalue, qvalue = loss.qvalue_loss(batch)
    loss_vae, vae = loss.vae_loss(batch, noise=vae_noise())
    loss_actor, actor = loss.actor_loss(batch)
    found = {"unclamped": loss.target_qvalue(batch, action), **value, **qvalue, **vae, **actor}
    found["decoded"] = loss.target_decoder_network(batch.select("observation").set("latent", actor["latent"]))["action"]
    return {**found, "value": loss_value, "qvalue": loss_qvalue, "vae": loss_vae, "actor": loss_actor}


def test_values(example: dict[str, Tensor]) -> None:
    close(example["state_value"], [-0.0188415, -0.0165568, -0.0158671, 0.0050884], 1e-6)
    q1, q2 = example["state_action_value"].unbind(-1)
    close(q1, [-0.1028266, -0.1024234, -0.1032888, -0.1103384], 1e-6)
    close(q2, [0.0744330, 0.0694111, 0.0668015, 0.0747649], 1e-6)


def test_policy(example: dict[str, Tensor]) -> None:
    close(example["latent"][0], [-0.2049363, -0.1562667, 0.0248375, 0.1687022], 1e-6)
    close(example["decoded"][0], [-0.0246614, -0.1084117], 1e-6)


def test_critics(example: dict[str, Tensor]) -> None:
    target = torch.tensor([-0.0193868, 0.9838689, 0.5, -0.1977323], dtype=example["td_error"].dtype)
    close(example["td_error"], (example["state_action_value"] - target.unsqueeze(-1)).square(), 2e-6)
    close(example["td_error"].mean(0), [0.38964703, 0.27673768], 2e-6)
    close(example["qvalue"], 0.38964703 + 0.27673768, 2e-6)


def test_value_function(example: dict[str, Tensor]) -> None:
    close(example["unclamped"], [-0.0468783, -0.0501609, -0.0514571, -0.0522946], 1e-6)
    close(example["target_value"], [-0.0468783, -0.05, -0.05, -0.05], 1e-6)
    assert example["clamped"].tolist() == [False, True, True, True]
    close(example["value"], 0.00152607, 1e-6)


def test_autoencoder(example: dict[str, Tensor]) -> None:
    close(example["advantage"], [-0.0287550, 0.9659639, 0.5158671, -0.2552417], 2e-6)
    close(example["reconstruction"], [1.7789369, 1.3684316, 0.8610166, 0.4448713], 5e-6)
    close(example["divergence"], [0.0172324, 0.0171179, 0.0182085, 0.0206987], 1e-6)
    close(example["vae"], 0.55989007, 2e-6)


def test_latent_actor(example: dict[str, Tensor]) -> None:
    close(example["actor"], 0.10375252, 1e-6)
