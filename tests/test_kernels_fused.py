"""The fused backend against the loop: on a GPU, or in Triton's interpreter where there is none."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnpipe.backends import fused
from rnnpipe.backends.fused import FusedBackend
from rnnpipe.backends.kernels import gated
from rnnpipe.backends.kernels.ready import no_kernels
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell, GatedCell, Gates, State
from rnnpipe.cells.cifg import CIFG
from rnnpipe.cells.elman import Elman
from rnnpipe.cells.gru import GRU
from rnnpipe.cells.janet import JANET
from rnnpipe.cells.light_gru import LightGRU
from rnnpipe.cells.lstm import LSTM
from rnnpipe.cells.slstm import SLSTM
from rnnpipe.errors import BackendRefusal, UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.testing.running import INPUT_SIZE, Sizes, draw_inputs, run
from rnnpipe.testing.tensors import expect_near

pytest.importorskip("triton", reason="there is no Triton; pip install 'rnnpipe[triton]'")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path))


class Peephole(GatedCell):
    """The LSTM of the worked package, for tests without it."""

    input_gates = recurrent_gates = 4
    state_names = ("h", "c")

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.peepholes = nn.ParameterList(torch.linspace(-1, 1, hidden_size) * (i + 1) for i in range(3))

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        i, f, g, o = (a + b for a, b in zip(u, r, strict=True))
        c = torch.sigmoid(f + self.peepholes[1] * state[1]) * state[1]
        c = c + torch.sigmoid(i + self.peepholes[0] * state[1]) * torch.tanh(g)
        return torch.sigmoid(o + self.peepholes[2] * c) * torch.tanh(c), c


class Mixed(GatedCell):
    """Everything at once: more gates of u than of r, a vector, a number and a mask as constants, one gate unused."""

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
        c = keep * state[1] + (1 - keep) * torch.tanh(u[1] * self.scale + 0.1)
        return torch.where(self.even, torch.sigmoid(u[2]) * c, torch.relu(c) - r[1] * state[0]), c


def check_against_loop(cell: type[GatedCell], sizes: Sizes, **options: Any) -> None:
    torch.manual_seed(0)
    rnn = Recurrent(cell, INPUT_SIZE, sizes.H, sizes.layers, **options).double()
    inputs = draw_inputs(rnn.cells(), sizes)
    expected = run(LoopBackend(), rnn.cells(), inputs)
    cells, backend = rnn.to(DEVICE).cells(), FusedBackend(interpret=True)
    assert backend.refusal(cells, inputs.x.to(DEVICE), inputs.lengths) is None
    expect_near(run(backend, cells, inputs, DEVICE).pairs(expected), "the loop's", str(sizes))


CELLS = [LSTM, GRU, Elman, Peephole, Mixed, CIFG, JANET, LightGRU, SLSTM]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_cells_equal_the_loop(cell: type[GatedCell]) -> None:
    check_against_loop(cell, Sizes(1, 1, 5))
    check_against_loop(cell, Sizes(3, 3, 17, layers=2, padded=True))
    check_against_loop(cell, Sizes(2, 1, 5), bias=False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("rows", "cols", "depth"), [(16, 16, 16), (32, 64, 32)])
def test_tiles(rows: int, cols: int, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles along every side, and one that is larger than all of them."""
    monkeypatch.setattr(fused, "tiles", lambda *_: fused.Tiles(rows, cols, depth, 1))
    check_against_loop(Peephole, Sizes(3, 33, 33))
    check_against_loop(Mixed, Sizes(2, 17, 33, padded=True))


@pytest.mark.slow
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("cell", [LSTM, GRU, Peephole, SLSTM], ids=lambda cell: cell.__name__)
@pytest.mark.parametrize(("T", "B", "H"), [*itertools.product((1, 7), (1, 3, 33), (5, 33)), (63, 1, 33), (63, 3, 5)])
def test_cells_equal_the_loop_at_every_size(cell: type[GatedCell], T: int, B: int, H: int) -> None:
    zeros = cell is SLSTM  # it divides by its state n, and a random one near 0 loses digits in any order of sums
    check_against_loop(cell, Sizes(T, B, H, zeros=zeros))
    check_against_loop(cell, Sizes(min(T, 7), B, H, layers=2, padded=True, zeros=zeros))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("cell", [LSTM, GRU, Elman, SLSTM], ids=lambda cell: cell.__name__)
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_narrow_types_are_near_the_exact_loop(cell: type[GatedCell], precision: str) -> None:
    """Outputs and gradients are as near as the types allow, and have the types of the loop's."""
    torch.manual_seed(0)
    rnn = Recurrent(cell, INPUT_SIZE, 19)
    x = torch.randn(4, 3, INPUT_SIZE)
    exact = outputs_and_gradients(LoopBackend(), rnn.double(), x.double())
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rnn, x = rnn.to(DEVICE, dtype), x.to(DEVICE, dtype)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "autocast"):
        ours = outputs_and_gradients(FusedBackend(interpret=True), rnn, x)
        theirs = outputs_and_gradients(LoopBackend(), rnn, x)
    for mine, reference, true in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == reference.dtype
        error = (mine.cpu().double() - true).norm() / true.norm()
        assert error < (1e-5 if precision == "float32" else 0.03)


