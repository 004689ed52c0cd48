"""Fitting in closed form: one pass over the training part gathers sums, from which the weights follow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rnnpipe.data.sequences import SequenceBatch
from rnnpipe.data.windows import Cursor
from rnnpipe.durable import make_directory
from rnnpipe.errors import InputError, Interrupted, UsageError
from rnnpipe.models.recurrent import States
from rnnpipe.runtime import autocast
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.checkpoints import Checkpoint, save_checkpoint
from rnnpipe.training.metrics import MetricsWriter, columns
from rnnpipe.training.trainers import Task


class Fitting(Protocol):
    """What is gathered and what is made of it. `sums` are kept in checkpoints, so that a pass can be gone on with."""

    sums: dict[str, Tensor]

    def gather(self, batch: SequenceBatch, state: States | None) -> States | None:
        """Add a batch to the sums; return the state behind it. `state` is None where the sequences begin."""
        ...

    def solve(self) -> float:
        """Set the model's weights from the sums; return the loss on the training part."""
        ...


def fit_in_one_pass(
    task: Task, fitting: Fitting, callbacks: Sequence[Callback], should_stop: Callable[[], bool]
) -> TrainState:
    """Gather over one epoch (or `training.max_steps` batches of it), solve, evaluate and save; return where it ended.

    Raises Interrupted, with the sums saved, once `should_stop()` is true before the last batch, and UsageError for a
    configuration that asks for the average of the weights behind steps, of which there are none.
    """
    if task.config.average:
        raise UsageError(
            f"training.average={task.config.average}: the mean of weights is of descent, step by step; a trainer in "
            "one pass takes 0."
        )
    make_directory(task.folder)
    kept = task.resume.metrics if task.resume else None
    with MetricsWriter(task.folder, columns(task.objective), kept) as metrics:
        return _Pass(task, fitting, callbacks, metrics).run(should_stop)


class _Pass:
    def __init__(self, task: Task, fitting: Fitting, callbacks: Sequence[Callback], metrics: MetricsWriter) -> None:
        self.task, self.fitting, self.callbacks, self.metrics = task, fitting, callbacks, metrics
        task.model.to(task.device).eval()
        self.state: States | None = None
        self.cursor = Cursor()
        self.step = self.items = 0
        self.seconds, self.loss = 0.0, math.nan
        self.valid: float | None = None
        self.valid_figures: Mapping[str, float] = {}
        limits = (task.objective.steps_per_epoch(), task.config.max_steps)
        self.total_steps = min((limit for limit in limits if limit), default=None)
        if task.resume is not None:
            self._restore(task.resume)

    def run(self, should_stop: Callable[[], bool]) -> TrainState:
        self._tell("on_start")
        solved = not math.isnan(self.loss)
        batches = self.task.objective.batches(self.cursor)
        while not (solved or self._gathered()):
            begun = time.perf_counter()
            batch = next(batches).to(self.task.device)
            with torch.no_grad(), autocast(self.task.device, self.task.precision):
                self.state = self.fitting.gather(batch, None if batch.resets else self.state)
            self.step, self.items, self.cursor = self.step + 1, self.items + batch.items, batch.cursor
            self.seconds += time.perf_counter() - begun
            if should_stop() and not self._gathered():
                path = self._save()
                raise Interrupted(
                    f"interrupted at step {self.step}; saved in {path}. "
                    f"Go on with `rnnpipe train --resume {self.task.folder}`."
                )
        if not solved:
            self._solve()
        self._tell("on_end")
        return self._train_state()

    def _gathered(self) -> bool:
        return self.cursor.epoch >= 1 or (self.total_steps is not None and self.step >= self.total_steps)

    def _solve(self) -> None:
        begun = time.perf_counter()
        with torch.no_grad():
            self.loss = self.fitting.solve()
        self.seconds += time.perf_counter() - begun
        found = self.task.objective.evaluate(self.task.model, self.task.device, self.task.precision)
        if found is not None:
            self.valid, self.valid_figures = found.loss, found.figures
        state = self._train_state()
        self.metrics.write(state, evaluated=found is not None)
        self._tell("on_step", state)
        if found is not None:
            self._tell("on_evaluate", state)
        self._save()

    def _save(self) -> Any:
        state = {
            **self.task.record,
            "epoch": self.cursor.epoch,
            "position": self.cursor.position,
            "items": self.items,
            "seconds": self.seconds,
            "loss": None if math.isnan(self.loss) else self.loss,
            "valid_loss": self.valid,
            "valid_figures": dict(self.valid_figures),
            "best_loss": self.valid,
            "best_step": None if self.valid is None else self.step,
        }
        training = {"sums": self.fitting.sums, "recurrent": self.state or ()}
        folder = self.task.folder / "checkpoints"
        return save_checkpoint(folder, self.step, self.task.model.state_dict(), training, state, self.metrics.record())

    def _restore(self, checkpoint: Checkpoint) -> None:
        saved = checkpoint.state
        try:
            training = checkpoint.training()
            self.task.model.load_state_dict(checkpoint.weights())
            for name, total in self.fitting.sums.items():
                total.copy_(training["sums"][name])
            self.state = tuple(tuple(leaf for leaf in layer) for layer in training["recurrent"]) or None
            self.cursor = Cursor(saved["epoch"], saved["position"])
            self.step, self.items, self.seconds = int(saved["step"]), int(saved["items"]), float(saved["seconds"])
            self.loss = math.nan if saved["loss"] is None else float(saved["loss"])
            self.valid, self.valid_figures = saved["valid_loss"], saved["valid_figures"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{checkpoint.path}: its state does not fit this training ({reason}).") from None

    def _train_state(self) -> TrainState:
        return TrainState(
            step=self.step,
            epoch=self.cursor.epoch,
            items=self.items,
            seconds=self.seconds,
            loss=self.loss,
            figures=self.task.objective.figures(self.loss),
            valid_loss=self.valid,
            valid_figures=self.valid_figures,
            best_loss=self.valid,
            best_step=None if self.valid is None else self.step,
            lr=0.0,
            gradient_norm=None,
            items_per_second=self.items / self.seconds if self.seconds else 0.0,
            total_steps=self.total_steps,
            progress=min(1.0, self.step / self.total_steps) if self.total_steps else 0.0,
            stopped_early=False,
            model=self.task.model,
            units=self.task.objective.units,
        )

    def _tell(self, event: str, state: TrainState | None = None) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(state or self._train_state())
