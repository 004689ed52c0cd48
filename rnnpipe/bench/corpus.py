"""Speed and memory of building a dictionary and of encoding, against peers, each a whole process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnpipe.errors import RnnpipeError
from rnnpipe.text.native import NATIVE

PUBLISHED_BYTES = 20_000_000  # the published program takes 15 bytes of memory for each byte of text


@dataclass(frozen=True)
class Row:
    """One job: the text's size in bytes, the best of the runs in seconds, and the peak of resident memory."""

    job: str
    program: str
    size_bytes: int
    seconds: float
    resident_bytes: int

    @property
    def rate(self) -> float:
        """Return megabytes (10^6) a second."""
        return self.size_bytes / 1e6 / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {**asdict(self), "megabytes_per_second": self.rate}


def bench_corpus(
    text: Path | None, megabytes: int, workers: int, runs: int, report: Callable[[str], None]
) -> list[Row]:
    """Measure `build-dict` and `encode`, with the C extension and without, and the peers, on repeated text."""
    with tempfile.TemporaryDirectory(prefix="rnnpipe-bench-") as folder:
        path = Path(folder) / "text.txt"
        size = repeat_text(text, path, megabytes * 1_000_000)
        part = Path(folder) / "part.txt"
        part_size = repeat_text(text, part, min(size, PUBLISHED_BYTES))
        out, tokens = str(Path(folder) / "dict.txt"), str(Path(folder) / "tokens")
        command = [sys.executable, "-m", "rnnpipe"]
        build = [*command, "build-dict", str(path), "-o", out, "--cleaner", "ascii-words", "--workers", str(workers)]
        encode = [*command, "encode", str(path), "--dict", out, "-o", tokens, "--workers", str(workers)]
        peer = [sys.executable, "-m", "rnnpipe.bench.peers"]
        plain = {"RNNPIPE_NATIVE": "0"}
        native = f"rnnpipe, {workers} workers" if NATIVE else f"rnnpipe, {workers} workers (built without C)"
        jobs: list[tuple[str, str, int, Sequence[str], dict[str, str]]] = [
            ("build-dict", native, size, build, {}),
            ("build-dict", f"rnnpipe, {workers} workers, in Python alone", size, build, plain),
            ("build-dict", "tokenizers, word level", size, [*peer, "tokenizers-build", str(path)], {}),
            ("build-dict", "the published program", part_size, [*peer, "published", str(part)], {}),
            ("encode", native, size, encode, {}),
            ("encode", f"rnnpipe, {workers} workers, in Python alone", size, encode, plain),
            ("encode", "tokenizers, word level", size, [*peer, "tokenizers-encode", str(path), out], {}),
        ]
        rows = []
        for job, program, job_size, words, environment in jobs:
            if program.startswith("tokenizers") and importlib.util.find_spec("tokenizers") is None:
                report(f"{job}, {program}: not installed (pip install 'rnnpipe[bench]')")
                continue
            best = min(_run(words, environment) for _ in range(runs))
            rows.append(Row(job, program, job_size, *best))
            report(f"{job}, {program}: {rows[-1].rate:.0f} MB/s, {rows[-1].resident_bytes / 1e6:.0f} MB resident")
    return rows


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


def _run(words: Sequence[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run a whole process; return its seconds and the peak of its resident memory, or of its largest child's."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RnnpipeError(f"{' '.join(words[:6])} ... failed: {errors.decode(errors='replace').strip()}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024
