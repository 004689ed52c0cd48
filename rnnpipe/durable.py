"""Files and directories that appear whole or not at all.

Everything rnnpipe publishes is written under a temporary name beside its target, forced to the disk, renamed, and the
rename forced to the disk by an fsync of the parent directory. A reader never sees half a file; after a crash the old
one is still there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import stat
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from rnnpipe.errors import InputError

# Small files can ask for much memory: a list of empty lists takes 25 times its size. These keep it under 500 MB.
JSON_BYTES = 48 << 20
JSON_VALUES = 1 << 22
TOML_BYTES = 1 << 20
LINE_BYTES = 1 << 24  # of a file that is read line by line
_TOML_DOTS = 200
_FORCE_SECONDS = 5.0

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]+)\.(?P<kind>tmp|aside)")
_SEAL = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n}\n\Z')


def cache_folder() -> Path:
    """Return where what can be had again is kept: $RNNPIPE_CACHE, or `rnnpipe` in the user's cache folder."""
    if own := os.environ.get("RNNPIPE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rnnpipe"


def fsync_path(path: Path) -> None:
    """Force a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, that are not there yet, and force their names to the disk."""
    absent = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in absent:
        fsync_path(each.parent)


def _temporary(path: Path, kind: str = "tmp") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def clear_leftovers(folder: Path, name: str | None = None, *, locked: bool = False) -> None:
    """Remove what killed writers left in a folder, of any name or of one; a living writer's files stay.

    What a writer had moved aside takes its name again if nothing has it. `locked`: the caller holds the folder's lock,
    so that no writer lives, whatever process has its number now.
    """
    for item in list(folder.iterdir()) if folder.is_dir() else ():
        found = _LEFTOVER.fullmatch(item.name)
        if found is None or name not in (None, found["name"]) or not (locked or not _alive(int(found["pid"]))):
            continue
        if found["kind"] == "aside" and not (folder / found["name"]).exists():
            item.rename(folder / found["name"])  # its writer died between the two renames of an exchange
        elif item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def is_leftover(name: str) -> bool:
    """Say whether a name is one that only a writer at work, or a killed one, has in use."""
    return _LEFTOVER.fullmatch(name) is not None


def moved_aside(folder: Path) -> dict[str, Path]:
    """Return, by name, what a writer that was killed in an exchange has left under another name, whole."""
    found = ((_LEFTOVER.fullmatch(item.name), item) for item in folder.glob(".*.aside"))
    return {match["name"]: item for match, item in found if match and not (folder / match["name"]).exists()}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; or no number of a process, and none of our business
        return True
    return True


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; it appears, whole and durable, when the block ends without an exception."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a file to write to.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no ordinary file, and a rename would replace it; name a file to write to.")
    make_directory(path.parent)
    clear_leftovers(path.parent, path.name)
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name_file(error, path)
        raise
    fsync_path(path.parent)


def _name_file(error: BaseException, path: Path) -> None:
    """Say in an OSError which file it is about; a failed write (a full disk, a quota) does not say it itself."""
    if isinstance(error, OSError) and error.filename is None and error.errno is not None:
        error.filename = str(path)


class Lines:
    """A file that lines are appended to, each whole or, where a disk is full or power fails, cut off by the next."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._forced = time.monotonic()

    def write(self, line: bytes) -> None:
        """Append a line with its end. At least every `_FORCE_SECONDS` what was written is forced to the disk."""
        while line:  # a disk that is nearly full takes a part and fails at the rest
            line = line[self._file.write(line) :]
        if time.monotonic() > self._forced + _FORCE_SECONDS:
            os.fsync(self._file.fileno())
            self._forced = time.monotonic()


@contextlib.contextmanager
def appended_lines(path: Path, check: Callable[[bytes, bytes], None]) -> Iterator[Lines]:
    """Open a file, which may be there already, to append lines to; a last line without an end is cut off.

    check: told the first whole line and what stands behind the last line end before anything is cut off; it raises
    InputError if the file is none of these. So does another process that is appending to the file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no ordinary file; name a file to write to.")
    make_directory(path.parent)
    with path.open("a+b", buffering=0) as file:
        try:
            _lock(file.fileno(), path)
            length = _whole_lines(file)
            file.seek(length)
            torn = file.read(LINE_BYTES)
            with path.open("rb") as lines:
                check(next(read_lines(lines, str(path))) if length else b"", torn)
            file.truncate(length)
            fsync_path(path.parent)
            try:
                yield Lines(file)
            finally:
                os.fsync(file.fileno())
        except OSError as error:
            _name_file(error, path)
            raise


