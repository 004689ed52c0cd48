"""Gradient descent through time: the trainer `gradient-descent`.

What is learnt is the objective's: it gives the batches and the loss of one. Where a batch goes on from the one before,
the state is carried over and cut off from its computation (truncated backpropagation through time).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rnnpipe.data.windows import Cursor
from rnnpipe.durable import make_directory
from rnnpipe.errors import DivergedError, InputError, Interrupted
from rnnpipe.models.recurrent import States, detach
from rnnpipe.runtime import autocast
from rnnpipe.training.averaging import Average
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.captured import CapturedStep, Gradients
from rnnpipe.training.checkpoints import (
    Checkpoint,
    list_steps,
    prune_checkpoints,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from rnnpipe.training.metrics import MetricsWriter, columns
from rnnpipe.training.objective import Batch
from rnnpipe.training.schedules import Schedule
from rnnpipe.training.trainers import Task

_SKIPPED_IN_A_ROW = 10  # as many, and what is wrong is not the batch


def fit(task: Task, callbacks: Sequence[Callback], should_stop: Callable[[], bool]) -> TrainState:
    """Train the task's model; return where training ended.

    Raises DivergedError at the first step whose loss or gradient is not finite, with the state before that step saved
    (such steps are left out and counted if the configuration says so, but not ten in a row), and Interrupted, saved as
    well, once `should_stop()` is true.
    """
    make_directory(task.folder)
    kept = task.resume.metrics if task.resume else None
    with MetricsWriter(task.folder, columns(task.objective), kept) as metrics:
        return _Fit(task, callbacks, metrics).run(should_stop)


@dataclass
class _Interval:
    """Sums since the last row of metrics: of losses by weight, of weights, of what was read, of seconds."""

    loss: float = 0.0
    weight: float = 0.0
    items: int = 0
    seconds: float = 0.0


# What restoring raises where a checkpoint has other keys, types or shapes than this training writes.
_MISFITS = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, OverflowError)
_COUNTERS = ("epoch", "position", "items", "evaluations_without_gain", "skipped_steps")
_NUMBERS = ("seconds", "valid_loss", "best_loss", "loss", "gradient_norm")


def _check_numbers(saved: Mapping[str, Any]) -> None:
    """Raise ValueError for a state whose numbers are none, which would be found only steps later."""
    for key in _COUNTERS:
        if type(saved[key]) is not int or not 0 <= saved[key] < 1 << 63:
            raise ValueError(f"{key} is {repr(saved[key])[:60]}")
    for key in _NUMBERS:
        if saved[key] is not None and type(saved[key]) not in (int, float):
            raise ValueError(f"{key} is {repr(saved[key])[:60]}")
    if not isinstance(saved["valid_figures"], dict):
        raise ValueError(f"valid_figures is {repr(saved['valid_figures'])[:60]}")


class _Fit:
    """One training, from its first step to its last."""

    def __init__(self, task: Task, callbacks: Sequence[Callback], metrics: MetricsWriter) -> None:
        self.task = task
        self.config = task.config
        self.objective = task.objective
        self.callbacks = callbacks
        self.metrics = metrics
        self.model = task.model.to(task.device)
        self.optimizer = task.make_optimizer(self.model)
        self.first_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.captured: CapturedStep | None = None
        if task.capture is not None:
            parameters = list(self.model.parameters())
            self.captured = CapturedStep(task.capture, parameters, self._gradients, self.optimizer, task.device)
        self.schedule = Schedule(self.config)
        self.average = Average(self.model, self.config.average) if self.config.average else None
        self.state: States | None = None
        self.cursor = Cursor()
        self.step = self.items = 0
        self.seconds = 0.0
        self.interval = _Interval()
        self.loss = math.nan
        self.norm: float | None = None
        self.valid: float | None = None
        self.valid_figures: Mapping[str, float] = {}
        self.best: float | None = None
        self.best_step: int | None = None
        self.evaluations_without_gain = 0
        self.skipped = self.skipped_in_a_row = 0
        self.losses_taken = 0  # by the optimizer in this step: behind the first one it may have moved the weights
        self.saved_step = -1
        self.saved_seconds = 0.0
        self.total_steps = self._total_steps()
        self.evaluation_due = False
        if task.resume is not None:
            try:
                self._restore(task.resume)
            except _MISFITS as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise InputError(f"{task.resume.path}: its state does not fit this training ({reason}).") from None

    def _total_steps(self) -> int | None:
        epoch = self.objective.steps_per_epoch()
        limits = [self.config.epochs * epoch if epoch else 0, self.config.max_steps]
        return min((limit for limit in limits if limit), default=None)

    def run(self, should_stop: Callable[[], bool]) -> TrainState:
        self.model.train()
        self._tell("on_start")
        try:
            self._run(should_stop)
        except DivergedError as error:
            raise DivergedError(f"{error} {self._keep_last_good()}") from None
        if self.average:
            self.average.settle()
        self._tell("on_end")
        return self._train_state()

    def _run(self, should_stop: Callable[[], bool]) -> None:
        batches = self.objective.batches(self.cursor)
        # An interruption is saved before the evaluation that was due at its step, which is then made up for.
        due = self.evaluation_due
        while True:
            if due:
                with self._averaged():
                    self._evaluate()
                self._save(evaluation_due=False)
            if self._done():
                break
            due = self._timed_step(next(batches))
            if self.step == 1 or self.step % self.config.log_every == 0:
                self._log()
            if should_stop():
                path = self._save(evaluation_due=due)
                go_on = f"Go on with `rnnpipe train --resume {self.task.folder}`."
                raise Interrupted(f"interrupted at step {self.step}; saved in {path}. {go_on}")
            every = self.config.save_every_seconds
            if every and not due and self.seconds - self.saved_seconds >= every:
                self._save(evaluation_due=False)

    def _timed_step(self, batch: Batch) -> bool:
        """Take a step and its time; return whether an evaluation is due behind it."""
        begun = time.perf_counter()
        self._train_step(batch)
        spent = time.perf_counter() - begun
        self.seconds += spent
        self.interval.seconds += spent
        if self._done():
            return True
        if self.config.evaluate_every:
            return self.step % self.config.evaluate_every == 0
        return batch.cursor.position == 0

    def _averaged(self) -> AbstractContextManager[None]:
        """Have the model use the average of its weights for a block, where there is one."""
        return self.average.applied() if self.average else nullcontext()

    def _weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters())

    def _check_weights(self) -> None:
        if not self._weights_are_finite():
            raise DivergedError(f"the weights are not finite at step {self.step}; lower training.optimizer.lr.")

    def _keep_last_good(self) -> str:
        """Save the state before a step that went wrong, if it is good; say where the last good state is."""
        folder = self.task.folder / "checkpoints"
        if self.step == self.saved_step:
            return f"The state before that step is in {folder / f'step-{self.step}'}."
        if self.losses_taken <= 1 and self._weights_are_finite():
            return f"The state before that step is in {self._save(evaluation_due=False)}."
        why = "The optimizer had moved the weights" if self._weights_are_finite() else "The weights had overflowed"
        steps = list_steps(folder)
        if not steps:
            return f"{why} before it, and nothing had been saved yet."
        return f"{why} before it; the last good state is in {folder / f'step-{steps[-1]}'}."

    def _stopped_early(self) -> bool:
        return bool(self.config.patience) and self.evaluations_without_gain >= self.config.patience

    def _done(self) -> bool:
        if self._stopped_early():
            return True
        if self.total_steps is not None and self.step >= self.total_steps:
            return True
        if self.config.epochs and self.cursor.epoch >= self.config.epochs:
            return True
        return bool(self.config.max_seconds) and self.seconds >= self.config.max_seconds

    def _progress(self) -> float:
        shares = [self.step / self.total_steps] if self.total_steps else []
        if self.objective.steps_per_epoch() is None and self.config.epochs:
            shares.append(self.cursor.epoch / self.config.epochs)
        shares += [self.seconds / self.config.max_seconds] if self.config.max_seconds else []
        return max(shares, default=0.0)

    def _train_step(self, batch: Batch) -> None:
        """Take one step of the optimizer; before it, raise DivergedError if loss or gradient is not finite.

        If such steps are to be skipped, the weights stay as they are and the next window begins with a zero state.
        """
        before = None if batch.resets else self.state
        factor = self.schedule.factor(self.step, self._progress())
        for group, first in zip(self.optimizer.param_groups, self.first_lrs, strict=True):
            group["lr"] = self._rate(first * factor)
        lr = self.optimizer.param_groups[-1]["lr"]
        moved = batch.to(self.task.device) if self.captured is None else batch
        gradients = self._gradients if self.captured is None else self.captured.gradients

        def closure() -> float:
            self.losses_taken += 1
            loss, norm, after = gradients(moved, before)
            value, self.norm = float(loss), float(norm)
            if not math.isfinite(value) or not math.isfinite(self.norm or 0.0):
                what, found = ("loss", value) if not math.isfinite(value) else ("gradient norm", self.norm)
                raise DivergedError(
                    f"the {what} is {found} at step {self.step + 1} (learning rate {lr:g}). Lower it with "
                    "--set training.optimizer.lr, clip harder with --set training.clip_norm, or leave such steps out "
                    "with --set training.nonfinite=skip, and start again with --overwrite."
                )
            self.state = after
            return value

        self.losses_taken = 0
        try:
            loss = self._optimize(closure)
        except DivergedError:
            if not self._may_skip():
                raise
            self.skipped += 1
            self.skipped_in_a_row += 1
            self.state = None
        else:
            self.skipped_in_a_row = 0
            if self.average:
                self.average.update()
            weight = self.objective.weight(batch)
            self.items += batch.items
            self.interval.loss += loss * weight
            self.interval.weight += weight
            self.interval.items += batch.items
        self.step += 1
        self.cursor = batch.cursor

    def _gradients(self, batch: Batch, before: States | None) -> Gradients:
        """Leave the clipped gradient of a batch in the parameters; return loss, norm before clipping and state behind.

        No tensor's value is looked at here, so that it can be recorded.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.task.device, self.task.precision):
            loss, after = self.objective.loss(self.model, batch, before)
        loss.backward()  # type: ignore[no-untyped-call]
        # Without clipping the norm is taken all the same: a gradient that is not finite must stop the training.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        return loss.detach(), norm, detach(after)

    def _optimize(self, closure: Callable[[], float]) -> float:
        """Evaluate the closure and update the weights; return the loss."""
        if self.captured is not None and self.captured.update_step is not None:
            loss = closure()
            self.captured.update()
            return loss
        # Every torch optimizer takes a closure and evaluates it once; LBFGS needs to evaluate it again.
        return float(self.optimizer.step(closure))

    def _rate(self, lr: float) -> float:
        """Return a learning rate as the optimizer gets it: on a GPU in float32, in which a recorded update reads it."""
        return float(np.float32(lr)) if self.task.device.type == "cuda" else lr

    def _may_skip(self) -> bool:
        if self.config.nonfinite != "skip" or self.skipped_in_a_row + 1 >= _SKIPPED_IN_A_ROW:
            return False
        return self.losses_taken == 1 and self._weights_are_finite()

    def _log(self) -> None:
        self.loss = self.interval.loss / self.interval.weight if self.interval.weight else math.nan
        state = self._train_state()
        self.interval = _Interval()
        self.metrics.write(state, evaluated=False)
        self._tell("on_step", state)

    def _evaluate(self) -> None:
        if self.interval.weight:
            self.loss = self.interval.loss / self.interval.weight
        self._check_weights()
        result = self.objective.evaluate(self.model, self.task.device, self.task.precision)
        if result is None:
            return
        self.valid, self.valid_figures = result.loss, result.figures
        improved = math.isfinite(result.loss) and (self.best is None or result.loss < self.best)
        if improved:
            self.best, self.best_step = result.loss, self.step
        self.evaluations_without_gain = 0 if improved else self.evaluations_without_gain + 1
        self.schedule.on_evaluation(improved)
        state = self._train_state()
        self.metrics.write(state, evaluated=True)
        self._tell("on_evaluate", state)

    def _save(self, *, evaluation_due: bool) -> Path:
        self._check_weights()
        training = {
            "optimizer": self.optimizer.state_dict(),
            "recurrent": self.state or (),
            "random": random_state(),
            **({"average": self.average.state()} if self.average else {}),
        }
        state = {
            **self.task.record,
            "epoch": self.cursor.epoch,
            "position": self.cursor.position,
            "items": self.items,
            "seconds": self.seconds,
            "valid_loss": self.valid,
            "valid_figures": dict(self.valid_figures),
            "best_loss": self.best,
            "best_step": self.best_step,
            "evaluations_without_gain": self.evaluations_without_gain,
            "evaluation_due": evaluation_due,
            "skipped_steps": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "schedule": self.schedule.state(),
            "interval": asdict(self.interval),
            "loss": self.loss,
            "gradient_norm": self.norm,
        }
        folder = self.task.folder / "checkpoints"
        # The rows are on the disk before the checkpoint that counts on them.
        with self._averaged():
            weights = self.model.state_dict()
            path = save_checkpoint(folder, self.step, weights, training, state, self.metrics.record())
        prune_checkpoints(folder, self.best_step)
        self.saved_step, self.saved_seconds = self.step, self.seconds
        return path

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back to where it stood when the checkpoint was saved."""
        saved, training = checkpoint.state, checkpoint.training()
        _check_numbers(saved)
        self.model.load_state_dict(checkpoint.weights())
        if ("average" in training) != (self.average is not None):
            raise ValueError("only one of them has training.average")
        if self.average:
            self.average.restore(training["average"])
        self.optimizer.load_state_dict(training["optimizer"])
        self.state = (
            tuple(tuple(leaf.to(self.task.device) for leaf in layer) for layer in training["recurrent"]) or None
        )
        self.cursor = Cursor(saved["epoch"], saved["position"])
        self.step, self.items, self.seconds = saved["step"], saved["items"], saved["seconds"]
        self.valid, self.best, self.best_step = saved["valid_loss"], saved["best_loss"], saved["best_step"]
        self.valid_figures = saved["valid_figures"]
        self.evaluations_without_gain = saved["evaluations_without_gain"]
        self.interval = _Interval(**saved["interval"])
        self.skipped, self.skipped_in_a_row = saved["skipped_steps"], saved["skipped_in_a_row"]
        self.loss = math.nan if saved["loss"] is None else saved["loss"]
        self.norm = saved["gradient_norm"]
        self.schedule.restore(saved["schedule"])
        self.evaluation_due = bool(saved["evaluation_due"])
        restore_random_state(training["random"])
        self.saved_step, self.saved_seconds = self.step, self.seconds

    def _train_state(self) -> TrainState:
        interval = self.interval
        return TrainState(
            step=self.step,
            epoch=self.cursor.epoch,
            items=self.items,
            seconds=self.seconds,
            loss=self.loss,
            figures=self.objective.figures(self.loss),
            valid_loss=self.valid,
            valid_figures=self.valid_figures,
            best_loss=self.best,
            best_step=self.best_step,
            lr=self.optimizer.param_groups[0]["lr"],
            gradient_norm=self.norm,
            items_per_second=interval.items / interval.seconds if interval.seconds else 0.0,
            total_steps=self.total_steps,
            progress=min(1.0, self._progress()),
            stopped_early=self._stopped_early(),
            model=self.model,
            units=self.objective.units,
            skipped_steps=self.skipped,
        )

    def _tell(self, event: str, state: TrainState | None = None) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(state or self._train_state())
