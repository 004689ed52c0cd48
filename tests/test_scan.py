"""The scan of linear cells against a loop over timesteps: values, gradients, chunks of every kind, long sequences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rnnpipe.backends import scan as module
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.backends.scan import ScanBackend, scan
from rnnpipe.cells.base import Gates, LinearCell, State
from rnnpipe.cells.lru import LRU
from rnnpipe.cells.lstm import LSTM
from rnnpipe.cells.minlstm import MinLSTM
from rnnpipe.cells.qrnn import QRNN
from rnnpipe.cells.sru import SRU
from rnnpipe.errors import BackendRefusal
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.testing.running import Inputs, Sizes, draw_inputs, run
from rnnpipe.testing.tensors import expect_near

CELLS = [MinLSTM, LRU, SRU, QRNN]


class MinGRU(LinearCell):
    """The cell of the worked package, for tests without it."""

    projections = 2

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(u[0])
        return 1 - z, z * u[1]


class Sums(LinearCell):
    """h' = h + W x."""

    projections = 1

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        return torch.ones_like(u[0]), u[0]


class Grows(LinearCell):
    """h' = exp(u) h + v: |a| above 1."""

    projections = 2

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        return torch.exp(u[0]), u[1]


def in_a_loop(a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    rows = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        rows.append(h)
    return torch.stack(rows), h


def draw(T: int, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Return a within 1, b and the h before, to be differentiated by."""
    torch.manual_seed(T)
    a = torch.rand(T, *shape, dtype=dtype) * 1.4 - (0.7 + 0.7j if dtype.is_complex else 0.7)
    tensors = [a, torch.randn(T, *shape, dtype=dtype), torch.randn(shape, dtype=dtype)]
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.fixture(params=[1, 100, 16_384])
def elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set how many elements an operation takes: other chunks of the same sequence."""
    monkeypatch.setattr(module, "_ELEMENTS", request.param)
    return int(request.param)


@pytest.mark.parametrize("T", [1, 2, 7, 8, 16, 17, 63, 100, 511])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_equals_a_loop(T: int, shape: tuple[int, ...], dtype: torch.dtype, elements: int) -> None:
    given = draw(T, shape, dtype)
    weights = [torch.randn(T, *shape, dtype=dtype), torch.randn(shape, dtype=dtype)]
    found = []
    for function in (scan, in_a_loop):
        results = function(*given)
        total = sum((result * weight).sum() for result, weight in zip(results, weights, strict=True))
        found.append([*results, *torch.autograd.grad(abs(total), given)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("T", [1, 19])
def test_gradient_of_the_gradient(T: int, dtype: torch.dtype) -> None:
    given = draw(T, (2,), dtype)
    assert torch.autograd.gradcheck(scan, given)
    assert torch.autograd.gradgradcheck(scan, given)


class Count(TorchDispatchMode):
    """Counts the operations of torch."""

    operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "unbind" not in str(function):
            self.operations += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("T", "N", "most"), [(10_000, 1, 600), (10_000, 64, 600), (100_000, 16, 1500)])
def test_there_is_no_loop_over_timesteps(T: int, N: int, most: int) -> None:
    a, b, h = draw(T, (N,), torch.float64)
    with Count() as count:
        torch.autograd.grad(scan(a, b, h)[0], (a, b, h), torch.ones(T, N, dtype=torch.float64))
    assert count.operations < most, "forward and backward together"


@pytest.mark.parametrize("near", [0.0, 1e-30, 0.5, 1 - 1e-6, 1.0, -1e-30, -0.5, -1 + 1e-6, -1.0])
def test_a_hundred_thousand_timesteps(near: float) -> None:
    """In float32, where products of many a vanish or hardly change, values and gradients are near those in float64."""
    T, N = 100_000, 3
    torch.manual_seed(0)
    a = torch.full((T, N), near)
    a[::1000, 0] = 0.0  # forgets it all, now and then
    b, h, weight = torch.randn(T, N), torch.randn(N), torch.randn(T, N)
    expected = h.double().numpy()
    rows = np.empty((T, N))
    for t, (a_t, b_t) in enumerate(zip(a.double().numpy(), b.double().numpy(), strict=True)):
        expected = rows[t] = a_t * expected + b_t
    gradients = []
    for dtype in (torch.float32, torch.float64):
        given = [tensor.to(dtype).requires_grad_() for tensor in (a, b, h)]
        every, _ = scan(*given)
        gradients.append(torch.autograd.grad(every, given, weight.to(dtype)))
    assert relative(scan(a, b, h)[0], torch.from_numpy(rows)) < 1e-4
    for ours, theirs in zip(*gradients, strict=True):
        assert relative(ours, theirs) < 1e-4


def relative(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))


def test_a_sum_of_ones_is_exact() -> None:
    T = 100_000
    every, last = scan(torch.ones(T, 2), torch.ones(T, 2), torch.zeros(2))
    assert torch.equal(every[:, 1], torch.arange(1.0, T + 1))
    assert last.tolist() == [T, T]


def test_coefficients_above_1() -> None:
    """Their product overflows where the state, which is 0, does not; what is no number stays none."""
    a, b, h = torch.full((2000, 2), 2.0, requires_grad=True), torch.zeros(2000, 2), torch.zeros(2)
    b[1990:] = 1.0
    every, last = scan(a, b, h)
    torch.testing.assert_close(every, in_a_loop(a, b, h)[0])
    weight = torch.zeros_like(b)
    weight[3] = 1.0
    assert torch.autograd.grad(every, a, weight)[0].isfinite().all()
    forgetting = torch.full((2000, 2), 1e6)
    forgetting[7::40] = 0.0  # within chunks whose product has overflowed
    torch.testing.assert_close(scan(forgetting, b, h)[0], in_a_loop(forgetting, b, h)[0])
    b[100, 0] = torch.nan
    every, last = scan(a, b, h)
    assert every[100:, 0].isnan().all()
    assert every[:, 1].isfinite().all() and last[1] == 1023


@pytest.mark.parametrize("cell", [MinGRU, Sums, *CELLS], ids=lambda cell: cell.__name__)
@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(1, 1, 5),
        Sizes(7, 3, 33, layers=2),
        Sizes(63, 33, 5, padded=True),
        Sizes(100, 3, 3, layers=2, padded=True),
        Sizes(511, 1, 33),
    ],
    ids=str,
)
def test_cells_equal_the_loop(cell: type[LinearCell], sizes: Sizes, elements: int) -> None:
    compare(cell, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
@pytest.mark.parametrize(("T", "B", "H"), [*itertools.product((1, 7, 63, 511), (1, 3, 33), (5, 33, 257, 1150))])
def test_cells_equal_the_loop_at_every_size(cell: type[LinearCell], T: int, B: int, H: int) -> None:
    if T * B * H > 1 << 22:
        pytest.skip("the loop takes gigabytes")
    for padded in (False, True):
        compare(cell, Sizes(T, B, H, padded=padded))


def compare(cell: type[LinearCell], sizes: Sizes, **changes: Tensor | None) -> None:
    """Compare outputs, final states and all gradients of a stack with the loop's."""
    torch.manual_seed(sizes.T)
    cells = Recurrent(cell, 3, sizes.H, sizes.layers).double().cells()
    drawn = draw_inputs(cells, sizes)
    inputs = Inputs(changes.get("x", drawn.x), drawn.states, changes.get("lengths", drawn.lengths))
    expect_near(run(ScanBackend(), cells, inputs).pairs(run(LoopBackend(), cells, inputs)), "the loop's", str(sizes))


@pytest.mark.parametrize("cell", [Grows, *CELLS], ids=lambda cell: cell.__name__)
def test_lengths(cell: type[LinearCell]) -> None:
    """A sequence of no timesteps keeps its state; what stands behind the end, however large, changes nothing."""
    sizes = Sizes(20, 4, 5)
    lengths = torch.tensor([0, 20, 1, 7])
    x = torch.randn(20, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, length in enumerate(lengths.tolist()):
        x[length:, row] = 300.0 if cell is not Grows else 40.0
    compare(cell, sizes, x=x, lengths=lengths)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_one_hot_input(cell: type[LinearCell]) -> None:
    compare(cell, Sizes(20, 2, 3), x=torch.arange(40).view(20, 2) % 3)


def test_products_in_bfloat16_are_summed_in_float32() -> None:
    """A gate of 1 / 1000 is nothing beside 1 in bfloat16: the loop, in that type, forgets nothing for ever."""
    torch.manual_seed(0)
    rnn = Recurrent(MinGRU, 4, 8)
    cell = rnn.cells()[0]
    with torch.no_grad():
        cell.weight_ih[:8] = 0.0
        cell.bias_ih[:8] = -6.9
        cell.bias_ih[8:] = 1.0
    x = torch.randn(5000, 1, 4)
    errors = {}
    for name in ("loop", "scan"):
        rnn.backend = name
        exact = rnn(x)[0]
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = rnn(x)
        assert y.dtype == torch.float32
        errors[name] = relative(y[1000:], exact[1000:])
    assert errors["scan"] < 0.01
    assert errors["loop"] > 0.1, "there is something to see here"


def test_a_network_of_bfloat16() -> None:
    cell = Sums(1, 1).bfloat16()
    with torch.no_grad():
        cell.weight_ih.fill_(1.0)
        cell.bias_ih.zero_()
    state = cell.initial_state(1, dtype=torch.bfloat16)
    y, ((h,),) = ScanBackend().run([cell], torch.ones(2000, 1, 1, dtype=torch.bfloat16), [state], None)
    assert y.dtype == h.dtype == torch.bfloat16
    assert h.item() == 2000, "a sum in bfloat16 stays at 256"


def test_strided_input_and_gradient() -> None:
    a, b, h = draw(40, (3, 4), torch.float64)
    strided = [a.detach().transpose(1, 2).contiguous().transpose(1, 2), b.detach()[:, :, :1].expand(40, 3, 4), h]
    y, _ = scan(*strided)
    torch.testing.assert_close(y, in_a_loop(*strided)[0])
    scan(a, b, h)[0].sum().backward()  # whose gradient is one number, expanded
    expected = torch.autograd.grad(in_a_loop(a, b, h)[0].sum(), b)
    torch.testing.assert_close(b.grad, expected[0])


class OwnStep(Sums):
    """A step that the coefficients do not tell."""

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        y, following = super().step(u, state)
        return 2 * y, following


def test_choice_and_refusals() -> None:
    x = torch.randn(5, 2, 3)
    rnn = Recurrent(MinGRU, 3, 4)
    rnn(x)
    assert rnn.backend_used == "scan", "before the loop"
    with pytest.raises(BackendRefusal, match="LSTM is no LinearCell: a scan needs h' = a h"):
        Recurrent("lstm", 3, 4, backend="scan")(x)
    rnn = Recurrent(OwnStep, 3, 4)
    rnn(x)
    assert rnn.backend_used == "loop"
    assert "OwnStep has a `step` of its own" in rnn.answers(x)["scan"]
    assert ScanBackend().refusal([MinGRU(3, 4), LSTM(4, 4)], x, None) is not None
