"""The checks that models of text, of sequences and of pairs have in common: what training needs of any."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rnnpipe.testing.modules import expect_every_gradient, expect_same_parameters
from rnnpipe.testing.report import Failure
from rnnpipe.testing.tensors import expect_same
from rnnpipe.training.checkpoints import load_checkpoint, save_checkpoint

SIZES: tuple[tuple[int, int], ...] = ((1, 1), (2, 3), (7, 3))  # timesteps T, batch B


class ModelSubject(Protocol):
    """A factory of models with its options.

    outputs: how what a model gives is called. axes, sizes: the sizes that are tried. sizes_of_dropout: those in which
    something is surely dropped.
    """

    outputs: ClassVar[str]
    axes: ClassVar[str]
    sizes: ClassVar[tuple[tuple[int, ...], ...]]
    sizes_of_dropout: ClassVar[tuple[tuple[int, ...], ...]]

    def build(self, *, seed: int = 0, dropout: float = 0.0) -> Any:
        """Return a small model in float64, in evaluation mode."""
        ...

    def inputs(self, *size: int) -> tuple[Tensor, ...]:
        """Return what it reads, always the same."""
        ...


def _outputs(subject: ModelSubject, model: Any, size: tuple[int, ...]) -> Tensor:
    outputs: Tensor = model(*subject.inputs(*size))[0]
    return outputs


def determinism(subject: ModelSubject) -> str:
    """The same seed gives the same parameters, the same input the same bits; in training too, under a seed."""
    expect_same_parameters(subject.build, "from seed 0")
    model = subject.build(dropout=0.5)
    for size in subject.sizes:
        for training in (False, True):
            found: list[Tensor] = []
            for _ in range(2):
                if training:
                    torch.manual_seed(0)
                found.append(_outputs(subject, model.train(training), size))
            mode = "training, from the same seed" if training else "evaluation"
            case = f"{subject.axes} = {size}, {mode}"
            expect_same([(subject.outputs, found[0], found[1])], "those of the first time", case)
    return f"the same bits, parameters and {subject.outputs}"


def dropout(subject: ModelSubject) -> str:
    """Dropout changes the outputs in training and not in evaluation."""
    plain, dropping = subject.build(), subject.build(dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    for size in subject.sizes_of_dropout:
        with torch.no_grad():
            outputs = _outputs(subject, plain, size)
            evaluated = _outputs(subject, dropping.eval(), size)
            trained = _outputs(subject, dropping.train(), size)
        case = f"dropout=0.5, {subject.axes} = {size}"
        expect_same([(f"{subject.outputs} in evaluation", evaluated, outputs)], "those without dropout", case)
        if torch.equal(trained, outputs):
            raise Failure(f"other {subject.outputs} in training than in evaluation", "the same", case)
    return "on in training, off in evaluation"


def gradients(subject: ModelSubject) -> str:
    """Every parameter gets a gradient that is not zero throughout."""
    model, size = subject.build(), subject.sizes[-1]
    return expect_every_gradient(model, _outputs(subject, model, size), f"{subject.axes} = {size}")


def save_and_load(subject: ModelSubject) -> str:
    """A checkpoint loaded into a model of another seed gives the same bits."""
    model, other = subject.build(), subject.build(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = load_checkpoint(save_checkpoint(Path(folder), 1, model.state_dict(), (), {})).weights()
    other.load_state_dict(weights)
    for size in subject.sizes:
        with torch.no_grad():
            ours, expected = _outputs(subject, other, size), _outputs(subject, model, size)
        expect_same([(subject.outputs, ours, expected)], "those of the saved model", f"{subject.axes} = {size}")
    return f"the same bits from {len(weights)} tensors"
