"""Unpacking archives that nobody vouches for: regular files only, inside the target, under a cap of bytes.

Anything else in an archive (a link, a device, a name that leads elsewhere) refuses the whole of it.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rnnpipe.durable import atomic_directory
from rnnpipe.errors import InputError

_CHUNK = 1 << 20
_MEMBERS = 100_000
# What Python's readers of tar and zip keep in memory is bounded by what they are given to read.
_TAR_HEADERS = 1 << 16  # of one member, long names and extended headers included
_ZIP_DIRECTORY = 1 << 23
_PART = re.compile(r"[^/\\]{1,255}")
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    RuntimeError,
    IndexError,  # zipfile, of a member without a name
)

Member = tuple[str, IO[bytes]]


def unpack(archive: Path, folder: Path, limit_bytes: int, name: str | None = None) -> None:
    """Unpack a .tar.gz, .tgz or .zip into `folder`, which appears whole or not at all; `name` is what people call it.

    Raises InputError, naming the member, for one that is no regular file or folder, whose name is absolute, has `..` or
    stands twice, for more than `limit_bytes` in all, and for an archive that is damaged.
    """
    name = name or archive.name
    read_members = _zip_members if name.endswith(".zip") else _tar_members
    left = limit_bytes
    with atomic_directory(folder) as temporary, archive.open("rb") as opened:
        for number, (member, source) in enumerate(read_members(opened, name, limit_bytes), 1):
            if number > _MEMBERS:
                raise InputError(f"{name}: has more than {_MEMBERS} files.")
            with _create(temporary, member, name) as file:
                while chunk := _read(source, min(_CHUNK, left + 1), name):
                    left -= len(chunk)
                    if left < 0:
                        raise InputError(f"{name}: its files have more than the {limit_bytes} bytes promised.")
                    file.write(chunk)


def _create(folder: Path, member: str, name: str) -> IO[bytes]:
    """Open a new file of a member's name; raise InputError if the name leads elsewhere or is taken."""
    parts = member.split("/")
    good = all(_PART.fullmatch(part) and part.isprintable() and part not in (".", "..") for part in parts)
    if not good or len(parts) > 32 or ":" in parts[0]:
        raise InputError(f"{name}: has a file named {member[:80]!r}, which may not be inside the target.")
    path = folder.joinpath(*parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{name}: has {member[:80]!r} twice, or as a file and as a folder.") from None


def _read(source: IO[bytes], size: int, name: str) -> bytes:
    with _naming(name):
        return source.read(size)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading an archive into an InputError that names it."""
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{name}: not an archive that can be read: {error}.") from None


class _Bounded:
    """A stream that gives out no more bytes than its allowance."""

    def __init__(self, stream: IO[bytes], name: str, allowance: int) -> None:
        self.allowance = allowance
        self._stream = stream
        self._name = name
        self.tell, self.seek, self.seekable = stream.tell, stream.seek, stream.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self.allowance + 1 if size < 0 else min(size, self.allowance + 1))
        self.allowance -= len(data)
        if self.allowance < 0:
            raise InputError(f"{self._name}: its headers are larger than any that files need.")
        return data


def _tar_members(opened: IO[bytes], name: str, limit_bytes: int) -> Iterator[Member]:
    end = limit_bytes + _MEMBERS * 2 * tarfile.BLOCKSIZE
    with _naming(name), gzip.open(opened) as stream:
        bounded = _Bounded(cast(IO[bytes], stream), name, _TAR_HEADERS)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as tar:
            while (member := tar.next()) is not None:
                if not member.isdir():
                    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                        raise InputError(f"{name}: {member.name[:80]!r} is a link, a device or the like, and no file.")
                    source = tar.extractfile(member)
                    assert source is not None, "it is a file"
                    bounded.allowance = member.size
                    yield member.name.removeprefix("./"), source
                tar.members = []  # type: ignore[attr-defined] # it would keep them all, each with its headers
                tar.pax_headers = {}
                bounded.allowance = _TAR_HEADERS
        # To tarfile a damaged header is the end. Behind the true end are zeros, and the checksum of all.
        while rest := stream.read(_CHUNK):
            if rest.strip(b"\0") or stream.tell() > end:
                raise InputError(f"{name}: not an archive that can be read: its list of files breaks off.")


def _zip_members(opened: IO[bytes], name: str, limit_bytes: int) -> Iterator[Member]:
    bounded = _Bounded(opened, name, _ZIP_DIRECTORY)
    with _naming(name), zipfile.ZipFile(cast(IO[bytes], bounded)) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise InputError(f"{name}: {member.filename[:80]!r} is a link, a device or the like, and no file.")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"{name}: {member.filename[:80]!r} is encrypted, or compressed in another way than deflate."
                )
            bounded.allowance = member.compress_size + _TAR_HEADERS
            with archive.open(member) as source:
                yield member.filename, source
