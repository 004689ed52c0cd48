"""Initializers: functions that fill a parameter in place, by name and by kind of parameter.

Kinds: `input` (weight_ih), `recurrent` (weight_hh, gate by gate), `bias`, `embedding`, `input_layer` (of a sequence
model), `readout`; `input_layer_bias` and `readout_bias` go before `bias`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rnnpipe.cells.base import Cell
from rnnpipe.errors import UsageError

Initializer = Callable[[Tensor], object]
KINDS = ("input", "recurrent", "bias", "embedding", "input_layer", "input_layer_bias", "readout", "readout_bias")


def uniform(tensor: Tensor, *, bound: float = 0.1) -> None:
    """Draw uniformly from ±bound."""
    nn.init.uniform_(tensor, -bound, bound)


def normal(tensor: Tensor, *, std: float = 0.01, mean: float = 0.0) -> None:
    """Draw from a normal distribution."""
    nn.init.normal_(tensor, mean, std)


def truncated_normal(tensor: Tensor, *, std: float = 0.01, mean: float = 0.0) -> None:
    """Draw from a normal distribution, again where a value is more than two standard deviations off."""
    nn.init.trunc_normal_(tensor, mean, std, mean - 2 * std, mean + 2 * std)


def orthogonal(tensor: Tensor, *, gain: float = 1.0) -> None:
    """Draw a matrix with orthonormal rows or columns (Saxe, McClelland & Ganguli 2014)."""
    nn.init.orthogonal_(tensor, gain)


def xavier_uniform(tensor: Tensor, *, gain: float = 1.0) -> None:
    """Draw uniformly from ±gain sqrt(6 / (rows + columns)) (Glorot & Bengio 2010, eq. 16)."""
    nn.init.xavier_uniform_(tensor, gain)


def xavier_normal(tensor: Tensor, *, gain: float = 1.0) -> None:
    """Draw from a normal distribution of variance 2 gain² / (rows + columns) (Glorot & Bengio 2010, eq. 12)."""
    nn.init.xavier_normal_(tensor, gain)


def constant(tensor: Tensor, *, value: float = 0.0) -> None:
    """Set every element to one value."""
    nn.init.constant_(tensor, value)


def parameter_kinds(name: str) -> tuple[str, ...]:
    """Return the kinds of a parameter from its name in the model, the narrowest first; none if it is no common one."""
    part, _, last = name.rpartition(".")
    layer = {
        "encoder": "embedding",
        "source_encoder": "embedding",
        "target_encoder": "embedding",
        "input_layer": "input_layer",
        "readout": "readout",
        "projection": "readout",
    }
    place = None if "layers" in part.split(".") else layer.get(part.partition(".")[0])
    if "bias" in last:
        return (f"{place}_bias", "bias") if f"{place}_bias" in KINDS else ("bias",)
    if last == "weight_ih":
        return ("input",)
    if last == "weight_hh":
        return ("recurrent",)
    return (place,) if place else ()


def initialize(model: nn.Module, initializers: Mapping[str, Initializer]) -> None:
    """Fill the parameters of each kind that has an initializer; the others keep what their module drew.

    A recurrent matrix [gates * H, H] is filled gate by gate: an orthogonal gate is what is meant, not 4 H rows of one.
    What a cell's own options add to its biases (`forget_bias`) is added to newly filled ones again.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            kind = next((kind for kind in parameter_kinds(name) if kind in initializers), None)
            if kind is None:
                continue
            for block in torch.split(parameter, parameter.shape[-1]) if kind == "recurrent" else (parameter,):
                try:
                    initializers[kind](block)
                except ValueError as error:  # torch's own, for a vector where it needs a matrix
                    raise UsageError(f"model.initializers.{kind}: {error}") from None
        if "bias" in initializers:
            for module in model.modules():
                if isinstance(module, Cell):
                    module.shift_bias()
