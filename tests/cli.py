"""What the tests of the command line share: running it in this process or in another one, and small runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rnnpipe.cli
from rnnpipe import plugins

CORPORA = Path(__file__).resolve().parent.parent / "corpora"
KITCHEN = str(CORPORA / "kitchen-notes.txt")
HARBOUR = str(CORPORA / "harbour-year.txt")
JAPANESE = str(CORPORA / "kawabe-no-machi.txt")

SMALL = {
    "model.hidden_size": 16,
    "model.encoder": '{name="embedding", size=8}',
    "training.max_steps": 20,
    "training.batch_size": 4,
    "training.bptt": 8,
    "runtime.precision": "float32",
    "runtime.threads": 1,
}


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return standard output, all of it, as JSON, in which NaN and Infinity do not exist."""
        return strict_json(self.out)

    def jsonl(self) -> list[Any]:
        """Return standard output as JSON lines."""
        return [strict_json(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """Return the one `Error:` line, which must be the last line on standard error, with no traceback."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("Error:")]
        assert len(errors) == 1, self
        assert lines[-1] == errors[0], self
        assert "Traceback" not in self.err, self
        assert "unexpected" not in errors[0], self
        return errors[0]


def strict_json(text: str) -> Any:
    """Return a JSON value; raise ValueError for NaN and Infinity, which Python reads and others do not."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def call(*words: object, stdin: bytes = b"") -> Result:
    """Run the command line in this process."""
    out, err = _stream(), _stream()
    source = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    before, sys.stdin = sys.stdin, source
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = rnnpipe.cli._run([str(word) for word in words], debug="--debug" in words)
    finally:
        sys.stdin = before
    return Result(code, _text(out), _text(err))


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8")


def succeed(*words: object, stdin: bytes = b"") -> Result:
    """Run a command that must succeed, without a word about an error."""
    result = call(*words, stdin=stdin)
    assert result.code == 0, result
    assert not [line for line in result.err.splitlines() if line.startswith("Error:")], result
    return result


def fail(*words: object, code: int, stdin: bytes = b"") -> str:
    """Run a command that must fail with an exit code, nothing on standard output and one line; return that line."""
    result = call(*words, stdin=stdin)
    assert result.code == code, result
    assert result.out == "", result
    return result.error


def start(*words: object, environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, with pipes for what it writes."""
    return subprocess.Popen(
        [sys.executable, "-m", "rnnpipe", *map(str, words)],
        env={**os.environ, **(environment or {})},
        text=True,
        encoding="utf-8",
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options},
    )


def spawn(*words: object, environment: Mapping[str, str] | None = None, **options: Any) -> Result:
    """Run the command line in a process of its own."""
    with start(*words, environment=environment, **options) as process:
        out, err = process.communicate(timeout=300)
    return Result(process.returncode, out or "", err or "")


def python(code: str, *words: object, **options: Any) -> Result:
    """Run Python code in a process of its own; `words` are its `sys.argv[1:]`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def settings(**changes: object) -> list[str]:
    """Return the words that make a network and its training small; `model__cell="gru"` stands for model.cell=gru."""
    every = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in every.items() for word in ("--set", f"{key}={value}")]


def files(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder and below it, hidden ones too, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def entries(folder: Path) -> list[str]:
    """Return the names of all that lies in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def assert_no_leftovers(folder: Path) -> None:
    """Check that no temporary file or folder is left below a folder."""
    assert [str(path) for path in folder.rglob("*") if path.name.endswith(".tmp")] == []


def losses(run: Path) -> list[dict[str, Any]]:
    """Return a run's metrics without those columns that are times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows]


def write_plugin(
    folder: Path,
    distribution: str,
    module: str,
    code: str,
    *,
    group: str = "rnnpipe",
    point: str | None = None,
    requires: str = "",
) -> None:
    """Put a distribution with one module and one entry point into a folder, as an installer would."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{requirement}"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n{point or module} = {module}\n", encoding="utf-8")


@contextlib.contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the distributions in a folder found as if they were installed, for the length of a block."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        modules = set(sys.modules)
        forget_plugins()
        try:
            yield
        finally:
            for name in set(sys.modules) - modules:
                if (folder / f"{name}.py").is_file():
                    del sys.modules[name]
    forget_plugins()


def forget_plugins() -> None:
    """Make the next command look for plugins again."""
    plugins.forget()


@contextlib.contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size for the length of a block, as a full disk would."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def unsealed(data: bytes) -> bytes:
    """Return a dictionary or a record without its digest of itself, as of another program that wrote it so."""
    return re.sub(rb',\s*"sha256": "[0-9a-f]{64}"(\n?})', rb"\1", data)


def damage(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
