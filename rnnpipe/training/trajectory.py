"""The callback `trajectory`: the weights of a very small network, step by step, as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from torch import nn

from rnnpipe.durable import write_bytes
from rnnpipe.errors import UsageError
from rnnpipe.training.callbacks import TrainState

FILE = "trajectory.csv"
_MOST_NUMBERS = 1000


class Trajectory:
    """Writes every weight at every logged step to `trajectory.csv` in the run's folder, for up to 1,000 weights.

    Columns: step, and each parameter's name with its place, as `recurrent.layers.0.weight_ih[0]`. The first row is step
    0, before training. The file is written at evaluations and at the end; one that is there is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE
        self.rows: list[list[str]] = []

    def on_start(self, state: TrainState) -> None:
        """Take the weights as they start, behind what an interrupted training left up to here."""
        count = sum(parameter.numel() for parameter in state.model.parameters())
        if count > _MOST_NUMBERS:
            raise UsageError(
                f"callback 'trajectory': the network has {count:,} weights; it is for up to {_MOST_NUMBERS:,}."
            )
        self.rows = [row for row in read_trajectory(self.path)[1:] if int(row[0]) < state.step] if state.step else []
        self._take(state)

    def on_step(self, state: TrainState) -> None:
        """Take the weights."""
        self._take(state)

    def on_evaluate(self, state: TrainState) -> None:
        """Write the file, so that a training that is interrupted later has it."""
        self._write(state.model)

    def on_end(self, state: TrainState) -> None:
        """Write the file."""
        self._write(state.model)

    def _take(self, state: TrainState) -> None:
        if self.rows and int(self.rows[-1][0]) == state.step:
            self.rows.pop()
        numbers = (value for parameter in state.model.parameters() for value in parameter.detach().flatten().tolist())
        self.rows.append([str(state.step), *map(repr, numbers)])

    def _write(self, model: nn.Module) -> None:
        names = [f"{name}[{k}]" for name, parameter in model.named_parameters() for k in range(parameter.numel())]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["step", *names], *self.rows])
        write_bytes(self.path, text.getvalue().encode())


def read_trajectory(path: Path) -> list[list[str]]:
    """Return the rows of a trajectory, the names first; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))
