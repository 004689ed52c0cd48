"""Saves under faults. As a program, under strace, it saves in forked children, each of which meets the fault elsewhere.

strace injects a fault at the WHEN-th call of a name, counted in each process; a child that is to meet it at the n-th
call of its save makes WHEN - n idle calls of that name first. So one process that has imported torch serves them all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

WHEN = 150  # more than a save makes of any call
CHANGES = ("write", "fsync", "rename", "unlink", "unlinkat", "rmdir", "mkdir")
OTHERS = ("pwrite64", "writev", "fdatasync", "renameat", "renameat2", "truncate", "ftruncate")  # that no save makes
NOWHERE = Path("/nonexistent/file")


def _idle(name: str) -> None:
    """Make one call of a name that changes nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: os.write(null, b"x"),
        "fsync": lambda: os.fsync(null),
        "rename": lambda: NOWHERE.rename(NOWHERE),
        "unlink": NOWHERE.unlink,
        "unlinkat": lambda: os.unlink("nonexistent", dir_fd=null),
        "rmdir": NOWHERE.rmdir,
        "mkdir": NOWHERE.mkdir,
    }
    with contextlib.suppress(OSError):
        calls[name]()
    os.close(null)


def save(run: Path, step: int) -> None:
    """Save the newest state of a run again, as that of a step, and prune, as training does."""
    from rnnpipe.training.checkpoints import newest_checkpoint, prune_checkpoints, save_checkpoint

    folder = run / "checkpoints"
    newest = newest_checkpoint(folder, lambda message: None)
    assert newest is not None
    save_checkpoint(folder, step, newest.weights(), newest.training(), newest.state, newest.metrics)
    prune_checkpoints(folder, None)


def _in_child(work: Callable[[], object]) -> tuple[int, int]:
    """Do something in a forked child: return its number and how it ended, 1 for an OSError."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            work()
            code = 0
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(run: str, folder: str, steps: str, calls: str) -> None:
    """Save each step into copies of a run, to be met by the fault at each call of each name; print how they ended."""
    from rnnpipe.training import checkpoints  # noqa: F401 - imported once, before the children

    met = []
    for step in map(int, steps.split(",")):
        for name in calls.split(","):
            for number in range(1, WHEN):
                copy = Path(folder) / f"{step}-{name}-{number}"
                _in_child(lambda copy=copy: shutil.copytree(run, copy))

                def work(copy: Path = copy, name: str = name, idle: int = WHEN - number, step: int = step) -> None:
                    for _ in range(idle):
                        _idle(name)
                    save(copy, step)

                pid, code = _in_child(work)
                if code == 0:  # the save makes no such call any more
                    break
                met.append({"run": str(copy), "call": name, "number": number, "pid": pid, "code": code})
    sys.stdout.write(json.dumps(met))


@dataclass(frozen=True)
class Met:
    """A save that met the fault: where, at which call, how it ended (below 0: by that signal), and its trace."""

    run: Path
    call: str
    number: int
    code: int
    lines: list[str]


def save_under(faults: dict[str, str], run: Path, folder: Path, steps: list[int]) -> list[Met]:
    """Save steps into copies of a run, once for each call of each name in `faults`, where that call meets its fault."""
    log = folder / "log"
    inject = [word for name, fault in faults.items() for word in ("-e", f"inject={name}:{fault}")]
    program = [sys.executable, Path(__file__).resolve(), run, folder, ",".join(map(str, steps)), ",".join(faults)]
    traced = ",".join((*CHANGES, *OTHERS))
    done = subprocess.run(
        ["strace", "-f", "-qq", "-y", "-s", "0", "-o", log, "-e", f"trace={traced}", *inject, *program],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines: dict[str, list[str]] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        lines.setdefault(pid, []).append(rest.strip())
    ended = json.loads(done.stdout)
    return [Met(Path(m["run"]), m["call"], m["number"], m["code"], lines[str(m["pid"])]) for m in ended]


def why_no_strace() -> str | None:
    """Return why faults cannot be injected here, or None if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"ptrace is not allowed here: {done.stderr.strip()}"


@pytest.fixture(scope="session")
def strace() -> None:
    """Skip, with the reason, where system calls cannot be traced."""
    if reason := why_no_strace():
        pytest.skip(reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