def outputs_and_gradients(backend: Any, rnn: Recurrent, x: Tensor) -> list[Tensor]:
    states = [cell.initial_state(x.shape[1], dtype=x.dtype, device=x.device) for cell in rnn.cells()]
    y, finals = backend.run(rnn.cells(), x, states, None)
    weights = torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype, device=y.device)
    gradients = torch.autograd.grad((y * weights).sum(), list(rnn.parameters()))
    return [y.detach(), *(leaf.detach() for leaf in finals[0]), *gradients]


def test_without_gradients_and_with_one_hot_input() -> None:
    rnn = Recurrent(GRU, 4, 5, backend="fused", backends=[FusedBackend(interpret=True)]).to(DEVICE)
    classes = torch.arange(6, device=DEVICE).view(3, 2) % 4
    with torch.no_grad():
        y = rnn(classes)[0]
        rnn.backend, rnn.backends = "loop", [LoopBackend()]
        torch.testing.assert_close(y, rnn(classes)[0])


# --- any pointwise ---

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda x: torch.exp(-x * x),
    "expm1": torch.expm1,
    "log1p": lambda x: torch.log1p(x * x),
    "log": lambda x: torch.log(1 + x.abs()),
    "log2": lambda x: torch.log2(1 + x * x) + torch.exp2(-x * x),
    "sqrt": lambda x: torch.sqrt(0.1 + x * x) + torch.rsqrt(1 + x * x),
    "sin": lambda x: torch.sin(x) * torch.cos(2 * x),
    "erf": torch.erf,
    "powers": lambda x: x**2 - 0.3 * x**3 + (1 + x * x) ** 1.5 + (2 + x * x) ** -0.5,
    "reciprocal": lambda x: (1 + x * x).reciprocal() - 2 / (3 + x.abs()),
    "relu": lambda x: torch.relu(x) - nn.functional.leaky_relu(x, 0.2),
    "elu": lambda x: nn.functional.elu(x, 0.7) + nn.functional.gelu(x),
    "softplus": lambda x: nn.functional.softplus(x) + nn.functional.logsigmoid(x) + nn.functional.silu(x),
    "hard": lambda x: nn.functional.hardtanh(x, -0.5, 0.7),
    "clamp": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1) * x.clamp(max=0.2),
    "extremes": lambda x: torch.maximum(x, 0.5 * x) - torch.minimum(x, 2 * x),
    "where": lambda x: torch.where((x > 0.2) & ~(x >= 1) | (x < -1), x, -x) + (x != 0).to(x.dtype),
    "signs": lambda x: torch.sign(x) * x + torch.floor(x) - torch.ceil(2 * x),
    "halves": lambda x: torch.addcmul(x, x, x, value=0.5) + torch.lerp(x, x * x, 0.3) - torch.rsub(x, 0.7, alpha=2),
    "buffered": lambda x: (torch.zeros_like(x) + x) * (x > 0.1) + x * x.bool().double(),
    "filled": lambda x: x * torch.full_like(x, 1 / 3) + torch.ones_like(x) - torch.tensor(0.1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    class Applies(GatedCell):
        input_gates = recurrent_gates = 1

        def pointwise(self, u: Gates, r: Gates, state: State) -> State:
            return (torch.tanh(FUNCTIONS[name](u[0] + r[0])) + 0.5 * state[0],)

    check_against_loop(Applies, Sizes(2, 2, 5))


class Expanding(GatedCell):
    """Parameters in the shape of a state, before anything is computed of them."""

    input_gates = recurrent_gates = 1

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.slope = nn.Parameter(torch.linspace(-1, 1, hidden_size))
        self.shift = nn.Parameter(torch.full((1,), 0.3))

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        slope, shift = self.slope.expand_as(state[0]), torch.sigmoid(self.shift).expand(*state[0].shape)
        return (torch.tanh(slope.exp() * (u[0] + r[0]) + shift),)


def test_expanded_parameters() -> None:
    check_against_loop(Expanding, Sizes(3, 3, 5))


Expression = tuple[Any, ...]
_leaves = st.tuples(st.sampled_from(["u", "r", "state", "parameter"]), st.integers(0, 2))
_expressions = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), inner),
        st.tuples(st.sampled_from(["add", "mul", "sub", "maximum"]), inner, inner),
    ),
    max_leaves=5,
)


