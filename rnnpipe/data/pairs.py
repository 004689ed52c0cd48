"""Pairs as ids in memory, and batches of them: bucketed by length, padded, with true lengths.

Shapes: S source tokens, T target tokens, B pairs of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnnpipe.data.windows import Cursor

_POOL_BATCHES = 50  # batches' worth of pairs that are drawn at random and then sorted by length

Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """The texts of one side of a part: all ids one behind the other, and where each text begins, [N + 1]."""

    ids: npt.NDArray[np.uint32]
    offsets: Rows

    @property
    def lengths(self) -> Rows:
        """Return how many tokens each text has."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, number: int) -> npt.NDArray[np.uint32]:
        """Return the ids of one text."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]]


@dataclass(frozen=True)
class Pairs:
    """The two sides of a part, as many texts each."""

    source: Side
    target: Side

    def __len__(self) -> int:
        return len(self.source)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all ids and lengths."""
        digest = hashlib.sha256()
        for array in (self.source.ids, self.source.offsets, self.target.ids, self.target.offsets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def select(self, rows: Rows) -> Pairs:
        """Return some of the pairs."""
        return Pairs(*(side_of([side.text(row) for row in rows.tolist()]) for side in (self.source, self.target)))


@dataclass(frozen=True)
class PairSizes:
    """What a model must know of pairs: how many ids each side has. `joint`: both have the same dictionary."""

    source_size: int
    target_size: int
    joint: bool


def side_of(texts: Sequence[npt.NDArray[np.uint32]]) -> Side:
    """Return texts, given as ids, as one side."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return Side(np.concatenate(texts) if texts else np.zeros(0, np.uint32), offsets)


@dataclass(frozen=True)
class PairBatch:
    """Sources [S, B] and targets [T, B] as ids, padded with the boundary, and their lengths [B].

    A source ends with the boundary; a target begins and ends with it: all but its last id are read, all but its first
    are to be predicted. Lengths count the boundaries that are read: S of the source, T - 1 of the target.
    `items` is how many target tokens are to be predicted, `cursor` where the next batch begins, `epoch` this one's.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    items: int
    cursor: Cursor
    epoch: int = 0
    resets: bool = True

    def to(self, device: torch.device) -> PairBatch:
        """Return the batch on a device."""
        names = ("source", "source_lengths", "target", "target_lengths")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def make_batch(
    pairs: Pairs, rows: Rows, source_end: int, target_end: int, cursor: Cursor = Cursor(), epoch: int = 0
) -> PairBatch:
    """Return some pairs as a batch; the ends are the ids of each side's boundary."""
    source, source_lengths = pad([pairs.source.text(row) for row in rows.tolist()], source_end)
    target, target_lengths = pad([pairs.target.text(row) for row in rows.tolist()], target_end)
    first = torch.full((1, len(rows)), target_end)
    return PairBatch(
        source, source_lengths, torch.cat((first, target)), target_lengths, int(target_lengths.sum()), cursor, epoch
    )


def pad(texts: Sequence[npt.NDArray[np.uint32]], end: int) -> tuple[Tensor, Tensor]:
    """Return texts of ids as [T, B], each with the boundary behind it, and their lengths [B], boundary included."""
    lengths = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
    table = np.full((int(lengths.max()), len(texts)), end, np.int64)
    for column, text in enumerate(texts):
        table[: len(text), column] = text
    return torch.from_numpy(table), torch.from_numpy(lengths)


def pair_batches(
    pairs: Pairs, batch_size: int, source_end: int, target_end: int, seed: int, cursor: Cursor = Cursor()
) -> Iterator[PairBatch]:
    """Yield batches without end, epoch after epoch; the cursor counts batches.

    The order of an epoch is drawn from the seed and the epoch's number.
    """
    epoch, position = cursor.epoch, cursor.position
    while True:
        order = bucket(pairs, batch_size, np.random.default_rng([seed, epoch]))
        for number in range(position, len(order)):
            last = number + 1 == len(order)
            behind = Cursor(epoch + last, 0 if last else number + 1)
            yield make_batch(pairs, order[number], source_end, target_end, behind, epoch)
        epoch, position = epoch + 1, 0


def bucket(pairs: Pairs, batch_size: int, generator: np.random.Generator) -> list[Rows]:
    """Return the rows of each batch of an epoch: every pair once, pairs of like length together.

    Pairs are shuffled, sorted by length (target, then source) within pools of 50 batches, cut into batches, and the
    batches are shuffled: little padding, and yet an order that is random in the large.
    """
    shuffled = generator.permutation(len(pairs))
    source, target = pairs.source.lengths, pairs.target.lengths
    batches: list[Rows] = []
    for first in range(0, len(shuffled), batch_size * _POOL_BATCHES):
        pool = shuffled[first : first + batch_size * _POOL_BATCHES]
        pool = pool[np.lexsort((source[pool], target[pool]))]
        batches += np.split(pool, range(batch_size, len(pool), batch_size))
    return [batches[number] for number in generator.permutation(len(batches))]


def batches_per_epoch(pairs: int, batch_size: int) -> int:
    """Return how many batches `bucket` makes of so many pairs: each pool's last one may be smaller."""
    pools, rest = divmod(pairs, batch_size * _POOL_BATCHES)
    return pools * _POOL_BATCHES + -(-rest // batch_size)
