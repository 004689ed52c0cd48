"""Speed and memory of building a dictionary and of encoding, against peers, each a whole process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnpipe.errors import RnnpipeError
from rnnpipe.text.native import NATIVE

PUBLISHED_BYTES = 20_000_000  # the published program takes 15 bytes of memory for each byte of text


@dataclass(frozen=True)
class Row:
    """One job: the text's size in bytes, the best of the runs in seconds, its processor time and resident memory.

    On a machine that has nothing else to do the rate counts; on a busy one the processor time says more.
    """

    job: str
    program: str
    size_bytes: int
    seconds: float
    processor_seconds: float
    resident_bytes: int

    @property
    def rate(self) -> float:
        """Return megabytes (10^6) a second."""
        return self.size_bytes / 1e6 / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {**asdict(self), "megabytes_per_second": self.rate}


@dataclass(frozen=True, eq=False)
class _Job:
    """A program to measure: its command, the size of its text in bytes, and the package that it needs."""

    job: str
    program: str
    size: int
    words: Sequence[str]
    package: str | None = None
    native: bool = True


def bench_corpus(
    text: Path | None, megabytes: int, workers: int, runs: int, report: Callable[[str], None]
) -> list[Row]:
    """Measure `build-dict` and `encode`, with the C extension and without, and the peers, on repeated text.

    All run in turns, `runs` times, so that what else the machine does falls on all of them alike.
    """
    with tempfile.TemporaryDirectory(prefix="rnnpipe-bench-") as folder:
        jobs = []
        for job in _jobs(text, megabytes, workers, Path(folder)):
            if job.package is None or importlib.util.find_spec(job.package) is not None:
                jobs.append(job)
            else:
                report(f"{job.job}, {job.program}: not installed (pip install 'rnnpipe[bench]')")
        best: dict[_Job, tuple[float, float, int]] = {}
        for _ in range(runs):
            for job in jobs:
                found = _run(job.words, {} if job.native else {"RNNPIPE_NATIVE": "0"}, workers)
                best[job] = min(best.get(job, found), found)
        rows = [Row(job.job, job.program, job.size, *best[job]) for job in jobs]
    for row in rows:
        report(f"{row.job}, {row.program}: {row.rate:.0f} MB/s, {row.resident_bytes / 1e6:.0f} MB resident")
    return rows


def _jobs(text: Path | None, megabytes: int, workers: int, folder: Path) -> Iterator[_Job]:
    """Write the texts into a folder and yield the jobs, which share them, in an order in which they can run."""
    path = folder / "text.txt"
    size = repeat_text(text, path, megabytes * 1_000_000)
    part = folder / "part.txt"
    part_size = repeat_text(text, part, min(size, PUBLISHED_BYTES))
    command = [sys.executable, "-m", "rnnpipe"]
    many = ["--workers", str(workers)]
    peer = [sys.executable, "-m", "rnnpipe.bench.peers"]
    ours = f"rnnpipe, {workers} workers" + ("" if NATIVE else " (built without C)")
    plain = f"rnnpipe, {workers} workers, in Python alone"

    def build(cleaner: str) -> list[str]:
        return [*command, "build-dict", str(path), "-o", str(folder / cleaner), "--cleaner", cleaner, *many]

    def encode(cleaner: str) -> list[str]:
        out = str(folder / f"{cleaner}-tokens")
        return [*command, "encode", str(path), "--dict", str(folder / cleaner), "-o", out, *many]

    tokenizers = "tokenizers, word level"
    yield _Job("build-dict", ours, size, build("ascii-words"))
    yield _Job("build-dict", plain, size, build("ascii-words"), native=False)
    yield _Job("build-dict", "polars", size, [*peer, "polars-build", str(path)], "polars")
    yield _Job("build-dict", "duckdb", size, [*peer, "duckdb-build", str(path)], "duckdb")
    yield _Job("build-dict", tokenizers, size, [*peer, "tokenizers-build", str(path)], "tokenizers")
    yield _Job("build-dict", "the published program", part_size, [*peer, "published", str(part)])
    yield _Job("encode", ours, size, encode("ascii-words"))
    yield _Job("encode", plain, size, encode("ascii-words"), native=False)
    words = [*peer, "tokenizers-encode", str(path), str(folder / "ascii-words")]
    yield _Job("encode", tokenizers, size, words, "tokenizers")
    yield _Job("build-dict, unicode-words", ours, size, build("unicode-words"))
    yield _Job("encode, unicode-words", ours, size, encode("unicode-words"))


def repeat_text(text: Path | None, path: Path, size: int) -> int:
    """Write texts (a file or a folder's *.txt; None: Python's reference text) again and again until `size` bytes."""
    sources = _sources(text)
    with path.open("wb") as file:
        written = 0
        while written < size:
            for source in sources:
                written += file.write(source)
    return written


def _sources(text: Path | None) -> list[bytes]:
    from rnnpipe.data.base import PARTS
    from rnnpipe.data.python_docs import PythonDocs

    if text is None:
        dataset = PythonDocs()
        return ["".join(dataset.documents(part)).encode() for part in PARTS]
    files = sorted(text.glob("*.txt")) if text.is_dir() else [text]
    sources = [file.read_bytes() for file in files]
    if not any(sources):
        raise RnnpipeError(f"{text}: no text to measure with; name a file or a folder with *.txt files.")
    return sources


def _run(words: Sequence[str], environment: dict[str, str], threads: int) -> tuple[float, float, int]:
    """Run a whole process; return its seconds, its processor time, and its peak of resident memory.

    Of child processes the time is in it, and of memory that of the largest.
    """
    environment = {**os.environ, **environment}
    environment |= {"POLARS_MAX_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are compiled, and so is ours then
    begun = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RnnpipeError(f"{' '.join(words[:6])} ... failed: {errors.decode(errors='replace').strip()}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
