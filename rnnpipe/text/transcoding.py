"""From bytes as they come, compressed and in any encoding, to UTF-8, a piece at a time."""

from __future__ import annotations

import bz2
import codecs
import gzip
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rnnpipe.errors import InputError, UsageError
from rnnpipe.text.files import Errors, count_lines, not_text

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PIECE = 1 << 20
_ZSTANDARD_PIECE = 1 << 14  # of compressed bytes, which may become many times as many
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; what it gives is decompressed if the name ends in .gz, .bz2, .xz or .zst.

    Raises InputError, also while it is read, if it is not compressed as its name says, or damaged.
    """
    opened: Any
    damaged: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError)
    if path.suffix == ".zst":
        zstandard = _import_zstandard(path)
        opened, damaged = _ZstandardFile(path, zstandard), (EOFError, zstandard.ZstdError)
    else:
        opened = _OPENERS.get(path.suffix, Path.open)(path, "rb")
    with opened:
        try:
            yield opened
        except damaged as error:
            raise InputError(f"{path}: damaged, or not compressed as its name says: {error}.") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise InputError(f"{path}: damaged, or not compressed as its name says: {error}.") from None


class _ZstandardFile:
    """What a .zst file gives, whole frames only: the reader of the package takes one that was cut for its end."""

    def __init__(self, path: Path, module: Any) -> None:
        self._module = module
        self._file = path.open("rb")
        self._frame: Any = None
        self._ahead = b""

    def __enter__(self) -> _ZstandardFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return the next bytes, any number of them; nothing at the end."""
        while data := self._ahead or self._file.read(_ZSTANDARD_PIECE):
            if self._frame is None:
                self._frame = self._module.ZstdDecompressor().decompressobj()
            found: bytes = self._frame.decompress(data)
            self._ahead = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
            if found:
                return found
        if self._frame is not None:
            raise EOFError("it ends before its last frame does")
        return b""


def _import_zstandard(path: Path) -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise UsageError(f"{path}: reading .zst needs the package zstandard: pip install 'rnnpipe[zst]'.") from None


def detect_encoding(path: Path, name: str, encodings: Sequence[str], errors: Errors) -> str:
    """Return the encoding of an uncompressed file: by byte-order mark, otherwise the first that reads all of it.

    A single encoding is taken at its word, but for UTF-8, for which a file may turn out to be UTF-16 by its mark. Where
    none fits, the first is the answer if `errors` are mended; otherwise InputError is raised.
    """
    if len(encodings) == 1 and encodings[0] != "utf-8":
        return encodings[0]
    with path.open("rb") as file:
        mark = file.read(4)
    if is_utf16(mark):
        return "utf-16"
    if len(encodings) == 1 or mark.startswith(codecs.BOM_UTF8):
        return "utf-8"
    for encoding in encodings:
        if _reads(path, encoding):
            return encoding
    if errors != "strict":
        return encodings[0]
    raise InputError(f"{name}: not valid in any of {', '.join(encodings)}; name its encoding with --encoding.")


def is_utf16(start: bytes) -> bool:
    """Say whether a file that begins with these bytes, four at least, has the mark of UTF-16."""
    return start.startswith(_UTF16) and not start.startswith(codecs.BOM_UTF32_LE)


def _reads(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def copy_as_utf8(source: BinaryIO, name: str, target: Path, encoding: str, errors: Errors) -> int:
    """Copy `source` to `target` as UTF-8; return the bytes that were mended.

    What is UTF-8 already is copied as it is, and checked later.
    """
    mended = 0

    def mend(error: UnicodeError) -> tuple[str | bytes, int]:
        nonlocal mended
        assert isinstance(error, UnicodeDecodeError)
        mended += error.end - error.start
        return "\ufffd" if errors == "replace" else "", error.end

    codecs.register_error("rnnpipe-mend", mend)
    handler = "strict" if errors == "strict" else "rnnpipe-mend"
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)(handler)
    lines = position = 0
    with target.open("wb") as file:
        while True:
            chunk = source.read(_PIECE)
            if decoder is None:
                data = chunk
            else:
                held = len(decoder.getstate()[0])
                try:
                    data = decoder.decode(chunk, final=not chunk).encode("utf-8")
                except UnicodeDecodeError as error:
                    at = position - held + error.start
                    line = lines + 1 + _decoded_lines(error.object[: error.start], encoding)
                    raise InputError(not_text(name, line, at, error.object[error.start], encoding)) from None
                except UnicodeEncodeError:
                    raise InputError(
                        f"{name}, line {lines + 1} or later: read as {encoding} it holds half a surrogate pair, which "
                        "is no character; name another encoding with --encoding."
                    ) from None
                except UnicodeError as error:  # encodings that are no encodings of files, such as idna
                    raise InputError(f"{name}: cannot be read as {encoding}: {error}.") from None
                lines += count_lines(data)
            file.write(data)
            position += len(chunk)
            if not chunk:
                break
    return mended


def _decoded_lines(data: bytes, encoding: str) -> int:
    """Return the number of line ends in bytes of an encoding; 0 for one that cannot read a piece of a text."""
    try:
        return data.decode(encoding, "ignore").count("\n")
    except UnicodeError:
        return 0
