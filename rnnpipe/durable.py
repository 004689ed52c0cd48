"""Files and directories that appear whole or not at all.

Everything rnnpipe publishes is written under a temporary name beside its target, forced to the disk, renamed, and the
rename forced to the disk by an fsync of the parent directory. A reader never sees half a file; after a crash the old
one is still there.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rnnpipe.errors import InputError

# Small files can ask for much memory: a list of empty lists takes 25 times its size. These keep it under 500 MB.
JSON_BYTES = 48 << 20
JSON_VALUES = 1 << 22
TOML_BYTES = 1 << 20
_TOML_DOTS = 200


def fsync_path(path: Path) -> None:
    """Force a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _clear_leftovers(path: Path) -> None:
    """Remove what a killed writer of the same target left behind; a living writer's files stay."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if _is_dead(stale.name.split(".")[-2]):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.aside"):
        if not _is_dead(aside.name.split(".")[-2]):
            continue
        if path.exists():
            shutil.rmtree(aside)
        else:  # its writer died between the two renames of an exchange
            aside.rename(path)


def _is_dead(pid: str) -> bool:
    return pid.isascii() and pid.isdigit() and not _alive(int(pid))


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
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
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


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole and durable."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, whole and durable."""
    write_bytes(path, (json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


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

    An existing `path` is replaced: it is renamed aside, the new one takes its name, and the old one is removed. A crash
    between the two renames leaves neither under that name; the next writer then puts the old one back.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a directory to write to.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    temporary = _temporary(path)
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        yield temporary
        for item in sorted(temporary.rglob("*")):
            fsync_path(item)
        fsync_path(temporary)
        if path.exists():
            aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
            path.rename(aside)
            try:
                temporary.rename(path)
            except BaseException:
                aside.replace(path)
                raise
            shutil.rmtree(aside)
        else:
            temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_file(error, path)
        raise
    fsync_path(path.parent)


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
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8; this is not a JSON file of rnnpipe.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{place}, line {error.lineno}, column {error.colno}: {error.msg} (not valid JSON).") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise InputError(f"{place}: not JSON that can be read: {error}.") from None


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


def read_record(path: Path, format_name: str, version: int) -> dict[str, Any]:
    """Return the JSON object that names itself as of a format and version; raise InputError for anything else."""
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != format_name:
        raise InputError(f"{path}: not a file of the format {format_name}, which is expected here.")
    if record.get("version") != version:
        raise InputError(f"{path}: {format_name} version {record.get('version')!r}; this rnnpipe reads {version}.")
    return record