def value_of(expression: Expression, values: dict[str, tuple[Tensor, ...]]) -> Tensor:
    name, *rest = expression
    if name in values:
        return values[name][rest[0] % len(values[name])]
    parts = [value_of(part, values) for part in rest]
    return FUNCTIONS[name](torch.tanh(parts[0])) if name in FUNCTIONS else getattr(torch, name)(*parts)


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
            # Tanh, so that no state runs away; the sum, for the shape of an expression with only parameters in it.
            return tuple(torch.tanh(value_of(e, values) + 0.1 * s) for e, s in zip(expressions, state, strict=True))

    return Random


def check_random(expressions: list[Expression], gates: tuple[int, int], padded: bool) -> None:
    check_against_loop(random_cell(expressions, gates), Sizes(3, 3, 5, padded=padded))


cells = given(
    st.lists(_expressions, min_size=1, max_size=3), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.booleans()
)
kept = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
test_random_cells = settings(max_examples=5, **kept)(cells(check_random))
test_many_random_cells = pytest.mark.slow(settings(max_examples=100, **kept)(cells(check_random)))


# --- what it refuses, and the rest ---


class Sorting(GatedCell):
    input_gates = recurrent_gates = 1

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.sort(u[0] + r[0], -1).values,)


class Curved(Sorting):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.atan2(u[0] + r[0], 1 + state[0] ** 2),)


class Copying(Sorting):
    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.zeros_like(u[0]).copy_(u[0] + r[0]),)


def test_refusals_name_what_cannot_be_fused() -> None:
    x = torch.randn(2, 3, 3, device=DEVICE)
    backend = FusedBackend(interpret=True)

    def refusal(cell: str | type[Cell], **changes: Any) -> str | None:
        return backend.refusal(Recurrent(cell, 3, 4).to(DEVICE).cells(), changes.get("x", x), None)

    assert refusal(Sorting) == "Sorting: its pointwise uses sort, which cannot be fused"
    assert refusal(Curved) == "Curved: its pointwise uses atan2, which cannot be fused"
    assert "Copying: its pointwise cannot be fused: RuntimeError: derivative for aten::copy" in str(refusal(Copying))
    assert "which cannot be fused" in str(refusal("layernorm-lstm"))
    assert "is no GatedCell" in str(refusal("mgu"))
    words = "LSTM: H=4 with B=1000000000 is too large for the kernels, which count in 32 bits"
    assert refusal(LSTM, x=x.new_empty(1, 1, 3).expand(2, 10**9, 3)) == words
    assert backend.drawback([], x, None) == "only measuring tells where it is the fastest, which training does"
    rnn = Recurrent(LSTM, 3, 4, backend="fused", backends=[FusedBackend()])
    with pytest.raises(BackendRefusal, match="its kernels need a CUDA device, and the tensors are on cpu"):
        rnn(torch.randn(2, 3, 3))


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, reason in (
        ((7, 5), "its kernels need a GPU of compute capability 8.0 or above, and this one has 7.5"),
        ((8, 6), None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert no_kernels(torch.device("cuda"), interpret=False) == reason


def test_no_second_derivative() -> None:
    rnn = Recurrent(Elman, 3, 4, backend="fused", backends=[FusedBackend(interpret=True)]).to(DEVICE)
    y = rnn(torch.randn(2, 1, 3, device=DEVICE))[0]
    with pytest.raises(UsageError, match=r"'fused' has no second derivative.*backend 'loop'"):
        torch.autograd.grad(y.sum(), list(rnn.parameters()), create_graph=True)


def test_a_changed_file_is_written_anew(tmp_path: Path) -> None:
    text = "answer = 42\n"
    assert gated.load(text).answer == 42
    (path,) = (tmp_path / "kernels").glob("*.py")
    del sys.modules[path.stem]
    path.write_text("answer = 43  # by someone else\n")
    assert gated.load(text).answer == 42
    assert path.read_text() == text


@pytest.mark.slow
def test_they_compile_for_gpus(tmp_path: Path) -> None:
    """Triton compiles for a GPU that is not there, where it does not interpret: types and layouts are checked."""
    script = Path(__file__).with_name("compile_kernels.py")
    folders = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "RNNPIPE_CACHE": str(tmp_path)}
    environment = {**os.environ, "TRITON_INTERPRET": "0", **folders}
    done = subprocess.run(
        [sys.executable, script, "fused"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sm_80") == done.stdout.count("sm_90") == 39
