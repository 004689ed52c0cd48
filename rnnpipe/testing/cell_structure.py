"""What a cell tells backends about its structure, against its `step`.

Shapes: T timesteps, B batch, I input size, H hidden size, V classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell, GatedCell, LinearCell, State
from rnnpipe.errors import UsageError
from rnnpipe.testing.cell_subject import Subject
from rnnpipe.testing.report import Failure, Skipped
from rnnpipe.testing.running import Sizes, draw_inputs
from rnnpipe.testing.tensors import Pair, describe, expect_near, expect_same
from rnnpipe.testing.things import attempt

SIZES = (Sizes(1, 1, 1), Sizes(1, 1, 5), Sizes(7, 3, 5), Sizes(7, 3, 33))


def step_equals_structure(subject: Subject) -> str:
    """`step` is `pointwise` over the two products, or the recurrence of `coefficients` and `output` over all T."""
    largest = 0.0
    for sizes in SIZES:
        cell = subject.build(sizes)
        if not isinstance(cell, GatedCell | LinearCell):
            raise Skipped("a plain Cell has no structure beside its step")
        with attempt("a step, and its structure", str(sizes)):
            largest = max(largest, _gated(cell, sizes) if isinstance(cell, GatedCell) else _linear(cell, sizes))
    return f"largest difference {largest:.1e} over {len(SIZES)} sizes"


def _gated(cell: GatedCell, sizes: Sizes) -> float:
    inputs = draw_inputs([cell], sizes)
    state = inputs.states[0]
    u = tuple(gate[0] for gate in cell.project(inputs.x))
    r = F.linear(state[0], cell.recurrent_weight(), cell.bias_hh).chunk(cell.recurrent_gates, -1)
    expected = cell.pointwise(u, r, state)
    y, following = cell.step(u, state)
    pairs = [("step's output", y, expected[0]), *_by_name(cell, "step's state", following, expected)]
    return expect_near(pairs, "pointwise(W x + b_ih, R h + b_hh, state)", str(sizes))


def _linear(cell: LinearCell, sizes: Sizes) -> float:
    inputs = draw_inputs([cell], sizes)
    gates = cell.project(inputs.x)
    u = cell.delay(gates, inputs.states[0])
    a, b = cell.coefficients(u)
    h = cell.hidden(inputs.states[0])
    rows = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        rows.append(h)
    y, (final,) = LoopBackend().run([cell], inputs.x, inputs.states, None)
    expected = cell.state_of(h, tuple(gate[-1] for gate in gates[len(gates) - cell.delayed :]))
    pairs = [
        ("step's output", y, cell.output(u, torch.stack(rows))),
        *_by_name(cell, "step's state", final, expected),
    ]
    return expect_near(pairs, "output(u, h) with h' = a h + b, all timesteps at once", str(sizes))


def _by_name(cell: Cell, what: str, ours: State, theirs: State) -> list[Pair]:
    return [(f"{what} {name}", mine, other) for name, mine, other in zip(cell.state_shape, ours, theirs, strict=True)]


def pointwise_is_elementwise(subject: Subject) -> str:
    """Changing one hidden unit of one row of an argument of `pointwise` changes that unit of that row alone."""
    tried = 0
    for B, H in ((1, 2), (2, 1), (2, 5)):
        cell = _gated_cell(subject, Sizes(1, B, H))
        if cell.reduces_hidden:
            raise Skipped("it declares that it reduces over H")
        leaves = _arguments(cell, B)
        kept = [leaf.clone() for leaf in leaves]
        before = _pointwise(cell, leaves)
        named = list(zip(_argument_names(cell), leaves, kept, strict=True))
        expect_same(named, "what it was before pointwise saw it", f"B={B}, H={H}")
        for argument, name in enumerate(_argument_names(cell)):
            for row, unit in ((0, 0), (B - 1, H - 1)):
                for value in (math.nan, 1e3, -1e3):
                    changed = [leaf.clone() for leaf in leaves]
                    changed[argument][row, unit] = value
                    case = f"B={B}, H={H}, {name}[{row}, {unit}] set to {value:g}"
                    _only_there(cell, before, _pointwise(cell, changed), (row, unit), case)
                    tried += 1
    return f"{tried} changes of one element, each seen in that element alone"


def _only_there(cell: Cell, before: State, after: State, place: tuple[int, int], case: str) -> None:
    for name, old, new in zip(cell.state_shape, before, after, strict=True):
        if old.shape != new.shape:
            raise Failure(f"state {name} {describe(old)}", describe(new), case)
        moved = [index for index in (old != new).nonzero().tolist() if tuple(index) != place]
        if moved:
            raise Failure(f"state {name} changed at {list(place)} alone", f"a change at {moved[0]}", case)


def pointwise_can_be_traced(subject: Subject) -> str:
    """`pointwise` and its derivative trace on fake tensors: this is how a faster backend derives its kernel."""
    B, H = 2, 5
    cell = _gated_cell(subject, Sizes(1, B, H))
    leaves = _arguments(cell, B)
    cotangents = tuple(torch.ones(B, H, dtype=torch.float64) for _ in cell.state_shape)

    def forward_and_back(leaves: list[Tensor], cotangents: State) -> object:
        results, pull_back = torch.func.vjp(lambda *given: _pointwise(cell, list(given)), *leaves)[:2]
        return results, pull_back(cotangents)

    case = f"B={B}, H={H}"
    # A parameter that only pointwise uses (a peephole) is none of its arguments.
    with attempt("a pointwise that traces: tensor operations, no branch on values", case):
        graph = make_fx(forward_and_back, tracing_mode="fake", _allow_non_fake_inputs=True)(leaves, cotangents).graph
    operations = [node.target for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    if refused := sorted({str(op) for op in operations if torch.Tag.nondeterministic_seeded in op.tags}):
        raise Failure("a pointwise without random operations", ", ".join(refused), case)
    return f"{len(operations)} operations, forward and back"


def _gated_cell(subject: Subject, sizes: Sizes) -> GatedCell:
    cell = subject.build(sizes)
    if not isinstance(cell, GatedCell):
        raise Skipped("only a GatedCell has a pointwise")
    return cell


def _arguments(cell: GatedCell, B: int) -> list[Tensor]:
    """Return random u, r and state, one after the other."""
    generator = torch.Generator().manual_seed(0)
    count = cell.input_gates + cell.recurrent_gates + len(cell.state_shape)
    return [torch.randn(B, cell.hidden_size, generator=generator, dtype=torch.float64) for _ in range(count)]


def _argument_names(cell: GatedCell) -> Iterator[str]:
    yield from (f"u[{i}]" for i in range(cell.input_gates))
    yield from (f"r[{i}]" for i in range(cell.recurrent_gates))
    yield from (f"state {name}" for name in cell.state_shape)


def _pointwise(cell: GatedCell, leaves: list[Tensor]) -> State:
    first, second = cell.input_gates, cell.input_gates + cell.recurrent_gates
    return cell.pointwise(tuple(leaves[:first]), tuple(leaves[first:second]), tuple(leaves[second:]))


def project_by_timestep(subject: Subject) -> str:
    """`project` of a whole sequence is `project` of each timestep: it runs once for all T."""
    largest = 0.0
    for sizes in SIZES:
        cell = subject.build(sizes)
        x = draw_inputs([cell], sizes).x
        with attempt("a projection of the whole sequence", str(sizes)):
            whole = cell.project(x)
        for t in range(sizes.T):
            alone = cell.project(x[t : t + 1])
            pairs = [(f"gate {i} at t={t}", w[t], a[0]) for i, (w, a) in enumerate(zip(whole, alone, strict=True))]
            largest = max(largest, expect_near(pairs, "project of that timestep alone", str(sizes)))
    return f"largest difference {largest:.1e} over {len(SIZES)} sizes"


def one_hot_input(subject: Subject) -> str:
    """`project_classes` of classes is `project` of their one-hot rows, where the cell takes classes at all."""
    largest = 0.0
    for sizes in SIZES:
        cell = subject.build(sizes)
        generator = torch.Generator().manual_seed(0)
        classes = torch.randint(cell.input_size, (sizes.T, sizes.B), generator=generator)
        try:
            gathered = cell.project_classes(classes)
        except UsageError as refusal:
            raise Skipped(str(refusal)) from None
        multiplied = cell.project(F.one_hot(classes, cell.input_size).double())
        pairs = [(f"gate {i}", g, m) for i, (g, m) in enumerate(zip(gathered, multiplied, strict=True))]
        largest = max(largest, expect_near(pairs, "project of one-hot rows", str(sizes)))
    return f"largest difference {largest:.1e} over {len(SIZES)} sizes"
