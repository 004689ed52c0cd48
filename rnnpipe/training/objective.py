"""What training asks of a task: batches, the loss of one, and an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from rnnpipe.data.windows import Cursor
from rnnpipe.models.recurrent import States

Self = TypeVar("Self")


class Batch(Protocol):
    """One step's data. `resets`: the state is to be zero; otherwise its rows go on where the last batch ended.

    items: how much there is of it, as `Units.items` counts it. cursor: where training stands behind it.
    """

    @property
    def resets(self) -> bool: ...
    @property
    def items(self) -> int: ...
    @property
    def cursor(self) -> Cursor: ...

    def to(self: Self, device: torch.device) -> Self:
        """Return the batch on a device."""
        ...


@dataclass(frozen=True)
class Units:
    """How an objective's figures are called: the loss and what is counted, in files; the loss's unit, for people."""

    loss: str
    items: str
    of_loss: str


@dataclass(frozen=True)
class Evaluated:
    """The loss of the validation part, and further figures of it by name."""

    loss: float
    figures: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """A loss over data. It holds the data; the model and where it is computed are given.

    step_figures, evaluation_figures: the names of further figures in the metrics, of a training interval and of an
    evaluation.
    """

    @property
    def units(self) -> Units: ...
    @property
    def step_figures(self) -> tuple[str, ...]: ...
    @property
    def evaluation_figures(self) -> tuple[str, ...]: ...

    @property
    def varying(self) -> str | None:
        """Return what differs from batch to batch so that a step cannot be replayed on the next, in words, or None."""
        ...

    def batches(self, cursor: Cursor) -> Iterator[Any]:
        """Yield batches from a cursor on, without end."""
        ...

    def steps_per_epoch(self) -> int | None:
        """Return how many batches an epoch has, or None if that is not known beforehand."""
        ...

    def loss(self, model: Any, batch: Any, state: States | None) -> tuple[Tensor, States]:
        """Return the loss of a batch that is on the model's device, and the state behind it."""
        ...

    def weight(self, batch: Any) -> float:
        """Return what a batch's loss counts for in a mean over batches."""
        ...

    def figures(self, loss: float) -> Mapping[str, float]:
        """Return the `step_figures` of a training loss."""
        ...

    def evaluate(self, model: Any, device: torch.device, precision: str) -> Evaluated | None:
        """Return the loss of the validation part with the `evaluation_figures`, or None if there is no such part."""
        ...
