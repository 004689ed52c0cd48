"""The kernels of the scan against a loop over timesteps: on a GPU, or in Triton's interpreter where there is none."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rnnpipe.backends.loop import LoopBackend
from rnnpipe.backends.scan import ScanBackend, scan
from rnnpipe.cells.base import Gates, LinearCell
from rnnpipe.cells.minlstm import MinLSTM
from rnnpipe.cells.qrnn import QRNN
from rnnpipe.cells.sru import SRU
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.testing.running import Sizes, draw_inputs, run
from rnnpipe.testing.tensors import expect_near

pytest.importorskip("triton", reason="there is no Triton; pip install 'rnnpipe[triton]'")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []


class Decays(LinearCell):
    """h' = h / 2 + W x: the same coefficient at every timestep."""

    projections = 1

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        return torch.full_like(u[0][:1], 0.5), u[0]


TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def in_a_loop(a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    rows = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        rows.append(h)
    return torch.stack(rows), h


def draw(T: int, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    a = torch.rand(T, *shape, dtype=torch.float64) * 1.6 - 0.8
    tensors = [a, torch.randn(T, *shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)]
    return [tensor.to(DEVICE, dtype).requires_grad_() for tensor in tensors]


def values_and_gradients(results: tuple[Tensor, Tensor], given: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
    return [*results, *torch.autograd.grad(results, given, weights)]


def compare_scan(T: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(T)
    given = draw(T, shape, dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    ours = values_and_gradients(scan(*given, kernels=True), given)
    for mine, reference in zip(ours, values_and_gradients(in_a_loop(*exact), exact), strict=True):
        assert mine.dtype == dtype
        error = (mine.detach().double() - reference.detach()).norm() / reference.detach().norm().clamp_min(1e-30)
        assert error <= TOLERANCES[dtype], (T, shape, dtype)


@pytest.fixture(params=[1, 1_000_000], ids=["one pass", "chunks"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything in one pass, or in as many chunks as there can be; with blocks of 16 elements."""
    from rnnpipe.backends.kernels import scan as launches

    monkeypatch.setattr(launches, "_ONE_PASS", request.param)
    monkeypatch.setattr(launches, "_BLOCK", 32)


@pytest.mark.usefixtures("chunked", "poisoned")
@pytest.mark.parametrize(("T", "shape"), [(1, (1, 5)), (7, (3, 33)), (16, (1, 33)), (17, (33, 1)), (63, (3, 5))])
def test_equals_a_loop(T: int, shape: tuple[int, ...]) -> None:
    for dtype in TOLERANCES:
        compare_scan(T, shape, dtype)


@pytest.mark.slow
@pytest.mark.usefixtures("chunked", "poisoned")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("T", "B", "H"), [*itertools.product((1, 7, 63, 511), (1, 3, 33), (5, 33, 257))])
def test_equals_a_loop_at_every_size(T: int, B: int, H: int, dtype: torch.dtype) -> None:
    if T * B * H > 400_000:
        pytest.skip("the interpreter takes minutes")
    compare_scan(T, (B, H), dtype)


@pytest.mark.usefixtures("chunked", "poisoned")
def test_the_same_row_at_every_timestep_and_a_strided_gradient() -> None:
    a, b, h = draw(20, (3, 4), torch.float64)
    for mixed in (
        [a.detach()[:1].expand(20, 3, 4), b.detach().transpose(1, 2).contiguous().transpose(1, 2), h],
        [a.detach(), b.detach()[:1].expand(20, 3, 4), h.detach()[:, :1].expand(3, 4)],
    ):
        torch.testing.assert_close(scan(*mixed, kernels=True)[0], in_a_loop(*mixed)[0])
    gradients = torch.autograd.grad(scan(a, b, h, kernels=True)[0].sum(), (a, b, h))  # of one number, expanded
    for ours, theirs in zip(gradients, torch.autograd.grad(in_a_loop(a, b, h)[0].sum(), (a, b, h)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("chunked")
@pytest.mark.filterwarnings("ignore:overflow encountered")  # NumPy's, by which Triton interprets
def test_coefficients_above_1() -> None:
    """Their product overflows where the state, which is 0, does not; what is no number stays none."""
    a, b, h = (
        torch.full(shape, value, device=DEVICE) for shape, value in (((100, 2), 1e6), ((100, 2), 0.0), ((2,), 0.0))
    )
    a[7] = 0.0  # within a chunk whose product has overflowed
    b[98:] = 1.0
    every, last = scan(a, b, h, kernels=True)
    torch.testing.assert_close(every, in_a_loop(a, b, h)[0])
    b[33, 0] = torch.nan
    every, last = scan(a, b, h, kernels=True)
    assert every[33:, 0].isnan().all()
    assert every[:, 1].isfinite().all() and last[1] > 1


def test_gradient_of_the_gradient() -> None:
    given = draw(3, (2,), torch.float64)
    assert torch.autograd.gradgradcheck(lambda *tensors: scan(*tensors, kernels=True), given)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("cell", [Decays, MinLSTM, SRU, QRNN], ids=lambda cell: cell.__name__)
def test_cells_equal_the_loop(cell: type[LinearCell]) -> None:
    for sizes in (Sizes(1, 1, 5), Sizes(9, 3, 5, layers=2, padded=True)):
        torch.manual_seed(sizes.T)
        rnn = Recurrent(cell, 3, sizes.H, sizes.layers).double()
        inputs = draw_inputs(rnn.cells(), sizes)
        expected = run(LoopBackend(), rnn.cells(), inputs)
        cells, backend = rnn.to(DEVICE).cells(), ScanBackend("always")
        assert backend.refusal(cells, inputs.x.to(DEVICE), inputs.lengths) is None
        expect_near(run(backend, cells, inputs, DEVICE).pairs(expected), "the loop's", str(sizes))


@pytest.mark.slow
def test_they_compile_for_gpus(tmp_path: Path) -> None:
    """Triton compiles for a GPU that is not there, where it does not interpret: types and layouts are checked."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script, "scan"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sm_80") == done.stdout.count("sm_90") == 12


def test_refusals() -> None:
    x = torch.randn(5, 2, 3)
    cells = Recurrent("lru", 3, 4).cells()
    assert ScanBackend("always").refusal(cells, x, None) == "LRU: the kernels take no complex state"
    assert ScanBackend().refusal(cells, x, None) is None
    meta = Recurrent(MinLSTM, 3, 4).to("meta").cells()
    reason = ScanBackend("always").refusal(meta, x.to("meta"), None)
    assert reason == "MinLSTM: its kernels need a CUDA device, and the tensors are on meta"
