"""Batches for training: windows along the text with the state carried between them, or single windows at random.

Shapes: T timesteps of a window, B rows of a batch, K tokens of a single window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rnnpipe.data.tokens import Ids
from rnnpipe.errors import InputError

IGNORED = -100  # a target that counts for nothing: torch's `ignore_index`


@dataclass(frozen=True)
class Cursor:
    """Where training stands in the data: the epoch, and the timesteps (or windows) of it that are done."""

    epoch: int = 0
    position: int = 0


@dataclass(frozen=True)
class Batch:
    """Inputs [T, B] and targets [T, B] (for single windows: [K, B] and [B]), and the cursor behind them.

    `resets` says that the rows begin anew: the state is to be zero. `items` is how many targets count.
    """

    inputs: Tensor
    targets: Tensor
    resets: bool
    items: int
    cursor: Cursor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        inputs, targets = (t.to(device, non_blocking=True) for t in (self.inputs, self.targets))
        return replace(self, inputs=inputs, targets=targets)


def stream_windows(tokens: Ids, batch_size: int, bptt: int, cursor: Cursor = Cursor()) -> Iterator[Batch]:
    """Yield windows of `bptt` timesteps along `batch_size` rows of text, epoch after epoch, without end.

    The text is divided into contiguous rows of equal length (they differ by one token at most; a short text gives fewer
    than `batch_size`); row b of each batch continues row b of the one before. Every token but the first is a target
    once an epoch.
    """
    targets = len(tokens) - 1
    _require(targets, 1, "a token to read and one to predict")
    rows = _rows(targets, batch_size, bptt)
    starts = np.arange(rows) * targets // rows
    ends = (np.arange(rows) + 1) * targets // rows
    longest = int((ends - starts).max())
    epoch, position = cursor.epoch, cursor.position
    while True:
        for start in range(position, longest, bptt):
            steps = np.arange(start, min(start + bptt, longest))[:, None]
            index = np.minimum(starts + steps, targets - 1)
            valid = starts + steps < ends
            following = start + len(steps)
            wanted = torch.from_numpy(tokens[index + 1].astype(np.int64))
            if not valid.all():
                wanted[torch.from_numpy(~valid)] = IGNORED
            done = following >= longest
            yield Batch(
                torch.from_numpy(tokens[index].astype(np.int64)),
                wanted,
                start == 0,
                int(valid.sum()),
                Cursor(epoch + done, 0 if done else following),
            )
        epoch, position = epoch + 1, 0


def _rows(targets: int, batch_size: int, bptt: int) -> int:
    """Return the number of rows: `batch_size`, or fewer where the text is too short to give each a whole window."""
    return max(1, min(batch_size, targets // bptt))


def stream_batches_per_epoch(tokens: int, batch_size: int, bptt: int) -> int:
    """Return how many batches `stream_windows` gives in an epoch."""
    rows = _rows(tokens - 1, batch_size, bptt)
    return math.ceil(math.ceil((tokens - 1) / rows) / bptt)


def single_windows(tokens: Ids, batch_size: int, window: int, seed: int, cursor: Cursor = Cursor()) -> Iterator[Batch]:
    """Yield batches of single windows of `window` tokens, each with the token behind it as target, without end.

    Each epoch takes every window once, in an order drawn from the seed and the epoch's number.
    """
    count = len(tokens) - window
    _require(count, 1, f"a window of {window} tokens and one to predict")
    steps = np.arange(window)[:, None]
    epoch, position = cursor.epoch, cursor.position
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(count)
        for first in range(position, count, batch_size):
            starts = order[first : first + batch_size]
            done = first + len(starts) >= count
            yield Batch(
                torch.from_numpy(tokens[starts + steps].astype(np.int64)),
                torch.from_numpy(tokens[starts + window].astype(np.int64)),
                True,
                len(starts),
                Cursor(epoch + done, 0 if done else first + len(starts)),
            )
        epoch, position = epoch + 1, 0


def reset_windows(tokens: Ids, window: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets [T, B] of consecutive windows, each to be read from a zero state; every target once."""
    targets = len(tokens) - 1
    _require(targets, 1, "a token to read and one to predict")
    whole = targets // window
    steps = np.arange(window)[:, None]
    for first in range(0, whole, batch_size):
        index = np.arange(first, min(first + batch_size, whole)) * window + steps
        yield (
            torch.from_numpy(tokens[index].astype(np.int64)),
            torch.from_numpy(tokens[index + 1].astype(np.int64)),
        )
    if whole * window < targets:
        rest = tokens[whole * window :].astype(np.int64)
        yield torch.from_numpy(rest[:-1, None]), torch.from_numpy(rest[1:, None])


def _require(targets: int, least: int, what: str) -> None:
    if targets < least:
        raise InputError(f"the text has too few tokens: it must hold at least {what}. Give more text.")
