"""Reading text files: finding them, checking that they are text, and cutting them into blocks for workers.

Inside, every text is UTF-8 on disk with `\\n` as the only line end. Input in another encoding, and standard input, is
copied once into a temporary UTF-8 file, so that everything after it works on byte ranges.
"""

from __future__ import annotations

import codecs
import encodings.aliases
import functools
import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from rnnpipe.errors import InputError, UsageError, did_you_mean
from rnnpipe.text.native import count_characters

Errors = Literal["strict", "replace", "ignore"]
BLOCK_BYTES = 1 << 18  # small enough that a block's words stay in the processor's cache while they are counted
LINE_BYTES = 1 << 20  # a longer line may be cut at a blank
WORD_BYTES = 1 << 24  # a longer run without a blank is no text
_WINDOW = 1 << 16
_LINE_END = re.compile(rb"\r\n|\n|\r")


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


def find_paths(inputs: Sequence[str]) -> list[str]:
    """Return the files that `inputs` name, each once: files, `*.txt` in folders (recursive, sorted), globs and `-`.

    What rnnpipe itself has written below a folder (a cleaned corpus, a token folder, a run) is not taken for text.
    """
    found: dict[str, str] = {}  # by real path

    def add(*names: str) -> None:
        for name in names:
            found.setdefault(name if name == "-" else os.path.realpath(name), name)

    for item in inputs:
        path = Path(item)
        if item == "-" or path.is_file():
            add(item)
        elif path.is_dir():
            texts = _find_texts(path)
            if not texts:
                raise InputError(f"{item}: no *.txt file in this folder or below it.")
            add(*texts)
        elif glob.has_magic(item):
            texts = sorted(text for text in glob.glob(item, recursive=True) if Path(text).is_file())  # noqa: PTH207
            if not texts:
                raise InputError(f"{item}: no file matches this pattern.")
            add(*texts)
        elif path.exists():
            add(item)  # a named pipe or a device: it is read once, like standard input
        else:
            siblings = [str(path.with_name(s.name)) for s in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError(f"{item}: no such file or folder.{did_you_mean(item, siblings)}")
    return list(found.values())


def _find_texts(folder: Path) -> list[str]:
    """Return the `*.txt` below a folder, sorted, less those in outputs of rnnpipe that lie below it."""
    is_output = functools.cache(_is_output)

    def written(text: Path) -> bool:
        return any(is_output(p) for p in text.parents if p != folder and p.is_relative_to(folder))

    found = (text for text in folder.rglob("*.txt") if text.is_file() and not written(text))
    return sorted(str(text) for text in found if not _is_ours(text))


def _is_output(folder: Path) -> bool:
    """Say whether rnnpipe has written this folder."""
    if (folder / "config.toml").is_file() and (folder / "dictionary.txt").is_file():
        return True  # a run
    return any((folder / marker).is_file() and _is_ours(folder / marker) for marker in ("corpus.json", "meta.json"))


def _is_ours(file: Path) -> bool:
    """Say whether a file names itself as of one of rnnpipe's formats: a record, or a dictionary."""
    with file.open("rb") as opened:
        return b'"format": "rnnpipe-' in opened.read(40)


def check_encoding(encoding: str) -> str:
    """Return the codec's own name for `encoding`; raise UsageError with the nearest name if there is none."""
    try:
        info = codecs.lookup(encoding)
    except LookupError:
        names = sorted({name.replace("_", "-") for name in encodings.aliases.aliases.values()})
        raise UsageError(
            f"unknown encoding '{encoding}'.{did_you_mean(encoding, names)} Examples: utf-8, utf-16, cp1252, cp932."
        ) from None
    if not getattr(info, "_is_text_encoding", True):
        raise UsageError(f"'{encoding}' is not an encoding of text. Examples: utf-8, utf-16, cp1252, cp932.")
    return "utf-8" if info.name == "utf-8-sig" else info.name


def open_texts(
    inputs: Sequence[str], spool: Path, encoding: str = "utf-8", errors: Errors = "strict"
) -> list[TextFile]:
    """Return the texts that `inputs` name, as UTF-8 files; what is not UTF-8 on disk is copied into the folder `spool`.

    Raises InputError for a file that is missing, or named itself and empty, and for bytes that are not of the encoding.
    Empty files in a folder or a pattern are passed over.
    """
    encoding = check_encoding(encoding)
    texts = []
    for number, path in enumerate(find_paths(inputs)):
        # A name that is not UTF-8 is still a name, but not one that can be written down.
        name = "standard input" if path == "-" else os.fsencode(path).decode("utf-8", "replace")
        if path == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed; name a file instead of -.")
            text = _spool(sys.stdin.buffer, name, spool / f"{number}.txt", encoding, errors)
        elif encoding != "utf-8" or not Path(path).is_file():
            with Path(path).open("rb") as source:
                text = _spool(source, name, spool / f"{number}.txt", encoding, errors)
        else:
            text = _bounds(name, Path(path))
        if text.size == 0 and path in inputs:
            raise InputError(f"{name}: is empty; give a file with text in it.")
        if text.size:
            texts.append(text)
    if not texts:
        raise InputError(f"{', '.join(inputs)}: every file there is empty; give files with text in them.")
    return texts


def _bounds(name: str, path: Path) -> TextFile:
    with path.open("rb") as file:
        start = 3 if file.read(3) == codecs.BOM_UTF8 else 0
    return TextFile(name, path, start, max(start, path.stat().st_size))


def _spool(source: BinaryIO, name: str, target: Path, encoding: str, errors: Errors) -> TextFile:
    """Copy `source` to `target` as UTF-8; bytes that are UTF-8 already are copied as they are and checked later."""
    target.parent.mkdir(parents=True, exist_ok=True)
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
            chunk = source.read(1 << 20)
            if decoder is None:
                data = chunk
            else:
                held = len(decoder.getstate()[0])
                try:
                    data = decoder.decode(chunk, final=not chunk).encode("utf-8")
                except UnicodeDecodeError as error:
                    at = position - held + error.start
                    line = lines + 1 + _decoded_lines(error.object[: error.start], encoding)
                    raise InputError(_not_text(name, line, at, error.object[error.start], encoding)) from None
                except UnicodeEncodeError:
                    raise InputError(
                        f"{name}, line {lines + 1} or later: read as {encoding} it holds half a surrogate pair, which "
                        "is no character; name another encoding with --encoding."
                    ) from None
                except UnicodeError as error:  # encodings that are no encodings of files, such as idna
                    raise InputError(f"{name}: cannot be read as {encoding}: {error}.") from None
            file.write(data)
            lines += _count_lines(data)
            position += len(chunk)
            if not chunk:
                break
    return replace(_bounds(name, target), mended=mended)


def _decoded_lines(data: bytes, encoding: str) -> int:
    """Return the number of line ends in bytes of an encoding; 0 for one that cannot read a piece of a text."""
    try:
        return data.decode(encoding, "ignore").count("\n")
    except UnicodeError:
        return 0


def _not_text(name: str, line: int, offset: int, value: int, encoding: str) -> str:
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
        if end := _LINE_END.search(window):
            return at + end.end()
        if blank is None and (space := window.find(b" ")) >= 0:
            blank = at + space + 1
        at += len(window)
    return text.stop


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
                f"{_nul_advice(block.file)}"
            )
        mended = raw.count(b"\0")
        raw = raw.replace(b"\0", b"\xef\xbf\xbd" if errors == "replace" else b"")
    try:
        length = len(raw) if raw.isascii() else len(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        if errors == "strict":
            at = block.start + error.start
            line = _line_of(block.file.path, at)
            raise InputError(_not_text(block.file.name, line, at, raw[error.start], "utf-8")) from None
        kept = raw.decode("utf-8", "ignore").encode()
        mended += len(raw) - len(kept)
        raw = kept if errors == "ignore" else raw.decode("utf-8", "replace").encode()
        length = len(raw.decode("utf-8"))
    return BlockText(raw, mended, length - raw.count(b"\r\n") if b"\r" in raw else length)


def _nul_advice(text: TextFile) -> str:
    with text.path.open("rb") as file:
        head = file.read(2)
    if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "It begins like UTF-16: pass --encoding utf-16."
    return "If it is UTF-16 pass --encoding utf-16-le or utf-16-be; otherwise --errors replace or --errors ignore."


def _line_of(path: Path, position: int) -> int:
    """Return the line, counted from 1, in which a byte stands."""
    lines, before = 1, b""
    with path.open("rb") as file:
        while position > 0 and (chunk := file.read(min(position, 1 << 20))):
            lines += _count_lines(chunk) - (before == b"\r" and chunk.startswith(b"\n"))
            before = chunk[-1:]
            position -= len(chunk)
    return lines


def _count_lines(data: bytes) -> int:
    """Return the number of line ends: LF, CR LF, and CR alone."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def total_bytes(texts: Iterable[TextFile]) -> int:
    """Return the size of all texts in bytes."""
    return sum(text.size for text in texts)
