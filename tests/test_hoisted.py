"""The hoisted backend against the float64 loop: named cells, random cells, both forms, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from rnnpipe.backends import hoisted
from rnnpipe.backends import layer as over_time
from rnnpipe.backends.compile import compile_graph, no_compiler
from rnnpipe.backends.hoisted import HoistedBackend
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell, GatedCell, Gates, State
from rnnpipe.cells.elman import Elman
from rnnpipe.cells.gru import GRU
from rnnpipe.cells.lstm import LSTM
from rnnpipe.errors import BackendRefusal, UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.testing.running import INPUT_SIZE, Sizes, draw_inputs, run
from rnnpipe.testing.tensors import expect_near

needs_compiler = pytest.mark.skipif(no_compiler("cpu") is not None, reason=str(no_compiler("cpu")))


class Mixed(GatedCell):
    """Everything at once: more gates of u than of r, parameters and buffers in pointwise, one gate used twice."""

    input_gates = 3
    recurrent_gates = 2
    state_names = ("h", "c")

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.peephole = nn.Parameter(torch.linspace(-1, 1, hidden_size))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("even", torch.arange(hidden_size) % 2 == 0)

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        keep = torch.sigmoid(u[0] + r[0] + self.peephole * state[1])
        c = keep * state[1] + (1 - keep) * torch.tanh(u[1] * self.scale + r[1])
        return torch.where(self.even, torch.sigmoid(u[2]) * c, torch.relu(c) - r[1] * state[0]), c


class Twice(GatedCell):
    """One tensor for two states, and one state that stays as it is."""

    input_gates = recurrent_gates = 1
    state_names = ("h", "a", "b", "fixed")

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        new = torch.sin(u[0] + r[0] / 2 + state[1] * state[3] / 8)  # so little, that it is not chaotic
        return new * state[2], new, new, state[3]


class Normed(GatedCell):
    """A reduction over H, which has no diagonal Jacobian.

    It forgets: with gains of 1 and all of r it is chaotic from some hundred units on, so that 511 timesteps on no digit
    of the loop's own result is certain.
    """

    input_gates = recurrent_gates = 1

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.norm = nn.LayerNorm(hidden_size)
        nn.init.constant_(self.norm.weight, 0.5)

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh(self.norm(u[0] + r[0] / 4)),)


class Exponential(LSTM):
    """A projection of its own, whose gradient needs its result: nobody may write over it."""

    def project(self, x: Tensor) -> Gates:
        return tuple(gate.exp() for gate in super().project(x))


def stack(cell: type[GatedCell], sizes: Sizes, **options: Any) -> list[Cell]:
    torch.manual_seed(0)
    return Recurrent(cell, INPUT_SIZE, sizes.H, sizes.layers, **options).double().cells()


def check_against_loop(backend: HoistedBackend, cells: list[Cell], sizes: Sizes) -> None:
    inputs = draw_inputs(cells, sizes)
    assert backend.refusal(cells, inputs.x, inputs.lengths) is None
    expected = run(LoopBackend(), cells, inputs)
    pairs = run(backend, cells, inputs).pairs(expected)
    # Gradients are sums over T and B.
    largest = max(1.0, *(float(theirs.detach().abs().max()) for _, _, theirs in pairs))
    expect_near(pairs, "the loop's", str(sizes), atol=1e-11 * largest)
    with torch.no_grad():
        y, finals = backend.run(cells, inputs.x, inputs.states, inputs.lengths)
    torch.testing.assert_close(y, expected.output)
    for ours, theirs in zip([leaf for final in finals for leaf in final], expected.finals.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


SIZES = [
    Sizes(1, 1, 5),
    Sizes(7, 3, 33, 2),
    Sizes(63, 3, 5),
    Sizes(7, 3, 33, padded=True),
    Sizes(63, 1, 5, padded=True),
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", [LSTM, GRU, Elman, Mixed, Twice, Normed, Exponential])
def test_plain_equals_loop(cell: type[GatedCell], sizes: Sizes) -> None:
    check_against_loop(HoistedBackend("never"), stack(cell, sizes), sizes)
    check_against_loop(HoistedBackend("never"), stack(cell, sizes, bias=False), sizes)


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[3]], ids=str)
@pytest.mark.parametrize("cell", [LSTM, GRU, Mixed, Normed])
def test_compiled_form_without_its_compiler(
    cell: type[GatedCell], sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The functions that would be compiled, as they are: in a second, all but the compiler's own work."""
    monkeypatch.setattr(over_time, "compile_graph", lambda graph: graph)
    monkeypatch.setattr(hoisted, "_plans", {})
    check_against_loop(HoistedBackend("always"), stack(cell, sizes), sizes)


