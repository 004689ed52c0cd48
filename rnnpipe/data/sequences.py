"""A sequence dataset in memory: its parts, checked; its sizes; batches for training.

Shapes: N sequences, T timesteps, B rows of a batch, I numbers of an input, O of a target.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnnpipe.data.base import PARTS, SequenceDataset, Sequences
from rnnpipe.data.windows import Cursor
from rnnpipe.errors import InputError, UsageError

Draw = Literal["shuffled", "with-replacement", "in-order"]


@dataclass(frozen=True)
class SequenceSizes:
    """What a model must know of a dataset.

    classes: of each of the target's numbers, for cross-entropy; otherwise 0. timesteps: of the longest sequence.
    ragged: whether there are shorter ones.
    """

    input_size: int
    target_size: int
    target: Literal["last", "every"]
    loss: Literal["mse", "binary-cross-entropy", "cross-entropy"]
    classes: int
    timesteps: int
    ragged: bool

    @property
    def output_size(self) -> int:
        """Return how many numbers a model gives for a target: one each, or one for each class."""
        return self.target_size * max(1, self.classes)


@dataclass(frozen=True)
class SequenceData:
    """The parts of a sequence dataset that are not empty, their sizes, and the dataset itself."""

    name: str
    dataset: SequenceDataset
    parts: Mapping[str, Sequences]
    sizes: SequenceSizes

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each part: inputs, targets and lengths with their shapes."""
        return {part: _digest(sequences) for part, sequences in self.parts.items()}


def load_sequences(name: str, dataset: SequenceDataset) -> SequenceData:
    """Read every part of a dataset that is called `name`; raise InputError for one that breaks its contract."""
    parts = {str(part): found for part in PARTS if len((found := dataset.sequences(part)).lengths)}
    if "train" not in parts:
        raise InputError(f"dataset '{name}': has no sequences in its part 'train'.")
    if dataset.loss not in ("mse", "binary-cross-entropy", "cross-entropy") or dataset.target not in ("last", "every"):
        raise UsageError(
            f"dataset '{name}': loss={dataset.loss!r}, target={dataset.target!r}; a loss is mse, binary-cross-entropy "
            "or cross-entropy, a target last or every."
        )
    for part, sequences in parts.items():
        check_sequences(sequences, dataset, f"dataset '{name}', part '{part}'")
    first = parts["train"]
    for part, found in parts.items():
        for what, ours, theirs in (("inputs", first.inputs, found.inputs), ("targets", first.targets, found.targets)):
            if ours.shape[-1] != theirs.shape[-1]:
                raise InputError(
                    f"dataset '{name}': {what} of '{part}' have {theirs.shape[-1]} numbers, those of 'train' "
                    f"{ours.shape[-1]}."
                )
    return SequenceData(name, dataset, parts, _sizes(dataset, parts))


def _sizes(dataset: SequenceDataset, parts: Mapping[str, Sequences]) -> SequenceSizes:
    first = parts["train"]
    classes = 0
    if dataset.loss == "cross-entropy":
        highest = max(int(found.targets.max()) for found in parts.values())
        classes = max(getattr(dataset, "classes", 0), highest + 1)
    lengths = np.concatenate([found.lengths for found in parts.values()])
    return SequenceSizes(
        input_size=first.inputs.shape[2],
        target_size=first.targets.shape[-1],
        target=dataset.target,
        loss=dataset.loss,
        classes=classes,
        timesteps=int(lengths.max()),
        ragged=bool((lengths != lengths[0]).any()),
    )


def check_sequences(sequences: Sequences, dataset: SequenceDataset, place: str) -> None:
    """Raise InputError, naming `place`, where arrays are not what `Sequences` says, or not finite."""
    inputs, targets, lengths = sequences.inputs, sequences.targets, sequences.lengths
    rank = 3 if dataset.target == "every" else 2
    kinds = {"inputs": np.float32, "targets": np.int64 if dataset.loss == "cross-entropy" else np.float32}
    for what, array, axes in (("inputs", inputs, 3), ("targets", targets, rank)):
        if array.ndim != axes or array.dtype != kinds[what]:
            raise InputError(
                f"{place}: {what} have {array.ndim} axes of {array.dtype}; expected {axes} of {kinds[what].__name__}."
            )
    same = inputs.shape[:2] == targets.shape[:2] if rank == 3 else inputs.shape[0] == targets.shape[0]
    if not same or lengths.shape != inputs.shape[:1]:
        raise InputError(
            f"{place}: inputs {list(inputs.shape)}, targets {list(targets.shape)} and lengths {list(lengths.shape)} "
            "do not fit together."
        )
    if not 1 <= int(lengths.min()) <= int(lengths.max()) <= inputs.shape[1]:
        raise InputError(f"{place}: lengths go from {lengths.min()} to {lengths.max()}; from 1 to {inputs.shape[1]}.")
    for what, array in (("inputs", inputs), ("targets", targets)):
        wrong = ~np.isfinite(array)
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            raise InputError(f"{place}: {what} of sequence {row} hold a value that is not a finite number.")
    if dataset.loss == "cross-entropy" and targets.min() < 0:
        raise InputError(f"{place}: a class is {targets.min()}; classes are counted from 0.")
    if dataset.loss == "binary-cross-entropy" and not 0 <= targets.min() <= targets.max() <= 1:
        raise InputError(f"{place}: targets go from {targets.min()} to {targets.max()}; they are between 0 and 1.")


