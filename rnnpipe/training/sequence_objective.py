"""Sequences of numbers: squared errors and cross-entropies of targets at the last timestep or at every one.

Shapes: T timesteps, B sequences, O numbers of a target, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.config import TrainingConfig
from rnnpipe.data.base import Sequences
from rnnpipe.data.sequences import SequenceBatch, SequenceSizes, batches_per_epoch, sequence_batches, to_batch
from rnnpipe.data.windows import Cursor
from rnnpipe.models.recurrent import States
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.runtime import autocast
from rnnpipe.training.evaluate import evaluating
from rnnpipe.training.objective import Evaluated, Units

_BATCH_TIMESTEPS = 65_536  # of one evaluation batch

_UNITS = {"mse": "squared error", "binary-cross-entropy": "nats", "cross-entropy": "nats"}
_REDUCED = {"mean": "a target number", "sequence-sum": "a sequence", "sum": "in all"}


@dataclass(frozen=True)
class SequenceObjective:
    """The loss of a sequence dataset.

    train, valid: its parts (valid None: no evaluation). tolerance: an error below it is a hit (mean squared error
    only; None: hits are not counted).
    """

    train: Sequences
    valid: Sequences | None
    sizes: SequenceSizes
    config: TrainingConfig
    seed: int
    tolerance: float | None = None

    @property
    def units(self) -> Units:
        """Return the names of the figures."""
        return Units("loss", "timesteps", f"{_UNITS[self.sizes.loss]} {_REDUCED[self.config.reduction]}")

    @property
    def step_figures(self) -> tuple[str, ...]:
        """Return no names."""
        return ()

    @property
    def evaluation_figures(self) -> tuple[str, ...]:
        """Return the names of what `measure_sequences` finds beside the loss."""
        return figure_names(self.sizes, self.tolerance)

    @property
    def varying(self) -> str | None:
        """Return that sequences differ in their lengths, if they do."""
        return differing(self.sizes)

    def batches(self, cursor: Cursor) -> Iterator[SequenceBatch]:
        """Yield batches of the training part, each as a whole or in windows of `training.bptt` timesteps."""
        config, sizes = self.config, self.sizes
        return sequence_batches(
            self.train,
            every=sizes.target == "every",
            ragged=sizes.ragged,
            batch_size=config.batch_size,
            draw=config.draw,
            bptt=config.bptt,
            seed=self.seed,
            cursor=cursor,
        )

    def steps_per_epoch(self) -> int | None:
        """Return how many batches an epoch has; None where ragged sequences come in windows."""
        return batches_per_epoch(self.train, self.config.batch_size, self.config.bptt, self.config.draw)

    def loss(self, model: SequenceModel, batch: SequenceBatch, state: States | None) -> tuple[Tensor, States]:
        """Return the loss of a batch's targets, reduced as `training.reduction` says."""
        outputs, state = model(batch.inputs, state, lengths=batch.lengths)
        each = losses(outputs, batch.targets, self.sizes)
        if batch.lengths is not None and self.sizes.target == "every":
            each = each * valid_steps(batch.lengths, each)
        return each.sum() / self._divisor(batch), state

    def weight(self, batch: SequenceBatch) -> float:
        """Return what the batch's loss counts for in a mean over batches."""
        return self._divisor(batch)

    def _divisor(self, batch: SequenceBatch) -> int:
        rows = batch.inputs.shape[1]
        numbers = (batch.items if self.sizes.target == "every" else rows) * self.sizes.target_size
        return {"mean": numbers, "sequence-sum": rows, "sum": 1}[self.config.reduction]

    def figures(self, loss: float) -> Mapping[str, float]:
        """Return no figures beside the loss."""
        return {}

    def evaluate(self, model: SequenceModel, device: torch.device, precision: str) -> Evaluated | None:
        """Return the loss of the validation part."""
        if self.valid is None:
            return None
        found = measure_sequences(model, self.valid, self.sizes, self.tolerance, device, precision)
        return Evaluated(found.reduced(self.config.reduction), found.figures())


def differing(sizes: SequenceSizes) -> str | None:
    """Return that sequences of these sizes differ in their lengths, in words, or None."""
    return "sequences differ in their lengths" if sizes.ragged else None


def losses(outputs: Tensor, targets: Tensor, sizes: SequenceSizes) -> Tensor:
    """Return the loss of each target number [..., O] for outputs [..., O], or [..., O * C] of classes; in float32.

    mse: (y - t)^2. binary-cross-entropy: -t log s(y) - (1 - t) log(1 - s(y)), s the logistic function. cross-entropy:
    -log softmax(y)[t].
    """
    outputs = outputs.float()
    if sizes.loss == "mse":
        return (outputs - targets).square()
    if sizes.loss == "binary-cross-entropy":
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    logits = by_class(outputs, sizes)
    each = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return each.view(targets.shape)


def by_class(outputs: Tensor, sizes: SequenceSizes) -> Tensor:
    """Return logits [..., O, C] for outputs [..., O * C]."""
    return outputs.view(*outputs.shape[:-1], sizes.target_size, sizes.classes)


def predictions(outputs: Tensor, sizes: SequenceSizes) -> Tensor:
    """Return what outputs say in the target's own terms [..., O]: numbers, probabilities of 1, or classes."""
    if sizes.loss == "mse":
        return outputs.float()
    if sizes.loss == "binary-cross-entropy":
        return outputs.float().sigmoid()
    return by_class(outputs, sizes).argmax(-1)


