"""Storing patterns by Hebb's rule: the trainer `hebbian`.

Shapes: B sequences, H units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from rnnpipe.data.sequences import SequenceBatch
from rnnpipe.errors import InputError, UsageError
from rnnpipe.models.recurrent import States
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.one_pass import fit_in_one_pass
from rnnpipe.training.sequence_objective import SequenceObjective, measure_sequences
from rnnpipe.training.trainers import Task, fits


@runtime_checkable
class Associative(Protocol):
    """A cell that stores patterns, as `hopfield` does."""

    def clear(self) -> None:
        """Forget everything."""
        ...

    def store(self, patterns: Tensor) -> None:
        """Add patterns [B, H] of -1 and 1 to what is stored."""
        ...


@fits("patterns")
def fit(task: Task, callbacks: Sequence[Callback], should_stop: Callable[[], bool]) -> TrainState:
    """Store the targets of the training part, patterns of -1 and 1, in a network that has one such layer and no more.

    Hopfield 1982, eq. 2. Raises UsageError for a network or a dataset that it is not for, InputError for targets other
    than -1 and 1.
    """
    return fit_in_one_pass(task, _Hebbian(task), callbacks, should_stop)


class _Hebbian:
    """sums: of the weights themselves nothing is left to solve for; they are kept in the model."""

    def __init__(self, task: Task) -> None:
        objective, model = task.objective, task.model
        if not isinstance(objective, SequenceObjective) or objective.sizes.target != "last":
            raise UsageError("trainer 'hebbian' stores the targets behind sequences, as those of dataset 'patterns'.")
        if not isinstance(model, SequenceModel) or model.readout is not None or model.input_layer is not None:
            raise UsageError("trainer 'hebbian' needs model.name.readout=false and no input layer.")
        cells = model.recurrent.cells()
        if len(cells) != 1 or not isinstance(cells[0], Associative):
            raise UsageError("trainer 'hebbian' is for one layer of a cell that stores patterns, as 'hopfield' does.")
        self.task, self.objective, self.model, self.cell = task, objective, model, cells[0]
        self.sums: dict[str, Tensor] = {}
        if task.resume is None:
            self.cell.clear()

    def gather(self, batch: SequenceBatch, state: States | None) -> States | None:
        wrong = batch.targets.abs() != 1
        if wrong.any():
            value = batch.targets[wrong][0].item()
            raise InputError(f"trainer 'hebbian': a target holds {value:g}; patterns are made of -1 and 1.")
        self.cell.store(batch.targets)
        return None

    def solve(self) -> float:
        task, objective = self.task, self.objective
        found = measure_sequences(
            self.model, objective.train, objective.sizes, objective.tolerance, task.device, task.precision
        )
        return found.reduced(objective.config.reduction)
