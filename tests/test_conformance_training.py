"""The checks of callbacks and trainers: built-ins pass, and for each check there is a wrong one that it catches."""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rnnpipe.plugins import full_registry
from rnnpipe.testing import ConformanceError, check_callback, check_trainer, checks_for, findings
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.loop import fit
from rnnpipe.training.trainers import Task

CHECK: dict[str, Callable[..., object]] = {"callback": check_callback, "trainer": check_trainer}
Stop = Callable[[], bool]


class Deaf:
    """Has no answer to the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState) -> None: ...

    def on_evaluate(self, state: TrainState) -> None: ...


class Observer(Deaf):
    """A right callback, for the wrong ones to differ from in one thing each."""

    def on_end(self, state: TrainState) -> None: ...


class Fragile(Observer):
    """Fails at an evaluation."""

    def on_evaluate(self, state: TrainState) -> None:
        raise KeyError("accuracy")


class Meddles(Observer):
    """Changes a weight."""

    def on_step(self, state: TrainState) -> None:
        with torch.no_grad():
            next(state.model.parameters()).mul_(1.001)


class Draws(Observer):
    """Draws a number of Python's own generator."""

    def on_end(self, state: TrainState) -> None:
        random.random()


def right(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    """The built-in trainer under another name."""
    return fit(task, callbacks, stop)


def needs_an_option(task: Task, callbacks: Sequence[Callback], stop: Stop, *, ridge: float) -> TrainState:
    return fit(task, callbacks, stop)


def leaves_nothing(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    state = fit(task, callbacks, stop)
    shutil.rmtree(task.folder / "checkpoints")
    return state


def learns_nothing(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    still = partial(torch.optim.SGD, lr=0.0)
    return fit(dataclasses.replace(task, make_optimizer=lambda model: still(model.parameters())), callbacks, stop)


def counts_wrong(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    state = fit(task, callbacks, stop)
    return dataclasses.replace(state, step=state.step - 1)


def tells_nobody(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    return fit(task, [], stop)


def goes_on(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    return fit(task, callbacks, lambda: False)


def starts_anew(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    return fit(dataclasses.replace(task, resume=None), callbacks, stop)


WRONG: dict[str, dict[str, Any]] = {
    "callback": {"contract": Deaf, "events": Fragile, "weights": Meddles, "random state": Draws},
    "trainer": {
        "options": needs_an_option,
        "checkpoint": leaves_nothing,
        "weights": learns_nothing,
        "train state": counts_wrong,
        "callbacks": tells_nobody,
        "should stop": goes_on,
        "resume": starts_anew,
    },
}
# What else cannot be right where that is wrong.
ALSO = {
    ("callback", "events"): {"weights", "random state"},
    ("trainer", "checkpoint"): {"train state"},
}
RIGHT: dict[str, Any] = {"callback": Observer, "trainer": right}


@pytest.mark.parametrize("name", full_registry().names("callback"))
def test_every_builtin_callback_passes(name: str) -> None:
    pytest.importorskip("tensorboard")
    check_callback(name)


@pytest.mark.parametrize("name", full_registry().names("trainer"))
def test_every_builtin_trainer_passes(name: str) -> None:
    check_trainer(name)


@pytest.mark.parametrize("kind", WRONG)
def test_there_is_a_wrong_one_for_every_check(kind: str) -> None:
    assert set(WRONG[kind]) == {check.name for check in checks_for(kind, RIGHT[kind], {})}
    CHECK[kind](RIGHT[kind])


@pytest.mark.parametrize(("kind", "check"), [(kind, check) for kind, wrong in WRONG.items() for check in wrong])
def test_a_wrong_one_is_caught(kind: str, check: str) -> None:
    found = {finding.check: finding for finding in findings(checks_for(kind, WRONG[kind][check], {}))}
    failed = {name for name, finding in found.items() if finding.outcome == "failed"}
    assert failed == {check} | ALSO.get((kind, check), set())
    detail = found[check].detail
    if check == "options":
        assert "needs the option 'ridge'. Accepted: ridge." in detail
    else:
        assert [word in detail for word in ("expected ", "; received ", "; smallest case: ")] == [True] * 3, detail


class Named(Observer):
    """An option that is called as the key of the name."""

    def __init__(self, folder: Path, name: str = "observer") -> None:
        super().__init__(folder)


def named(task: Task, callbacks: Sequence[Callback], stop: Stop, *, name: str = "fit") -> TrainState:
    return fit(task, callbacks, stop)


def claims(**numbers: Any) -> Any:
    """Return a trainer whose state has other numbers than the true ones."""

    def trainer(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
        return dataclasses.replace(fit(task, callbacks, stop), **numbers)

    return trainer


def stops_late(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    asked = iter(range(10))
    return fit(task, callbacks, lambda: stop() and next(asked) == 2)


def drops_the_record(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    return fit(dataclasses.replace(task, record={}), callbacks, stop)


def damages(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    state = fit(task, callbacks, stop)
    (task.folder / "checkpoints" / f"step-{state.step}" / "weights.safetensors").write_bytes(b"")
    return state


def overflows(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
    state = fit(task, callbacks, stop)
    with torch.no_grad():
        next(task.model.parameters()).fill_(torch.inf)
    return state


def never_asks_and_returns_nothing(task: Task, callbacks: Sequence[Callback], stop: Stop) -> None:
    fit(task, callbacks, lambda: False)


@pytest.mark.parametrize(
    ("kind", "check", "thing", "words"),
    [
        ("callback", "events", Fragile, r"an answer to on_evaluate; received KeyError: 'accuracy'; .* case: step 3"),
        ("callback", "contract", Named, "received an option called 'name'"),
        ("trainer", "options", named, "received an option called 'name'"),
        ("callback", "random state", Draws, "expected the generator of Python as without it"),
        ("trainer", "train state", counts_wrong, "expected step=6, that of the last checkpoint; received 5; smallest"),
        ("trainer", "train state", never_asks_and_returns_nothing, "expected a TrainState; received NoneType None"),
        (
            "trainer",
            "train state",
            claims(valid_loss=2.5),
            r"valid_loss=\d\.\d+, as measured; received 2\.50",
        ),
        ("trainer", "train state", claims(model=None), "the task's model as `model`; received NoneType"),
        ("trainer", "train state", claims(progress=1.5), "expected progress from 0 to 1; received 1.5"),
        ("trainer", "train state", claims(items=0), "expected items above 0; received 0"),
        ("trainer", "train state", claims(loss=float("nan")), "expected a finite loss; received nan"),
        ("trainer", "train state", claims(best_step=9), "expected best_step not above step; received 9"),
        ("trainer", "checkpoint", drops_the_record, "the task's record, dictionary='none'; received None"),
        ("trainer", "checkpoint", damages, "a checkpoint that loads; received InputError: .*weights.safetensors"),
        ("trainer", "weights", overflows, r"weight encoder\.weight of finite numbers; received 28 of 28 that are not"),
        ("trainer", "should stop", stops_late, "should_stop asked, .*; received asked 3 times, and training went on"),
        ("trainer", "should stop", goes_on, "expected should_stop asked, .*; received never asked"),
    ],
)
def test_what_a_failure_says(kind: str, check: str, thing: Any, words: str) -> None:
    chosen = [each for each in checks_for(kind, thing, {}) if each.name == check]
    assert re.search(words, next(findings(chosen)).detail)


def test_the_error_says_what_failed() -> None:
    words = r"callback 'Meddles' fails 1 of 4 checks:\n  weights: expected encoder\.weight equal"
    with pytest.raises(ConformanceError, match=words):
        check_callback(Meddles)


def test_a_trainer_of_sequences_is_tried_on_sequences() -> None:
    seen: list[str] = []

    def descends(task: Task, callbacks: Sequence[Callback], stop: Stop) -> TrainState:
        seen.append(task.objective.units.items)
        return fit(task, callbacks, stop)

    descends.fits = "sequences"  # type: ignore[attr-defined]
    check_trainer(descends)
    assert set(seen) == {"timesteps"}


def test_options_reach_the_trainer() -> None:
    check_trainer(needs_an_option, ridge=0.5)
