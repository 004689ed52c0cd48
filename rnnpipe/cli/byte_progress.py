"""What a person sees while bytes are worked through: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rnnpipe.cli import say

if TYPE_CHECKING:
    from tqdm import tqdm

_LINE_SECONDS = 10.0


class ByteProgress:
    """Hears of bytes done, and of how many there are."""

    def __init__(self, label: str, bar: tqdm[Any]) -> None:
        self._label = label
        self._bar = bar
        self._done = 0
        self._total: int | None = bar.total
        self._begun = self._said = time.monotonic()

    def expect(self, total: int) -> None:
        """Hear how many bytes there are."""
        self._total = total
        self._bar.total = total
        self._begun = self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        """Hear that so many bytes more are done."""
        self._done += done
        self._bar.update(done)
        if self._bar.disable and time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            say(self._line(self._said - self._begun))

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds
        line = f"{self._label}: {self._done / 1e6:,.0f} MB"
        if self._total:
            line += f" of {self._total / 1e6:,.0f} MB ({self._done / self._total:.0%})"
        line += f", {rate / 1e6:,.1f} MB/s"
        if self._total and rate:
            left = round(max(0, self._total - self._done) / rate)
            line += f", ETA {left // 3600}:{left % 3600 // 60:02}:{left % 60:02}"
        return line


@contextmanager
def byte_progress(label: str, total: int | None = None) -> Iterator[ByteProgress]:
    """Yield what hears of bytes done, and show them on standard error with their rate and the time left."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        desc=label,
        file=sys.stderr,
        leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:
        yield ByteProgress(label, bar)
