"""Words of bytes looked up by the block in NumPy, for byte tables without the C extension.

A word of up to 16 bytes is two numbers; a hash of them says which slot of a table may hold it. A slot holds one word:
what finds another one there, and what is longer, is left to the caller, who has a dictionary. Frequent words come first
and so have slots, and few of a text's words are left over.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BITS = 17
_SLOTS = 1 << _BITS
_LONGEST = 16
_BLANK = bytes(bytes([byte]).isspace() for byte in range(256))
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # keeps the first bytes of eight
_LOW_SIZE = np.minimum(np.arange(_LONGEST + 2), 8)
_HIGH_SIZE = np.clip(np.arange(_LONGEST + 2) - 8, 0, 8)
_LOW_MASK, _HIGH_MASK = _MASKS[_LOW_SIZE], _MASKS[_HIGH_SIZE]  # by length
_ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)

Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """The words of a block, in order: where they stand in `padded`, and each one's key and slot [N]."""

    padded: bytes
    starts: Numbers
    ends: Numbers
    low: Numbers
    high: Numbers
    length: Numbers  # at most _LONGEST + 1, which stands for all longer ones
    slot: Numbers

    def word(self, at: int) -> bytes:
        """Return a word."""
        return self.padded[self.starts[at] : self.ends[at]]


def find_words(block: bytes) -> Found:
    """Return what is split at blanks in a block, as `bytes.split` does."""
    padded = b" " + block + b" " * _LONGEST
    data = np.frombuffer(padded, np.uint8)
    blank = np.frombuffer(padded.translate(_BLANK), np.bool_)
    edges = np.flatnonzero(blank[1:] != blank[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    length = np.minimum(ends - starts, _LONGEST + 1)
    eight = np.ndarray((len(data) - 7,), "<u8", buffer=padded, strides=(1,))  # the eight bytes from each place on
    low = eight[starts] & _LOW_MASK[length]
    high = eight[np.minimum(starts + 8, len(eight) - 1)] & _HIGH_MASK[length]
    slot = ((low ^ high * _ODD[0]) * _ODD[1]) >> np.uint64(64 - _BITS)
    return Found(padded, starts, ends, low, high, length, slot.astype(np.int64))


class WordSlots:
    """A table from words to slots, which the words that come first take."""

    def __init__(self) -> None:
        self._low = np.zeros(_SLOTS, np.uint64)
        self._high = np.zeros(_SLOTS, np.uint64)
        self._length = np.zeros(_SLOTS, np.uint8)  # 0: the slot is free

    def put(self, found: Found) -> None:
        """Give the words that find a free slot that slot, of several the first."""
        free = np.flatnonzero((self._length[found.slot] == 0) & (found.length <= _LONGEST))
        slots, first = np.unique(found.slot[free], return_index=True)
        at = free[first]
        self._low[slots] = found.low[at]
        self._high[slots] = found.high[at]
        self._length[slots] = found.length[at]

    def has(self, found: Found) -> npt.NDArray[np.bool_]:
        """Say of each word whether it has its slot [N]."""
        slot = found.slot
        same: npt.NDArray[np.bool_] = self._low[slot] == found.low
        same &= self._high[slot] == found.high
        same &= self._length[slot] == found.length
        return same

    def words(self, slots: Numbers) -> list[bytes]:
        """Return the words of slots that are taken."""
        both = np.stack([self._low[slots], self._high[slots]], 1).astype("<u8").tobytes()
        sizes = self._length[slots].tolist()
        return [both[at : at + size] for at, size in zip(range(0, len(both), _LONGEST), sizes, strict=True)]


class SlotEncoder:
    """Turns the words of blocks into ids.

    words: frequent ones first; the id of each is its place. ids: has an answer for any word, and is asked for those
    without a slot.
    """

    def __init__(self, words: Sequence[bytes], ids: Mapping[bytes, int]) -> None:
        self._ids = ids
        self._slots = WordSlots()
        whole = np.array([len(word.split()) == 1 for word in words], np.bool_)  # none else can be in a block
        found = find_words(b" ".join(itertools.compress(words, whole)))
        self._slots.put(found)
        has = self._slots.has(found)
        self._slot_ids = np.zeros(_SLOTS, np.uint32)
        self._slot_ids[found.slot[has]] = np.flatnonzero(whole)[has]

    def encode(self, block: bytes) -> npt.NDArray[np.uint32]:
        """Return the ids of the words of a block."""
        found = find_words(block)
        encoded = self._slot_ids[found.slot]
        for at in np.flatnonzero(~self._slots.has(found)).tolist():
            encoded[at] = self._ids[found.word(at)]
        return encoded


class SlotCounter:
    """Counts the words of blocks."""

    def __init__(self) -> None:
        self._slots = WordSlots()
        self._counts = np.zeros(_SLOTS, np.int64)
        self._others: dict[bytes, int] = {}

    def update(self, block: bytes) -> None:
        """Count the words of a block."""
        found = find_words(block)
        self._slots.put(found)
        has = self._slots.has(found)
        np.add.at(self._counts, found.slot[has], 1)
        for at in np.flatnonzero(~has).tolist():
            word = found.word(at)
            self._others[word] = self._others.get(word, 0) + 1

    def counts(self) -> dict[bytes, int]:
        """Return how often each word occurred."""
        slots = np.flatnonzero(self._counts)
        return dict(zip(self._slots.words(slots), self._counts[slots].tolist(), strict=True)) | self._others
