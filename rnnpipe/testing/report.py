"""Checks, what they find, and how a failure is worded: the frame that the checks of every kind share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal


class Failure(AssertionError):
    """A broken contract: what was expected, what came, and the smallest case that shows it."""

    def __init__(self, expected: str, received: str, case: str) -> None:
        super().__init__(f"expected {expected}; received {received}; smallest case: {case}")


class Skipped(Exception):
    """A check that cannot be made here, and why."""


class ConformanceError(AssertionError):
    """A plugin that breaks its contract: every failed check, a line each."""


@dataclass(frozen=True)
class Check:
    """One property of a plugin. `run` returns what it measured, in words; it raises Failure or Skipped."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """What came of one check: "passed" with what was measured, "failed" with the failure, "skipped" with the reason."""

    check: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str
    seconds: float


def findings(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run checks one after the other; whatever a plugin raises is a failure of that check alone."""
    for check in checks:
        begun = time.perf_counter()
        outcome: Literal["passed", "failed", "skipped"]
        try:
            outcome, detail = "passed", check.run()
        except Skipped as reason:
            outcome, detail = "skipped", str(reason)
        except Failure as failure:
            outcome, detail = "failed", str(failure)
        except Exception as error:  # the plugin's own: anything may come out of code that is not ours
            outcome, detail = "failed", f"raised {type(error).__name__}: {error}"
        yield Finding(check.name, outcome, " ".join(detail.split()), time.perf_counter() - begun)


def require(what: str, checks: Iterable[Check]) -> list[Finding]:
    """Run checks; return what they found, or raise ConformanceError with each one that failed."""
    found = list(findings(checks))
    failed = [finding for finding in found if finding.outcome == "failed"]
    if failed:
        lines = "\n".join(f"  {finding.check}: {finding.detail}" for finding in failed)
        raise ConformanceError(f"{what} fails {len(failed)} of {len(found)} checks:\n{lines}")
    return found
