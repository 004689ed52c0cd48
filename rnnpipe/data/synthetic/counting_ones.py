"""The dataset `counting-ones`: how many ones are in a sequence of bits."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rnnpipe.data.base import PARTS, Loss, Part, Sequences, Target
from rnnpipe.data.synthetic.drawing import (
    OVERLAP,
    Drawn,
    check_lengths,
    check_sizes,
    cut,
    draw_lengths,
    draw_part,
)
from rnnpipe.errors import UsageError


class CountingOnes:
    """Random bits x_1 ... x_T, each 0 or 1 with probability 1/2; the target behind the last is their sum.

    train, valid, test: sequences of each part. min_length, max_length: T is uniform between them. seed: of the
    generators, one a part. draw: "apart" (no sequence stands in two parts), "independent" (each part from all
    sequences, as the published programs draw), or "numpy-legacy": all parts one after the other from
    `numpy.random.seed(seed)`, bit = around(rand()): with train=20 and seed=1 the published data of `two-weights`.

    A hit is an error below 0.05. Source: the counting task of the published LSTM program (10 bits, 1,000 and 100
    sequences), and of Roelants' "How to implement a recurrent neural network", part 1 (20 sequences, two weights).
    """

    loss: Loss = "mse"
    target: Target = "last"
    tolerance = 0.05

    def __init__(
        self,
        *,
        train: int = 1000,
        valid: int = 100,
        test: int = 100,
        min_length: int = 10,
        max_length: int = 10,
        seed: int = 0,
        draw: Literal["apart", "independent", "numpy-legacy"] = "apart",
    ) -> None:
        check_sizes("dataset 'counting-ones'", train=train, valid=valid, test=test)
        check_lengths("dataset 'counting-ones'", min_length, max_length)
        self.sizes = (train, valid, test)
        self.min_length, self.max_length = min_length, max_length
        self.seed = seed
        self.draw = draw
        if draw != "apart":
            self.overlap = OVERLAP if draw == "independent" else "all parts come from one legacy generator"
        if draw == "numpy-legacy" and (min_length != max_length or not 0 <= seed < 2**32):
            raise UsageError(
                f"dataset 'counting-ones': draw='numpy-legacy' takes one length (min_length={min_length}, "
                f"max_length={max_length}) and a seed from 0 to 2^32 - 1 (seed={seed})."
            )

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        if self.draw == "numpy-legacy":
            return _counted(self._legacy(split))
        return _counted(draw_part(self._draw, split, self.sizes, self.seed, self.draw, "dataset 'counting-ones'"))

    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        """Return `count` sequences of `length` bits, from all that there are."""
        return _counted(_draw(np.random.default_rng(seed), count, length, length))

    def _draw(self, generator: np.random.Generator, count: int) -> Drawn:
        return _draw(generator, count, self.min_length, self.max_length)

    def _legacy(self, split: Part) -> Drawn:
        generator = np.random.RandomState(self.seed)
        bits = np.around(generator.random_sample((sum(self.sizes), self.max_length, 1))).astype(np.float32)
        ends = np.cumsum((0, *self.sizes))
        number = PARTS.index(split) if split in PARTS else None
        chosen = bits[:0] if number is None else bits[ends[number] : ends[number + 1]]
        return chosen, np.full(len(chosen), self.max_length, np.int64)


def _draw(generator: np.random.Generator, count: int, min_length: int, max_length: int) -> Drawn:
    lengths = draw_lengths(generator, count, min_length, max_length)
    bits = generator.integers(0, 2, (count, max_length, 1)).astype(np.float32)
    return cut(bits, lengths), lengths


def _counted(drawn: Drawn) -> Sequences:
    inputs, lengths = drawn
    return Sequences(inputs, inputs.sum(1), lengths)
