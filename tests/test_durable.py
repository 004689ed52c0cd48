"""Durable writes: whole or not at all, in an order that a crash cannot undo."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe import durable
from rnnpipe.durable import atomic_directory, atomic_file, read_json, read_record, sha256_file, write_bytes, write_json
from rnnpipe.errors import InputError


class Stop(BaseException):
    """Not an Exception, as KeyboardInterrupt is none."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead_pid() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# --- files ---


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "folder" / "file"
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert names(path.parent) == ["file"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failed_file_leaves_the_old_one(tmp_path: Path, error: type[BaseException], before: bytes | None) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"new")
        raise error
    assert (path.read_bytes() if path.exists() else None) == before
    assert names(tmp_path) == (["file"] if before else [])


def test_a_disk_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory; name a file to write to"):
        write_bytes(tmp_path, b"x")


@pytest.mark.usefixtures("umask")
def test_the_mode_is_that_of_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"x")
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "inside").write_bytes(b"x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder", "folder/inside")]
    assert modes == [0o640, 0o750, 0o640]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError):
        write_bytes(tmp_path / "pipe", b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


# --- directories ---


def test_a_directory_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "folder"
    with atomic_directory(path) as folder:
        assert list(folder.iterdir()) == []
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_bytes(b"x")
        assert not path.exists()
    assert (path / "inner" / "file").read_bytes() == b"x"
    assert names(path.parent) == ["folder"]


def test_a_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "old").write_bytes(b"old")
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "new").write_bytes(b"new")
        assert (tmp_path / "folder" / "deep" / "old").exists()
    assert names(tmp_path / "folder") == ["new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("before", [False, True])
def test_a_failed_directory_leaves_the_old_one(tmp_path: Path, error: type[BaseException], before: bool) -> None:
    path = tmp_path / "folder"
    if before:
        path.mkdir()
        (path / "old").write_bytes(b"old")
    with pytest.raises(error), atomic_directory(path) as folder:
        (folder / "new").write_bytes(b"new")
        raise error
    assert names(tmp_path) == (["folder"] if before else [])
    assert not before or names(path) == ["old"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with (
        pytest.raises(InputError, match="is a file; name a directory to write to"),
        atomic_directory(tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_failed_exchange_leaves_the_old_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_bytes(b"old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if Path(target) == path:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"), atomic_directory(path) as folder:
        (folder / "new").write_bytes(b"new")
    assert path.is_dir()
    assert names(path) == ["old"]


def test_a_crash_in_the_exchange_loses_nothing(tmp_path: Path, dead_pid: int) -> None:
    aside = tmp_path / f".folder.{dead_pid}.aside"  # the state that a crash between the renames leaves
    aside.mkdir()
    (aside / "old").write_bytes(b"old")
    with pytest.raises(ValueError, match="no"), atomic_directory(tmp_path / "folder"):
        raise ValueError("no")
    assert [path.read_bytes() for path in tmp_path.rglob("old")] == [b"old"]


def test_half_a_folder_never_takes_a_name(tmp_path: Path, dead_pid: int) -> None:
    half = tmp_path / f".run.old.{dead_pid}.tmp"  # what a killed writer of the folder "run.old" leaves
    half.mkdir()
    (half / "half").write_bytes(b"half")
    with pytest.raises(ValueError, match="no"), atomic_directory(tmp_path / "run"):
        raise ValueError("no")
    assert not (tmp_path / "run").exists()


# --- what killed writers leave ---


def test_leftovers_of_dead_writers_are_cleared(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".target.{dead_pid}.tmp").write_bytes(b"half")
    (tmp_path / f".other.{dead_pid}.tmp").write_bytes(b"not ours")
    living = tmp_path / f".target.{os.getppid()}.tmp"
    living.write_bytes(b"still being written")
    write_bytes(tmp_path / "target", b"x")
    assert names(tmp_path) == sorted([f".other.{dead_pid}.tmp", living.name, "target"])
    assert living.read_bytes() == b"still being written"


def test_leftover_directories_are_cleared(tmp_path: Path, dead_pid: int) -> None:
    for leftover in (f".target.{dead_pid}.tmp", f".target.{os.getpid()}.tmp"):
        (tmp_path / leftover / "deep").mkdir(parents=True)
        (tmp_path / leftover / "deep" / "file").write_bytes(b"half")
    with atomic_directory(tmp_path / "target") as folder:
        assert list(folder.iterdir()) == []
    assert names(tmp_path) == ["target"]


def test_strange_names_are_left_alone(tmp_path: Path) -> None:
    strange = [".target.x.tmp", ".target.tmp", "target.1.tmp", ".target.-1.tmp"]
    for name in strange:
        (tmp_path / name).write_bytes(b"x")
    write_bytes(tmp_path / "target", b"x")
    assert names(tmp_path) == sorted([*strange, "target"])


@pytest.mark.parametrize("number", ["99999999999999999999", "\u00b2"])
def test_a_number_that_is_no_process_is_left_alone(tmp_path: Path, number: str) -> None:
    (tmp_path / f".target.{number}.tmp").write_bytes(b"x")
    write_bytes(tmp_path / "target", b"x")
    assert (tmp_path / "target").read_bytes() == b"x"


def test_leftovers_of_a_name_with_brackets(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".run[1].{dead_pid}.tmp").write_bytes(b"half")
    write_bytes(tmp_path / "run[1]", b"x")
    assert names(tmp_path) == ["run[1]"]


# --- the order ---


class Order:
    """Notes what is forced to the disk and what is renamed, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.events: list[tuple[str, str]] = []
        fsync, replace, rename = os.fsync, Path.replace, Path.rename

        def note_fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.events.append(("fsync", self.name(path, root)))
            self.sizes[self.name(path, root)] = os.fstat(descriptor).st_size
            fsync(descriptor)

        def note(kind: Any) -> Any:
            def move(path: Path, target: Path) -> Path:
                self.events.append(("rename", f"{self.name(path, root)} -> {self.name(Path(target), root)}"))
                moved: Path = kind(path, target)
                return moved

            return move

        self.sizes: dict[str, int] = {}
        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(Path, "replace", note(replace))
        monkeypatch.setattr(Path, "rename", note(rename))

    @staticmethod
    def name(path: Path, root: Path) -> str:
        return str(path.relative_to(root)).replace(str(os.getpid()), "PID")


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name a descriptor")


@needs_proc
def test_a_file_is_forced_to_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(monkeypatch, tmp_path)
    write_bytes(tmp_path / "file", b"12345")
    assert order.events == [
        ("fsync", ".file.PID.tmp"),
        ("rename", ".file.PID.tmp -> file"),
        ("fsync", "."),
    ]
    assert order.sizes[".file.PID.tmp"] == 5  # flushed before


@needs_proc
def test_a_directory_is_forced_to_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(monkeypatch, tmp_path)
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "a").write_bytes(b"1")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_bytes(b"2")
    renamed = order.events.index(("rename", ".folder.PID.tmp -> folder"))
    before = {name for kind, name in order.events[:renamed] if kind == "fsync"}
    assert before == {".folder.PID.tmp", ".folder.PID.tmp/a", ".folder.PID.tmp/sub", ".folder.PID.tmp/sub/b"}
    assert order.events[renamed - 1] == ("fsync", ".folder.PID.tmp")
    assert order.events[renamed + 1 :] == [("fsync", ".")]


# --- digests and JSON ---


@given(st.binary(max_size=300), st.integers(0, 310), st.none() | st.integers(0, 310))
@settings(deadline=None)
def test_the_digest_of_a_range(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: int, stop: int) -> None:
    path = tmp_path_factory.getbasetemp() / "digest"
    path.write_bytes(data)
    assert sha256_file(path, start, stop) == hashlib.sha256(data[start:stop]).hexdigest()


def test_the_digest_of_a_large_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 12_000
    write_bytes(tmp_path / "file", data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert sha256_file(tmp_path / "file", 5, 2_500_000) == hashlib.sha256(data[5:2_500_000]).hexdigest()


text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(values)
@settings(deadline=None)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(InputError, match=r"value\.json, line 2, column 7: Expecting value \(not valid JSON\)"):
        read_json(path)
    path.write_bytes(b'"caf\xe9"')
    with pytest.raises(InputError, match=r"value\.json: byte 4 is not UTF-8"):
        read_json(path)
    path.write_text("[1, 2, 3]")
    with pytest.raises(InputError, match="9 bytes, more than the 8 that such a file may have"):
        read_json(path, limit_bytes=8)
    assert read_json(path, limit_bytes=9) == [1, 2, 3]


def test_a_record_names_its_format_and_version(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    write_json(path, {"format": "rnnpipe-x", "version": 2, "more": [1]})
    assert read_record(path, "rnnpipe-x", 2) == {"format": "rnnpipe-x", "version": 2, "more": [1]}
    with pytest.raises(InputError, match=r"meta\.json: rnnpipe-x version 2; this rnnpipe reads 3"):
        read_record(path, "rnnpipe-x", 3)
    with pytest.raises(InputError, match=r"meta\.json: not a file of the format rnnpipe-y"):
        read_record(path, "rnnpipe-y", 2)
    write_json(path, ["rnnpipe-x", 2])
    with pytest.raises(InputError, match="not a file of the format rnnpipe-x"):
        read_record(path, "rnnpipe-x", 2)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000], ids=["deep", "long number"])
def test_json_beyond_the_parser_s_bounds(tmp_path: Path, text: str) -> None:
    (tmp_path / "value.json").write_text(text)
    with pytest.raises(InputError, match=r"value\.json"):
        read_json(tmp_path / "value.json")


def test_the_living_and_the_dead(dead_pid: int) -> None:
    assert durable._alive(os.getpid())
    assert durable._alive(1)
    assert not durable._alive(dead_pid)
