"""Dictionaries in plain formats of others: fairseq's `dict.txt`, and lines of `token TAB count`.

Only tokens with an id are exported, in the order of their ids. What is imported has its counts, but no text that was
counted: the file itself stands in its place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnpipe.durable import read_bounded
from rnnpipe.errors import InputError
from rnnpipe.text.vocabulary import Vocabulary, escape, unescape

_FILE_BYTES = 1 << 32
FAIRSEQ_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_OVERWRITE = "#fairseq:overwrite"  # says that a token spelt like a special is a token of the text
_FILLER = "madeupword{:04d}"  # with the count 0: fills the size up to a multiple
_IS_FILLER = re.compile(r"madeupword[0-9]{4,}")


@dataclass(frozen=True)
class Imported:
    """Tokens with their counts in the order of the file, how many fillers it had, and what it is, as a text counted."""

    counts: dict[str, int]
    fillers: int
    record: dict[str, Any]


def to_fairseq(vocabulary: Vocabulary, name: str, padding_factor: int = 8) -> bytes:
    """Return `dict.txt` as fairseq's preprocessing writes it: `token count`, filled up to a multiple of a size.

    Raises InputError, naming it, for a token that the format cannot hold: one with a line end.
    """
    lines = []
    for number in range(vocabulary.kept):
        token, count = vocabulary.tokens[number], vocabulary.counts[number]
        if "\n" in token or "\r" in token:
            raise InputError(
                f"{name}: the token {token!r} has a line end, which no line of fairseq's dict.txt can hold; fairseq "
                "reads a text line by line. Clean the text into words, or export --format text."
            )
        lines.append(f"{token} {count}{f' {_OVERWRITE}' if token in FAIRSEQ_SPECIALS else ''}\n")
    missing = -(vocabulary.kept + len(FAIRSEQ_SPECIALS)) % padding_factor
    free = (filler for k in range(2 * missing + vocabulary.kept) if (filler := _FILLER.format(k)) not in vocabulary.ids)
    lines += [f"{filler} 0\n" for filler, _ in zip(free, range(missing), strict=False)]
    return "".join(lines).encode()


def read_fairseq(path: Path) -> Imported:
    """Read fairseq's `dict.txt`; raise InputError naming the line of whatever is wrong with it."""
    counts: dict[str, int] = {}
    fillers = 0
    data = read_bounded(path, _FILE_BYTES)
    for number, line in _lines(path, data):
        rest, blank, last = line.rpartition(" ")
        overwrite = last == _OVERWRITE
        token, blank, count = rest.rpartition(" ") if overwrite else (rest, blank, last)
        if not blank or not token or not _is_count(count):
            raise InputError(
                f"{path}, line {number}: expected `token count`, as in fairseq's dict.txt; found {line[:60]!r}."
            )
        if token in FAIRSEQ_SPECIALS and not overwrite:
            raise InputError(
                f"{path}, line {number}: '{token}' is a special of fairseq; as a token of the text it has {_OVERWRITE} "
                "behind its count."
            )
        if int(count) == 0 and _IS_FILLER.fullmatch(token):
            fillers += 1
            continue
        _add(counts, token, int(count), path, number)
    return Imported(counts, fillers, _record(path, data))


def to_text(vocabulary: Vocabulary) -> bytes:
    """Return lines of `token TAB count`; backslash, tab and line ends in a token are escaped as in a dictionary."""
    return "".join(f"{escape(vocabulary.tokens[k])}\t{vocabulary.counts[k]}\n" for k in range(vocabulary.kept)).encode()


def read_text(path: Path) -> Imported:
    """Read lines of `token TAB count`; raise InputError naming the line of whatever is wrong with it."""
    counts: dict[str, int] = {}
    data = read_bounded(path, _FILE_BYTES)
    for number, line in _lines(path, data):
        token, tab, count = line.rpartition("\t")
        if not tab or not token or not _is_count(count):
            raise InputError(f"{path}, line {number}: expected `token TAB count`; found {line[:60]!r}.")
        try:
            _add(counts, unescape(token), int(count), path, number)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}.") from None
    return Imported(counts, 0, _record(path, data))


def _lines(path: Path, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers; only a newline ends one."""
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}, line {number}: is not UTF-8.") from None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _add(counts: dict[str, int], token: str, count: int, path: Path, line: int) -> None:
    try:
        token.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}, line {line}: {token!r} is no text.") from None
    if token in counts:
        raise InputError(f"{path}, line {line}: {token!r} stands in two lines; a token has one count.")
    counts[token] = count


def _record(path: Path, data: bytes) -> dict[str, Any]:
    return {
        "name": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "part": "imported",
    }
