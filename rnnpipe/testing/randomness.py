"""The global random generators of Python, NumPy and torch: whether code touches them, and leaving them as they were."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from rnnpipe.testing.report import Check, Failure


def require_untouched(work: Callable[[], Any], case: str) -> str:
    """Raise Failure if `work` moves a global generator, or if what it returns depends on their seeds."""
    with put_back():
        work()  # for the first time: it may load torch
        results = []
        for seed in (1, 2):
            _seed(seed)
            before = _states()
            results.append(work())
            after = _states()
            moved = [owner for owner, state in before.items() if after[owner] != state]
            if moved:
                raise Failure("no global random state used", f"{' and '.join(moved)} generator has moved", case)
    if results[0] != results[1]:
        raise Failure("the same result whatever the global seeds", "two results under the global seeds 1 and 2", case)
    return f"{', '.join(before)}: not moved, and their seeds of no consequence"


def _states() -> dict[str, Any]:
    """Return the generators' states by owner; torch's where it is loaded: what did not load it cannot have used it."""
    numpy = tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state())
    states = {"Python's": random.getstate(), "NumPy's": numpy}
    if torch := sys.modules.get("torch"):
        states["torch's"] = torch.get_rng_state().numpy().tobytes()
    return states


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """Leave the generators, and torch's default dtype, as they were."""
    python, numpy, torch = random.getstate(), np.random.get_state(), sys.modules.get("torch")
    dtype = torch.get_default_dtype() if torch else None
    devices = range(torch.cuda.device_count()) if torch else ()
    try:
        with torch.random.fork_rng(devices) if torch else contextlib.nullcontext():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch:
            torch.set_default_dtype(dtype)


def undisturbed(checks: Iterable[Check]) -> list[Check]:
    """Return checks that leave the global state as it was, whatever the plugin does to it."""

    def guarded(check: Check) -> Check:
        def run() -> str:
            with put_back():
                return check.run()

        return Check(check.name, run)

    return list(map(guarded, checks))
