"""A save that is killed, or refused by the disk, at any of its system calls: nothing that was there before is lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import KITCHEN, call, entries, file_size_limit, settings, succeed
from faults import CHANGES, OTHERS, WHEN, save, save_under, strace  # noqa: F401 - strace is a fixture

from rnnpipe.pipeline.verify import verify

STEPS = [10, 15, 20]  # the best one and the newest two


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interrupted run with the checkpoints of three steps: to copy."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    succeed("train", KITCHEN, "-o", folder, *settings(training__evaluate_every=5))
    (folder / "run.json").unlink()
    shutil.copytree(folder / "checkpoints" / "step-15", folder / "checkpoints" / "step-10", dirs_exist_ok=True)
    assert entries(folder / "checkpoints") == [f"step-{step}" for step in STEPS]
    return folder


def assert_nothing_is_lost(run: Path, case: object) -> None:
    """Check that the run verifies, that its newest step is no older, and that the next save clears what is left."""
    found = verify(run)
    assert found.problems == [], case
    assert found.newest_step is not None and found.newest_step >= STEPS[-1], case
    save(run, 30)
    assert all(re.fullmatch(r"step-\d+", name) for name in entries(run / "checkpoints")), case
    assert verify(run).newest_step == 30
    assert verify(run).problems == []


# The next step with an old one to remove, and a step that is saved again over itself.
AGAIN = [25, 20]


@pytest.mark.usefixtures("strace")
def test_a_kill_at_any_system_call_loses_nothing(run: Path, tmp_path: Path) -> None:
    killed = save_under(dict.fromkeys(CHANGES, f"signal=KILL:when={WHEN}"), run, tmp_path, AGAIN)
    assert {met.code for met in killed} == {-9}
    assert {"write", "fsync", "rename", "unlinkat", "mkdir"} <= {met.call for met in killed}
    assert len(killed) >= 40
    for met in killed:
        assert not [line for line in met.lines if line.startswith(OTHERS)], "a call that is not tried: teach faults.py"
        assert_nothing_is_lost(met.run, met)


ERRORS = {
    "fsync": f"error=EIO:when={WHEN}",
    "write": f"error=ENOSPC:when={WHEN}+",
    "mkdir": f"error=EROFS:when={WHEN}+",
    "rename": f"error=EDQUOT:when={WHEN}+",
}


@pytest.mark.usefixtures("strace")
def test_an_error_of_any_system_call_loses_nothing(run: Path, tmp_path: Path) -> None:
    failed = save_under(ERRORS, run, tmp_path, AGAIN)
    assert {met.call for met in failed} == set(ERRORS)
    for met in failed:
        assert met.code == 1, met
        assert not [name for name in entries(met.run / "checkpoints") if name.endswith(".tmp")], met
        first = next(number for number, line in enumerate(met.lines) if "(INJECTED)" in line)
        published = [line for line in met.lines[first + 1 :] if line.startswith("rename") and '.tmp", ' in line]
        assert met.call != "fsync" or published == [], met
        assert_nothing_is_lost(met.run, met)


def test_a_quota_leaves_what_was_there(run: Path, tmp_path: Path) -> None:
    for limit_bytes in (0, 100, 1000, 10_000):
        own = Path(shutil.copytree(run, tmp_path / str(limit_bytes)))
        with file_size_limit(limit_bytes), pytest.raises(OSError, match="File too large"):
            save(own, 25)
        assert entries(own / "checkpoints") == entries(run / "checkpoints")
        assert_nothing_is_lost(own, limit_bytes)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 1 MB, or skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_with_one_line_and_the_older_checkpoint(run: Path, small_disk: Path) -> None:
    own = Path(shutil.copytree(run, small_disk / "run"))
    status = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (status.f_bavail * status.f_bsize - 8192))  # not enough for a checkpoint
    before = entries(own / "checkpoints")
    with pytest.raises(OSError) as caught:
        save(own, 25)
    assert caught.value.errno == errno.ENOSPC
    assert entries(own / "checkpoints") == before
    (small_disk / "rest").write_bytes(b"x" * os.statvfs(small_disk).f_bavail * status.f_bsize)
    result = call("train", "--resume", own)
    assert result.code == 1
    assert "No space left on device" in result.error
    assert verify(own).problems == []
    (small_disk / "filler").unlink()  # and when there is room again
    assert_nothing_is_lost(own, "full disk")


def test_a_read_only_directory_ends_with_one_line(run: Path, small_disk: Path) -> None:
    own = Path(shutil.copytree(run, small_disk / "run"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError) as caught:
        save(own, 25)
    assert caught.value.errno == errno.EROFS
    result = call("train", "--resume", own)
    assert result.code == 1
    assert "Read-only file system" in result.error
    assert verify(own).problems == []
