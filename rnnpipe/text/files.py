"""Text files as bytes to read: checking that they are text, and cutting them into blocks for workers.

Inside, every text is UTF-8 on disk with `\\n` as the only line end; opening.py sees to that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from rnnpipe.errors import InputError
from rnnpipe.text.native import count_characters

Errors = Literal["strict", "replace", "ignore"]
BLOCK_BYTES = 1 << 18  # small enough that a block's words stay in the processor's cache while they are counted
LINE_BYTES = 1 << 20  # a longer line may be cut at a blank
WORD_BYTES = 1 << 24  # a longer run without a blank is no text
_WINDOW = 1 << 16


@dataclass(frozen=True)
class TextFile:
    """The bytes [start, stop) of a UTF-8 file; `name` is what people call it."""

    name: str
    path: Path
    start: int
    stop: int
    mended: int = 0  # bytes that were not of the encoding, replaced or left out when it was copied to UTF-8

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Block:
    """A piece of a text file that ends at a line end where there is one: what a worker is handed."""

    file: TextFile
    start: int
    stop: int


def not_text(name: str, line: int, offset: int, value: int, encoding: str) -> str:
    return (
        f"{name}, line {line}, byte {offset} (0x{value:02x}): not valid {encoding}. Name the file's encoding with "
        "--encoding (cp1252, cp932, utf-16, ...), or pass --errors replace or --errors ignore "
        "(for train: --set data.dataset.encoding=NAME, --set data.dataset.errors=replace)."
    )


def cut_blocks(text: TextFile, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the blocks of a text, in order, each of about `block_bytes` and ending at a line end.

    In a line longer than LINE_BYTES a block may end at a blank. Raises InputError where WORD_BYTES have no blank.
    """
    with text.path.open("rb") as file:
        start = text.start
        while start < text.stop:
            stop = start + block_bytes
            stop = text.stop if stop >= text.stop else _next_cut(file, stop, text)
            yield Block(text, start, stop)
            start = stop


def _next_cut(file: BinaryIO, position: int, text: TextFile) -> int:
    """Return the first position behind a line end at or after `position`; in a long line, the first behind a blank.

    Line ends are LF, CR LF, and CR alone.
    """
    blank = None
    at = position
    file.seek(at)
    while at < text.stop:
        if blank is not None and at - position > LINE_BYTES:
            return blank
        if at - position > WORD_BYTES:
            raise InputError(
                f"{text.name}, line {_line_of(text.path, position)}, byte {position}: {WORD_BYTES >> 20} MiB without "
                "a blank or a line end; this is not text in words. Use --level char, or check the file."
            )
        window = file.read(min(_WINDOW, text.stop - at))
        if window.endswith(b"\r") and at + len(window) < text.stop:
            window += file.read(1)  # is it CR alone?
        if end := _line_end(window):
            return at + end
        if blank is None and (space := window.find(b" ")) >= 0:
            blank = at + space + 1
        at += len(window)
    return text.stop


def _line_end(data: bytes) -> int:
    """Return the place behind the first line end, 0 if there is none; a search for one byte is the fastest there is."""
    newline = data.find(b"\n")
    carriage_return = data.find(b"\r", 0, newline if newline >= 0 else len(data))
    if carriage_return < 0:
        return newline + 1
    return carriage_return + 1 + data.startswith(b"\n", carriage_return + 1)


def cut_characters(text: TextFile, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the blocks of a text cut between any two characters, for rules and tokens that do not look across them."""
    start = text.start
    while start < text.stop:
        stop = character_boundary(text, min(start + block_bytes, text.stop))
        yield Block(text, start, stop)
        start = stop


def character_boundary(text: TextFile, position: int) -> int:
    """Return the first position at or after `position` where a character begins and no CR LF pair is parted."""
    if position >= text.stop:
        return text.stop
    if position <= text.start:
        return text.start
    with text.path.open("rb") as file:
        file.seek(position - 1)
        window = file.read(5)
    if window[0:2] == b"\r\n":
        return position + 1
    continuation = next((n for n, byte in enumerate(window[1:]) if byte & 0xC0 != 0x80), len(window) - 1)
    return min(position + continuation, text.stop)


def line_boundary(text: TextFile, position: int) -> int:
    """Return the first position at or after `position` that follows a line end (or a blank, in a very long line)."""
    if position >= text.stop:
        return text.stop
    if position <= text.start:
        return text.start
    with text.path.open("rb") as file:
        file.seek(position - 1)
        between = file.read(2) == b"\r\n"
        return position + 1 if between else _next_cut(file, position - 1, text)


@dataclass(frozen=True)
class BlockText:
    """A block as it was read: valid UTF-8 without NUL, line ends as they stand, and the bytes that were mended."""

    raw: bytes
    mended: int
    characters: int  # of `text`

    @functools.cached_property
    def text(self) -> str:
        """Return the block as text with `\\n` line ends."""
        text = self.raw.decode("utf-8")
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_block(block: Block, errors: Errors) -> BlockText:
    """Read a block and check that it is text.

    Raises InputError, naming file, line, byte and value, if a byte is wrong and `errors` is "strict"; otherwise it is
    replaced by U+FFFD or left out, and counted.
    """
    with block.file.path.open("rb") as file:
        file.seek(block.start)
        raw = file.read(block.stop - block.start)
    characters = count_characters(raw)
    if characters is not None and characters >= 0:
        return BlockText(raw, 0, characters)
    mended = 0
    if b"\0" in raw:
        if errors == "strict":
            at = block.start + raw.index(b"\0")
            raise InputError(
                f"{block.file.name}, line {_line_of(block.file.path, at)}, byte {at}: NUL (0x00) in a text. "
                "If it is UTF-16 pass --encoding utf-16-le or utf-16-be; otherwise --errors replace or --errors ignore."
            )
        mended = raw.count(b"\0")
        raw = raw.replace(b"\0", b"\xef\xbf\xbd" if errors == "replace" else b"")
    try:
        length = len(raw) if raw.isascii() else len(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        if errors == "strict":
            at = block.start + error.start
            line = _line_of(block.file.path, at)
            raise InputError(not_text(block.file.name, line, at, raw[error.start], "utf-8")) from None
        kept = raw.decode("utf-8", "ignore").encode()
        mended += len(raw) - len(kept)
        raw = kept if errors == "ignore" else raw.decode("utf-8", "replace").encode()
        length = len(raw.decode("utf-8"))
    return BlockText(raw, mended, length - raw.count(b"\r\n") if b"\r" in raw else length)


def _line_of(path: Path, position: int) -> int:
    """Return the line, counted from 1, in which a byte stands."""
    lines, before = 1, b""
    with path.open("rb") as file:
        while position > 0 and (chunk := file.read(min(position, 1 << 20))):
            lines += count_lines(chunk) - (before == b"\r" and chunk.startswith(b"\n"))
            before = chunk[-1:]
            position -= len(chunk)
    return lines


def count_lines(data: bytes) -> int:
    """Return the number of line ends: LF, CR LF, and CR alone."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def total_bytes(texts: Iterable[TextFile]) -> int:
    """Return the size of all texts in bytes."""
    return sum(text.size for text in texts)
