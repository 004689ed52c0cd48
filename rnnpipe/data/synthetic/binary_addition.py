"""The dataset `binary-addition`: two binary numbers, bit by bit, and their sum."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from rnnpipe.data.base import Part, Sequences, Target
from rnnpipe.data.synthetic.drawing import OVERLAP, Draw, Drawn, check_sizes, draw_part
from rnnpipe.errors import UsageError

_WIDEST_WHOLE = 10  # bits: 4^10 pairs, which is 2^20
_WIDEST = 100_000


class BinaryAddition:
    """Two numbers of `width` bits, a pair of bits a timestep, the least significant first; targets: the bits of a + b.

    A sequence has width + 1 timesteps, so that the last carry has a place; at the last one both inputs are 0. The bits
    are uniform.

    train, valid, test: pairs of each part. seed: of the generators, one a part. draw: "apart" (no pair stands in two
    parts) or "independent" (each part from all pairs). all_pairs: the test part is every pair of `width` bits, once.
    loss: on the output as it is, or cross-entropy on its logistic function.

    Under cross-entropy a hit is a sum with every bit right; under squared errors a bit within 0.5. Source: Trask 2015,
    "Anyone can learn to code an LSTM-RNN in Python", whose numbers have 7 bits and the sums 8.
    """

    target: Target = "every"
    continues = False
    tolerance = 0.5

    def __init__(
        self,
        *,
        train: int = 2000,
        valid: int = 200,
        test: int = 500,
        width: int = 7,
        seed: int = 0,
        draw: Draw = "apart",
        all_pairs: bool = False,
        loss: Literal["binary-cross-entropy", "mse"] = "binary-cross-entropy",
    ) -> None:
        check_sizes("dataset 'binary-addition'", train=train, valid=valid, test=test)
        if not 1 <= width <= _WIDEST:
            raise UsageError(f"dataset 'binary-addition': width={width} is not accepted; it is from 1 to {_WIDEST:,}.")
        if all_pairs and width > _WIDEST_WHOLE:
            raise UsageError(
                f"dataset 'binary-addition': all_pairs=true with width={width} would be 4^{width} pairs; "
                f"it takes a width up to {_WIDEST_WHOLE}."
            )
        self.sizes = (train, valid, test)
        self.width = width
        self.seed = seed
        self.draw: Draw = draw
        self.all_pairs = all_pairs
        self.loss = loss
        if draw == "independent" or all_pairs:
            self.overlap = OVERLAP if draw == "independent" else "the test part is all pairs that there are"

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        if self.all_pairs and split == "test":
            numbers = np.arange(2**self.width)
            bits = (numbers[:, None] >> np.arange(self.width)) & 1
            pairs = np.stack(np.broadcast_arrays(bits[:, None], bits[None]), -1).reshape(-1, self.width, 2)
            return _added(_with_carry(pairs))
        return _added(draw_part(self._draw, split, self.sizes, self.seed, self.draw, "dataset 'binary-addition'"))

    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        """Return `count` pairs of `length` - 1 bits, whose sums have `length`."""
        if length < 2:
            raise UsageError(f"dataset 'binary-addition': the length {length} is not accepted; it is width + 1.")
        return _added(_draw(np.random.default_rng(seed), count, length - 1))

    def _draw(self, generator: np.random.Generator, count: int) -> Drawn:
        return _draw(generator, count, self.width)


def _draw(generator: np.random.Generator, count: int, width: int) -> Drawn:
    return _with_carry(generator.integers(0, 2, (count, width, 2)))


def _with_carry(bits: npt.NDArray[np.int64]) -> Drawn:
    """Return bits [N, width, 2] with a last timestep of zeros, and the lengths."""
    inputs = np.pad(bits, ((0, 0), (0, 1), (0, 0))).astype(np.float32)
    return inputs, np.full(len(inputs), inputs.shape[1], np.int64)


def _added(drawn: Drawn) -> Sequences:
    """Return the sequences with their sums' bits, added as by hand, so that any width will do."""
    inputs, lengths = drawn
    ones = inputs.sum(2).astype(np.int64)
    targets = np.empty((*ones.shape, 1), np.float32)
    carry = np.zeros(len(ones), np.int64)
    for t in range(ones.shape[1]):
        total = ones[:, t] + carry
        targets[:, t, 0] = total & 1
        carry = total >> 1
    return Sequences(inputs, targets, lengths)
