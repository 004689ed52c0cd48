"""The cell under test, and how the checks build it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnnpipe.cells.base import Cell
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.testing.running import INPUT_SIZE, Sizes
from rnnpipe.testing.things import build, seeded


@dataclass(frozen=True)
class Subject:
    """A class of cells and the options that it is built with."""

    cell: type[Cell]
    options: Mapping[str, Any]

    def build(self, sizes: Sizes, seed: int = 0) -> Cell:
        """Return one cell in float64, in evaluation mode: what a cell drops out in training is its own matter."""
        with seeded(seed):
            built: Cell = build("cell", self.cell, self.options, INPUT_SIZE, sizes.H)
        return built.double().eval()

    def stack(self, sizes: Sizes, backend: str = "auto", seed: int = 0) -> Recurrent:
        """Return a stack of such cells in float64, in evaluation mode."""
        with seeded(seed):
            stack = Recurrent(self.cell, INPUT_SIZE, sizes.H, sizes.layers, backend=backend, **self.options)
        return stack.double().eval()
