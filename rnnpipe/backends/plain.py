"""One layer of a gated cell over all timesteps in plain torch: the loop, without what autograd does a timestep.

The forward half of a timestep keeps what its backward half needs, as autograd would, and no more is computed twice.

Shapes: T timesteps, B batch, H hidden size, G gates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnnpipe.backends.layer import Inputs, Plan, by_timestep, refuse_second_derivative


def run_plain(plan: Plan, given: Inputs) -> tuple[Tensor, ...]:
    """Return state 0 behind each timestep, [T, B, H], and the other states behind the last; with a gradient."""
    rest = (given.u, given.weight, given.bias, *given.initial, *given.constants)
    results: tuple[Tensor, ...] = _Layer.apply(plan, given.mask, *rest)  # type: ignore[no-untyped-call]
    return results


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, mask: Tensor | None, u: Tensor, weight: Tensor, bias: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        (T, B), count = u.shape[:2], len(plan.pointwise.state_dtypes)
        states, constants = rest[:count], rest[count:]
        # State 0 before each timestep as the product takes it, and the last: where types agree, the output as well.
        taken = weight.new_empty(T + 1, *states[0].shape)
        taken[0] = states[0]
        same = taken.dtype == states[0].dtype
        outputs = taken[1:] if same else states[0].new_empty(T, *states[0].shape)
        kept: list[Tensor] = []
        half, turned = plan.halves(B, mask is not None).forward, weight.t()
        steps = zip(u, taken, taken[1:], outputs, by_timestep(mask, T), strict=False)
        with torch.autocast(u.device.type, enabled=False):
            for u_t, h, h_next, y, now in steps:
                added = u_t if plan.pointwise.summed else bias
                pre = torch.mm(h, turned) if added is None else torch.addmm(added, h, turned)
                results = half(pre, *(() if plan.pointwise.summed else (u_t,)), *states, *constants, *now)
                states = results[:count]
                kept += results[count:]
                h_next.copy_(states[0])
                if not same:
                    y.copy_(states[0])
        ctx.plan, ctx.masked, ctx.dtypes = plan, mask is not None, (u.dtype, [c.dtype for c in constants])
        ctx.save_for_backward(weight, bias, taken[:-1], *kept)
        return outputs, *(state.clone() for state in states[1:])  # two of them may be one tensor

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dfinal: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        plan: Plan = ctx.plan
        weight, bias, taken, *kept = ctx.saved_tensors
        T, summed, half = len(dy), plan.pointwise.summed, plan.halves(dy.shape[1], ctx.masked)
        u_dtype, constant_dtypes = ctx.dtypes
        H, width = taken.shape[2], len(kept) // T
        dpre = weight.new_empty(*taken.shape[:2], len(weight))
        du = dpre if summed else dpre.new_empty(*taken.shape[:2], plan.pointwise.input_gates * H, dtype=u_dtype)
        by_product = torch.zeros_like(taken[0])
        own = (torch.zeros_like(dy[0]), *dfinal) if half.own else dfinal
        changes: tuple[Tensor, ...] = ()
        first, last = 1 if summed else 2, (1 if summed else 2) + len(own)
        with torch.autocast(weight.device.type, enabled=False):
            for t in reversed(range(T)):
                found = half.backward(*kept[t * width : (t + 1) * width], dy[t], by_product, *own)
                dpre[t].copy_(found[0])
                if not summed:
                    du[t].copy_(found[1])
                own = found[first:last]
                changes = tuple(map(torch.add, changes, found[last:])) if changes else found[last:]
                torch.mm(dpre[t], weight, out=by_product)
            flat = dpre.flatten(0, 1)
            dweight = flat.t() @ taken.flatten(0, 1)
            dbias = None if bias is None else flat.sum(0)
        given = iter(changes)
        dconstants = [next(given) if dtype.is_floating_point else None for dtype in constant_dtypes]
        initial = (own[0] + by_product, *own[1:]) if half.own else (by_product.to(dy.dtype), *own)
        return None, None, du, dweight, dbias, *initial, *dconstants
