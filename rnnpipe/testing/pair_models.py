"""The checks of a model of pairs: shapes, one step after the other, padding, and what training needs of it.

Shapes: S source tokens, T target tokens, B pairs, V ids of the target.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rnnpipe.models.encoders import Embedding
from rnnpipe.models.pair_model import PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.testing.any_model import determinism, dropout, save_and_load
from rnnpipe.testing.modules import expect_every_gradient
from rnnpipe.testing.report import Check, Failure
from rnnpipe.testing.tensors import describe, expect_near, expect_same, expect_shape
from rnnpipe.testing.things import attempt, build, in_order, require_reachable, seeded, seeded_check

SOURCE, V = 9, 11  # ids of each side; the last but one is the boundary
SIZES = ((1, 1, 1), (4, 2, 3), (3, 7, 3))  # S, T, B


def reads_pairs(thing: Any) -> bool:
    """Say whether a factory of models is one for pairs: it takes `parts` alone before its options."""
    return next(iter(inspect.signature(thing).parameters), None) == "parts"


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a model of pairs."""
    subject = _Subject(thing, options)
    rest = {
        "shapes": shapes,
        "step by step": step_by_step,
        "padding": padding,
        "bound": bound,
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
    outputs: ClassVar[str] = "features"
    axes: ClassVar[str] = "S, T, B"
    sizes: ClassVar[tuple[tuple[int, ...], ...]] = SIZES
    sizes_of_dropout: ClassVar[tuple[tuple[int, ...], ...]] = SIZES[1:]

    def build(self, *, seed: int = 0, dropout: float = 0.0, tied: bool = False, joint: bool = False) -> PairModel:
        """Return a small model in float64, in evaluation mode, its parts as the pipeline gives them."""
        parts = PairParts(
            source_size=V if joint else SOURCE,
            target_size=V,
            joint=joint,
            source_id=lambda token: 0,
            embed=lambda size: Embedding(size, size=6, std=0.5),
            recur=lambda inputs, hidden, both: Recurrent("gru", inputs, hidden or 8, 2, bidirectional=both),
            hidden_size=8,
            num_layers=2,
            dropout=dropout,
            tied=tied,
        )
        with seeded(seed):
            built: PairModel = build("model", self.factory, self.options, parts)
        if not isinstance(built, PairModel):
            raise Failure("a PairModel", describe(built), f"tied={tied}, joint={joint}")
        return built.double().eval()

    def inputs(self, *size: int) -> tuple[Tensor, ...]:
        """Return sources, their lengths, and targets."""
        return _pairs(*size)


def _pairs(S: int, T: int, B: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sources [S, B], their lengths [B], all of different length, and targets [T, B]."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(SOURCE - 2, (S, B), generator=generator)
    lengths = torch.arange(B) % S + 1
    target = torch.randint(V - 2, (T, B), generator=generator)
    return source, lengths, target


def contract(subject: _Subject) -> str:
    """It is built from its parts, has the weights that are tied once, and names its recurrent stacks."""
    require_reachable(subject.factory, reserved=1)
    model = subject.build(tied=True, joint=True)
    if not all(isinstance(stack, Recurrent) for stack in model.recurrents()):
        raise Failure("a list of its stacks by `recurrents()`", repr(model.recurrents()), "")
    if model.has_cell != bool(model.recurrents()):
        raise Failure(f"stacks as `has_cell`, {model.has_cell}, says", f"{len(model.recurrents())}", "")
    if type(model).read_out is not PairModel.read_out or not isinstance(model.readout, nn.Linear):
        raise Failure("the readout of PairModel, a linear layer", describe(model.readout), "training relies on it")
    if model.readout.weight is not getattr(model.target_encoder, "weight", None):
        raise Failure("the readout's weight to be the target embedding's", "another", "tied")
    if model.source_encoder is not model.target_encoder:
        raise Failure("one embedding for both sides", "two", "tied, joint dictionary")
    return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"


def shapes(subject: _Subject) -> str:
    """Features become logits [T, B, V], one for each target token."""
    model = subject.build()
    for S, T, B in SIZES:
        case = f"S={S}, T={T}, B={B}"
        with torch.no_grad(), attempt("features and logits", case):
            features, _ = model(*_pairs(S, T, B))
            expect_shape("logits", model.read_out(features), (T, B, V), torch.float64, case)
    return f"logits [T, B, {V}] over {len(SIZES)} sizes"


def step_by_step(subject: _Subject) -> str:
    """`begin`, then `step` by token, gives the logits of `forward`; attention is a distribution over the source."""
    model, largest = subject.build(), 0.0
    for S, T, B in SIZES:
        source, lengths, target = _pairs(S, T, B)
        case = f"S={S}, T={T}, B={B}, lengths {lengths.tolist()}"
        with torch.no_grad(), attempt("logits step by step", case):
            whole = model.read_out(model(source, lengths, target)[0])
            state, steps = model.begin(source, lengths), []
            for tokens in target:
                logits, weights, state = model.step(tokens, state)
                steps.append(logits)
                if model.attends != (weights is not None):
                    raise Failure(f"attention as `attends`, {model.attends}, says", describe(weights), case)
                if weights is None:
                    continue
                expect_shape("attention", weights, (B, S), torch.float64, case)
                inside = torch.arange(S) < lengths[:, None]
                if bool((weights[~inside] != 0).any()) or not torch.allclose(weights.sum(1), torch.ones(B).double()):
                    raise Failure("attention that is 0 on padding and sums to 1", repr(weights.tolist()), case)
        largest = max(largest, expect_near([("logits", torch.stack(steps), whole)], "those of `forward`", case))
    return f"largest difference {largest:.1e}"


def padding(subject: _Subject) -> str:
    """A pair in a batch gets what it gets alone, whatever stands behind its source."""
    model, largest = subject.build(), 0.0
    for S, T, B in SIZES:
        source, lengths, target = _pairs(S, T, B)
        case = f"S={S}, T={T}, B={B}, lengths {lengths.tolist()}"
        with torch.no_grad(), attempt("logits of padded sources", case):
            together = model.read_out(model(source, lengths, target)[0])
            found = []
            for row, length in enumerate(lengths.tolist()):
                column = slice(row, row + 1)
                alone, _ = model(source[:length, column], lengths[column], target[:, column])
                found.append((f"logits of row {row}", together[:, row], model.read_out(alone)[:, 0]))
        largest = max(largest, expect_near(found, "those of that row alone", case))
    return f"largest difference {largest:.1e}"


def bound(subject: _Subject) -> str:
    """What evaluation takes: of a variational model features and a divergence, of any other what `forward` gives."""
    model = subject.build()
    for S, T, B in SIZES:
        given, case = _pairs(S, T, B), f"S={S}, T={T}, B={B}"
        with torch.no_grad(), attempt("features and divergence", case):
            (plain, _), (features, extra) = model(*given), model.bound(*given)
            expect_shape("features", features, tuple(plain.shape), torch.float64, case)
        if not model.variational:
            expect_same([("features of `bound`", features, plain)], "those of `forward`", case)
        if model.variational == (extra is None) or (extra is not None and (extra.dim() or not float(extra) >= 0)):
            raise Failure("one number from 0 up" if model.variational else "no addend", describe(extra), case)
    return "a divergence" if model.variational else "the loss itself"


def gradients(subject: _Subject) -> str:
    """Every parameter gets a gradient that is not zero throughout, in training."""
    model = subject.build().train()
    features, extra = model(*_pairs(*SIZES[-1]))
    outputs = model.read_out(features).pow(2)
    return expect_every_gradient(model, outputs if extra is None else outputs + extra, "S=3, T=7, B=3")
