"""The scan of linear cells by Triton kernels: one pass over time, or two where a timestep is too small to fill a GPU.

Shapes: T timesteps, N elements of a timestep, K chunks of L timesteps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rnnpipe.backends.kernels import scan_kernels
from rnnpipe.backends.kernels.ready import on_device_of

# With fewer elements of a timestep, one pass leaves multiprocessors idle (measured with a prototype on an H200: 54 % of
# copy bandwidth at 65,536 elements in bfloat16, 12 % at 12,288), and chunks of time are run side by side.
_ONE_PASS = 65_536
_BLOCK = 128
_STAGES = 12
_WARPS = 2


def fill(a: Tensor, b: Tensor, first: Tensor, every: Tensor) -> None:
    """Write h_t = a_t h_{t-1} + b_t into every [T, ...], from `first` on."""
    rows = _Rows(every, first)
    a, a_step = rows.flat(a)
    b, b_step = rows.flat(b)
    first = first.contiguous()
    if rows.K > 1:
        A, B, starts = rows.buffers(first)
        rows.launch(scan_kernels.compose, rows.K - 1, a, b, A, B, rows.N, rows.L, a_step, b_step, MOST=rows.most)
        first = rows.start_all(A, B, starts)
    rows.launch(scan_kernels.run, rows.K, a, b, first, every, rows.T, rows.N, rows.L, a_step, b_step)


def fill_back(a: Tensor, d: Tensor, dlast: Tensor, first: Tensor, every: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a, b and `first` from those of every h and of the last."""
    rows = _Rows(every, first)
    da, db = torch.empty_like(every), torch.empty_like(every)
    dfirst = torch.empty_like(first, memory_format=torch.contiguous_format)
    a, a_step = rows.flat(a)
    d, d_step = rows.flat(d)
    start = dlast.contiguous()
    if rows.K > 1:
        A, B, starts = rows.buffers(start)
        sizes = (rows.T, rows.N, rows.L, a_step, d_step)
        rows.launch(scan_kernels.compose_back, rows.K - 1, a, d, A, B, *sizes, MOST=rows.most)
        start = rows.start_all(A, B, starts)
    before = (first.contiguous(), every)
    rows.launch(
        scan_kernels.run_back, rows.K, a, d, start, *before, da, db, dfirst, rows.T, rows.N, rows.L, a_step, d_step
    )
    return da, db, dfirst


class _Rows:
    """The sizes of a scan, the chunks that it is cut into, and what its kernels compute in."""

    def __init__(self, every: Tensor, first: Tensor) -> None:
        self.T, self.N = len(every), first.numel()
        self.K, self.L = _chunks(self.T, self.N)
        wide = torch.promote_types(every.dtype, torch.float32)
        self.dtype, self.most = wide, torch.finfo(wide).max
        self.settings = {
            "WIDE": tl.float64 if wide == torch.float64 else tl.float32,
            "BLOCK": _BLOCK,
            "STAGES": _STAGES,
            "num_warps": _WARPS,
        }

    def flat(self, x: Tensor) -> tuple[Tensor, int]:
        """Return x with rows of N elements next to each other, and how many elements each is behind the one before."""
        if x.stride(0) == 0:  # one row for all timesteps, as the coefficients of some cells
            return x[:1].contiguous(), 0
        return x.contiguous(), self.N

    def buffers(self, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return A and B of the chunks but the last, and where each chunk starts, of which the first is known."""
        A, B, starts = (first.new_empty(K, self.N, dtype=self.dtype) for K in (self.K - 1, self.K - 1, self.K))
        starts[0] = first.flatten()
        return A, B, starts

    def start_all(self, A: Tensor, B: Tensor, starts: Tensor) -> Tensor:
        """Scan the chunks as single steps: fill in where each but the first starts."""
        K = self.K - 1
        self.launch(scan_kernels.run, 1, A, B, starts[0], starts[1:], K, self.N, K, self.N, self.N)
        return starts

    def launch(self, kernel: Any, chunks: int, *arguments: Any, **constants: Any) -> None:
        """Run a kernel over all elements of a timestep and some chunks."""
        if self.N:
            with on_device_of(arguments[0]):
                kernel[(triton.cdiv(self.N, _BLOCK), chunks)](*arguments, **constants, **self.settings)


def _chunks(T: int, N: int) -> tuple[int, int]:
    """Return how many chunks there are, and how many timesteps in each but the last, which may be shorter."""
    wanted = min(-(-_ONE_PASS // max(N, 1)), math.isqrt(T))  # more would make the scan of the chunks the longer one
    L = -(-T // max(wanted, 1))
    return -(-T // L), L
