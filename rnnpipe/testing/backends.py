"""The checks of a backend: equal to the loop over every built-in cell that it takes, and plain words for the others."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rnnpipe.backends.base import Backend
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell, GatedCell, Gates, State
from rnnpipe.options import list_options
from rnnpipe.plugins import full_registry
from rnnpipe.testing.report import Check, Failure, Finding, Skipped, require
from rnnpipe.testing.running import INPUT_SIZE, Inputs, Sizes, draw_inputs, run
from rnnpipe.testing.tensors import expect_near
from rnnpipe.testing.things import attempt, build, in_order, resolve, seeded_check

CASES = (Sizes(1, 1, 5, zeros=True), Sizes(7, 1, 33), Sizes(7, 3, 5), Sizes(33, 3, 33))
PADDED = tuple(replace(sizes, padded=True) for sizes in CASES)
STACKS = tuple(
    Sizes(T, B, H, layers, padded)
    for T, B, H, layers in ((1, 1, 5, 2), (7, 3, 5, 2), (7, 3, 33, 3))
    for padded in (False, True)
)
BF16_TOLERANCE = 0.05  # between two ways to round the same products to bfloat16, of the outputs' norm


def check_backend(thing: str | Callable[..., Backend], /, **options: Any) -> list[Finding]:
    """Check a backend, given by its factory or by its registered name, built with `options`.

    Raises ConformanceError with every check that failed.
    """
    factory, name = resolve("backend", thing)
    return require(f"backend '{name}'", checks(factory, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a backend."""

    def check(name: str, function: Callable[[Backend], str]) -> Check:
        return seeded_check(name, lambda: function(build("backend", thing, options)))

    return in_order(
        check("name and priority", name_and_priority),
        [
            check("refusal in words", refusal_in_words),
            check("equal to the loop", lambda backend: _compare(backend, _plain_cases(CASES))),
            check("lengths", lambda backend: _compare(backend, _plain_cases(PADDED))),
            check("stacks", lambda backend: _compare(backend, _plain_cases(STACKS))),
            check("accepted inputs", accepted_inputs),
            check("subclasses", subclasses),
            check("without gradients", without_gradients),
        ],
    )


@dataclass(frozen=True)
class _Reference:
    """A built-in cell with options: what a backend is measured on."""

    label: str
    cell: type[Cell]
    options: dict[str, Any]

    def stack(self, sizes: Sizes) -> list[Cell]:
        """Return a stack of such cells in float64."""
        inputs = [INPUT_SIZE] + [sizes.H] * (sizes.layers - 1)
        return [build("cell", self.cell, self.options, size, sizes.H).double().eval() for size in inputs]


def _references() -> list[_Reference]:
    """Return every built-in cell, in every variant that an option of a few fixed values chooses among."""
    found = []
    for entry in full_registry().entries("cell"):
        if entry.distribution != "rnnpipe":
            continue
        cell = entry.load()
        choices = [o for o in list_options(cell, reserved=2) if typing.get_origin(o.annotation) is typing.Literal]
        variants = [{o.name: value} for o in choices for value in typing.get_args(o.annotation)] or [{}]
        for options in [*variants, {"bias": False}]:
            words = ", ".join(f"{name}={value}" for name, value in options.items())
            found.append(_Reference(f"{entry.name} {words}".strip(), cell, options))
    return found


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def name_and_priority(backend: Backend) -> str:
    """A name for people to choose it by, and a whole number that orders the automatic choice."""
    if not isinstance(backend.name, str) or not backend.name or backend.name == "auto":
        raise Failure("a name other than auto", repr(backend.name), "the backend itself")
    if not isinstance(backend.priority, int) or isinstance(backend.priority, bool):
        raise Failure("a priority that is a whole number", repr(backend.priority), "the backend itself")
    return f"{backend.name}, priority {backend.priority}"


def refusal_in_words(backend: Backend) -> str:
    """`refusal` gives None or a sentence, whatever it is asked about."""
    accepted = refused = 0
    for case, cells, inputs in [*_plain_cases(CASES[:1]), *_edge_cases()]:
        with attempt("None, or a reason in words", case):
            reason = backend.refusal(cells, inputs.x, inputs.lengths)
        if reason is not None and (not isinstance(reason, str) or len(reason.split()) < 2):
            raise Failure("None, or a reason in words", repr(reason), case)
        accepted, refused = accepted + (reason is None), refused + (reason is not None)
    return f"accepts {accepted} and refuses {refused} of {accepted + refused} stacks"


def _plain_cases(cases: Sequence[Sizes]) -> Iterator[tuple[str, list[Cell], Inputs]]:
    for sizes in cases:
        for reference in _references():
            cells = reference.stack(sizes)
            yield f"{reference.label}, {sizes}", cells, draw_inputs(cells, sizes)


