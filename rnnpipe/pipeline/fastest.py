"""The fastest of several backends, found by running each for about a third of a second, once; the times are kept."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import rnnpipe
from rnnpipe.backends.base import Measured
from rnnpipe.durable import cache_folder, make_directory, read_record, write_record
from rnnpipe.errors import InputError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.common import Report
from rnnpipe.runtime import autocast, processor_name
from rnnpipe.training.captured import CudaGraphs

FORMAT = "rnnpipe-backend-times"
VERSION = 1
FILE = "backend-times.json"
_MOST = 1000  # sets of times that are kept, the newest
_MARGIN = 0.97  # what another takes of the first's time, at most, to be taken in its place

Clock: TypeAlias = Callable[[Callable[[], None]], float]  # from a function to the seconds that it takes
Times: TypeAlias = dict[str, float]  # seconds by backend


@dataclass(frozen=True)
class Load:
    """A stack and what training gives it, of the right shapes and types: x [T, B, ...] and lengths [B]."""

    stack: Recurrent
    x: Tensor
    lengths: Tensor | None


@dataclass(frozen=True)
class Circumstances:
    """How the stacks are going to be run. captured: the whole step is replayed as a CUDA graph."""

    device: torch.device
    precision: str
    captured: bool


def fastest(loads: Sequence[Load], first: str, where: Circumstances, report: Report, clock: Clock | None = None) -> str:
    """Return the name of the backend that runs all loads fastest, forward and backward.

    Measured are those that `to_be_measured` names; without any but `first` there is nothing to measure. Times of the
    same circumstances and versions are not taken again. clock: instead of a median of several runs.
    """
    with torch.no_grad(), autocast(where.device, where.precision):
        candidates = to_be_measured(loads, first)
    if candidates == [first]:
        return first
    path = cache_folder() / FILE
    known, key = _read(path, report), _key(loads, where)
    times = known.get(key)
    how = f"as measured before, in {path}"
    if times is None or set(times) != set(candidates):
        clock = clock or _clock(where)
        taken = {name: _measure(loads, name, where, clock, report) for name in candidates}
        times = {name: seconds for name, seconds in taken.items() if seconds is not None}
        if len(times) == len(candidates):  # what failed may have been short of memory, and is measured again next time
            _write(path, {**{other: value for other, value in known.items() if other != key}, key: times}, report)
        how = "measured now"
    best = min(times, key=times.__getitem__, default=first)
    if first in times and times[best] > _MARGIN * times[first]:
        best = first
    listed = ", ".join(f"{name} {seconds * 1000:.3g} ms" for name, seconds in sorted(times.items()))
    report(f"backend {best}: a window forward and backward takes {listed or 'no backend to its end'} ({how})")
    return best


def to_be_measured(loads: Sequence[Load], first: str) -> list[str]:
    """Return the choice by priority and the backends that accept all loads and ask to be measured, by name."""
    asking: list[set[str]] = []
    for load in loads:
        answers = load.stack.answers(load.x, load.lengths)
        asking.append(
            {
                backend.name
                for backend in load.stack.backends
                if isinstance(backend, Measured)
                and answers[backend.name] is None
                and backend.to_be_measured(load.stack.cells(), load.x, load.lengths)
            }
        )
    return sorted({first, *(set.intersection(*asking) if asking else ())})


def _measure(loads: Sequence[Load], name: str, where: Circumstances, clock: Clock, report: Report) -> float | None:
    """Return the seconds that a backend takes for all loads, or None, reported, if it fails."""

    def run() -> None:
        for load in loads:
            load.stack.zero_grad(set_to_none=True)
            x = load.x.detach().requires_grad_(load.x.is_floating_point())
            with autocast(where.device, where.precision):
                y, _ = load.stack(x, lengths=load.lengths)
            y.float().sum().backward()

    with _left_as_they_are(loads), torch.enable_grad():
        for load in loads:
            load.stack.backend = name
        try:
            return clock(run)
        except Exception as error:  # the others serve
            report(f"warning: backend {name} fails: {' '.join(f'{type(error).__name__}: {error}'.split())[:200]}")
            return None


@contextmanager
def _left_as_they_are(loads: Sequence[Load]) -> Iterator[None]:
    """Put back what measuring changes: random generators, gradients, and the backend that was asked for."""
    wanted = [load.stack.backend for load in loads]
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    for load, backend in zip(loads, wanted, strict=True):
        load.stack.zero_grad(set_to_none=True)
        load.stack.backend = backend


def _clock(where: Circumstances) -> Clock:
    """Return a clock that takes the median of several runs, as they are or replayed."""

    def synchronize() -> None:
        if where.device.type == "cuda":
            torch.cuda.synchronize()

    def clock(work: Callable[[], None]) -> float:
        recorder = CudaGraphs() if where.captured else None
        for _ in range(3):
            work() if recorder is None else recorder.warm(work)
        if recorder is not None:
            work = recorder.record(work)[1]
        taken: list[float] = []
        while len(taken) < 3 or (sum(taken) < 0.3 and len(taken) < 100):
            synchronize()
            begun = time.perf_counter()
            work()
            synchronize()
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    return clock


def _key(loads: Sequence[Load], where: Circumstances) -> str:
    """Return all that times depend on, as JSON."""
    cuda = where.device.type == "cuda"
    facts = {
        "device": torch.cuda.get_device_name() if cuda else f"{processor_name()}, {torch.get_num_threads()} threads",
        "precision": where.precision,
        "captured": where.captured,
        "torch": torch.__version__,
        "rnnpipe": rnnpipe.__version__,
        "loads": [
            {
                "cells": [_cell_facts(cell) for cell in load.stack.cells()],
                "bidirectional": load.stack.bidirectional,
                "dropout": load.stack.dropout > 0,
                "x": [*load.x.shape, str(load.x.dtype)],
                "lengths": load.lengths is not None,
            }
            for load in loads
        ],
    }
    return json.dumps(facts, sort_keys=True)


def _cell_facts(cell: Any) -> list[Any]:
    plain = {name: value for name, value in vars(cell).items() if isinstance(value, str | int | float)}
    return [type(cell).__module__, type(cell).__qualname__, plain]


def _read(path: Path, report: Report) -> dict[str, Times]:
    """Return the times that are kept; none, reported, from a file that cannot be read."""
    if not path.is_file():
        return {}
    try:
        times = read_record(path, FORMAT, VERSION, sealed=True).get("times")
        if not isinstance(times, dict) or not all(map(_are_times, times.values())):
            raise InputError(f"{path}: its times are none.")
    except (InputError, OSError) as error:
        report(f"warning: {error} Backends are measured anew.")
        return {}
    return times


def _are_times(values: Any) -> bool:
    return isinstance(values, dict) and all(
        type(value) is float and math.isfinite(value) and value > 0 for value in values.values()
    )


def _write(path: Path, times: Mapping[str, Times], report: Report) -> None:
    newest = dict(list(times.items())[-_MOST:])
    try:
        make_directory(path.parent)
        write_record(path, {"format": FORMAT, "version": VERSION, "times": newest})
    except OSError as error:
        report(f"warning: the times of backends could not be kept ({error}).")
