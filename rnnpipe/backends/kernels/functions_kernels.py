"""Functions that Triton does not have, or not as precise, in float32 and float64."""

import triton
import triton.language as tl


@triton.jit
def add_product(total, a, b, WIDEN: tl.constexpr):
    """total + a b. WIDEN: in the type of the total, which changes nothing; the interpreter multiplies no bfloat16."""
    if WIDEN:
        a = a.to(total.dtype)
        b = b.to(total.dtype)
    return tl.dot(a, b, total, input_precision="ieee", out_dtype=total.dtype)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """(1 - e) / (1 + e) with e = exp(-2 |x|), and the sign of x; off by at most 2e-7 in float32."""
    e = tl.exp(-2.0 * tl.abs(x))
    y = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -y, y)


@triton.jit
def log1p(x):
    """log(1 + x), precise near 0: log(u) x / (u - 1) with u = 1 + x, whose rounding cancels (Kahan)."""
    u = 1.0 + x
    near = u == 1.0
    far = (u - 1.0) == x  # also where x is infinite
    y = tl.log(u) * (x / tl.where(near, 1.0, u - 1.0))
    return tl.where(near, x, tl.where(far, tl.log(u), y))


@triton.jit
def expm1(x):
    """exp(x) - 1, precise near 0: (u - 1) x / log(u) with u = exp(x), whose rounding cancels (Kahan)."""
    u = tl.exp(x)
    near = u == 1.0
    small = tl.abs(x) < 1.0
    y = (u - 1.0) * (x / tl.log(tl.where(near | (small == 0), 2.0, u)))
    return tl.where(near, x, tl.where(small, y, u - 1.0))
