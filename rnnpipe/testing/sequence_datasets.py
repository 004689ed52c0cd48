"""The checks of what a dataset of sequences may offer beside its parts: sequences of any length, and its own units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnpipe.data.base import Dataset, SequenceDataset, Sequences
from rnnpipe.testing.report import Failure, Skipped
from rnnpipe.testing.things import attempt

COUNT = 4


def of_a_length(dataset: Dataset) -> str:
    """`at_length` gives so many sequences of that length, always the same ones, of the parts' own form."""
    draw: Callable[[int, int, int], Sequences] | None = getattr(dataset, "at_length", None)
    if not isinstance(dataset, SequenceDataset) or draw is None:
        raise Skipped("it has no `at_length`")
    from rnnpipe.data.sequences import check_sequences  # inside: it needs torch

    train = dataset.sequences("train")
    longest = int(train.lengths.max())
    for length in (longest, longest + 2):
        case = f"at_length({length}, {COUNT}, 0)"
        with attempt("sequences of that length", case):
            found, again = draw(length, COUNT, 0), draw(length, COUNT, 0)
            check_sequences(found, dataset, case)
        if found.lengths.tolist() != [length] * COUNT or found.inputs.shape[1] != length:
            raise Failure(f"{COUNT} sequences of {length} timesteps", f"lengths {found.lengths.tolist()}", case)
        for what in ("inputs", "targets"):
            ours, theirs = getattr(found, what), getattr(train, what)
            if ours.shape[-1] != theirs.shape[-1]:
                raise Failure(f"{what} of {theirs.shape[-1]} numbers", f"{ours.shape[-1]}", case)
            if not np.array_equal(ours, getattr(again, what)):
                raise Failure(f"the same {what} a second time", "others", case)
    return f"{COUNT} sequences each of {longest} and {longest + 2} timesteps"


def scaling(dataset: Dataset) -> str:
    """`unscale` gives back what `scale` was given; there is both or neither."""
    both: list[Any] = [getattr(dataset, name, None) for name in ("scale", "unscale")]
    if not isinstance(dataset, SequenceDataset) or both == [None, None]:
        raise Skipped("it has neither `scale` nor `unscale`")
    if None in both:
        raise Failure("both `scale` and `unscale`", "one of them", "its methods")
    train = dataset.sequences("train")
    values = train.inputs[0, : train.lengths[0]]
    with attempt("values in the dataset's own units, and back", "the first sequence of 'train'"):
        back = np.asarray(both[0](both[1](values)))
    if back.shape != values.shape or not np.allclose(back, values, rtol=1e-4, atol=1e-5):
        raise Failure("scale(unscale(inputs)) equal to the inputs", "others", "the first sequence of 'train'")
    return f"{len(values)} timesteps there and back"
