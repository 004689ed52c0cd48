"""The checks of a trainer: what it leaves, what it returns, and that it ends and goes on when it is told to."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnpipe.errors import Interrupted
from rnnpipe.options import bind_options
from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.tensors import describe, expect_finite, expect_same
from rnnpipe.testing.things import attempt, in_order, require_reachable, resolve, seeded, seeded_check
from rnnpipe.testing.tiny_task import CASE, STEPS, newest, tiny_pattern_task, tiny_sequence_task, tiny_task
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.checkpoints import Checkpoint
from rnnpipe.training.trainers import Task, Trainer


def check_trainer(thing: str | Trainer, /, **options: Any) -> list[Finding]:
    """Check a trainer, given itself or by its registered name, with its `options`.

    It is tried on a text, or, if it has an attribute `fits = "sequences"`, on sequences of numbers, with "patterns" on
    patterns of -1 and 1 in a network that can store them.
    Raises ConformanceError with every check that failed.
    """
    trainer, name = resolve("trainer", thing)
    return require(f"trainer '{name}'", checks(trainer, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a trainer."""
    subject = _Subject(thing, options)
    rest = {
        "checkpoint": checkpoint,
        "weights": weights,
        "train state": train_state,
        "callbacks": callbacks_are_told,
        "should stop": should_stop,
        "resume": resume,
    }
    return in_order(
        seeded_check("options", accepted_options, subject),
        [seeded_check(name, function, subject) for name, function in rest.items()],
    )


@dataclass(frozen=True)
class _Subject:
    """A trainer and the options that it is called with."""

    trainer: Any
    options: Mapping[str, Any]

    def bound(self) -> dict[str, Any]:
        """Return its options; raise UsageError for those that it does not take."""
        owner = f"trainer '{resolve('trainer', self.trainer)[1]}'"
        return bind_options(self.trainer, self.options, owner, reserved=3)

    def train(
        self, task: Task, callbacks: Sequence[Callback] = (), stop: Callable[[], bool] = lambda: False
    ) -> TrainState:
        """Train, every generator seeded."""
        with seeded(), attempt("a training that ends", CASE):
            state: TrainState = self.trainer(task, callbacks, stop, **self.bound())
        return state

    def task(self, folder: Path, *, seed: int = 0, resume: Checkpoint | None = None) -> Task:
        """Return the task that it is tried on."""
        make = {"sequences": tiny_sequence_task, "patterns": tiny_pattern_task}
        return make.get(getattr(self.trainer, "fits", "text"), tiny_task)(folder, seed=seed, resume=resume)


@contextmanager
def _task(subject: _Subject) -> Iterator[Task]:
    with tempfile.TemporaryDirectory() as folder:
        yield subject.task(Path(folder))


def accepted_options(subject: _Subject) -> str:
    """It takes task, callbacks and should_stop first, and its options are what its signature says."""
    require_reachable(subject.trainer, reserved=3)
    subject.bound()
    return ", ".join(f"{name}={value}" for name, value in subject.options.items()) or "its defaults"


def checkpoint(subject: _Subject) -> str:
    """It leaves a checkpoint that is whole, and whose weights a model of the same kind takes."""
    with _task(subject) as task, tempfile.TemporaryDirectory() as elsewhere:
        subject.train(task)
        with attempt("a checkpoint that loads", CASE):
            saved = newest(task.folder)
            found = saved.weights()
            subject.task(Path(elsewhere), seed=1).model.load_state_dict(found)
        expect_finite(((f"saved {name}", tensor) for name, tensor in found.items()), CASE)
        for key, value in task.record.items():
            if saved.state.get(key) != value:
                raise Failure(f"the task's record, {key}={value!r}", repr(saved.state.get(key)), CASE)
        return f"{saved.path.name} with {len(found)} tensors"


def weights(subject: _Subject) -> str:
    """The weights are finite, and others than before."""
    with _task(subject) as task:
        before = _copy(task)
        subject.train(task)
        after = _copy(task)
    expect_finite(((f"weight {name}", tensor) for name, tensor in after.items()), CASE)
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    if not changed:
        raise Failure("weights changed by training", "every weight as it was", CASE)
    return f"{len(changed)} of {len(after)} changed, all finite"


def _copy(task: Task) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}


