"""Sharing work out among processes, with results in order and a bounded number of them waiting."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

State = TypeVar("State")
Task = TypeVar("Task")
Result = TypeVar("Result")

_worker: dict[str, Any] = {}


def default_workers() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(
    function: Callable[[State, Task], Result],
    load_state: Callable[[], State],
    tasks: Iterable[Task],
    workers: int,
    *,
    threads: bool = False,
) -> Iterator[Result]:
    """Yield `function(state, task)` for each task, in order; with one worker, in this thread.

    Workers are processes: `load_state` is called once in each, so it, `function` and the tasks must survive the way
    there (a module-level function, or a partial of one over plain values). With `threads` they are threads that share
    one state, for functions that spend their time outside the interpreter's lock.
    """
    if workers <= 1:
        state = load_state()
        for task in tasks:
            yield function(state, task)
        return
    if threads:
        state = load_state()
        executor = ThreadPoolExecutor(workers)
        try:
            yield from _in_order(lambda task: executor.submit(function, state, task).result, tasks, workers)
        finally:
            executor.shutdown(cancel_futures=True)
        return
    import multiprocessing  # here, as it takes a while and threads do not need it

    # Spawned, not forked: a fork of a process that holds threads (progress bars, torch) may deadlock.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start, initargs=(load_state,)) as pool:
        yield from _in_order(lambda task: pool.apply_async(_run, (function, task)).get, tasks, workers)


def _in_order(submit: Callable[[Task], Callable[[], Result]], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Yield the results of submitted tasks in order, with no more than two for each worker waiting."""
    waiting: deque[Callable[[], Result]] = deque()
    for task in tasks:
        waiting.append(submit(task))
        if len(waiting) > 2 * workers:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _start(load_state: Callable[[], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the pool
    _worker["state"] = load_state()


def _run(function: Callable[[Any, Any], Any], task: Any) -> Any:
    return function(_worker["state"], task)
