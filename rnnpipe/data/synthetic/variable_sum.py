"""The dataset `variable-sum`: the sum of digits in sequences of different lengths."""

from __future__ import annotations

import numpy as np

from rnnpipe.data.base import Loss, Part, Sequences, Target
from rnnpipe.data.synthetic.drawing import (
    OVERLAP,
    Draw,
    Drawn,
    check_lengths,
    check_sizes,
    cut,
    draw_lengths,
    draw_part,
)
from rnnpipe.errors import UsageError


class VariableSum:
    """Digits from 0 to `digits` - 1, uniform, in sequences of min_length to max_length; the target is their sum.

    train, valid, test: sequences of each part. seed: of the generators, one a part. draw: "apart" (no sequence stands
    in two parts) or "independent" (each part from all sequences, as the published program draws: of the 336 sequences
    of 2 to 4 digits below 4, hardly one of its test part is new).

    A hit is an error below 0.5: the nearest whole number is right. Source: the published Keras program (2,000
    sequences, 10 % of them for testing and 10 % of the rest for validation), which padded with the digit 0; here
    sequences have their true lengths.
    """

    loss: Loss = "mse"
    target: Target = "last"
    tolerance = 0.5

    def __init__(
        self,
        *,
        train: int = 1620,
        valid: int = 180,
        test: int = 200,
        digits: int = 4,
        min_length: int = 2,
        max_length: int = 4,
        seed: int = 0,
        draw: Draw = "apart",
    ) -> None:
        check_sizes("dataset 'variable-sum'", train=train, valid=valid, test=test)
        check_lengths("dataset 'variable-sum'", min_length, max_length)
        if not 2 <= digits <= 1_000_000:
            raise UsageError(f"dataset 'variable-sum': digits={digits} is not accepted; there are 2 to 1,000,000.")
        self.sizes = (train, valid, test)
        self.digits = digits
        self.min_length, self.max_length = min_length, max_length
        self.seed = seed
        self.draw: Draw = draw
        if draw == "independent":
            self.overlap = OVERLAP

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        return _summed(draw_part(self._draw, split, self.sizes, self.seed, self.draw, "dataset 'variable-sum'"))

    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        """Return `count` sequences of `length` digits, from all that there are."""
        return _summed(_draw(np.random.default_rng(seed), count, self.digits, length, length))

    def _draw(self, generator: np.random.Generator, count: int) -> Drawn:
        return _draw(generator, count, self.digits, self.min_length, self.max_length)


def _draw(generator: np.random.Generator, count: int, digits: int, min_length: int, max_length: int) -> Drawn:
    lengths = draw_lengths(generator, count, min_length, max_length)
    drawn = generator.integers(0, digits, (count, max_length, 1)).astype(np.float32)
    return cut(drawn, lengths), lengths


def _summed(drawn: Drawn) -> Sequences:
    inputs, lengths = drawn
    return Sequences(inputs, inputs.sum(1), lengths)
