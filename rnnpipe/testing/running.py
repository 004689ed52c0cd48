"""A stack of cells run over time by a backend, with every gradient, to be compared with another run.

Shapes: T timesteps, B batch, I input size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnpipe.backends.base import Backend
from rnnpipe.cells.base import Cell, State
from rnnpipe.testing.tensors import Pair

INPUT_SIZE = 3


@dataclass(frozen=True)
class Sizes:
    """One case: the sizes, the number of layers, and whether sequences end at different lengths."""

    T: int
    B: int
    H: int
    layers: int = 1
    padded: bool = False
    zeros: bool = False  # start from `initial_state` and not from a random state

    def __str__(self) -> str:
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        lengths = ", with lengths" if self.padded else ""
        return f"T={self.T}, B={self.B}, I={INPUT_SIZE}, H={self.H}, {layers}{lengths}"


@dataclass(frozen=True)
class Inputs:
    """What a stack is run on: x [T, B, I], the states before, and lengths [B] or None."""

    x: Tensor
    states: list[State]
    lengths: Tensor | None


@dataclass(frozen=True)
class Run:
    """What came of a run: outputs [T, B, ·], final states by name, and gradients by name."""

    output: Tensor
    finals: dict[str, Tensor]
    gradients: dict[str, Tensor]

    def pairs(self, reference: Run) -> list[Pair]:
        """Return everything beside what it is in another run."""
        return [
            ("output", self.output, reference.output),
            *((name, leaf, reference.finals[name]) for name, leaf in self.finals.items()),
            *((name, gradient, reference.gradients[name]) for name, gradient in self.gradients.items()),
        ]


def draw_inputs(cells: Sequence[Cell], sizes: Sizes, seed: int = 0) -> Inputs:
    """Return random inputs of float64 for a stack of cells; the first of several lengths is T."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sizes.T, sizes.B, INPUT_SIZE, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, sizes.T + 1, (sizes.B,), generator=generator) if sizes.padded else None
    if lengths is not None and sizes.B > 1:
        lengths[0] = sizes.T
    if sizes.zeros:
        return Inputs(x, [cell.initial_state(sizes.B, dtype=torch.float64) for cell in cells], lengths)
    shapes = [list(cell.state_shape.values()) for cell in cells]
    states = [
        tuple(torch.randn(sizes.B, *shape, generator=generator, dtype=torch.float64) for shape in layer)
        for layer in shapes
    ]
    return Inputs(x, states, lengths)


def run(backend: Backend, cells: Sequence[Cell], inputs: Inputs, device: str = "cpu") -> Run:
    """Run a stack; take the gradients of a random projection of all that comes out, by all that went in.

    What comes out is on the CPU, whatever the device.
    """
    x = inputs.x.to(device, copy=True).requires_grad_(inputs.x.is_floating_point())
    states = [tuple(leaf.to(device, copy=True).requires_grad_() for leaf in state) for state in inputs.states]
    y, finals = backend.run(cells, x, states, inputs.lengths)
    ends = {f"final {name}": leaf for name, leaf in _leaves(cells, finals).items()}
    sources = {
        **({"x": x} if x.requires_grad else {}),
        **_leaves(cells, states),
        **{f"layer {i} {n}": p for i, cell in enumerate(cells) for n, p in cell.named_parameters()},
    }
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for result in (y, *ends.values()):
        total = total + (result.double().cpu() * torch.randn(result.shape, generator=generator)).sum()
    # Zeros where nothing depends on a source: a cell may well ignore its state.
    gradients = torch.autograd.grad(total, list(sources.values()), allow_unused=True, materialize_grads=True)
    return Run(
        y.detach().cpu(),
        {name: leaf.detach().cpu() for name, leaf in ends.items()},
        {f"gradient of {name}": gradient.cpu() for name, gradient in zip(sources, gradients, strict=True)},
    )


def _leaves(cells: Sequence[Cell], states: Sequence[State]) -> dict[str, Tensor]:
    return {
        f"layer {i} state {name}": leaf
        for i, (cell, state) in enumerate(zip(cells, states, strict=True))
        for name, leaf in zip(cell.state_shape, state, strict=True)
    }
