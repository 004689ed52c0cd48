"""What is published is on the disk before it has its name, and the name is on the disk before anything old goes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli import KITCHEN, settings
from faults import strace  # noqa: F401 - a fixture

CALLS = "mkdir,openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,write,sendfile,copy_file_range"
TEMPORARY = re.compile(r"\.(.+)\.\d+\.(tmp|aside)")


@dataclass(frozen=True)
class Event:
    """A system call that changed something: make, write (an open for writing is one), fsync, rename or remove."""

    kind: str
    path: Path
    target: Path | None = None


def events(log: Path) -> list[Event]:
    """Return the successful calls in a trace, in order."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.search(r"^\d+ +(\w+)\((.*)\) += (\d+)(?:<(.*)>)?$", line)
        if match is None:
            continue
        name, arguments, _, opened = match.groups()
        described = re.findall(r"\d+<([^>]*)>", arguments)
        quoted = re.findall(r'"([^"]*)"', arguments)
        if name in ("fsync", "fdatasync"):
            found.append(Event("fsync", Path(described[0])))
        elif name == "mkdir":
            found.append(Event("make", Path(quoted[0])))
        elif name.startswith("rename"):
            found.append(Event("rename", *map(Path, quoted)))
        elif name in ("unlink", "unlinkat", "rmdir"):
            found.append(Event("remove", Path(described[0] if described else "/", quoted[0])))
        elif name == "openat" and ("O_WRONLY" in arguments or "O_RDWR" in arguments):
            found.append(Event("write", Path(opened)))
        elif name in ("write", "sendfile"):
            found.append(Event("write", Path(described[0])))
        elif name == "copy_file_range":
            found.append(Event("write", Path(described[1])))
    return found


def check_order(every: list[Event]) -> list[str]:
    """Check each publication in a trace; return the names that were published, in order."""
    published = []
    for number, event in enumerate(every):
        if event.kind == "make" and not any(TEMPORARY.fullmatch(part) for part in event.path.parts):
            assert Event("fsync", event.path.parent) in every[number:], f"{event.path} is not on the disk"
    for number, event in enumerate(every):
        if event.kind != "rename" or event.target is None or not event.path.name.endswith((".tmp", ".partial")):
            continue
        if TEMPORARY.fullmatch(event.target.name):
            continue
        before, after = every[:number], every[number + 1 :]
        parts = {e.path for e in before if e.kind == "write" and e.path.is_relative_to(event.path)}
        assert parts, event
        directories = {d for part in parts for d in part.parents if d.is_relative_to(event.path)}
        for path in parts | directories:
            last = max((n for n, e in enumerate(before) if e.kind == "write" and e.path == path), default=0)
            assert Event("fsync", path) in before[last:], f"{path} is not on the disk when {event.target} appears"
        behind = next(e for e in after if e.kind in ("rename", "remove") or e == Event("fsync", event.target.parent))
        assert behind.kind == "fsync", f"{behind} before the name {event.target} is on the disk"
        published.append(event.target.name)
    return published


def trace(program: list[str], folder: Path) -> list[Event]:
    """Run a program under strace; return what it changed in a folder."""
    log = folder / "log"
    command = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", f"trace={CALLS}", *program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [event for event in events(log) if event.path.is_relative_to(folder)]


REPLACE = """
import sys
from pathlib import Path
from rnnpipe.durable import atomic_directory, write_bytes
for content in (b"old", b"new"):
    with atomic_directory(Path(sys.argv[1], "folder")) as folder:
        (folder / "file").write_bytes(content)
    write_bytes(Path(sys.argv[1], "file"), content)
"""


@pytest.mark.usefixtures("strace")
def test_the_old_one_goes_when_the_new_one_is_on_the_disk(tmp_path: Path) -> None:
    every = trace([sys.executable, "-c", REPLACE, str(tmp_path)], tmp_path)
    assert check_order(every) == ["folder", "file", "folder", "file"]
    assert [event.path.name for event in every if event.kind == "remove"][:1] == ["file"]  # of the folder moved aside
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


@pytest.mark.usefixtures("strace")
def test_all_that_a_training_publishes_is_on_the_disk_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", KITCHEN, "-o", run, *settings(training__evaluate_every=5)]
    every = trace([sys.executable, "-m", "rnnpipe", *map(str, words)], tmp_path)
    published = check_order(every)
    files = {"config.toml", "corpus.json", "meta.json", "dictionary.txt", "README.md", "run.json", "evaluation.json"}
    assert set(published) == {"corpus", "tokens", *(f"step-{step}" for step in (5, 10, 15, 20)), *files}
    assert published[-2:] == ["run.json", "evaluation.json"]
    for step in (5, 10, 15, 20):  # the rows that a checkpoint counts on are on the disk before it
        renamed = next(n for n, e in enumerate(every) if e.target == run / "checkpoints" / f"step-{step}")
        for name in ("metrics.csv", "metrics.jsonl"):
            kinds = [event.kind for event in every[:renamed] if event.path == run / name]
            assert kinds[-1] == "fsync"


FILE = [Event("write", Path("/r/.a.1.tmp")), Event("fsync", Path("/r/.a.1.tmp"))]
NAMED = [Event("rename", Path("/r/.a.1.tmp"), Path("/r/a")), Event("fsync", Path("/r"))]


def test_the_right_order_passes() -> None:
    assert check_order([*FILE, *NAMED]) == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        [FILE[0], *NAMED],
        [FILE[1], FILE[0], *NAMED],
        [*FILE, NAMED[0], Event("remove", Path("/r/old")), NAMED[1]],
        [*FILE, Event("write", Path("/r/.a.1.tmp")), *NAMED],
        [*FILE, *NAMED, Event("make", Path("/r/b"))],
    ],
    ids=["no fsync", "fsync before the write", "removal before the name is on the disk", "a write later", "a folder"],
)
def test_a_wrong_order_is_found(wrong: list[Event]) -> None:
    with pytest.raises(AssertionError):
        check_order(wrong)
