"""From what a loss accepts as critics (an ensemble, a list, one module to copy) to one ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import TypeAlias

import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from o3f.modules import EnsembleQValue, GenericEnsemble
from o3f.modules.arguments import check_module, whole_number

#: What a loss trains as its critics: one module that writes the values of all of them.
Critics: TypeAlias = EnsembleQValue | GenericEnsemble


def critic_ensemble(
    qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
    num_qvalue_nets: int | None = None,
    others: Sequence[nn.Module] = (),
) -> Critics:
    """Return ``qvalue_network`` as one module that writes the values of all critics, ``[*B, m]``.

    An ensemble is returned as it is, so the caller and the loss share its Parameters. A list is stacked into
    a new ensemble with the same weights. One plain critic is copied ``num_qvalue_nets`` times and each copy
    is initialised anew (:func:`redraw_`), where TorchRL draws every weight uniformly between its extremes.

    Args:
        qvalue_network: an ensemble, a list of critics, or one critic that writes ``[*B, 1]``.
        num_qvalue_nets: m; ``None`` is the ensemble's or the list's own number, and 2 for one critic.
        others: the loss's other networks.

    Raises:
        ValueError: if ``num_qvalue_nets`` contradicts the ensemble or list, a critic cannot be redrawn, or one that
            would be copied shares Parameters with another network.
    """
    for critic in qvalue_network if isinstance(qvalue_network, Sequence) else [qvalue_network]:
        check_module("critic", critic)
    if not isinstance(qvalue_network, Critics):
        _check_unshared(qvalue_network, others)
    if isinstance(qvalue_network, Sequence):
        _check_number(len(qvalue_network), num_qvalue_nets, "list of critics")
        return EnsembleQValue.from_modules(qvalue_network)
    if isinstance(qvalue_network, Critics):
        _check_number(qvalue_network.num_critics, num_qvalue_nets, "ensemble")
        return qvalue_network
    count = whole_number("num_qvalue_nets", 2 if num_qvalue_nets is None else num_qvalue_nets)
    copies = [deepcopy(qvalue_network) for _ in range(count)]
    for copy in copies if count > 1 else ():
        redraw_(copy)
    return EnsembleQValue.from_modules(copies)


def _check_unshared(critics: nn.Module | Sequence[nn.Module], others: Sequence[nn.Module]) -> None:
    held = {id(parameter): type(other).__name__ for other in others for parameter in other.parameters()}
    for critic in critics if isinstance(critics, Sequence) else [critics]:
        for name, parameter in critic.named_parameters():
            if id(parameter) in held:
                raise ValueError(
                    f"The critic shares its parameter {name!r} with the loss's {held[id(parameter)]}. Critics given as"
                    " a list, or as one module to copy, are copied, so that nothing would be shared any more. Pass"
                    " copy.deepcopy(critic) if layers of its own are meant, or make an EnsembleQValue, whose"
                    " Parameters stay as they are."
                )


def _check_number(found: int, asked: int | None, what: str) -> None:
    if asked not in (None, found):
        raise ValueError(
            f"num_qvalue_nets is {asked}, but the {what} holds {found}. Leave num_qvalue_nets out, or build "
            f"the {what} with {asked} members."
        )


@torch.no_grad()
def redraw_(module: nn.Module) -> None:
    """Initialise ``module`` anew, in place, from the distribution its weights were drawn from.

    Every submodule's ``reset_parameters`` is called. Two initialisations that users apply from outside are
    recognised and kept: a parameter whose entries are all equal (a bias of 0, a gain of 1) stays as it is,
    and if all matrices are orthogonal up to a gain, they are drawn orthogonal again with that gain. Any other
    distribution must be that of ``reset_parameters``; if it is not, build the critics one by one instead.

    Raises:
        ValueError: if a parameter is still the same afterwards.
    """
    drawn = {name: parameter.clone() for name, parameter in module.named_parameters()}
    gains = {name: _gain(value) for name, value in drawn.items() if value.ndim == 2}
    orthogonal = all(gain is not None for gain in gains.values())
    for part in module.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    for name, parameter in module.named_parameters():
        gain = gains.get(name)
        if _is_constant(drawn[name]):
            parameter.copy_(drawn[name])
        elif orthogonal and gain is not None:
            nn.init.orthogonal_(parameter, gain)
        elif torch.equal(parameter, drawn[name]):
            raise ValueError(
                f"The parameter {name!r} of {type(module).__name__} cannot be initialised anew: no submodule "
                "has a reset_parameters() that changes it. Pass a list of critics, each built on its own."
            )


def _is_constant(value: Tensor) -> bool:
    """Whether ``value`` was set rather than drawn; a single number tells only if it is 0 or 1."""
    return bool((value == value.flatten()[0]).all()) and (value.numel() > 1 or value.item() in (0.0, 1.0))


def _gain(matrix: Tensor) -> float | None:
    """The factor g if the rows (or columns, if fewer) of ``matrix`` are orthogonal with norm g, else None."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = wide @ wide.T
    gain = math.sqrt(gram.diagonal().mean())
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return gain if torch.allclose(gram, gain**2 * identity, atol=1e-4 * gain**2) else None
