"""Small sequence datasets for tests: sums of bits, waves, bits behind bits, classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnpipe.data.base import Part, Sequences

PARTS = ("train", "valid", "test")


class Made:
    """Sequences drawn from a seed, the part and the length; a subclass says what the inputs and targets are."""

    loss: Any = "mse"
    target: Any = "last"
    overlap = "there are few of them"
    ragged_by_default = False

    def __init__(self, *, length: int = 8, count: int = 60, seed: int = 0, ragged: bool | None = None) -> None:
        self.length, self.count, self.seed = length, count, seed
        self.ragged = self.ragged_by_default if ragged is None else ragged

    def sequences(self, split: Part) -> Sequences:
        if split not in PARTS:
            return self._draw(self.length, 0, [0])
        count = self.count if split == "train" else self.count // 3
        return self._draw(self.length, count, [self.seed, PARTS.index(split)])

    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        return self._draw(length, count, [seed, 3], ragged=False)

    def _draw(self, length: int, count: int, key: list[int], ragged: bool | None = None) -> Sequences:
        generator = np.random.default_rng([*key, length])
        varied = self.ragged if ragged is None else ragged
        lengths = generator.integers(1, length + 1, count) if varied else np.full(count, length)
        inputs, targets = self.draw(generator, count, length, lengths)
        behind = np.arange(length)[None, :, None] >= lengths[:, None, None]
        inputs = np.where(behind, 0, inputs).astype(np.float32)
        if self.target == "every":
            targets = np.where(behind, 0, targets)
        kind = np.int64 if self.loss == "cross-entropy" else np.float32
        return Sequences(inputs, targets.astype(kind), lengths.astype(np.int64))

    def draw(
        self, generator: np.random.Generator, count: int, length: int, lengths: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        raise NotImplementedError


class Ones(Made):
    """Bits; the target is how many are 1."""

    tolerance = 0.5

    def draw(self, generator: Any, count: int, length: int, lengths: Any) -> Any:
        bits = generator.integers(0, 2, (count, length, 1))
        return bits, (bits * (np.arange(length)[None, :, None] < lengths[:, None, None])).sum(1)


class Wave(Made):
    """A sine of random phase; at every timestep the target is the next value."""

    target = "every"

    def draw(self, generator: Any, count: int, length: int, lengths: Any) -> Any:
        phase = generator.uniform(0, 2 * np.pi, (count, 1))
        values = np.sin(phase + np.pi / 6 * np.arange(length + 1))[..., None].astype(np.float32)
        return values[:, :-1], values[:, 1:]

    def unscale(self, values: Any) -> Any:
        return values * 10 + 5

    def scale(self, values: Any) -> Any:
        return (values - 5) / 10


class Parity(Made):
    """Pairs of bits; at every timestep the target is the exclusive or of all of the first so far, and the second."""

    loss, target = "binary-cross-entropy", "every"
    ragged_by_default = True

    def draw(self, generator: Any, count: int, length: int, lengths: Any) -> Any:
        bits = generator.integers(0, 2, (count, length, 2))
        return bits, np.stack((bits[..., 0].cumsum(1) % 2, bits[..., 1]), -1)


class Classes(Made):
    """Numbers; the targets are two classes of three: of the first and the last number."""

    loss = "cross-entropy"
    classes = 3

    def draw(self, generator: Any, count: int, length: int, lengths: Any) -> Any:
        numbers = generator.integers(0, 3, (count, length, 1))
        return numbers, np.stack((numbers[:, 0, 0], numbers[np.arange(count), lengths - 1, 0]), -1)


PLUGIN = """
import sys
sys.path.insert(0, {folder!r})
from sequence_datasets import Classes, Ones, Parity, Wave
from rnnpipe import hookimpl

@hookimpl
def register_datasets():
    return {{"ones": Ones, "wave": Wave, "parity": Parity, "classes": Classes}}
"""
