"""The checks of an encoder: its size and shape, token by token, and what training needs of it.

Shapes: T timesteps, B batch, V vocabulary, E the encoder's output size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnpipe.testing.modules import expect_every_gradient, expect_same_parameters
from rnnpipe.testing.report import Check, Failure, Finding, Skipped, require
from rnnpipe.testing.tensors import describe, expect_near, expect_same, expect_shape
from rnnpipe.testing.things import attempt, build, in_order, require_reachable, resolve, seeded, seeded_check
from rnnpipe.training.checkpoints import load_checkpoint, save_checkpoint

V = 11
SIZES = ((1, 1), (1, 3), (7, 3))  # T, B


def check_encoder(thing: str | Callable[..., nn.Module], /, **options: Any) -> list[Finding]:
    """Check an encoder, given by its factory or by its registered name, built with `options`.

    Raises ConformanceError with every check that failed.
    """
    factory, name = resolve("encoder", thing)
    return require(f"encoder '{name}'", checks(factory, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of an encoder."""
    subject = _Subject(thing, options)
    rest = {
        "shapes": shapes,
        "row independence": row_independence,
        "determinism": determinism,
        "gradients": gradients,
        "save and load": save_and_load,
    }
    return in_order(
        seeded_check("contract", contract, subject),
        [seeded_check(name, function, subject) for name, function in rest.items()],
    )


@dataclass(frozen=True)
class _Subject:
    """A factory of encoders and the options that it is called with."""

    factory: Any
    options: Mapping[str, Any]

    def build(self, vocab_size: int = V, seed: int = 0) -> nn.Module:
        """Return an encoder in evaluation mode: what it drops out in training is its own matter."""
        with seeded(seed):
            built: nn.Module = build("encoder", self.factory, self.options, vocab_size)
        if not isinstance(built, nn.Module):
            raise Failure("a torch module", describe(built), f"vocab_size={vocab_size}")
        return built.eval()


def _ids(T: int, B: int) -> Tensor:
    """Return ids [T, B], the largest among them."""
    ids = torch.randint(V, (T, B), generator=torch.Generator().manual_seed(0))
    ids[-1, -1] = V - 1
    return ids


def contract(subject: _Subject) -> str:
    """It is a torch module built from a vocabulary's size, and has an `output_size`."""
    require_reachable(subject.factory, reserved=1)
    sizes = []
    for vocab_size in (2, V):
        encoder, case = subject.build(vocab_size), f"vocab_size={vocab_size}"
        size = getattr(encoder, "output_size", None)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise Failure("an output_size above 0", repr(size), case)
        sizes.append(f"{size} for {vocab_size} tokens")
    return f"output size {', '.join(sizes)}"


def shapes(subject: _Subject) -> str:
    """Ids [T, B] become float32 [T, B, output_size]; or stay ids, for one-hot vectors of the vocabulary's size."""
    encoder = subject.build()
    size = encoder.output_size
    for T, B in SIZES:
        ids, case = _ids(T, B), f"T={T}, B={B}, V={V}"
        with torch.no_grad(), attempt(f"encoded ids, [T, B, {size}]", case):
            encoded = encoder(ids)
        if isinstance(encoded, Tensor) and not encoded.is_floating_point():
            expect_same([("ids passed on as one-hot input", encoded, ids)], "the ids", case)
            if size != V:
                raise Failure(f"output_size={V}, the vocabulary's, for one-hot input", str(size), case)
        else:
            expect_shape("encoded ids", encoded, (T, B, int(str(size))), torch.float32, case)
    return f"{describe(encoded)} for ids {list(ids.shape)}"


def row_independence(subject: _Subject) -> str:
    """Each token's vector is what it is alone, whatever stands beside it, before it and behind it."""
    encoder, largest = subject.build(), 0.0
    for T, B in SIZES[1:]:
        ids = _ids(T, B)
        with torch.no_grad():
            whole = encoder(ids)
            for t, row in [(t, row) for t in range(T) for row in range(B)]:
                alone = encoder(ids[t : t + 1, row : row + 1])
                pair = (f"token at [{t}, {row}]", whole[t : t + 1, row : row + 1], alone)
                largest = max(largest, expect_near([pair], "that token alone", f"T={T}, B={B}", rtol=1e-6, atol=1e-7))
    return f"largest difference {largest:.1e}"


def determinism(subject: _Subject) -> str:
    """The same seed gives the same parameters, and the same ids the same bits."""
    expect_same_parameters(subject.build, "from seed 0")
    encoder = subject.build()
    for T, B in SIZES:
        with torch.no_grad():
            once, again = encoder(_ids(T, B)), encoder(_ids(T, B))
        expect_same([("encoded ids", again, once)], "those of the first time", f"T={T}, B={B}")
    return "the same bits, parameters and vectors"


def gradients(subject: _Subject) -> str:
    """Every parameter gets a gradient that is not zero throughout."""
    encoder = subject.build()
    encoded = encoder(_ids(7, 3))
    if not encoded.is_floating_point():
        raise Skipped("the ids are passed on: the cell has the weights")
    return expect_every_gradient(encoder, encoded, f"T=7, B=3, V={V}")


def save_and_load(subject: _Subject) -> str:
    """A checkpoint loaded into an encoder of another seed gives the same bits."""
    encoder, other = subject.build(), subject.build(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = load_checkpoint(save_checkpoint(Path(folder), 1, encoder.state_dict(), (), {})).weights()
    other.load_state_dict(weights)
    for T, B in SIZES:
        with torch.no_grad():
            ours, expected = other(_ids(T, B)), encoder(_ids(T, B))
        expect_same([("encoded ids", ours, expected)], "those of the saved encoder", f"T={T}, B={B}")
    return f"the same bits from {len(weights)} tensors"