def train_state(subject: _Subject) -> str:
    """What it returns is true: the step of the last checkpoint, and the validation loss of the weights as they are."""
    with _task(subject) as task:
        state = subject.train(task)
        if not isinstance(state, TrainState):
            raise Failure("a TrainState", describe(state), CASE)
        for expected, value, good in _claims(state, task):
            if not good:
                raise Failure(expected, str(value), CASE)
        found = task.objective.evaluate(task.model, task.device, task.precision)
        assert found is not None, "the tiny tasks have a validation part"
        measured = found.loss
    if state.valid_loss is not None and not math.isclose(state.valid_loss, measured, rel_tol=1e-5):
        raise Failure(f"valid_loss={measured:.6f}, as measured", f"{state.valid_loss:.6f}", CASE)
    return f"step {state.step}, {state.items} {state.units.items}, validation loss {measured:.4f}"


def _claims(state: TrainState, task: Task) -> list[tuple[str, object, bool]]:
    """Return what must hold of a train state: in words, the value, and whether it does."""
    saved = newest(task.folder).state["step"]
    best, last = state.best_loss, state.valid_loss
    return [
        ("the task's model as `model`", type(state.model).__name__, state.model is task.model),
        (f"step={saved}, that of the last checkpoint", state.step, state.step == saved),
        (f"step from 1 to max_steps={STEPS}", state.step, 1 <= state.step <= STEPS),
        ("items above 0", state.items, state.items > 0),
        ("seconds above 0", state.seconds, 0 < state.seconds < math.inf),
        ("a finite loss", state.loss, math.isfinite(state.loss)),
        ("progress from 0 to 1", state.progress, 0 <= state.progress <= 1),
        ("total_steps not below step", state.total_steps, state.total_steps is None or state.total_steps >= state.step),
        ("best_loss not above valid_loss", best, best is None or last is None or best <= last),
        ("best_step not above step", state.best_step, state.best_step is None or state.best_step <= state.step),
    ]


class _Listener:
    """Keeps the names of the events that it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_start(self, state: TrainState) -> None:
        self.heard.append("on_start")

    def on_step(self, state: TrainState) -> None:
        self.heard.append("on_step")

    def on_evaluate(self, state: TrainState) -> None:
        self.heard.append("on_evaluate")

    def on_end(self, state: TrainState) -> None:
        self.heard.append("on_end")


def callbacks_are_told(subject: _Subject) -> str:
    """Every callback hears on_start first and on_end last, once each."""
    first, second = _Listener(), _Listener()
    with _task(subject) as task:
        subject.train(task, [first, second])
    for listener in (first, second):
        heard = listener.heard
        ends = (heard[:1], heard[-1:], heard.count("on_start"), heard.count("on_end"))
        if ends != (["on_start"], ["on_end"], 1, 1):
            raise Failure("on_start first and on_end last, once each", ", ".join(heard) or "nothing", CASE)
    return ", ".join(first.heard)


def should_stop(subject: _Subject) -> str:
    """Once `should_stop()` is true it ends, by returning or by Interrupted, with a checkpoint."""
    with _task(subject) as task:
        asked = _stop_at_once(subject, task)
        if asked != 1:
            received = "never asked" if asked == 0 else f"asked {asked} times, and training went on"
            raise Failure("should_stop asked, and an end as soon as it is true", received, CASE)
        step = newest(task.folder).state["step"]
        if step >= STEPS:
            raise Failure(f"an end before step {STEPS}", f"a checkpoint of step {step}", CASE)
    return f"ended at step {step}, with a checkpoint"


def _stop_at_once(subject: _Subject, task: Task) -> int:
    """Train with a `should_stop` that is true from the first time; return how often it was asked."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return True

    with seeded(), attempt("an end, or Interrupted", CASE), suppress(Interrupted):
        subject.trainer(task, [], stop, **subject.bound())
    return asked


def resume(subject: _Subject) -> str:
    """A training that was stopped goes on from its checkpoint, to the same bits as without the interruption."""
    with _task(subject) as whole:
        subject.train(whole)
        expected = _copy(whole)
    with _task(subject) as task:
        _stop_at_once(subject, task)
        saved = newest(task.folder)
        # Of another seed, so that starting anew does not come to the same.
        going_on = subject.task(task.folder, seed=1, resume=saved)
        state = subject.train(going_on)
        found = _copy(going_on)
    case = f"stopped at step {saved.state['step']} of {CASE}"
    pairs = [(f"weight {name}", tensor, expected[name]) for name, tensor in found.items()]
    expect_same(pairs, "that of the training without the interruption", case)
    return f"from step {saved.state['step']} to {state.step}, to the same bits"
