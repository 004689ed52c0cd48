"""A long series of numbers as windows with targets, and its division into parts.

Shapes: N windows, T timesteps of a window, P points of a series, C numbers of a point.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt

from rnnpipe.data.base import PARTS, Part, Sequences, Target
from rnnpipe.data.text_files import parse_split
from rnnpipe.errors import UsageError


def check_shape(owner: str, window: int, horizon: int, stride: int) -> None:
    """Raise UsageError unless window, horizon and stride are 1 or more."""
    for name, value in (("window", window), ("horizon", horizon), ("stride", stride)):
        if not 1 <= value <= 1_000_000:
            raise UsageError(f"{owner}: {name}={value} is not accepted; it is from 1 to 1,000,000.")


def share_points(owner: str, split: str, points: int, needed: int, apart: bool) -> dict[Part, slice]:
    """Return which points each part has, one part behind the other, or else which of the windows.

    split: shares of train, valid and test, as in "8:1:1". needed: points of a window and its target together.
    Raises UsageError if a part has a share but not one window.
    """
    shares = parse_split(split)
    count = points if apart else points - needed + 1
    ends = [max(count, 0) * share // sum(shares) for share in accumulate(shares)]
    places = {
        part: slice(start, stop)
        for part, share, start, stop in zip(PARTS, shares, [0, *ends[:-1]], ends, strict=False)
        if share
    }
    for part, place in places.items():
        if place.stop - place.start < (needed if apart else 1):
            raise UsageError(
                f"{owner}: {points} points split {split} leave no window of {needed} points, target included, for "
                f"'{part}'; make the window shorter or give the part a larger share."
            )
    return places


def windows(
    values: npt.NDArray[np.float32],
    window: int,
    horizon: int,
    stride: int,
    target: Target,
    columns: list[int] | None = None,
) -> Sequences:
    """Return the windows [N, T, C] of a series [P, C], a new one every `stride` points, all of full length.

    The target of a timestep is the point `horizon` later, of the last timestep alone or of every one; `columns` of it
    if not all.
    """
    count = max(0, (len(values) - window - horizon) // stride + 1)
    wanted = values if columns is None else values[:, columns]
    starts = np.arange(count)[:, None] * stride
    inputs = values[starts + np.arange(window)]
    steps = np.arange(window) if target == "every" else np.array([window - 1])
    targets = wanted[starts + steps + horizon]
    return Sequences(inputs, targets if target == "every" else targets[:, 0], np.full(count, window, np.int64))