def valid_steps(lengths: Tensor, like: Tensor) -> Tensor:
    """Return [T, B, 1]: 1 within each sequence's length, 0 behind it."""
    steps = torch.arange(like.shape[0], device=like.device)[:, None]
    return (steps < lengths)[..., None].to(like.dtype)


@dataclass(frozen=True)
class Measured:
    """Sums over sequences.

    loss_sum: of the losses of all `numbers` targets of all `sequences`. hits: of `tries`, which are target numbers
    (errors below the tolerance; the right class) or, for bits, sequences (every bit right); no tries: not counted.
    spread: the squares of the targets about their mean, summed; for squared errors.
    """

    loss_sum: float
    numbers: int
    sequences: int
    hits: int
    tries: int
    spread: float | None

    @property
    def loss(self) -> float:
        """Return the mean loss of a target number."""
        return self.loss_sum / self.numbers

    @property
    def accuracy(self) -> float | None:
        """Return the share of hits, or None where they are not counted."""
        return self.hits / self.tries if self.tries else None

    @property
    def share_of_variance(self) -> float | None:
        """Return the mean squared error as a share of the targets' variance, or None where there is none."""
        return self.loss_sum / self.spread if self.spread else None

    def reduced(self, reduction: str) -> float:
        """Return the loss as `training.reduction` says: a mean, a sum a sequence, or the sum."""
        return self.loss_sum / {"mean": self.numbers, "sequence-sum": self.sequences, "sum": 1}[reduction]

    def figures(self) -> dict[str, float]:
        """Return accuracy and share of variance, those that there are."""
        found = {"accuracy": self.accuracy, "share_of_variance": self.share_of_variance}
        return {name: value for name, value in found.items() if value is not None}


@torch.no_grad()
def run_sequences(
    model: SequenceModel, sequences: Sequences, sizes: SequenceSizes, device: torch.device, precision: str
) -> npt.NDArray[np.float32]:
    """Return the outputs of all sequences, [N, ...] or [N, T, ...], each from a zero state; 0 behind a length."""
    every, steps = sizes.target == "every", sequences.inputs.shape[1]
    shape = (len(sequences.lengths), steps) if every else (len(sequences.lengths),)
    found = np.zeros((*shape, sizes.output_size), np.float32)
    ragged = bool((sequences.lengths != sequences.lengths[:1]).any())
    rows = max(1, _BATCH_TIMESTEPS // steps)
    with evaluating(model), autocast(device, precision):
        for first in range(0, len(sequences.lengths), rows):
            chosen = slice(first, first + rows)
            inputs, _, lengths = to_batch(sequences, chosen, every, ragged=ragged)
            at = None if lengths is None else lengths.to(device)
            outputs = model(inputs.to(device), lengths=at)[0].float()
            if every and at is not None:
                outputs = outputs * valid_steps(at, outputs)
            if every:
                found[chosen, : len(inputs)] = outputs.transpose(0, 1).cpu().numpy()
            else:
                found[chosen] = outputs.cpu().numpy()
    return found


def measure_sequences(
    model: SequenceModel,
    sequences: Sequences,
    sizes: SequenceSizes,
    tolerance: float | None,
    device: torch.device,
    precision: str,
) -> Measured:
    """Return losses and hits of a model over sequences."""
    outputs = run_sequences(model, sequences, sizes, device, precision)
    return measure_outputs(torch.from_numpy(outputs), sequences, sizes, tolerance)


def measure_outputs(outputs: Tensor, sequences: Sequences, sizes: SequenceSizes, tolerance: float | None) -> Measured:
    """Return losses and hits of outputs [N, ...] or [N, T, ...], however they were found. Sums are in float64."""
    targets = torch.from_numpy(sequences.targets)
    each = losses(outputs, targets, sizes).double()
    valid = torch.ones_like(each, dtype=torch.bool)
    if sizes.target == "every":
        steps = torch.arange(targets.shape[1])[None, :, None]
        valid = (steps < torch.from_numpy(sequences.lengths)[:, None, None]).expand_as(each)
    numbers = int(valid.sum())
    hits = tries = 0
    predicted = predictions(outputs, sizes)
    if sizes.loss == "binary-cross-entropy":
        right = ((predicted > 0.5) == (targets > 0.5)) | ~valid
        hits, tries = int(right.flatten(1).all(1).sum()), len(targets)
    elif sizes.loss == "cross-entropy":
        hits, tries = int(((predicted == targets) & valid).sum()), numbers
    elif tolerance is not None:
        hits, tries = int((((predicted - targets).abs() < tolerance) & valid).sum()), numbers
    spread = None
    if sizes.loss == "mse":
        wanted = targets[valid].double()
        spread = float((wanted - wanted.mean()).square().sum())
    return Measured(float(each[valid].sum()), numbers, len(targets), hits, tries, spread)


def figure_names(sizes: SequenceSizes, tolerance: float | None) -> tuple[str, ...]:
    """Return the names of the figures beside the loss that a dataset has."""
    if sizes.loss != "mse":
        return ("accuracy",)
    return ("share_of_variance",) if tolerance is None else ("accuracy", "share_of_variance")
