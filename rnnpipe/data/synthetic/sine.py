"""The datasets `sine` and `sine-windows`: the next value of a sine wave."""

from __future__ import annotations

import math

import numpy as np

from rnnpipe.data.base import PARTS, Loss, Part, Sequences, Target
from rnnpipe.data.synthetic.drawing import check_lengths, check_sizes, cut, draw_lengths
from rnnpipe.data.windowing import check_shape, share_points, windows
from rnnpipe.errors import UsageError


class Sine:
    """x_t = sin(phase + (t - 1) step) with a phase drawn uniformly from `phases`; the target is x_{t+1}.

    train, valid, test: waves of each part. min_length, max_length: timesteps, uniform between them. target: the next
    value at every timestep, or behind the last alone. (The first value does not tell whether the wave rises or falls,
    so that its next one cannot be known; with a target at the last and a min_length of 2 it is not asked for.) noise:
    standard deviation of what is added to every input; targets stay clean. seed: of the generators, one a part.

    Source: the published Elman program (7,000 waves, phases from 0 to pi, step pi/6).
    """

    loss: Loss = "mse"
    continues = True

    def __init__(
        self,
        *,
        train: int = 5000,
        valid: int = 1000,
        test: int = 1000,
        min_length: int = 12,
        max_length: int = 12,
        step: float = math.pi / 6,
        phases: tuple[float, float] = (0.0, math.pi),
        noise: float = 0.0,
        target: Target = "every",
        seed: int = 0,
    ) -> None:
        check_sizes("dataset 'sine'", train=train, valid=valid, test=test)
        check_lengths("dataset 'sine'", min_length, max_length)
        if not phases[0] < phases[1] or not all(map(math.isfinite, (*phases, step, noise))) or noise < 0:
            raise UsageError(
                f"dataset 'sine': phases={list(phases)}, step={step}, noise={noise}: phases are two finite numbers, "
                "the lower first; step is finite, noise 0 or more."
            )
        self.sizes = dict(zip(PARTS, (train, valid, test), strict=True))
        self.min_length, self.max_length = min_length, max_length
        self.step = step
        self.phases = phases
        self.noise = noise
        self.target: Target = target
        self.seed = seed

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        number = PARTS.index(split) if split in PARTS else len(PARTS)
        generator = np.random.default_rng([self.seed, number])
        return self._waves(generator, self.sizes.get(split, 0), self.min_length, self.max_length)

    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        """Return `count` new waves of `length` timesteps."""
        return self._waves(np.random.default_rng(seed), count, length, length)

    def _waves(self, generator: np.random.Generator, count: int, min_length: int, max_length: int) -> Sequences:
        phases = generator.uniform(*self.phases, (count, 1))
        lengths = draw_lengths(generator, count, min_length, max_length)
        values = np.sin(phases + np.arange(max_length + 1) * self.step)[..., None].astype(np.float32)
        noise = generator.standard_normal((count, max_length, 1)).astype(np.float32)
        inputs = cut(values[:, :-1] + np.float32(self.noise) * noise, lengths)
        targets = cut(values[:, 1:], lengths) if self.target == "every" else values[np.arange(count), lengths]
        return Sequences(inputs, targets, lengths)


class SineWindows:
    """Windows of one wave, `points` values of sin from 0 to `span` radians, both ends included; target: the next value.

    window: timesteps. split: how the windows are shared out. apart: parts follow one another and share no point;
    otherwise windows are dealt at random by `seed`, as the published program does, and those of different parts overlap
    in all but a point or two. Source: the published program's 500 points over 10 pi, windows of 2, shared out 4:1.
    """

    loss: Loss = "mse"
    continues = True

    def __init__(
        self,
        *,
        points: int = 500,
        span: float = 10 * math.pi,
        window: int = 2,
        target: Target = "last",
        split: str = "8:1:1",
        apart: bool = True,
        seed: int = 0,
    ) -> None:
        check_shape("dataset 'sine-windows'", window, 1, 1)
        if not 2 <= points <= 10_000_000 or not (math.isfinite(span) and span > 0):
            raise UsageError(
                f"dataset 'sine-windows': points={points}, span={span}: 2 to 10,000,000 points over a span above 0."
            )
        self.values = np.sin(np.linspace(0, span, points))[:, None].astype(np.float32)
        self.step = span / (points - 1)
        self.window = window
        self.target: Target = target
        self.shares = share_points("dataset 'sine-windows'", split, points, window + 1, apart)
        self.apart = apart
        self.seed = seed
        if not apart:
            self.overlap = "windows of different parts share points (apart=false)"

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        places = self.shares.get(split)
        if places is None:
            return windows(self.values[:0], self.window, 1, 1, self.target)
        if self.apart:
            return windows(self.values[places], self.window, 1, 1, self.target)
        whole = windows(self.values, self.window, 1, 1, self.target)
        order = np.random.default_rng(self.seed).permutation(len(whole.lengths))[places]
        return Sequences(whole.inputs[order], whole.targets[order], whole.lengths[order])

    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        """Return `count` windows of `length` timesteps from anywhere on the wave."""
        sine = Sine(train=1, step=self.step, phases=(0.0, 2 * math.pi), target=self.target)
        return sine.at_length(length, count, seed)