def _whole_lines(file: io.FileIO) -> int:
    """Return the length of a file up to its last line end."""
    stop = file.seek(0, os.SEEK_END)
    while stop:
        start = max(0, stop - (1 << 16))
        file.seek(start)
        place = file.read(stop - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        stop = start
    return 0


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole and durable."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, whole and durable."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented JSON with a final newline."""
    return (json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def record_bytes(record: dict[str, Any]) -> bytes:
    """Return a record as JSON whose last member, `sha256`, is the digest of the file without that member."""
    data = json_bytes(record)
    seal = f',\n  "sha256": "{hashlib.sha256(data).hexdigest()}"\n}}\n'
    return data.removesuffix(b"\n}\n") + seal.encode()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record with its own digest, whole and durable."""
    write_bytes(path, record_bytes(record))


def finite(value: Any) -> Any:
    """Return a nested value with null for every number that JSON does not have: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary directory that becomes `path` when the block ends without an exception.

    An existing `path` is replaced: it is renamed aside, the new one takes its name, and once that is on the disk the
    old one is removed. A crash between the two renames leaves neither under that name: the old one is then found by
    `moved_aside`, and the next writer puts it back.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a directory to write to.")
    make_directory(path.parent)
    clear_leftovers(path.parent, path.name)
    temporary = _temporary(path)
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        yield temporary
        _publish(path, temporary)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_file(error, path)
        raise


def _publish(path: Path, temporary: Path) -> None:
    """Give a directory its name, once all in it is on the disk."""
    for item in sorted(temporary.rglob("*")):
        fsync_path(item)
    fsync_path(temporary)
    if path.exists():
        _exchange(path, temporary)
    else:
        temporary.rename(path)
        fsync_path(path.parent)


@dataclass
class Partial:
    """A directory in which work lies until it is done; `keep`: it is worth going on from after an interruption."""

    path: Path
    keep: bool = False

    def clear(self) -> None:
        """Throw away what lies there."""
        for item in self.path.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        self.keep = False


@contextlib.contextmanager
def resumable_directory(path: Path) -> Iterator[Partial]:
    """Yield a directory beside `path` that becomes `path` when the block ends without an exception.

    What an earlier block left there because it was interrupted lies there still. After an error that a person must
    mend, and before there is anything to keep, nothing is left. Raises InputError if another process writes there.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a directory to write to.")
    make_directory(path.parent)
    clear_leftovers(path.parent, path.name)
    partial = Partial(path.with_name(f".{path.name}.partial"))
    partial.path.mkdir(exist_ok=True)
    with lock_directory(partial.path):
        try:
            yield partial
            _publish(path, partial.path)
        except BaseException as error:
            if not partial.keep or isinstance(error, InputError):
                shutil.rmtree(partial.path, ignore_errors=True)
            _name_file(error, path)
            raise


def _exchange(path: Path, temporary: Path) -> None:
    """Put a new directory in the place of an old one, which is back in its place after any error."""
    aside = _temporary(path, "aside")
    path.rename(aside)
    try:
        temporary.rename(path)
        fsync_path(path.parent)
    except BaseException:
        if path.exists():
            path.rename(temporary)
        aside.replace(path)
        raise
    aside.rename(temporary)  # what is named `aside` is whole
    shutil.rmtree(temporary)


def remove_directory(path: Path) -> None:
    """Remove a directory; killed on the way, it is gone from its name all the same."""
    doomed = _temporary(path)
    path.rename(doomed)
    shutil.rmtree(doomed)


@contextlib.contextmanager
def lock_directory(path: Path) -> Iterator[bool]:
    """Hold a directory, made if it is not there, against other writers for the length of a block.

    The lock is on the directory itself: it leaves no file behind and ends with the process, however that ends. Yields
    whether there is a lock: some network file systems have none. Raises InputError if another process holds it.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a directory to write to.")
    make_directory(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _lock(descriptor, path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{path}: another process is writing there; wait until it has ended, or name another folder."
        ) from None
    except (ImportError, OSError):
        return False
    return True


def sha256_file(path: Path, start: int = 0, stop: int | None = None) -> str:
    """Return the SHA-256, in hex, of the bytes [start, stop) of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        file.seek(start)
        left = (Path(path).stat().st_size if stop is None else stop) - start
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of an ordinary file of at most `limit_bytes`; raise InputError before a longer one is read."""
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a device has no end, and a pipe may never begin
        raise InputError(f"{path}: is no ordinary file.")
    if status.st_size > limit_bytes:
        raise InputError(f"{path}: {status.st_size} bytes, more than the {limit_bytes} that such a file may have.")
    with path.open("rb") as file:
        return file.read(status.st_size)


def parse_json(data: bytes, place: str) -> Any:
    """Return the value in JSON of at most JSON_VALUES values; raise InputError naming the place, line and column."""
    if sum(map(data.count, (b",", b"[", b"{"))) > JSON_VALUES:
        raise InputError(f"{place}: more than the {JSON_VALUES} values that such a record may have.")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\u" in data:  # half a surrogate pair can be written so, and could not be written again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8; this is not a JSON file of rnnpipe.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{place}, line {error.lineno}, column {error.colno}: {error.msg} (not valid JSON).") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise InputError(f"{place}: not JSON that can be read: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_json(path: Path, limit_bytes: int = JSON_BYTES) -> Any:
    """Return the value in a JSON file of at most `limit_bytes`; raise InputError naming the file, line and column."""
    return parse_json(read_bounded(path, limit_bytes), str(path))


def read_toml(path: Path, limit_bytes: int = TOML_BYTES) -> dict[str, Any]:
    """Return the tables of a TOML file of at most `limit_bytes`; raise InputError naming the file and the line."""
    data = read_bounded(path, limit_bytes)
    # Time and memory of Python's reader grow with the square of the parts of a dotted key.
    if any(line.count(b".") > _TOML_DOTS for line in data.splitlines()):
        raise InputError(f"{path}: a line with more than {_TOML_DOTS} dots; no key is that deep. Break the line.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; TOML is UTF-8.") from None
    except (ValueError, RecursionError) as error:  # TOML that is not, or a number of thousands of digits
        raise InputError(f"{path}: not valid TOML: {error}.") from None


class HasLines(Protocol):
    """What lines can be read from."""

    def readline(self, limit: int, /) -> bytes:
        """Return the next line with its end, at most `limit` bytes of it; nothing at the end."""
        ...


def read_lines(file: HasLines, name: str, limit_bytes: int = LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a file; raise InputError, naming the file, for one of more than `limit_bytes`."""
    for number in itertools.count(1):
        line = file.readline(limit_bytes + 1)
        if len(line) > limit_bytes:
            raise InputError(f"{name}, line {number}: more than the {limit_bytes} bytes that a line may have here.")
        if not line:
            return
        yield line


def read_record(path: Path, format_name: str, version: int, *, sealed: bool = False) -> dict[str, Any]:
    """Return the JSON object that names itself as of a format and version; raise InputError for anything else.

    A record that has its own digest must agree with it; with `sealed` it must have one.
    """
    data = read_bounded(path, JSON_BYTES)
    record = parse_json(data, str(path))
    if not isinstance(record, dict) or record.get("format") != format_name:
        raise InputError(f"{path}: not a file of the format {format_name}, which is expected here.")
    if record.get("version") != version:
        raise InputError(f"{path}: {format_name} version {record.get('version')!r}; this rnnpipe reads {version}.")
    if sealed or "sha256" in record:
        check_seal(data, path)
    record.pop("sha256", None)
    return record


def check_seal(data: bytes, path: Path) -> None:
    """Raise InputError unless a record's bytes end with the digest of the rest."""
    seal = _SEAL.search(data)
    if seal is None or hashlib.sha256(data[: seal.start()] + b"\n}\n").hexdigest() != seal[1].decode():
        raise InputError(f"{path}: does not end with the SHA-256 of what stands before: damaged, or changed by hand.")
