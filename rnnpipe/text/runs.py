"""Sorted runs of counts on disk, by which counting goes on when memory is full, and merging them.

A run is a file of records by ascending token: length (uint32), count (uint64), and the token's bytes; c/runs.h does the
same in C. Runs lie in a temporary folder and live no longer than the process that wrote them.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rnnpipe.text.native import run_merger

if TYPE_CHECKING:
    from rnnpipe.text._native import WordCounter

PYTHON_BYTES = 80_000_000  # what a process takes before it counts anything
TYPE_BYTES = 400  # what a token takes, of memory, as a Python object in a dictionary and while that is written
_HEAD = struct.Struct("=IQ")
_CHUNK = 1 << 20
_MOST_OPEN = 200  # runs that are merged at once: many systems allow 256 open files


@dataclass
class Spill:
    """Where counts go that do not fit into `max_bytes` of memory, all workers together, and the runs so far."""

    folder: Path
    max_bytes: int
    runs: list[Path] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def count_bytes(self) -> int:
        """Return how much of the memory counts may take."""
        return max(self.max_bytes - PYTHON_BYTES, self.max_bytes // 4)

    def write(self, counts: Mapping[bytes, int]) -> None:
        """Write counts as a run."""
        with self.new_run() as file:
            write_run(file, counts)

    def drain(self, counter: WordCounter) -> None:
        """Write what a counter of the C extension holds as a run, and leave it empty."""
        with self.new_run() as file:
            while records := counter.drain(_CHUNK):
                file.write(records)

    @contextlib.contextmanager
    def new_run(self) -> Iterator[IO[bytes]]:
        """Open a file of the folder for a run, which is one of the runs from then on."""
        path = self.folder / f"run-{next(self._numbers)}"
        with path.open("wb", buffering=_CHUNK) as file:
            yield file
        self.runs.append(path)

    def merged(self) -> Iterator[Batch]:
        """Yield all tokens of the runs, ascending, each once with the sum of its counts; the runs are used up."""
        while len(self.runs) > _MOST_OPEN:
            some, self.runs = self.runs[:_MOST_OPEN], self.runs[_MOST_OPEN:]
            with self.new_run() as file:
                for batch in merge_runs(some):
                    write_run(file, batch.to_counts())
        runs, self.runs = self.runs, []
        yield from merge_runs(runs)


@dataclass(frozen=True)
class Batch:
    """Some tokens, each with the byte 0xff, which no UTF-8 has, behind it, and how often each occurs [N]."""

    raw: bytes
    counts: npt.NDArray[np.uint64]

    def tokens(self) -> list[bytes]:
        """Return the tokens."""
        return self.raw.split(b"\xff")[:-1]

    def to_counts(self) -> dict[bytes, int]:
        """Return each token with how often it occurs, in order."""
        return dict(zip(self.tokens(), self.counts.tolist(), strict=True))

    def lengths(self) -> npt.NDArray[np.int64]:
        """Return how many characters each token has [N]."""
        data = np.frombuffer(self.raw, np.uint8)
        characters = np.cumsum((data & 0xC0) != 0x80)[data == 0xFF]  # the 0xff itself is counted too
        lengths: npt.NDArray[np.int64] = np.diff(characters, prepend=0) - 1
        return lengths


def write_run(file: IO[bytes], counts: Mapping[bytes, int]) -> None:
    """Write counts behind what a run holds already, all of whose tokens must come before these."""
    for token, count in sorted(counts.items()):
        file.write(_HEAD.pack(len(token), count) + token)


def merge_runs(paths: Iterable[Path], *, keep: bool = False) -> Iterator[Batch]:
    """Yield the tokens of runs in order, the counts of each added up; the runs are removed at the end, or kept."""
    paths = list(paths)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        merger = run_merger(tuple(file.read for file in files))
        if merger is None:
            yield from _merge(files)
        else:
            while (batch := merger.next(_CHUNK))[0]:
                yield Batch(batch[0], np.frombuffer(batch[1], np.uint64))
    for path in () if keep else paths:
        path.unlink()


def _merge(files: Iterable[IO[bytes]]) -> Iterator[Batch]:
    records = heapq.merge(*map(_read_run, files), key=itemgetter(0))
    totals = ((token, sum(count for _, count in same)) for token, same in itertools.groupby(records, key=itemgetter(0)))
    while some := list(itertools.islice(totals, _CHUNK >> 4)):
        yield Batch(
            b"".join(token + b"\xff" for token, _ in some), np.array([count for _, count in some], dtype=np.uint64)
        )


def _read_run(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    while head := file.read(_HEAD.size):
        length, count = _HEAD.unpack(head)
        yield file.read(length), count