def _edge_cases() -> Iterator[tuple[str, list[Cell], Inputs]]:
    """Yield what is unusual and within the contract: a backend may refuse it, and if it does not it must run it."""
    sizes = Sizes(3, 2, 5)
    for case, cells, inputs in _plain_cases([sizes]):
        classes = torch.arange(sizes.T * sizes.B).view(sizes.T, sizes.B) % INPUT_SIZE
        strided = inputs.x.repeat_interleave(2, 1)[:, ::2]
        yield f"{case}, a sequence of length 0", cells, replace(inputs, lengths=torch.tensor([0, sizes.T]))
        yield f"{case}, one-hot input", cells, replace(inputs, x=classes)
        yield f"{case}, an input that is not contiguous", cells, replace(inputs, x=strided)
    two = replace(sizes, layers=2)
    references = _references()
    for first, second in itertools.pairwise(references):
        cells = [first.stack(two)[0], second.stack(two)[1]]
        yield f"{first.label} below {second.label}, {two}", cells, draw_inputs(cells, two)


def _compare(backend: Backend, cases: Iterator[tuple[str, list[Cell], Inputs]]) -> str:
    """Compare a backend with the loop over all cases that it accepts, on every device: all that comes out of a run."""
    largest, runs = 0.0, 0
    refusals: set[str] = set()
    for case, cells, inputs in cases:
        for device in _devices():
            for cell in cells:
                cell.to(device)
            reason = backend.refusal(cells, inputs.x.to(device), inputs.lengths)
            if reason is not None:
                refusals.add(reason)
                continue
            with attempt("a run of what is not refused", f"{case}, {device}"):
                ours = run(backend, cells, inputs, device)
            for cell in cells:
                cell.to("cpu")
            expected = run(LoopBackend(), cells, inputs)
            largest = max(largest, expect_near(ours.pairs(expected), "the loop's", f"{case}, {device}"))
            runs += 1
    if not runs:
        raise Skipped(f"it refuses all of them: {'; '.join(sorted(refusals))}")
    return f"largest difference {largest:.1e} over {runs} runs"


def accepted_inputs(backend: Backend) -> str:
    """What it accepts it runs: one-hot classes, a sequence of no length, strided input, layers that differ."""
    return _compare(backend, _edge_cases())


def subclasses(backend: Backend) -> str:
    """A subclass of a built-in cell with another equation is refused, or run as what it is."""
    try:
        return _compare(backend, _changed_cells())
    except Skipped as refusal:
        return str(refusal)  # which is as it should be


def _changed_cells() -> Iterator[tuple[str, list[Cell], Inputs]]:
    sizes = Sizes(3, 2, 5)
    for reference in _references():
        parent = reference.cell
        if not issubclass(parent, GatedCell):
            continue

        def halved(self: GatedCell, u: Gates, r: Gates, state: State, parent: type[GatedCell] = parent) -> State:
            return tuple(leaf / 2 for leaf in parent.pointwise(self, u, r, state))

        changed = type(f"Half{parent.__name__}", (parent,), {"pointwise": halved})
        cells = _Reference(reference.label, changed, reference.options).stack(sizes)
        yield f"a subclass of {reference.label} with half its states, {sizes}", cells, draw_inputs(cells, sizes)


def without_gradients(backend: Backend) -> str:
    """Under `no_grad`, in float32 and with products in bfloat16, outputs are near the loop's."""
    largest, runs = 0.0, 0
    for case, cells, inputs in _plain_cases(CASES[:3]):
        for device, half in [(device, half) for device in _devices() for half in (False, True)]:
            there = [cell.float().to(device) for cell in cells]
            x = inputs.x.float().to(device)
            states = [tuple(leaf.float().to(device) for leaf in state) for state in inputs.states]
            if backend.refusal(there, x, inputs.lengths) is not None:
                continue
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
                ours = backend.run(there, x, states, inputs.lengths)[0].double()
                expected = LoopBackend().run(there, x, states, inputs.lengths)[0].double()
            error = float((ours - expected).norm() / expected.norm().clamp_min(1e-30))
            allowed = BF16_TOLERANCE if half else 1e-4
            precision = "bfloat16" if half else "float32"
            if not error <= allowed:
                raise Failure(
                    f"outputs within {allowed} of the loop's, relatively",
                    f"an error of {error:.3g}",
                    f"{case}, {precision}, {device}",
                )
            largest, runs = max(largest, error), runs + 1
    if not runs:
        raise Skipped("it takes none of the built-in cells")
    return f"largest relative error {largest:.1e} over {runs} runs"
