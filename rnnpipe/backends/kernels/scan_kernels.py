"""The kernels of a scan, h_t = a_t h_{t-1} + b_t: forward, backward, and the steps that whole chunks of it are.

Serial over time, one program for BLOCK elements of a timestep and one chunk of L timesteps; the loads of the next
STAGES timesteps are under way meanwhile. All of [T, N]; a_step, b_step, d_step: elements from one timestep to the next,
0 for what is the same at every timestep. Sums are in WIDE, whatever the tensors are in.
"""

import triton
import triton.language as tl


@triton.jit
def run(a, b, start, out, T, N, L, a_step, b_step, WIDE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    """Write every h of each chunk into out, from its own start [K, N] on."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    chunk = tl.program_id(1).to(tl.int64)  # T N is often above 2^31
    h = tl.load(start + chunk * N + n, mask=inside, other=0.0).to(WIDE)
    first = chunk * L
    for i in tl.range(0, tl.minimum(L, T - first), num_stages=STAGES):
        t = first + i
        a_t = tl.load(a + t * a_step + n, mask=inside, other=0.0).to(WIDE)
        b_t = tl.load(b + t * b_step + n, mask=inside, other=0.0).to(WIDE)
        h = a_t * h + b_t
        tl.store(out + t * N + n, h.to(out.dtype.element_ty), mask=inside)


@triton.jit
def compose(
    a, b, A, B, N, L, a_step, b_step, MOST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr
):
    """Write A and B [K, N] of h' = A h + B, which each of the chunks but the last is as a whole.

    A is kept within MOST, the largest number there is, since 0 times infinity is none; what is no number stays none.
    """
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    chunk = tl.program_id(1).to(tl.int64)
    first = chunk * L
    whole_a = tl.full((BLOCK,), 1.0, WIDE)
    whole_b = tl.zeros((BLOCK,), WIDE)
    for i in tl.range(0, L, num_stages=STAGES):
        t = first + i
        a_t = tl.load(a + t * a_step + n, mask=inside, other=0.0).to(WIDE)
        b_t = tl.load(b + t * b_step + n, mask=inside, other=0.0).to(WIDE)
        whole_b = a_t * whole_b + b_t
        whole_a = a_t * whole_a
        whole_a = tl.where(whole_a > MOST, MOST, tl.where(whole_a < -MOST, -MOST, whole_a))
    tl.store(A + chunk * N + n, whole_a, mask=inside)
    tl.store(B + chunk * N + n, whole_b, mask=inside)


@triton.jit
def run_back(
    a, d, start, first_h, every, da, db, dfirst,
    T, N, L, a_step, d_step, WIDE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write da_t = dh_t h_{t-1} and db_t = dh_t = d_t + c_t; c_{t-1} = a_t dh_t is carried back, and c_{-1} is dfirst.

    Chunks are counted from the last timestep; start [K, N] is the c that each begins with, the first with that of the
    last h.
    """
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    chunk = tl.program_id(1).to(tl.int64)
    c = tl.load(start + chunk * N + n, mask=inside, other=0.0).to(WIDE)
    h_0 = tl.load(first_h + n, mask=inside, other=0.0).to(WIDE)
    last = T - 1 - chunk * L
    for i in tl.range(0, tl.minimum(L, last + 1), num_stages=STAGES):
        t = last - i
        a_t = tl.load(a + t * a_step + n, mask=inside, other=0.0).to(WIDE)
        d_t = tl.load(d + t * d_step + n, mask=inside, other=0.0).to(WIDE)
        before = tl.load(every + (t - 1) * N + n, mask=n < tl.where(t > 0, N, 0), other=0.0).to(WIDE)
        before = tl.where(t > 0, before, h_0)
        dh = d_t + c
        tl.store(da + t * N + n, (dh * before).to(da.dtype.element_ty), mask=inside)
        tl.store(db + t * N + n, dh.to(db.dtype.element_ty), mask=inside)
        c = a_t * dh
    tl.store(dfirst + n, c.to(dfirst.dtype.element_ty), mask=n < tl.where(last < L, N, 0))


@triton.jit
def compose_back(
    a, d, A, B, T, N, L, a_step, d_step,
    MOST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write A and B [K, N] of c' = A c + B over each chunk but the last, counted from behind; see `compose`."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    chunk = tl.program_id(1).to(tl.int64)
    last = T - 1 - chunk * L
    whole_a = tl.full((BLOCK,), 1.0, WIDE)
    whole_b = tl.zeros((BLOCK,), WIDE)
    for i in tl.range(0, L, num_stages=STAGES):
        t = last - i
        a_t = tl.load(a + t * a_step + n, mask=inside, other=0.0).to(WIDE)
        d_t = tl.load(d + t * d_step + n, mask=inside, other=0.0).to(WIDE)
        whole_b = a_t * (whole_b + d_t)
        whole_a = a_t * whole_a
        whole_a = tl.where(whole_a > MOST, MOST, tl.where(whole_a < -MOST, -MOST, whole_a))
    tl.store(A + chunk * N + n, whole_a, mask=inside)
    tl.store(B + chunk * N + n, whole_b, mask=inside)