@needs_compiler
def test_compiled_equals_loop() -> None:
    sizes = Sizes(7, 3, 33, padded=True)
    check_against_loop(HoistedBackend("always"), stack(Elman, sizes), sizes)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("sizes", [Sizes(1, 1, 5), Sizes(63, 3, 33, 2)], ids=str)
@pytest.mark.parametrize("cell", [LSTM, GRU, Mixed, Twice, Normed])
def test_compiled_cells_equal_loop(cell: type[GatedCell], sizes: Sizes) -> None:
    check_against_loop(HoistedBackend("always"), stack(cell, sizes), sizes)


# --- any pointwise ---

Expression = tuple[Any, ...]
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "atan2": lambda a, b: torch.atan2(a, 1 + b * b),
    "where": lambda a, b: torch.where(a > 0, a * b, b),
}
_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": lambda x: torch.exp(-x * x),
    "softplus": nn.functional.softplus,
    "square": lambda x: x * x / (1 + x * x),
    "sin": torch.sin,
    "relu": torch.relu,
    "half": lambda x: 0.5 - x,
}
_leaves = st.tuples(st.sampled_from(["u", "r", "state", "parameter"]), st.integers(0, 2))
_expressions = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(sorted(_UNARY)), inner), st.tuples(st.sampled_from(sorted(_BINARY)), inner, inner)
    ),
    max_leaves=6,
)


def value_of(expression: Expression, values: dict[str, tuple[Tensor, ...]]) -> Tensor:
    name, *rest = expression
    if name in values:
        return values[name][rest[0] % len(values[name])]
    parts = [value_of(part, values) for part in rest]
    return _BINARY[name](*parts) if name in _BINARY else _UNARY[name](*parts)


def random_cell(expressions: list[Expression], gates: tuple[int, int]) -> type[GatedCell]:
    class Random(GatedCell):
        input_gates, recurrent_gates = gates
        state_names = tuple(f"s{number}" for number in range(len(expressions)))

        def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
            super().__init__(input_size, hidden_size, bias=bias)
            self.a = nn.Parameter(torch.linspace(-1, 1, hidden_size))
            self.b = nn.Parameter(torch.full((), 0.3))

        def pointwise(self, u: Gates, r: Gates, state: State) -> State:
            values = {"u": u, "r": r, "state": state, "parameter": (self.a, self.b)}
            # Tanh, so that no state runs away; the shape, where an expression has only parameters in it.
            return tuple(torch.tanh(value_of(e, values)).expand_as(state[0]) for e in expressions)

    return Random


_random_cells = (
    st.lists(_expressions, min_size=1, max_size=3),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.booleans(),
)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*_random_cells)
def test_random_cells(expressions: list[Expression], gates: tuple[int, int], padded: bool) -> None:
    sizes = Sizes(7, 3, 5, padded=padded)
    check_against_loop(HoistedBackend("never"), stack(random_cell(expressions, gates), sizes), sizes)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(*_random_cells, st.sampled_from([1, 7, 63]), st.sampled_from([1, 3, 33]), st.sampled_from([5, 33]))
def test_more_random_cells(
    expressions: list[Expression], gates: tuple[int, int], padded: bool, T: int, B: int, H: int
) -> None:
    sizes = Sizes(T, B, H, padded=padded)
    check_against_loop(HoistedBackend("never"), stack(random_cell(expressions, gates), sizes), sizes)


@needs_compiler
@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(*_random_cells)
def test_random_cells_compiled(expressions: list[Expression], gates: tuple[int, int], padded: bool) -> None:
    sizes = Sizes(7, 3, 5, padded=padded)
    check_against_loop(HoistedBackend("always"), stack(random_cell(expressions, gates), sizes), sizes)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [LSTM, GRU, Elman, Mixed, Normed])
