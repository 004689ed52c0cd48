"""The dataset `patterns`: random patterns, to be recalled from noisy copies."""

from __future__ import annotations

import numpy as np

from rnnpipe.data.base import PARTS, Loss, Part, Sequences, Target
from rnnpipe.data.synthetic.drawing import check_lengths, check_sizes
from rnnpipe.errors import UsageError


class Patterns:
    """Random patterns of -1 and 1, [units]: given as they are for training, with noise for validation and test.

    The first timestep is the pattern, the others are 0, for a network of the kind of Hopfield's to settle; the target
    behind the last is the pattern without noise. patterns: how many, each once in the training part. units: numbers of
    a pattern. valid, test: noisy copies, of one pattern after the other. noise: the share of each copy's numbers that
    are turned around. timesteps: of a sequence. seed: of the generators, one a part.

    A hit is a number on the right side. About 0.138 patterns a unit can be recalled (Amit, Gutfreund & Sompolinsky
    1985, "Storing infinite numbers of patterns in a spin-glass model of neural networks", Physical Review Letters 55).
    """

    loss: Loss = "mse"
    target: Target = "last"
    tolerance = 1.0

    def __init__(
        self,
        *,
        patterns: int = 10,
        units: int = 100,
        valid: int = 100,
        test: int = 100,
        noise: float = 0.1,
        timesteps: int = 10,
        seed: int = 0,
    ) -> None:
        check_sizes("dataset 'patterns'", train=patterns, valid=valid, test=test)
        check_lengths("dataset 'patterns'", timesteps, timesteps)
        if units < 1 or not 0 <= noise <= 1:
            raise UsageError(f"dataset 'patterns': units={units}, noise={noise}: 1 unit or more, noise from 0 to 1.")
        self.sizes = dict(zip(PARTS, (patterns, valid, test), strict=True))
        self.units = units
        self.noise = noise
        self.timesteps = timesteps
        self.seed = seed
        if noise * units < 4:
            self.overlap = "so little noise leaves some copies as they were, or makes two of them the same"

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        stored = np.random.default_rng([self.seed, 0]).choice([-1.0, 1.0], (self.sizes["train"], self.units))
        count = self.sizes.get(split, 0)
        targets = stored[np.arange(count) % len(stored)].astype(np.float32)
        first = targets.copy()
        if split != "train" and count:
            generator = np.random.default_rng([self.seed, PARTS.index(split)])
            turned = round(self.noise * self.units)
            places = generator.random(first.shape).argsort(1)[:, :turned]
            np.put_along_axis(first, places, -np.take_along_axis(first, places, 1), 1)
        inputs = np.zeros((count, self.timesteps, self.units), np.float32)
        inputs[:, :1] = first[:, None]
        return Sequences(inputs, targets, np.full(count, self.timesteps, np.int64))
