"""The stage `eval` for sequences: loss and accuracy of a part, beside trivial predictors and on unseen sequences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnnpipe.data.base import Sequences
from rnnpipe.data.sequences import SequenceData, SequenceSizes
from rnnpipe.errors import InputError, UsageError, unknown_name
from rnnpipe.pipeline.runs import SequenceRun
from rnnpipe.training.sequence_objective import (
    Measured,
    measure_outputs,
    measure_sequences,
    predictions,
    run_sequences,
)


@dataclass(frozen=True)
class SequenceEvaluation:
    """What a run scores on a part.

    in_train: how many of its sequences, inputs and length, also stand in the training part. unseen: the score on the
    others, if there are any. baselines: what predictors score that learn nothing.
    """

    part: str
    step: int
    sizes: SequenceSizes
    reduction: str
    whole: Measured
    in_train: int
    unseen: Measured | None
    baselines: Mapping[str, Measured] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name."""
        whole = self.whole
        return {
            "part": self.part,
            "step": self.step,
            "loss_kind": self.sizes.loss,
            **figures(whole),
            "reduced_loss": whole.reduced(self.reduction),
            "overlap": {"in_train": self.in_train, "share": self.in_train / whole.sequences},
            "unseen": None if self.unseen is None else figures(self.unseen),
            "baselines": {name: figures(measured) for name, measured in self.baselines.items()},
        }


def figures(measured: Measured) -> dict[str, Any]:
    """Return the figures of a measurement by name."""
    return {"sequences": measured.sequences, "loss": measured.loss, **measured.figures()}


def evaluation_part(data: SequenceData) -> str | None:
    """Return the part that a run is evaluated on: its test part, or else its validation part, if it has one."""
    return next((part for part in ("test", "valid") if part in data.parts), None)


def evaluate_sequences(run: SequenceRun, part: str | None = None) -> SequenceEvaluation:
    """Evaluate a run on a part of its dataset, the test part if none is named (or else the validation part)."""
    data, sizes = run.data, run.data.sizes
    chosen = part or evaluation_part(data)
    if chosen is None:
        raise InputError(f"dataset '{data.name}': has neither a test nor a validation part; name one with --part.")
    if chosen not in data.parts:
        raise unknown_name("part", chosen, data.parts)
    sequences, train = data.parts[chosen], data.parts["train"]
    seen = in_train(sequences, train)
    return SequenceEvaluation(
        part=chosen,
        step=int(run.checkpoint.state["step"]),
        sizes=sizes,
        reduction=run.config.training.reduction,
        whole=measure(run, sequences),
        in_train=int(seen.sum()),
        unseen=None if seen.all() else measure(run, select(sequences, ~seen)),
        baselines={
            name: measure_outputs(torch.from_numpy(outputs), sequences, sizes, run.tolerance)
            for name, outputs in baselines(sequences, train, data).items()
        },
    )


def measure(run: SequenceRun, sequences: Sequences) -> Measured:
    """Return what a run scores on sequences."""
    device = torch.device(run.numerics.device)
    return measure_sequences(
        run.model.to(device), sequences, run.data.sizes, run.tolerance, device, run.numerics.precision
    )


def select(sequences: Sequences, rows: npt.NDArray[np.bool_]) -> Sequences:
    """Return some of the sequences."""
    return Sequences(sequences.inputs[rows], sequences.targets[rows], sequences.lengths[rows])


def in_train(sequences: Sequences, train: Sequences) -> npt.NDArray[np.bool_]:
    """Return, for each sequence, whether one of the same inputs and length stands in `train`."""
    known = set(_keys(train))
    return np.fromiter((key in known for key in _keys(sequences)), np.bool_, len(sequences.lengths))


def _keys(sequences: Sequences) -> list[bytes]:
    pairs = zip(sequences.inputs, sequences.lengths.tolist(), strict=True)
    return [inputs[:length].tobytes() for inputs, length in pairs]


def continues(data: SequenceData) -> bool:
    """Say whether targets continue the inputs, so that outputs can be fed back.

    A dataset says so by `continues`; where it does not and has targets at every timestep, they are compared.
    """
    sizes, said = data.sizes, getattr(data.dataset, "continues", None)
    if sizes.loss != "mse" or sizes.input_size != sizes.target_size:
        return False
    if said is not None or sizes.target == "last":
        return bool(said)
    train = data.parts["train"]
    steps = np.arange(1, train.inputs.shape[1])
    valid = (steps < train.lengths[:, None])[..., None]
    return len(steps) > 0 and bool(((train.targets[:, :-1] == train.inputs[:, 1:]) | ~valid).all())


