"""The recurrent product of a timestep backward, cut into parts that run side by side."""

import triton
import triton.language as tl

from rnnpipe.backends.kernels.functions_kernels import add_product


@triton.jit
def product_back(
    dpre, weight, parts, B, H, K, LENGTH,
    SUM: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write dpre [B, K] times weight [K, H] into parts [S, B, H]: part s is of the s-th LENGTH columns of dpre.

    The parts are summed by the kernel that reads them, in their order: the same result every time.
    """
    col = tl.program_id(0) * COLS + tl.arange(0, COLS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(2)
    total = tl.zeros((ROWS, COLS), SUM)
    for i in tl.range(0, LENGTH, DEPTH, num_stages=STAGES):
        own = i + tl.arange(0, DEPTH)
        k = part * LENGTH + own
        known = k < tl.minimum(K, (part + 1) * LENGTH)
        d = tl.load(dpre + row[:, None] * K + k[None, :], mask=(row < B)[:, None] & known[None, :], other=0.0)
        w = tl.load(weight + k[:, None] * H + col[None, :], mask=known[:, None] & (col < H)[None, :], other=0.0)
        total = add_product(total, d, w, WIDEN)
    at = part * B * H + row[:, None] * H + col[None, :]
    tl.store(parts + at, total, mask=(row < B)[:, None] & (col < H)[None, :])
