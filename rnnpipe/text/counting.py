"""Counting tokens exactly, on any number of workers, with the same result for any of them."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rnnpipe.errors import InputError
from rnnpipe.text.files import Block, BlockText, Errors, TextFile, cut_blocks, cut_characters, read_block
from rnnpipe.text.native import is_native, word_counter
from rnnpipe.text.rules import LoadRules, Rules
from rnnpipe.text.runs import TYPE_BYTES, Spill
from rnnpipe.text.word_slots import SlotCounter
from rnnpipe.text.workers import map_ordered

if TYPE_CHECKING:
    from rnnpipe.text._native import WordCounter

WHOLE_BYTES = 1 << 23  # of a text that must be cleaned as a whole, which takes 25 times as much memory
_GROUP_BLOCKS = 64  # a task for a worker, 16 MB: few enough results to send back, enough tasks to share out


@dataclass
class Counts:
    """How often each token occurs (keys are UTF-8), the characters read and the bytes that had to be mended."""

    tokens: Counter[bytes] = field(default_factory=Counter)
    characters: int = 0
    mended_bytes: int = 0

    def merge(self, other: Counts) -> None:
        """Add other counts to these."""
        self.tokens.update(other.tokens)
        self.characters += other.characters
        self.mended_bytes += other.mended_bytes

    def take(self, block: Block, errors: Errors) -> BlockText:
        """Read a block, whose characters and mended bytes are added to these."""
        read = read_block(block, errors)
        self.mended_bytes += read.mended
        self.characters += read.characters
        return read


def text_blocks(text: TextFile, rules: Rules) -> Iterator[Block]:
    """Yield the blocks in which these rules may see a text.

    Characters of cleaned text depend on how its blocks are joined, so such a text is one block; `rnnpipe clean` before
    counting keeps blocks small, and is asked for where the text has more than WHOLE_BYTES.
    """
    if not rules.tokenizer.by_character:
        return cut_blocks(text)
    if not rules.cleaner.rules:
        return cut_characters(text)
    if text.size > WHOLE_BYTES:
        raise InputError(
            f"{text.name}: {text.size} bytes, too many to be cleaned as one piece, as their characters must be. Run "
            "`rnnpipe clean` on it and use what that writes."
        )
    return iter([Block(text, text.start, text.stop)])


def count_tokens(
    texts: Sequence[TextFile],
    load_rules: LoadRules,
    *,
    errors: Errors = "strict",
    workers: int = 1,
    spill: Spill | None = None,
    progress: Callable[[int], None] = lambda done_bytes: None,
) -> Counts:
    """Return the exact token counts of all texts; `progress` hears of the bytes read since it was last called.

    Counts that do not fit into the memory that `spill` has are its runs afterwards, all of them, and none are returned.
    """
    rules = load_rules()
    blocks = (block for text in texts for block in text_blocks(text, rules))
    total = Counts(mended_bytes=sum(text.mended for text in texts))
    counters = _Counters(rules, spill, workers) if is_native(rules) else None
    group_blocks = _GROUP_BLOCKS if counters is not None or spill is None else max(1, _GROUP_BLOCKS // 2)
    tasks = ((group, errors) for group in batched(blocks, group_blocks))
    count = _count_group if counters is None else counters.count
    for size, counts in map_ordered(count, load_rules, tasks, workers, threads=counters is not None):
        total.merge(counts)
        progress(size)
        if spill is not None and len(total.tokens) * TYPE_BYTES > spill.count_bytes // 2:
            spill.write(total.tokens)
            total.tokens.clear()
    if counters is not None:
        total.tokens.update(counters.merged())
    elif spill is not None and spill.runs:
        spill.write(total.tokens)
        total.tokens.clear()
    return total


def batched(blocks: Iterable[Block], size: int) -> Iterator[list[Block]]:
    """Yield the blocks in lists of `size`, the last one shorter."""
    iterator = iter(blocks)
    while group := list(itertools.islice(iterator, size)):
        yield group


class _Counters:
    """Counters of the C extension, one for each thread at work."""

    def __init__(self, rules: Rules, spill: Spill | None = None, workers: int = 1) -> None:
        self._rules = rules
        self._spill = spill
        self._most_bytes = sys.maxsize if spill is None else spill.count_bytes // workers
        self._idle: list[WordCounter] = []

    def count(self, rules: Rules, task: tuple[list[Block], Errors]) -> tuple[int, Counts]:
        """Count a group of blocks; return its size and all but the tokens, which stay here."""
        group, errors = task
        counts = Counts()
        counter = self._idle.pop() if self._idle else self._new()
        for block in group:
            read = counts.take(block, errors)
            if self._spill is not None and counter.full(len(read.raw), self._most_bytes):
                self._spill.drain(counter)
            counter.update(read.raw)
        self._idle.append(counter)
        return _size(group), counts

    def merged(self) -> dict[bytes, int]:
        """Return the tokens of all counters, which are done with; none if they go to the runs."""
        types = sum(counter.types() for counter in self._idle)
        if self._spill is not None and (self._spill.runs or types * TYPE_BYTES > self._spill.count_bytes):
            for counter in self._idle:
                self._spill.drain(counter)
            return {}
        first = self._idle.pop() if self._idle else self._new()
        for other in self._idle:
            first.merge(other)
        return first.counts()

    def _new(self) -> WordCounter:
        counter = word_counter(self._rules)
        assert counter is not None
        return counter


def count_blocks(rules: Rules, blocks: Iterable[Block], errors: Errors = "strict") -> Counts:
    """Return the exact token counts of blocks, in this thread; those of any division of a text add up to the same."""
    blocks = list(blocks)
    if not is_native(rules):
        return _count_group(rules, (blocks, errors))[1]
    counters = _Counters(rules)
    counts = counters.count(rules, (blocks, errors))[1]
    counts.tokens.update(counters.merged())
    return counts


def _count_group(rules: Rules, task: tuple[list[Block], Errors]) -> tuple[int, Counts]:
    group, errors = task
    counts = Counts()
    table = rules.byte_table
    slots = SlotCounter()
    words: Counter[str] = Counter()
    points = np.zeros(0, np.int64)
    for block in group:
        read = counts.take(block, errors)
        if rules.tokenizer.by_character:
            points = _add(points, code_points(rules.cleaner.clean(read.text)))
        elif table is not None:
            slots.update(table.letters(read.raw))
        else:
            words.update(rules.tokenize(read.text))
    if table is not None:
        found = slots.counts().items()
        counts.tokens.update({word: count for word, count in found if not word.startswith(table.drop_prefix)})
    counts.tokens.update({word.encode(): number for word, number in words.items()})
    counts.tokens.update({chr(point).encode(): int(points[point]) for point in np.flatnonzero(points)})
    return _size(group), counts


def _size(group: list[Block]) -> int:
    return sum(block.stop - block.start for block in group)


def code_points(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32 | np.uint8]]:
    """Return the characters of a text as an array of code points."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _add(
    total: np.ndarray[tuple[int], np.dtype[np.int64]], points: np.ndarray[tuple[int], np.dtype[np.uint32 | np.uint8]]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    more = np.bincount(points, minlength=len(total)).astype(np.int64)
    more[: len(total)] += total
    return more
