"""How drawn sequences are divided into parts, so that no sequence stands in two of them.

Shapes: N sequences, T timesteps, I numbers of an input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rnnpipe.data.base import PARTS, Part
from rnnpipe.errors import UsageError

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]
Draw: TypeAlias = Literal["apart", "independent"]
Drawn: TypeAlias = tuple[Floats, Integers]  # inputs [N, T, I] with 0 behind each length, and lengths [N]

OVERLAP = "each part is drawn from all sequences that there are (draw='independent')"
_MOST_SEQUENCES = 10_000_000
_MOST_TIMESTEPS = 1_000_000
_FRUITLESS_ROUNDS = 1_000


def check_sizes(owner: str, **sizes: int) -> None:
    """Raise UsageError for a part of a negative or absurd size, or a training part without sequences."""
    for name, size in sizes.items():
        lowest = 1 if name == "train" else 0
        if not lowest <= size <= _MOST_SEQUENCES:
            raise UsageError(f"{owner}: {name}={size} is not accepted; it is from {lowest} to {_MOST_SEQUENCES:,}.")


def check_lengths(owner: str, min_length: int, max_length: int) -> None:
    """Raise UsageError unless 1 <= min_length <= max_length."""
    if not 1 <= min_length <= max_length <= _MOST_TIMESTEPS:
        raise UsageError(
            f"{owner}: min_length={min_length}, max_length={max_length}: both are from 1 to {_MOST_TIMESTEPS:,}, "
            "min_length not above max_length."
        )


def draw_lengths(generator: np.random.Generator, count: int, min_length: int, max_length: int) -> Integers:
    """Return `count` lengths, uniform from min_length to max_length."""
    return generator.integers(min_length, max_length + 1, count)


def cut(inputs: Floats, lengths: Integers) -> Floats:
    """Return inputs [N, T, I] with 0 behind each length."""
    steps = np.arange(inputs.shape[1])
    return np.where((steps < lengths[:, None])[..., None], inputs, np.float32(0))


def draw_part(
    draw: Callable[[np.random.Generator, int], Drawn],
    part: Part,
    sizes: tuple[int, int, int],
    seed: int,
    how: Draw,
    owner: str,
) -> Drawn:
    """Return the sequences of one part, drawn by its own generator from the seed; none for a part that there is not.

    "apart": a digest of seed and sequence says which part it belongs to, the parts in the proportion of their sizes; a
    draw that belongs to another part is drawn again. A part may hold a sequence twice, two parts never.

    Raises UsageError if there are too few different sequences for so many parts.
    """
    number = PARTS.index(part) if part in PARTS else len(PARTS)
    count = sizes[number] if number < len(PARTS) else 0
    generator = np.random.default_rng([seed, number])
    inputs, lengths = draw(generator, count)
    if how == "independent" or not count:
        return inputs, lengths
    kept, kept_lengths, found, fruitless = [], [], 0, 0
    while True:
        mine = np.array([_owner(x[:n], seed, sizes) == number for x, n in zip(inputs, lengths, strict=True)])
        kept.append(inputs[mine])
        kept_lengths.append(lengths[mine])
        found += int(mine.sum())
        if found >= count:
            return np.concatenate(kept)[:count], np.concatenate(kept_lengths)[:count]
        fruitless = 0 if mine.any() else fruitless + 1
        if fruitless >= _FRUITLESS_ROUNDS:
            raise UsageError(
                f"{owner}: there are too few different sequences for a part '{part}' of its own; make them longer, "
                "leave the part out, or set draw='independent'."
            )
        inputs, lengths = draw(generator, count)


def _owner(sequence: Floats, seed: int, sizes: tuple[int, int, int]) -> int:
    """Return the number of the part that a sequence [T, I] belongs to."""
    digest = hashlib.blake2b(sequence.tobytes(), digest_size=8, salt=(seed % 2**64).to_bytes(8, "little")).digest()
    share = int.from_bytes(digest, "little") % sum(sizes)
    return int(np.searchsorted(np.cumsum(sizes), share, side="right"))