@pytest.mark.parametrize(("T", "B", "H"), [*itertools.product((1, 7, 63, 511), (1, 3, 33), (5, 33, 257, 1150))])
def test_every_size(cell: type[GatedCell], T: int, B: int, H: int) -> None:
    if T * B * H * H > 1e9 and cell is not LSTM:
        pytest.skip("minutes in float64; the LSTM stands for all at this size")
    sizes = Sizes(T, B, H, padded=B > 1)
    check_against_loop(HoistedBackend("never"), stack(cell, sizes), sizes)


# --- types, settings, derivatives ---


@pytest.mark.parametrize("cell", [LSTM, GRU, Elman, Mixed])
def test_bfloat16_gives_the_types_of_the_loop(cell: type[GatedCell]) -> None:
    sizes = Sizes(20, 4, 32, 2)
    cells = [c.float() for c in stack(cell, sizes)]
    x = torch.randn(20, 4, INPUT_SIZE)
    states = [c.initial_state(4, dtype=torch.float32) for c in cells]
    exact = LoopBackend().run(cells, x, states, None)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, finals = HoistedBackend("never").run(cells, x, states, None)
        expected, ends = LoopBackend().run(cells, x, states, None)
    assert y.dtype == expected.dtype
    assert [[leaf.dtype for leaf in state] for state in finals] == [[leaf.dtype for leaf in state] for state in ends]
    assert (y.float() - exact).norm() <= 1.2 * (expected.float() - exact).norm() + 1e-3 * exact.norm()
    y.float().sum().backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 for n, p in cells[0].named_parameters() if n != "unused"
    )


def test_cheap_tanh_is_within_rounding() -> None:
    torch.manual_seed(0)
    rnn = Recurrent(Elman, 1, 1, bias=False)
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter.fill_(1.0)
        rnn.cells()[0].weight_hh.zero_()
        x = torch.linspace(-12, 12, 4001)[None, :, None]
        y = HoistedBackend("never").run(rnn.cells(), x, rnn.initial_state(4001, x), None)[0]
    assert (y.double() - torch.tanh(x.double())).abs().max() < 2.5e-7


def test_a_changed_setting_is_seen() -> None:
    cells = stack(Elman, Sizes(3, 2, 5))
    inputs = draw_inputs(cells, Sizes(3, 2, 5))
    backend = HoistedBackend("never")
    for nonlinearity in ("tanh", "sigmoid"):
        cells[0].nonlinearity = nonlinearity
        y = backend.run(cells, inputs.x, inputs.states, None)[0]
        torch.testing.assert_close(y, LoopBackend().run(cells, inputs.x, inputs.states, None)[0])


def test_backward_twice_and_no_second_derivative() -> None:
    sizes = Sizes(4, 2, 5)
    cells = stack(LSTM, sizes)
    inputs = draw_inputs(cells, sizes)
    y, _ = HoistedBackend("never").run(cells, inputs.x, inputs.states, None)
    first = torch.autograd.grad(y.sum(), list(cells[0].parameters()), retain_graph=True)
    assert torch.autograd.grad(y.sum(), list(cells[0].parameters()), retain_graph=True)[0].equal(first[0])
    with pytest.raises(UsageError, match=r"'hoisted' has no second derivative.*backend 'loop'"):
        torch.autograd.grad(y.sum(), list(cells[0].parameters()), create_graph=True)


# --- what it refuses ---


class Branching(GatedCell):
    input_gates = recurrent_gates = 1

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (u[0] if u[0].sum() > 0 else r[0],)


class Noisy(Branching):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (nn.functional.dropout(u[0] + r[0], 0.5),)


class Changing(Branching):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (u[0].add_(r[0]),)


class Narrow(Branching):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return ((u[0] + r[0])[:, :1],)


class Single(Branching):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return u[0] + r[0]  # type: ignore[return-value]


class Stepping(Elman):
    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        return super().step(u, state)


class Raising(Branching):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        raise ValueError("three gates, please")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Branching, "Branching: its pointwise branches on a tensor's values"),
        (Noisy, "Noisy: its pointwise draws at random"),
        (Changing, "Changing: its pointwise changes what it is given"),
        (Narrow, r"Narrow: its pointwise gives the state h as \[.*, 1\], not \[B, H\]"),
        (Single, "Single: its pointwise does not return a tuple of 1 tensors"),
        (Stepping, "Stepping has a step of its own"),
        (Raising, "Raising: .*ValueError: three gates, please"),
    ],
)
def test_refusals_say_what_is_wrong(cell: type[GatedCell], words: str) -> None:
    rnn = Recurrent(cell, 3, 4, backend="hoisted")
    with pytest.raises(BackendRefusal, match=f"backend 'hoisted' refuses: {words}"):
        rnn(torch.randn(2, 3, 3))
    assert "no GatedCell" in str(HoistedBackend().refusal([Cell(3, 4)], torch.randn(2, 3, 3), None))


