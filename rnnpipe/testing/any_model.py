"""The checks that a model of text and a model of sequences have in common: what training needs of either."""

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

SIZES = ((1, 1), (2, 3), (7, 3))  # timesteps T, batch B


class ModelSubject(Protocol):
    """A factory of models with its options.

    outputs: how what a model gives is called. sizes_of_dropout: T and B in which something is surely dropped.
    """

    outputs: ClassVar[str]
    sizes_of_dropout: ClassVar[tuple[tuple[int, int], ...]]

    def build(self, *, seed: int = 0, dropout: float = 0.0) -> Any:
        """Return a small model in float64, in evaluation mode."""
        ...

    def inputs(self, T: int, B: int) -> Tensor:
        """Return what it reads, always the same."""
        ...


def determinism(subject: ModelSubject) -> str:
    """The same seed gives the same parameters, the same input the same bits; in training too, under a seed."""
    expect_same_parameters(subject.build, "from seed 0")
    model = subject.build(dropout=0.5)
    for T, B in SIZES:
        for training in (False, True):
            outputs = []
            for _ in range(2):
                if training:
                    torch.manual_seed(0)
                outputs.append(model.train(training)(subject.inputs(T, B))[0])
            mode = "training, from the same seed" if training else "evaluation"
            expect_same([(subject.outputs, *outputs)], "those of the first time", f"T={T}, B={B}, {mode}")
    return f"the same bits, parameters and {subject.outputs}"


def dropout(subject: ModelSubject) -> str:
    """Dropout changes the outputs in training and not in evaluation."""
    plain, dropping = subject.build(), subject.build(dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    for T, B in subject.sizes_of_dropout:
        x = subject.inputs(T, B)
        with torch.no_grad():
            outputs = plain(x)[0]
            evaluated = dropping.eval()(x)[0]
            trained = dropping.train()(x)[0]
        case = f"dropout=0.5, T={T}, B={B}"
        expect_same([(f"{subject.outputs} in evaluation", evaluated, outputs)], "those without dropout", case)
        if torch.equal(trained, outputs):
            raise Failure(f"other {subject.outputs} in training than in evaluation", "the same", case)
    return "on in training, off in evaluation"


def gradients(subject: ModelSubject) -> str:
    """Every parameter gets a gradient that is not zero throughout."""
    model = subject.build()
    outputs, _ = model(subject.inputs(7, 3))
    return expect_every_gradient(model, outputs, "T=7, B=3")


def save_and_load(subject: ModelSubject) -> str:
    """A checkpoint loaded into a model of another seed gives the same bits."""
    model, other = subject.build(), subject.build(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = load_checkpoint(save_checkpoint(Path(folder), 1, model.state_dict(), (), {})).weights()
    other.load_state_dict(weights)
    for T, B in SIZES:
        x = subject.inputs(T, B)
        with torch.no_grad():
            ours, expected = other(x)[0], model(x)[0]
        expect_same([(subject.outputs, ours, expected)], "those of the saved model", f"T={T}, B={B}")
    return f"the same bits from {len(weights)} tensors"