def _digest(sequences: Sequences) -> str:
    digest = hashlib.sha256()
    for array in (sequences.inputs, sequences.targets, sequences.lengths):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# --- batches ---


@dataclass(frozen=True)
class SequenceBatch:
    """Inputs [T, B, I], targets [B, O] or [T, B, O], lengths [B] (None: all of T), and the cursor behind them.

    `resets` says that the rows begin anew; otherwise they go on where the batch before ended. `items` is how many
    timesteps there are.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None
    resets: bool
    items: int
    cursor: Cursor

    def to(self, device: torch.device) -> SequenceBatch:
        """Return the batch on a device."""
        lengths = None if self.lengths is None else self.lengths.to(device, non_blocking=True)
        inputs, targets = (t.to(device, non_blocking=True) for t in (self.inputs, self.targets))
        return replace(self, inputs=inputs, targets=targets, lengths=lengths)


def to_batch(
    sequences: Sequences, rows: npt.NDArray[np.int64] | slice, every: bool, *, ragged: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return inputs [T, B, I], targets and lengths of some sequences; T is the length of the longest of them."""
    lengths = sequences.lengths[rows]
    steps = int(lengths.max())
    inputs = torch.from_numpy(np.ascontiguousarray(sequences.inputs[rows][:, :steps].swapaxes(0, 1)))
    chosen = sequences.targets[rows]
    targets = torch.from_numpy(np.ascontiguousarray(chosen[:, :steps].swapaxes(0, 1) if every else chosen))
    return inputs, targets, torch.from_numpy(np.ascontiguousarray(lengths)) if ragged else None


def sequence_batches(
    sequences: Sequences,
    *,
    every: bool,
    ragged: bool,
    batch_size: int,
    draw: Draw,
    bptt: int | None,
    seed: int,
    cursor: Cursor = Cursor(),
) -> Iterator[SequenceBatch]:
    """Yield batches without end, epoch after epoch; `batch_size` 0 takes all sequences at once.

    The order of an epoch is drawn from the seed and the epoch's number: every sequence once ("shuffled"), as many with
    replacement, all batches full ("with-replacement"), or as they stand ("in-order"). With `bptt`, a batch comes in
    windows of so many timesteps, the first of which resets the state. The cursor counts windows.
    """
    epoch, position = cursor.epoch, cursor.position
    while True:
        order = _order(len(sequences.lengths), batch_size, draw, seed, epoch)
        number = 0
        for rows in order:
            steps = int(sequences.lengths[rows].max())
            window = bptt or steps
            starts = range(0, steps, window)
            if number + len(starts) <= position:  # done before this training was interrupted
                number += len(starts)
                continue
            inputs, targets, lengths = to_batch(sequences, rows, every, ragged=ragged)
            for start in starts:
                number += 1
                if number <= position:
                    continue
                last = rows is order[-1] and start == starts[-1]
                here = None if lengths is None else (lengths - start).clamp(0, window)
                piece = inputs[start : start + window]
                items = len(piece) * len(rows) if here is None else int(here.sum())
                yield SequenceBatch(
                    piece,
                    targets[start : start + window] if every else targets,
                    None if here is None else here.clamp(max=len(piece)),
                    start == 0,
                    items,
                    Cursor(epoch + last, 0 if last else number),
                )
        epoch, position = epoch + 1, 0


def _order(count: int, batch_size: int, draw: Draw, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each batch of an epoch."""
    size = batch_size or count
    generator = np.random.default_rng([seed, epoch])
    if draw == "with-replacement":
        batches = math.ceil(count / size)
        return list(generator.integers(0, count, (batches, size)))
    rows = generator.permutation(count) if draw == "shuffled" else np.arange(count)
    return np.split(rows, range(size, count, size))


def batches_per_epoch(sequences: Sequences, batch_size: int, bptt: int | None, draw: Draw) -> int | None:
    """Return how many batches an epoch has; None if that depends on which sequences come together."""
    batches = math.ceil(len(sequences.lengths) / (batch_size or len(sequences.lengths)))
    if bptt is None or bptt >= int(sequences.lengths.max()):
        return batches
    ragged = (sequences.lengths != sequences.lengths[0]).any()
    if ragged and (batches > 1 or draw == "with-replacement"):
        return None
    return batches * math.ceil(int(sequences.lengths.max()) / bptt)
