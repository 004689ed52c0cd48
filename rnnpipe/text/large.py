"""Dictionaries larger than memory: written from merged runs, the same to the byte as `Vocabulary.save` writes them.

Merged runs come by ascending token. The file goes by descending count first, so lines are put into a file for each low
count, where they are in order already; the few tokens with higher counts are sorted, in runs of their own if need be.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rnnpipe.durable import atomic_file, sha256_file
from rnnpipe.text.rules import TextRules
from rnnpipe.text.runs import TYPE_BYTES, Batch, Spill
from rnnpipe.text.vocabulary import Summary, escape, header_line, seal, sort_counted, unescape

_LOW = 128  # counts up to this have a file each
_CHUNK = 1 << 20
_ESCAPED = re.compile(rb"[\\\t\n\r\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_KEY = 20  # digits before a token that make descending counts ascend
_TOP = 10**_KEY - 1


def write_dictionary(
    path: Path,
    spill: Spill,
    rules: TextRules,
    *,
    unknown_threshold: int,
    max_size: int | None,
    counted: Iterable[dict[str, Any]],
    characters: int,
    check: Callable[[int, int], None] = lambda kept, most: None,
) -> Summary:
    """Write the dictionary file of the counts that have been spilled, whole and durable; return its figures.

    `check` hears, before, how many tokens have an id and how often the most frequent one occurs; it may raise.
    """
    counted = sort_counted(counted)
    with contextlib.ExitStack() as stack:
        lines = _ByCount(spill, stack)
        for batch in spill.merged():
            lines.add(batch)
        header = header_line(
            rules,
            unknown_threshold=unknown_threshold,
            max_size=max_size,
            characters=characters,
            tokens=lines.total,
            types=lines.types,
            counted=counted,
        )
        kept, covered = lines.kept(unknown_threshold, max_size)
        check(kept, lines.most)
        near = _Near(kept)
        file = stack.enter_context(atomic_file(path))
        digest = hashlib.sha256(header + b"\n")
        file.write(seal(header, digest.hexdigest()) + b"\n")  # the right digest takes this one's place
        for data in lines.in_order():
            digest.update(data)
            file.write(data)
            near.look(data)
        file.seek(0)
        file.write(seal(header, digest.hexdigest()))
    return Summary(
        rules=rules,
        kept=kept,
        types=lines.types,
        total=lines.total,
        covered=covered,
        unknown_threshold=unknown_threshold,
        max_size=max_size,
        characters=characters,
        characters_in_tokens=lines.characters,
        digest=sha256_file(path),
        last_kept=tuple(near.lines(kept - Summary.SHOWN, kept)),
        first_unknown=tuple(near.lines(kept, kept + Summary.SHOWN)),
    )


class _ByCount:
    """Lines of a dictionary, which come by token and leave by descending count."""

    def __init__(self, spill: Spill, stack: contextlib.ExitStack) -> None:
        self.types = self.total = self.characters = 0
        self._types_by_count: Counter[int] = Counter()
        self._folder = spill.folder
        self._stack = stack
        self._low: dict[int, IO[bytes]] = {}
        self._high: dict[bytes, int] = {}
        self._high_bytes = 0
        self._spill = Spill(spill.folder / "high", spill.max_bytes)
        self._spill.folder.mkdir()

    def add(self, batch: Batch) -> None:
        """Take the next tokens."""
        self.types += len(batch.counts)
        self.total += int(batch.counts.sum())
        self.characters += int((batch.lengths().astype(np.uint64) * batch.counts).sum())
        self._types_by_count.update(batch.counts.tolist())
        to_escape = _ESCAPED.search(batch.raw) is not None
        lines: dict[int, list[bytes]] = {}
        for token, count in zip(batch.tokens(), batch.counts.tolist(), strict=True):
            if count <= _LOW:
                line = escape(token.decode()).encode() if to_escape else token
                lines.setdefault(count, []).append(line)
            else:
                self._high[b"%020d%b" % (_TOP - count, token)] = count
                self._high_bytes += len(token) + TYPE_BYTES
        for count, some in lines.items():
            start = b"%d\t" % count
            self._file(count).write(start + (b"\n" + start).join(some) + b"\n")
        if self._high_bytes > self._spill.count_bytes // 2:
            self._spill_high()

    @property
    def most(self) -> int:
        """Return how often the most frequent token occurs."""
        return max(self._types_by_count)

    def kept(self, unknown_threshold: int, max_size: int | None) -> tuple[int, int]:
        """Return how many tokens have an id of their own, and how often those occur together."""
        room = self.types if max_size is None else max_size
        kept = covered = 0
        for count in sorted(self._types_by_count, reverse=True):
            if count <= unknown_threshold:
                break
            some = min(self._types_by_count[count], room - kept)
            kept += some
            covered += some * count
        return kept, covered

    def in_order(self) -> Iterator[bytes]:
        """Yield the lines of the file, in pieces."""
        self._spill_high()
        for batch in self._spill.merged():
            pairs = zip(batch.raw.split(b"\xff"), batch.counts.tolist(), strict=False)
            yield b"".join(b"%d\t%b\n" % (count, escape(key[_KEY:].decode()).encode()) for key, count in pairs)
        for count in sorted(self._low, reverse=True):
            file = self._low[count]
            file.seek(0)
            while data := file.read(_CHUNK):
                yield data

    def _file(self, count: int) -> IO[bytes]:
        if count not in self._low:
            opened = (self._folder / f"count-{count}").open("w+b", buffering=1 << 16)
            self._low[count] = self._stack.enter_context(opened)
        return self._low[count]

    def _spill_high(self) -> None:
        if self._high:
            self._spill.write(self._high)
            self._high, self._high_bytes = {}, 0


class _Near:
    """The lines near a place in the file, which comes in pieces."""

    def __init__(self, place: int) -> None:
        self._wanted = range(max(0, place - Summary.SHOWN), place + Summary.SHOWN)
        self._found: dict[int, bytes] = {}
        self._at = 0
        self._rest = b""

    def look(self, data: bytes) -> None:
        """See the next piece."""
        number = data.count(b"\n")
        if self._at <= self._wanted.stop and self._at + number >= self._wanted.start:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for at, line in enumerate(lines, self._at):
                if at in self._wanted:
                    self._found[at] = line
        else:
            self._rest = data[data.rfind(b"\n") + 1 :] if number else self._rest + data
        self._at += number

    def lines(self, first: int, last: int) -> Iterator[tuple[str, int]]:
        """Yield token and count of the lines from `first` to before `last`."""
        for at in range(max(0, first), last):
            if at in self._found:
                count, _, token = self._found[at].partition(b"\t")
                yield unescape(token.decode()), int(count)
