"""The checks of a model of sequences: shapes, lengths, the carried state, and what training needs of it.

Shapes: T timesteps, B batch, I numbers of an input, O of an output.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnpipe.models.recurrent import Recurrent
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.testing.any_model import SIZES, determinism, dropout, gradients, save_and_load
from rnnpipe.testing.report import Check, Failure
from rnnpipe.testing.tensors import describe, expect_near, expect_shape
from rnnpipe.testing.things import attempt, build, in_order, require_reachable, seeded, seeded_check

I, O = 3, 2  # noqa: E741
TARGETS = ("last", "every")


def reads_sequences(thing: Any) -> bool:
    """Say whether a factory of models is one for sequences: it says so, or takes `target`, as rnnpipe gives it."""
    return getattr(thing, "reads", None) == "sequences" or "target" in inspect.signature(thing).parameters


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a model of sequences."""
    subject = _Subject(thing, options)
    rest = {
        "shapes": shapes,
        "lengths": lengths,
        "carried state": carried_state,
        "determinism": determinism,
        "dropout": dropout,
        "gradients": gradients,
        "save and load": save_and_load,
    }
    return in_order(
        seeded_check("contract", contract, subject),
        [seeded_check(name, function, subject) for name, function in rest.items()],
    )


@dataclass(frozen=True)
class _Subject:
    """A factory of models and the options that it is called with."""

    factory: Any
    options: Mapping[str, Any]
    outputs: ClassVar[str] = "outputs"
    axes: ClassVar[str] = "T, B"
    sizes: ClassVar[tuple[tuple[int, ...], ...]] = SIZES
    sizes_of_dropout: ClassVar[tuple[tuple[int, ...], ...]] = SIZES[1:]  # one timestep may by chance be kept whole

    def build(self, *, seed: int = 0, dropout: float = 0.0, target: str = "every") -> SequenceModel:
        """Return a small model in float64, in evaluation mode, its parts as the pipeline gives them."""
        with seeded(seed):
            # Without a readout the stack is the model: its size is that of the target.
            hidden = O if self.options.get("readout") is False else 5
            parts = nn.Linear(I, 4), Recurrent("gru", 4, hidden, 2)
            built: SequenceModel = build("model", self.factory, self.options, *parts, O, target=target, dropout=dropout)
        if not isinstance(built, nn.Module):
            raise Failure("a torch module", describe(built), f"target={target}, dropout={dropout}")
        return built.double().eval()

    def inputs(self, *size: int) -> tuple[Tensor]:
        """Return numbers [T, B, I]."""
        return (_numbers(*size),)


def _numbers(T: int, B: int) -> Tensor:
    return torch.randn(T, B, I, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def contract(subject: _Subject) -> str:
    """It is built from input layer, recurrent stack and output size, and keeps the stack for what runs it."""
    require_reachable(subject.factory, reserved=3)
    for target in TARGETS:
        model = subject.build(target=target)
        if not isinstance(getattr(model, "recurrent", None), Recurrent):
            raise Failure("its stack as `recurrent`", repr(getattr(model, "recurrent", None)), f"target={target}")
        example = model.example_input(2)
        expect_shape("example_input(2)", example, (2, 1, 4), torch.float32, f"target={target}, input layer {I} to 4")
    return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"


def shapes(subject: _Subject) -> str:
    """Outputs are [T, B, O], or [B, O] for the last timestep, and the state is one that the next call takes."""
    for target in TARGETS:
        model = subject.build(target=target)
        for T, B in SIZES:
            case = f"target={target}, T={T}, B={B}"
            shape = (T, B, O) if target == "every" else (B, O)
            with torch.no_grad(), attempt("outputs and a state to go on from", case):
                outputs, state = model(_numbers(T, B))
                expect_shape("outputs", outputs, shape, torch.float64, case)
                outputs, _ = model(_numbers(T, B), state)
            expect_shape("outputs from a carried state", outputs, shape, torch.float64, case)
    return f"outputs [T, B, {O}] and [B, {O}] over {len(SIZES)} sizes"


def lengths(subject: _Subject) -> str:
    """A padded sequence in a batch gets what it gets alone, whatever stands behind its length."""
    largest = 0.0
    for target in TARGETS:
        model = subject.build(target=target)
        for T, B in SIZES:
            valid = torch.arange(B) % T + 1
            case = f"target={target}, T={T}, B={B}, lengths {valid.tolist()}"
            x = _numbers(T, B)
            with torch.no_grad(), attempt("outputs of padded sequences", case):
                outputs, _ = model(x, lengths=valid)
                pairs = []
                for row, length in enumerate(valid.tolist()):
                    alone, _ = model(x[:length, row : row + 1])
                    ours = outputs[:length, row] if target == "every" else outputs[row]
                    pairs.append((f"outputs of row {row}", ours, alone[:, 0] if target == "every" else alone[0]))
            largest = max(largest, expect_near(pairs, "those of that row alone", case))
    return f"largest difference {largest:.1e}"


def carried_state(subject: _Subject) -> str:
    """A sequence in two pieces, the state carried between them, gives the outputs of one pass."""
    model, largest = subject.build(), 0.0
    for T, B in SIZES[1:]:
        x, case = _numbers(T, B), f"T={T}, B={B}, cut at 1"
        with torch.no_grad(), attempt("two calls with the state between them", case):
            whole, _ = model(x)
            first, between = model(x[:1])
            second, _ = model(x[1:], between)
        largest = max(largest, expect_near([("outputs", torch.cat((first, second)), whole)], "that of one pass", case))
    return f"largest difference {largest:.1e}"
