"""The checks of a callback: it answers every event, and training goes as it would without it."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.tensors import Pair, expect_same
from rnnpipe.testing.things import attempt, build, in_order, require_reachable, resolve, seeded, seeded_check
from rnnpipe.testing.tiny_task import CASE, newest, tiny_task
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.checkpoints import pack
from rnnpipe.training.loop import fit

EVENTS = ("on_start", "on_step", "on_evaluate", "on_end")


def check_callback(thing: str | Callable[..., Callback], /, **options: Any) -> list[Finding]:
    """Check a callback, given by its factory or by its registered name, built with `options`.

    Raises ConformanceError with every check that failed.
    """
    factory, name = resolve("callback", thing)
    return require(f"callback '{name}'", checks(factory, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a callback."""
    subject = _Subject(thing, options)
    rest = {"events": events, "weights": weights, "random state": random_state}
    return in_order(
        seeded_check("contract", contract, subject),
        [seeded_check(name, function, subject) for name, function in rest.items()],
    )


@dataclass(frozen=True)
class _Subject:
    """A factory of callbacks and the options that it is called with."""

    factory: Any
    options: Mapping[str, Any]

    def build(self, folder: Path) -> Callback:
        """Return a callback for a run's folder."""
        built: Callback = build("callback", self.factory, self.options, folder)
        return built


@dataclass(frozen=True)
class _Trained:
    """What a training left: tensors of model, optimizer and recurrent state by name, and the generators' states."""

    tensors: dict[str, Tensor]
    generators: dict[str, str]


class _Watched:
    """Passes every event on and counts it; what the callback raises says at which event."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.heard: Counter[str] = Counter()

    def __getattr__(self, event: str) -> Callable[[TrainState], None]:
        def tell(state: TrainState) -> None:
            self.heard[event] += 1
            with attempt(f"an answer to {event}", f"step {state.step} of {CASE}"):
                getattr(self.callback, event)(state)

        return tell


def contract(subject: _Subject) -> str:
    """It is built from the run's folder and its options, and has a method for each event."""
    require_reachable(subject.factory, reserved=1)
    with tempfile.TemporaryDirectory() as folder:
        callback = subject.build(Path(folder))
        for event in EVENTS:
            if not callable(getattr(callback, event, None)):
                raise Failure(f"a method {event}", repr(getattr(callback, event, "none")), "the callback itself")
    return f"answers {', '.join(EVENTS)}"


def events(subject: _Subject) -> str:
    """It answers every event of a training: the start and the end, once each, intervals and evaluations between."""
    with tempfile.TemporaryDirectory() as folder:
        watched = _Watched(subject.build(Path(folder)))
        _train(Path(folder), [watched])
    return ", ".join(f"{event} {watched.heard[event]}" for event in EVENTS)


def weights(subject: _Subject) -> str:
    """Weights, optimizer and recurrent state end as they do without it, to the bit."""
    alone, observed = _alone_and_observed(subject)
    pairs: list[Pair] = [(name, tensor, alone.tensors[name]) for name, tensor in observed.tensors.items()]
    expect_same(pairs, "that of the training without it", CASE)
    return f"the same bits in {len(pairs)} tensors"


def random_state(subject: _Subject) -> str:
    """The random generators of torch, NumPy and Python end as they do without it."""
    alone, observed = _alone_and_observed(subject)
    for name, state in observed.generators.items():
        if state != alone.generators[name]:
            raise Failure(f"the generator of {name} as without it", "another state", CASE)
    return f"the same generators of {', '.join(alone.generators)}"


def _alone_and_observed(subject: _Subject) -> tuple[_Trained, _Trained]:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        alone = _train(Path(first), [])
        with seeded():
            callback = subject.build(Path(second))
        return alone, _train(Path(second), [callback])


def _train(folder: Path, callbacks: Sequence[Any]) -> _Trained:
    with seeded():
        task = tiny_task(folder)
        fit(task, callbacks, lambda: False)
        tensors = {name: tensor.detach().clone() for name, tensor in task.model.named_parameters()}
        pack(newest(folder).training(), tensors, "training")
        numpy_state = np.random.get_state(legacy=False)
        generators = {
            "torch": str(torch.get_rng_state().tolist()),
            "NumPy": str(numpy_state),
            "Python": str(random.getstate()),
        }
    return _Trained(tensors, generators)
