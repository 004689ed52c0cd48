"""The contract of a trainer: a procedure that fits a model to a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch

from rnnpipe.config import TrainingConfig
from rnnpipe.models.base import Model
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.captured import Capture
from rnnpipe.training.checkpoints import Checkpoint
from rnnpipe.training.objective import Objective

_Trainer = TypeVar("_Trainer", bound=Callable[..., Any])


@dataclass(frozen=True)
class Task:
    """What is to be fitted, to what, and how: everything that a trainer needs.

    objective: the data and the loss (`TextObjective`, `SequenceObjective`). make_optimizer: from the model to an
    optimizer. folder: where checkpoints and metrics go. record: what every checkpoint repeats (digests of what it was
    trained on, versions).
    """

    model: Model
    objective: Objective
    config: TrainingConfig
    make_optimizer: Callable[[Model], torch.optim.Optimizer]
    device: torch.device
    precision: str
    seed: int
    folder: Path
    record: dict[str, Any]
    capture: Capture | None = None  # record the steps and replay them; for the trainer `gradient-descent`
    resume: Checkpoint | None = None  # continue from here, to the same bits as without the interruption


class Trainer(Protocol):
    """Fits the model of a task; leaves at least one checkpoint in its folder."""

    def __call__(self, task: Task, callbacks: Sequence[Callback], should_stop: Callable[[], bool]) -> TrainState:
        """Train until the task's limits or until `should_stop()` is true; return where training ended."""
        ...


def fits(what: Literal["text", "sequences", "patterns"]) -> Callable[[_Trainer], _Trainer]:
    """Say of a trainer what it is for, so that the conformance kit tries it on that; on text if it does not say."""

    def mark(trainer: _Trainer) -> _Trainer:
        setattr(trainer, "fits", what)  # noqa: B010 - a function has no such attribute for a type checker
        return trainer

    return mark