def baselines(sequences: Sequences, train: Sequences, data: SequenceData) -> dict[str, npt.NDArray[np.float32]]:
    """Return the outputs of predictors that learn nothing: the training mean, and the last input where it goes on.

    For cross-entropies the mean is that of the targets' frequencies, as logits.
    """
    sizes = data.sizes
    shape = (*sequences.targets.shape[:-1], sizes.output_size)
    found = {"mean": np.broadcast_to(_mean_output(train, sizes), shape).astype(np.float32)}
    if continues(data):
        inputs = sequences.inputs
        rows = np.arange(len(inputs))
        found["copy-last"] = inputs if sizes.target == "every" else inputs[rows, sequences.lengths - 1]
    return found


def _mean_output(train: Sequences, sizes: SequenceSizes) -> npt.NDArray[np.float64]:
    """Return the one output [output_size] that is best for the training targets."""
    targets = train.targets
    if sizes.target == "every":
        targets = targets[np.arange(targets.shape[1]) < train.lengths[:, None]]
    if sizes.loss == "mse":
        mean: npt.NDArray[np.float64] = targets.mean(0, dtype=np.float64)
        return mean
    smallest = 1 / (2 * len(targets))  # a frequency of 0 would have no logarithm
    if sizes.loss == "binary-cross-entropy":
        share = targets.mean(0, dtype=np.float64).clip(smallest, 1 - smallest)
        odds: npt.NDArray[np.float64] = np.log(share) - np.log(1 - share)
        return odds
    counts = np.stack([np.bincount(column, minlength=sizes.classes) for column in targets.T])
    logits: npt.NDArray[np.float64] = np.log((counts / len(targets)).clip(smallest)).reshape(-1)
    return logits


# --- one by one ---


@dataclass(frozen=True)
class Shown:
    """A sequence with what a run makes of it: inputs [T, I], output and target [O] or [T, O]."""

    number: int
    inputs: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32 | np.int64]
    target: npt.NDArray[np.float32 | np.int64]
    in_train: bool

    def to_json(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {
            "number": self.number,
            "inputs": self.inputs.tolist(),
            "output": self.output.tolist(),
            "target": self.target.tolist(),
            "in_train": self.in_train,
        }


def show_sequences(run: SequenceRun, part: str, count: int) -> list[Shown]:
    """Return the first `count` sequences of a part with a run's output, in the target's own terms."""
    sizes, whole = run.data.sizes, run.data.parts[part]
    first = Sequences(whole.inputs[:count], whole.targets[:count], whole.lengths[:count])
    device = torch.device(run.numerics.device)
    outputs = run_sequences(run.model.to(device), first, sizes, device, run.numerics.precision)
    predicted = predictions(torch.from_numpy(outputs), sizes).numpy()
    seen = in_train(first, run.data.parts["train"])
    every = sizes.target == "every"
    return [
        Shown(
            number,
            first.inputs[number, :length],
            predicted[number, :length] if every else predicted[number],
            first.targets[number, :length] if every else first.targets[number],
            bool(seen[number]),
        )
        for number, length in enumerate(first.lengths.tolist())
    ]


# --- by length ---


def evaluate_lengths(run: SequenceRun, lengths: Iterable[int], count: int, seed: int = 0) -> dict[int, Measured]:
    """Return what a run scores on `count` new sequences of each length; UsageError if the dataset makes none."""
    at_length = getattr(run.data.dataset, "at_length", None)
    if at_length is None:
        raise UsageError(
            f"dataset '{run.data.name}' cannot make sequences of a given length (it has no `at_length`); --lengths is "
            "for datasets that are generated."
        )
    return {length: measure(run, at_length(length, count, seed)) for length in lengths}


def loss_name(sizes: SequenceSizes) -> str:
    """Return in words what the mean loss of a target number is."""
    names = {"mse": "mean squared error", "binary-cross-entropy": "nats a bit", "cross-entropy": "nats a target"}
    return names[sizes.loss]
