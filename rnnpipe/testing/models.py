"""The checks of a language model: shapes, the carried state, generation step by step, and what training needs of it.

Shapes: T timesteps, B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from rnnpipe.errors import UsageError
from rnnpipe.models.base import Model
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent, States
from rnnpipe.testing import pair_models, sequence_models
from rnnpipe.testing.any_model import SIZES, determinism, dropout, gradients, save_and_load
from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.tensors import Pair, describe, expect_near, expect_shape
from rnnpipe.testing.things import attempt, build, in_order, require_reachable, resolve, seeded, seeded_check

V = 11


def check_model(thing: str | Callable[..., Model], /, **options: Any) -> list[Finding]:
    """Check a model, given by its factory or by its registered name, built with `options`.

    Raises ConformanceError with every check that failed.
    """
    factory, name = resolve("model", thing)
    return require(f"model '{name}'", checks(factory, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a model: of a language model, of one for sequences or of one for pairs."""
    if pair_models.reads_pairs(thing):
        return pair_models.checks(thing, options)
    if sequence_models.reads_sequences(thing):
        return sequence_models.checks(thing, options)
    subject = _Subject(thing, options)
    rest = {
        "shapes": shapes,
        "carried state": carried_state,
        "prime and step": prime_and_step,
        "rows of the state": rows_of_the_state,
        "windows": windows,
        "tied readout": tied_readout,
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
    outputs: ClassVar[str] = "logits"
    axes: ClassVar[str] = "T, B"
    sizes: ClassVar[tuple[tuple[int, ...], ...]] = SIZES
    sizes_of_dropout: ClassVar[tuple[tuple[int, ...], ...]] = SIZES

    def build(self, *, seed: int = 0, **supplied: Any) -> LanguageModel:
        """Return a small model in float64, in evaluation mode, its parts as the pipeline gives them."""
        with seeded(seed):
            encoder = Embedding(V, size=6)
            recurrent = Recurrent("gru", 6, 5, 2)  # without dropout of its own, so that the model's shows
            given = {"dropout": 0.0, "tied": False, "window": None, **supplied}
            built: LanguageModel = build("model", self.factory, self.options, encoder, recurrent, V, **given)
        if not isinstance(built, nn.Module):
            raise Failure("a torch module", describe(built), ", ".join(f"{name}={v}" for name, v in given.items()))
        return built.double().eval()

    def inputs(self, *size: int) -> tuple[Tensor]:
        """Return ids [T, B]."""
        return (_ids(*size),)


def _ids(T: int, B: int) -> Tensor:
    return torch.randint(V, (T, B), generator=torch.Generator().manual_seed(0))


def contract(subject: _Subject) -> str:
    """It is built from encoder, recurrent stack and vocabulary size, and keeps them for what runs it."""
    require_reachable(subject.factory, reserved=3)
    model = subject.build()
    for name, kind in (("encoder", Embedding), ("recurrent", Recurrent)):
        part = getattr(model, name, None)
        if not isinstance(part, kind):
            raise Failure(f"its {name} as `{name}`", repr(part), "dropout=0, not tied, no window")
    for name, value, window in (("vocab_size", V, None), ("window", None, None), ("window", 3, 3)):
        kept = getattr(subject.build(window=window), name, "nothing")
        if kept != value:
            raise Failure(f"{name}={value}", repr(kept), f"window={window}")
    return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"


def shapes(subject: _Subject) -> str:
    """Logits are [T, B, V], a vocabulary's for each timestep, and the state is one that the next call takes."""
    model = subject.build()
    for T, B in SIZES:
        with torch.no_grad(), attempt("logits and a state to go on from", f"T={T}, B={B}"):
            logits, state = model(_ids(T, B))
            expect_shape("logits", logits, (T, B, V), torch.float64, f"T={T}, B={B}")
            logits, _ = model(_ids(T, B), state)
            expect_shape("logits from a carried state", logits, (T, B, V), torch.float64, f"T={T}, B={B}")
    return f"logits [T, B, {V}] over {len(SIZES)} sizes"


def carried_state(subject: _Subject) -> str:
    """A text in two pieces, the state carried between them, gives the logits and the state of one pass."""
    model, largest = subject.build(), 0.0
    for T, B in SIZES[1:]:
        ids, case = _ids(T, B), f"T={T}, B={B}, cut at 1"
        with torch.no_grad(), attempt("two calls with the state between them", case):
            whole, final = model(ids)
            first, between = model(ids[:1])
            second, end = model(ids[1:], between)
        pairs = [("logits", torch.cat((first, second)), whole), *_states(end, final)]
        largest = max(largest, expect_near(pairs, "that of one pass", case))
    return f"largest difference {largest:.1e}"


def _states(ours: States, theirs: States) -> list[Pair]:
    return [
        (f"state {layer}.{leaf}", mine, other)
        for layer, (own, others) in enumerate(zip(ours, theirs, strict=True))
        for leaf, (mine, other) in enumerate(zip(own, others, strict=True))
    ]


def prime_and_step(subject: _Subject) -> str:
    """`prime` of padded prompts, then `step` by token, gives the logits of `forward` over each text alone."""
    largest = 0.0
    for window in (None, 3):
        model = subject.build(window=window)
        for T, B in SIZES:
            largest = max(largest, _generate_beside_forward(model, T, B))
    return f"largest difference {largest:.1e}, with and without a window"


def _generate_beside_forward(model: LanguageModel, T: int, B: int) -> float:
    lengths = torch.arange(B) % T + 1
    prompts, more = _ids(T, B), _ids(4, B).flip(0)
    case = f"window={model.window}, T={T}, B={B}, lengths {lengths.tolist()}"
    with torch.no_grad(), attempt("prime, then step", case):
        logits, state = model.prime(prompts, lengths)
        found = [logits]
        for tokens in more:
            logits, state = model.step(tokens.clone(), state)
            found.append(logits)
        pairs = []
        for row, length in enumerate(lengths.tolist()):
            text = torch.cat((prompts[:length, row], more[:, row]))
            for steps, logits in enumerate(found):
                expected = _behind(model, text[: length + steps])
                pairs.append((f"logits of row {row} after {steps} steps", logits[row], expected))
    return expect_near(pairs, "those of forward over that text alone", case)


def rows_of_the_state(subject: _Subject) -> str:
    """Every leaf of the state behind `prime` has the batch as axis 0: rows picked from it go on as they would have."""
    largest, picked = 0.0, torch.tensor([2, 0])
    for window in (None, 3):
        model, case = subject.build(window=window), f"window={window}, T=7, B=3, rows 2 and 0"
        tokens = torch.arange(3) % V
        with torch.no_grad(), attempt("prime, then step with some of the rows", case):
            _, state = model.prime(_ids(7, 3), torch.tensor([7, 2, 4]))
            whole, _ = model.step(tokens, state)
            rows = tree_map(lambda leaf: leaf.index_select(0, picked), state)
            some, _ = model.step(tokens[picked], rows)
        largest = max(largest, expect_near([("logits", some, whole[picked])], "those beside the other row", case))
    return f"largest difference {largest:.1e}, with and without a window"


def _behind(model: LanguageModel, text: Tensor) -> Tensor:
    """Return the logits [V] of the token behind a text, by `forward`."""
    if model.window is None:
        logits: Tensor = model(text[:, None])[0][-1, 0]
    else:
        logits = model(text[-model.window :, None])[0][0]
    return logits


def windows(subject: _Subject) -> str:
    """With a window, logits are [B, V], those of the token behind it, whatever stands past a row's length."""
    largest = 0.0
    for T, B in SIZES:
        model, ids, case = subject.build(window=T), _ids(T, B), f"window={T}, B={B}"
        lengths = torch.arange(B) % T + 1
        with torch.no_grad(), attempt("logits of windows, with lengths and without", case):
            expect_shape("logits", model(ids)[0], (B, V), torch.float64, case)
            logits = model(ids, lengths=lengths)[0]
            alone = [model(ids[:length, row : row + 1])[0][0] for row, length in enumerate(lengths.tolist())]
        expect_shape("logits with lengths", logits, (B, V), torch.float64, case)
        pairs = [(f"logits of row {row}", logits[row], expected) for row, expected in enumerate(alone)]
        largest = max(largest, expect_near(pairs, "those of that row alone", f"{case}, lengths {lengths.tolist()}"))
    return f"logits [B, {V}], largest difference {largest:.1e}"


def tied_readout(subject: _Subject) -> str:
    """`tied` leaves no readout matrix of its own [V, ·], or is refused in words."""
    case = f"tied, V={V}, embedding 6, hidden size 5"
    try:
        model = subject.build(tied=True)
    except UsageError as refusal:
        return f"refused: {refusal}"
    with torch.no_grad(), attempt("logits with a tied readout", case):
        expect_shape("logits", model(_ids(2, 3))[0], (2, 3, V), torch.float64, case)
    own = [n for n, p in model.named_parameters() if p.dim() == 2 and p.shape[0] == V and not n.startswith("encoder.")]
    if own:
        raise Failure("no matrix over the vocabulary but the embedding's", ", ".join(own), case)
    return "the embedding's weight is the readout's"
