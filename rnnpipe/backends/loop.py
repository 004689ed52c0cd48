"""The reference backend: `step`, timestep by timestep, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnpipe.cells.base import Cell, State


class LoopBackend:
    """Runs any cell exactly as its `step` says; every other backend is measured against it."""

    name = "loop"
    priority = 0

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Accept everything."""
        return None

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Run each layer over all timesteps."""
        finals = []
        for cell, state in zip(cells, states, strict=True):
            x_TBI, final = _run_layer(cell, x_TBI, state, lengths)
            finals.append(final)
        return x_TBI, finals


def _run_layer(cell: Cell, x_TBI: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
    gates = cell.project(x_TBI) if x_TBI.is_floating_point() else cell.project_classes(x_TBI)
    steps = zip(*(gate.unbind(0) for gate in gates), strict=True)
    outputs = []
    for t, u in enumerate(steps):
        y, following = cell.step(u, state)
        if lengths is not None:
            valid = (t < lengths.to(y.device))[:, None]
            y = torch.where(valid, y, torch.zeros_like(y))
            following = tuple(
                torch.where(valid.view(-1, *(1,) * (new.dim() - 1)), new, old)
                for new, old in zip(following, state, strict=True)
            )
        outputs.append(y)
        state = following
    return torch.stack(outputs), state