# --- compiled or plain ---


def test_compiles_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = Recurrent(LSTM, 3, 8).cells()
    backend = HoistedBackend()
    monkeypatch.setattr(hoisted, "no_compiler", lambda device: None)
    assert backend.elementwise(cells, 1 << 10, 16, ready=False) == ("compiled", None)
    assert backend.elementwise(cells, 1 << 10, 15, ready=False) == (
        "plain",
        "windows too small to win back the compilation",
    )
    assert HoistedBackend("never").elementwise(cells, 1 << 10, 16, ready=False)[0] == "plain"
    assert backend.elementwise([c.double() for c in cells], 1 << 10, 16, ready=False)[1] == "float64 is not compiled"


def test_it_is_chosen_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hoisted, "no_compiler", lambda device: None)
    rnn = Recurrent(LSTM, 3, 8, backends=[HoistedBackend(), LoopBackend()])
    small = torch.empty(1 << 10, 15, 3)
    assert rnn.refusals(torch.empty(1 << 10, 16, 3)) == ("hoisted", {})  # compiled
    assert rnn.refusals(torch.empty(8, 512, 3)) == ("hoisted", {})  # plain, and much at once
    chosen, refusals = rnn.refusals(small)
    assert chosen == "loop"
    assert refusals["hoisted"].startswith("in plain torch it is no faster than the loop on so little at once (windows")
    normed = Recurrent(Normed, 3, 8, backends=[HoistedBackend("never"), LoopBackend()])
    assert (
        "a reduction over hidden units (compiling is switched off)"
        in normed.refusals(torch.empty(8, 512, 3))[1]["hoisted"]
    )
    rnn.backend = "hoisted"  # by name, it runs whatever it accepts
    assert rnn.refusals(small) == ("hoisted", {})


def test_without_a_compiler_it_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    no_compiler.cache_clear()
    try:
        cells = Recurrent(LSTM, 3, 8).cells()
        assert HoistedBackend().elementwise(cells, 1 << 10, 16, ready=True) == (
            "plain",
            "there is no C++ compiler no-such-compiler",
        )
    finally:
        no_compiler.cache_clear()


def test_a_compiler_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object) -> None:
        raise RuntimeError("fatal error: omp.h")

    monkeypatch.setattr(over_time, "compile_graph", broken)
    monkeypatch.setattr(hoisted, "no_compiler", lambda device: None)
    monkeypatch.setattr(hoisted, "_WORTH_COMPILING", 0)
    rnn = Recurrent(LSTM, 3, 9, backends=[backend := HoistedBackend()])
    expected = Recurrent(LSTM, 3, 9, backends=[LoopBackend()])
    expected.load_state_dict(rnn.state_dict())
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(rnn(x)[0], expected(x)[0])
    assert backend.elementwise(rnn.cells(), 4, 2, ready=False) == ("plain", "the compiler fails: fatal error: omp.h")


@needs_compiler
@pytest.mark.parametrize("older", [False, True])
def test_a_compiled_graph_is_kept_and_an_older_compiler_is_asked(
    older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters
    from torch._inductor import compile_fx, config

    inner, tried = compile_fx.compile_fx_inner, []

    def compile_inner(*given: Any) -> Any:
        tried.append(config.cpp.vec_isa_ok)
        if older and config.cpp.vec_isa_ok:
            raise RuntimeError("unrecognized command-line option '-mavx512bf16'")
        return inner(*given)

    monkeypatch.setattr(compile_fx, "compile_fx_inner", compile_inner)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x = torch.randn(5)
    graph = make_fx(lambda x: (torch.tanh(x) * 2,), tracing_mode="fake")(x)
    counters.clear()
    for _ in range(2):
        torch.testing.assert_close(compile_graph(graph)(x)[0], torch.tanh(x) * 2)
    assert tried == ([True, None] if older else [True]) * 2
    assert counters["inductor"]["fxgraph_cache_hit"] == 1, "the second time, the first one's is found on disk"
