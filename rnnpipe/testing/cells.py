"""The checks of a recurrent cell: contract, structure, every backend, and what training and export need of it."""

from __future__ import annotations

import contextlib
import inspect
import io
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnpipe.cells.base import Cell, State
from rnnpipe.errors import UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.options import list_options
from rnnpipe.testing import cell_runs, cell_structure
from rnnpipe.testing.cell_subject import Subject
from rnnpipe.testing.modules import expect_same_parameters
from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.running import Sizes, draw_inputs
from rnnpipe.testing.tensors import expect_finite, expect_near, expect_same, expect_shape
from rnnpipe.testing.things import attempt, build, in_order, resolve, seeded_check
from rnnpipe.training.checkpoints import load_checkpoint, save_checkpoint

BF16_TOLERANCE = 0.05  # of the outputs' norm; one rounding to bfloat16 is up to 0.004 of a number


def check_cell(thing: str | type[Cell], /, **options: Any) -> list[Finding]:
    """Check a cell, given by class or by its registered name, built with `options`.

    Raises ConformanceError with every check that failed.
    """
    cell, name = resolve("cell", thing)
    return require(f"cell '{name}'", checks(cell, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a cell."""
    subject = Subject(thing, options)
    rest = {
        "step equals structure": cell_structure.step_equals_structure,
        "pointwise is elementwise": cell_structure.pointwise_is_elementwise,
        "pointwise can be traced": cell_structure.pointwise_can_be_traced,
        "projection by timestep": cell_structure.project_by_timestep,
        "one-hot input": cell_structure.one_hot_input,
        "backends": cell_runs.backends_equal_loop,
        "gradients": cell_runs.gradients,
        "split sequence": cell_runs.split_sequence,
        "padding": cell_runs.padding,
        "batch independence": cell_runs.batch_independence,
        "determinism": determinism,
        "save and load": save_and_load,
        "bf16 tolerance": bf16_tolerance,
        "GPU": cell_runs.gpu_equals_cpu,
        "export": export,
        "speed relative to lstm": speed,
    }
    return in_order(
        seeded_check("contract", contract, subject),
        [seeded_check(name, function, subject) for name, function in rest.items()],
    )


def contract(subject: Subject) -> str:
    """The class can be built as the pipeline builds it, and its sizes, state, gates and output are what it says."""
    if not (isinstance(subject.cell, type) and issubclass(subject.cell, Cell)):
        raise Failure("a subclass of rnnpipe.Cell", repr(subject.cell), "the thing itself")
    _options_within_reach(subject)
    built = 0
    refused = ""
    for sizes in ((1, 1), (3, 5), (2, 33)):
        for bias in (True, False):
            try:
                cell = build("cell", subject.cell, {"bias": bias, **subject.options}, *sizes)
            except UsageError as refusal:
                if bias:
                    raise
                refused = f"; without bias it refuses: {refusal}"  # in words, which a cell may
                continue
            case = f"I={sizes[0]}, H={sizes[1]}, bias={bias}"
            with attempt("sizes, state, project and step as the class Cell has them", case):
                _expect_contract(cell, sizes, case)
            built += 1
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in cell.state_shape.items())
    return f"{built} built; at H={cell.hidden_size} state {shapes}, output {cell.output_size}{refused}"


def _options_within_reach(subject: Subject) -> None:
    """Raise Failure for an option that no configuration reaches: the network, or `name`, takes the word."""
    network = {name for name, p in inspect.signature(Recurrent).parameters.items() if p.kind != p.VAR_KEYWORD}
    taken = (network | {"name"}) - {"bias"}
    for option in list_options(subject.cell, reserved=2):
        if option.name in taken:
            raise Failure(
                f"options other than {', '.join(sorted(taken))}, which a configuration uses itself",
                f"an option '{option.name}'",
                "the signature",
            )


def _expect_contract(cell: Cell, sizes: tuple[int, int], case: str) -> None:
    if (cell.input_size, cell.hidden_size) != sizes:
        raise Failure("input_size and hidden_size as given", f"{cell.input_size} and {cell.hidden_size}", case)
    expect_finite(((f"parameter {name}", parameter) for name, parameter in cell.named_parameters()), case)
    for dtype in (torch.float32, torch.float64):
        cell = cell.to(dtype)
        for B in (1, 3):
            where = f"{case}, B={B}"
            state = cell.initial_state(B, device=torch.device("cpu"), dtype=dtype)
            _expect_state("initial state", cell, state, B, dtype, where)
            u = cell.project(torch.zeros(B, sizes[0], dtype=dtype))
            if not isinstance(u, tuple) or not all(isinstance(gate, Tensor) and gate.shape[:1] == (B,) for gate in u):
                raise Failure(f"project to give a tuple of tensors [{B}, ...] for x [{B}, {sizes[0]}]", f"{u!r}", where)
            y, following = cell.step(u, state)
            expect_shape("step's output", y, (B, cell.output_size), dtype, where)
            _expect_state("step's state", cell, following, B, dtype, where)


def _expect_state(what: str, cell: Cell, state: State, B: int, dtype: torch.dtype, case: str) -> None:
    if not isinstance(state, tuple) or len(state) != len(cell.state_shape):
        raise Failure(f"{what}: a tuple of {', '.join(cell.state_shape)}", f"{state!r}", case)
    for (name, shape), leaf in zip(cell.state_shape.items(), state, strict=True):
        expect_shape(f"{what} {name}", leaf, (B, *shape), dtype, case)


def determinism(subject: Subject) -> str:
    """The same seed gives the same parameters, the same input the same bits; in training too, under a seed."""
    for sizes in (Sizes(1, 1, 1), Sizes(7, 3, 5)):
        expect_same_parameters(partial(subject.build, sizes), f"{sizes}, from seed 0")
        for training in (False, True):
            rnn = subject.stack(sizes, "loop").train(training)
            x = draw_inputs(rnn.cells(), sizes).x
            outputs = []
            for _ in range(2):
                if training:
                    torch.manual_seed(0)
                outputs.append(rnn(x)[0])
            mode = "training, from the same seed" if training else "evaluation"
            expect_same([("output", *outputs)], "that of the first time", f"{sizes}, in {mode}")
    return "the same bits, parameters and outputs"


def save_and_load(subject: Subject) -> str:
    """A checkpoint of weights and carried state, loaded into a network of another seed, goes on to the same bits."""
    sizes = Sizes(7, 3, 5, 2)
    rnn, other = subject.stack(sizes), subject.stack(sizes, seed=1)
    inputs = draw_inputs(rnn.cells(), sizes)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        _, state = rnn(inputs.x, tuple(inputs.states))
        checkpoint = load_checkpoint(save_checkpoint(Path(folder), 1, rnn.state_dict(), state, {}))
        weights = checkpoint.weights()
        other.load_state_dict(weights)
        expected, ours = rnn(inputs.x, state)[0], other(inputs.x, checkpoint.training())[0]
    expect_same([("output", ours, expected)], "that of the saved network", f"{sizes}, {len(weights)} tensors saved")
    return f"the same bits from {len(weights)} tensors"


def bf16_tolerance(subject: Subject) -> str:
    """With products in bfloat16, outputs of the loop are near those of float32: a faster backend may round less."""
    largest = 0.0
    for sizes in (Sizes(1, 1, 5), Sizes(20, 3, 33)):
        rnn = subject.stack(sizes, "loop").float()
        x = draw_inputs(rnn.cells(), sizes).x.float()
        with torch.no_grad(), attempt("a run with products in bfloat16", str(sizes)):
            exact = rnn(x)[0]
            with torch.autocast("cpu", torch.bfloat16):
                rounded = rnn(x)[0].float()
        error = float((rounded - exact).norm() / exact.norm().clamp_min(1e-30))
        if not error <= BF16_TOLERANCE:
            raise Failure(
                f"outputs within {BF16_TOLERANCE} of those of float32", f"a relative error of {error:.3g}", str(sizes)
            )
        largest = max(largest, error)
    return f"relative error {largest:.4f}; {BF16_TOLERANCE} is allowed"


class _OneStep(nn.Module):
    """One timestep as a function of tensors alone, which is what an export has to be."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, following = self.cell.step(self.cell.project(x), state)
        return (y, *following)


def export(subject: Subject) -> str:
    """One step, (x, state) to (y, state), exports with torch.export for any batch size and then gives the same."""
    traced, other = Sizes(1, 3, 5), Sizes(1, 7, 5)
    cell = subject.build(traced)
    module = _OneStep(cell)
    free = {0: torch.export.Dim("batch")}
    arguments = _arguments_of_one_step(cell, traced)
    # Torch prints the graph so far where it gives up, on standard error, which is for messages of ours.
    quiet = contextlib.redirect_stderr(io.StringIO())
    with attempt("a step that torch.export takes", str(traced)), torch.no_grad(), quiet:
        exported = torch.export.export(module, arguments, dynamic_shapes=(free, (free,) * len(cell.state_shape)))
    largest = 0.0
    for sizes in (traced, other):
        arguments = _arguments_of_one_step(cell, sizes)
        with torch.no_grad():
            ours, expected = exported.module()(*arguments), module(*arguments)
        names = ["output", *(f"state {name}" for name in cell.state_shape)]
        pairs = zip(names, ours, expected, strict=True)
        largest = max(largest, expect_near(pairs, "that of step itself", f"exported at B={traced.B}, {sizes}"))
    return f"{len(list(exported.graph.nodes))} nodes for any batch, largest difference {largest:.1e}"


def _arguments_of_one_step(cell: Cell, sizes: Sizes) -> tuple[Tensor, ...]:
    inputs = draw_inputs([cell], sizes)
    return (inputs.x[0], *inputs.states[0])


def speed(subject: Subject) -> str:
    """The time of a training step relative to `lstm`, medians in turns; a report, which cannot fail.

    Twelve turns, or as many as begin within a second, three at least; the first two warm up.
    """
    T, B, H = 32, 16, 64
    networks = [Recurrent(subject.cell, H, H, **subject.options), Recurrent("lstm", H, H)]
    x = torch.randn(T, B, H, requires_grad=True)  # a cell may have no parameters
    seconds: list[list[float]] = [[], []]
    end = time.perf_counter() + 1
    for turn in range(12):
        if turn > 2 and time.perf_counter() > end:
            break
        for rnn, times in zip(networks, seconds, strict=True):
            begun = time.perf_counter()
            rnn(x)[0].sum().backward()
            if turn > 1:
                times.append(time.perf_counter() - begun)
    own, lstm = map(statistics.median, seconds)
    by, lstm_by = (rnn.backend_used for rnn in networks)
    return (
        f"{own / lstm:.2f} times the time of lstm ({own * 1e3:.1f} ms by {by}, lstm {lstm * 1e3:.1f} ms by {lstm_by}; "
        f"T={T}, B={B}, H={H}, forward and backward)"
    )
