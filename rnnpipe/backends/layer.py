"""One layer of a gated cell over all timesteps, as one autograd function.

Shapes: T timesteps, B batch, H hidden size, G gates. pre [T, B, G H]: what the recurrent products give, r, or u + r
where the cell makes nothing else of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnpipe.backends.compile import Kernel, compile_graph
from rnnpipe.backends.derive import (
    MANY_ROWS,
    Pointwise,
    backward_graph,
    constants_graph,
    fake_shapes,
    forward_graph,
    jacobian_graph,
    mentions,
    with_cheap_tanh,
)
from rnnpipe.errors import UsageError

_ROWS = 512  # of which slopes are taken at once: what is computed on the way stays in the cache (512 was best at H 256)


class Plan:
    """The functions of a cell for each number of rows, made when they are first needed."""

    def __init__(self, pointwise: Pointwise) -> None:
        self.pointwise = pointwise
        self._made: dict[Any, Kernel] = {}

    def forward(self, rows: int, masked: bool, compiled: bool) -> Kernel:
        """Return the function of a timestep; see `forward_graph`."""
        narrow = None if self.pointwise.state_dtypes[0] == self.pointwise.r_dtype else self.pointwise.r_dtype
        return self._make(lambda p, shapes: forward_graph(p, shapes, narrow), "forward", rows, masked, compiled)

    def backward(self, rows: int, masked: bool, compiled: bool) -> Kernel:
        """Return the function of a timestep backward; see `backward_graph`."""
        return self._make(backward_graph, "backward", rows, masked, compiled)

    def jacobian(self, rows: int, masked: bool) -> Kernel:
        """Return the slopes of many rows; see `jacobian_graph`."""
        return self._make(jacobian_graph, "jacobian", rows, masked, False)

    def constants(self, rows: int, masked: bool) -> Kernel:
        """Return the gradients of the constants; see `constants_graph`."""
        return self._make(constants_graph, "constants", rows, masked, False)

    def _make(self, derive: Callable[..., Any], name: str, rows: int, masked: bool, compiled: bool) -> Kernel:
        # Plain torch takes any number of rows, unless a graph has its own number in it.
        for key in ((name, None, masked, compiled), (name, rows, masked, compiled)):
            if key in self._made:
                return self._made[key]
        sizes = [rows] if compiled or not self.pointwise.any_rows else [MANY_ROWS, rows]
        for size in sizes:
            graph = with_cheap_tanh(derive(self.pointwise, fake_shapes(self.pointwise, size, masked)))
            if size != rows and not mentions(graph, size):
                key = (name, None, masked, compiled)
                break
        self._made[key] = compile_graph(graph) if compiled else graph
        return self._made[key]


@dataclass(frozen=True)
class Inputs:
    """What a layer is run on. bias: of the recurrent product, None if u has it in it. mask: [T, B, 1], or None.

    spare: nobody else needs u, so that pre can be written over it.
    """

    u: Tensor
    weight: Tensor
    bias: Tensor | None
    initial: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    mask: Tensor | None
    spare: bool


@dataclass(frozen=True)
class Trace:
    """What a layer has been through: pre, each state behind each timestep, and state 0 as the products took it.

    narrow: [T + 1, B, H], the state before each timestep and the last, where products are in another type; or None.
    """

    pre: Tensor
    states: tuple[Tensor, ...]
    narrow: Tensor | None


def run_forward(plan: Plan, kernel: Kernel, given: Inputs, *, keep: bool) -> Trace:
    """Return the states of all timesteps; without `keep` only the outputs, and of all else the last two timesteps."""
    (T, B), weight = given.u.shape[:2], given.weight.t()
    summed = plan.pointwise.summed
    pre = given.u if summed and given.spare else given.weight.new_empty(T if keep else 1, B, weight.shape[1])
    states = tuple(s.new_empty(T if keep or i == 0 else 2, *s.shape) for i, s in enumerate(given.initial))
    narrow = None
    if given.initial[0].dtype != weight.dtype:
        narrow = weight.new_empty(T + 1 if keep else 2, *given.initial[0].shape)
        narrow[0] = given.initial[0]
    before, masks = given.initial, _steps(given.mask, T)
    pres, us, narrows = pre.unbind(0), given.u.unbind(0), None if narrow is None else narrow.unbind(0)
    buffers = [leaf.unbind(0) for leaf in states]
    for t in range(T):
        product = pres[t % len(pres)]
        h = before[0] if narrows is None else narrows[t % len(narrows)]
        added = us[t] if summed else given.bias
        if added is None:
            torch.mm(h, weight, out=product)
        else:
            torch.addmm(added, h, weight, out=product)
        after = tuple(leaf[t % len(leaf)] for leaf in buffers)
        also = () if narrows is None else (narrows[(t + 1) % len(narrows)],)
        kernel(product, *(() if summed else (us[t],)), *before, *given.constants, *masks[t], *after, *also)
        before = after
    return Trace(pre, states, narrow)


def _steps(mask: Tensor | None, T: int) -> list[tuple[Tensor, ...]]:
    return [()] * T if mask is None else [(step,) for step in mask.unbind(0)]


def run_layer(plan: Plan, compiled: bool, given: Inputs) -> tuple[Tensor, ...]:
    """Return state 0 behind each timestep, [T, B, H], and the other states behind the last; with a gradient."""
    rest = (given.u, given.weight, given.bias, *given.initial, *given.constants)
    results: tuple[Tensor, ...] = _Layer.apply(plan, compiled, given.spare, given.mask, *rest)  # type: ignore[no-untyped-call]
    return results


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        compiled: bool,
        spare: bool,
        mask: Tensor | None,
        u: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(plan.pointwise.state_dtypes)
        given = Inputs(u, weight, bias, rest[:count], rest[count:], mask, spare)
        with torch.autocast(u.device.type, enabled=False):
            trace = run_forward(plan, plan.forward(u.shape[1], mask is not None, compiled), given, keep=True)
        needed_u = None if plan.pointwise.summed else u
        ctx.plan, ctx.compiled = plan, compiled
        ctx.save_for_backward(needed_u, weight, bias, mask, trace.pre, trace.narrow, *trace.states, *rest)
        return trace.states[0], *(leaf[-1].clone() for leaf in trace.states[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dfinal: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UsageError("backend 'hoisted' has no second derivative (create_graph=True); use the backend 'loop'.")
        plan: Plan = ctx.plan
        count = len(plan.pointwise.state_dtypes)
        u, weight, bias, mask, pre, narrow, *rest = ctx.saved_tensors
        states, initial, constants = rest[:count], rest[count : 2 * count], rest[2 * count :]
        given = Inputs(pre if u is None else u, weight, bias, tuple(initial), tuple(constants), mask, False)
        trace = Trace(pre, tuple(states), narrow)
        with torch.autocast(weight.device.type, enabled=False):
            gradients = _run_backward(plan, ctx.compiled, given, trace, dy.contiguous(), dfinal)
        return None, None, None, None, *gradients


def _run_backward(
    plan: Plan, compiled: bool, given: Inputs, trace: Trace, dy: Tensor, dfinal: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of u, weight, bias, initial states and constants."""
    dpre = torch.empty_like(trace.pre)
    du = dpre if plan.pointwise.summed else torch.empty_like(given.u)
    own = [torch.zeros_like(given.initial[0]), *(leaf.contiguous() for leaf in dfinal)]
    by_product = torch.zeros_like(given.initial[0], dtype=given.weight.dtype)
    changes = [torch.zeros_like(constant) for constant in given.constants]
    step_back = _by_kernel if compiled or not plan.pointwise.elementwise else _by_slopes
    own = step_back(plan, compiled, given, trace, dy, by_product, own, dpre, du, changes)
    own[0] = own[0] + by_product
    flat = dpre.flatten(0, 1)
    if trace.narrow is not None:
        dweight = flat.t() @ trace.narrow[:-1].flatten(0, 1)
    else:
        first = dpre[0].t() @ given.initial[0]
        dweight = torch.addmm(first, dpre[1:].flatten(0, 1).t(), trace.states[0][:-1].flatten(0, 1))
    dbias = None if given.bias is None else flat.sum(0)
    dconstants = [change if change.is_floating_point() else None for change in changes]
    return du, dweight, dbias, *own, *dconstants


def _by_kernel(
    plan: Plan,
    compiled: bool,
    given: Inputs,
    trace: Trace,
    dy: Tensor,
    by_product: Tensor,
    own: list[Tensor],
    dpre: Tensor,
    du: Tensor,
    changes: list[Tensor],
) -> list[Tensor]:
    """Go back timestep by timestep with the vector-Jacobian product; return the gradients of the initial states."""
    (T, B), summed = dy.shape[:2], plan.pointwise.summed
    kernel = plan.backward(B, given.mask is not None, compiled)
    spare = [torch.empty_like(leaf) for leaf in own]
    floating = [change for change in changes if change.is_floating_point()]
    pres, dpres, dys, masks = trace.pre.unbind(0), dpre.unbind(0), dy.unbind(0), _steps(given.mask, T)
    us, dus = ((), ()) if summed else (given.u.unbind(0), du.unbind(0))
    states = list(zip(*(leaf.unbind(0) for leaf in trace.states), strict=True))
    for t in reversed(range(T)):
        before = states[t - 1] if t else given.initial
        u, gradient_u = ((), ()) if summed else ((us[t],), (dus[t],))
        taken = (pres[t], *u, *before, *given.constants, *masks[t], dys[t], by_product, *own)
        kernel(*taken, dpres[t], *gradient_u, *spare, *floating)
        own, spare = spare, own
        torch.mm(dpres[t], given.weight, out=by_product)
    return own


def _by_slopes(
    plan: Plan,
    compiled: bool,
    given: Inputs,
    trace: Trace,
    dy: Tensor,
    by_product: Tensor,
    own: list[Tensor],
    dpre: Tensor,
    du: Tensor,
    changes: list[Tensor],
) -> list[Tensor]:
    """Go back with slopes that are computed for many timesteps at once; return the gradients of the initial states."""
    T, B, H = dy.shape
    masked, own_u = given.mask is not None, 0 if plan.pointwise.summed else 1
    for start, stop in _chunks(T, max(1, _ROWS // max(1, B))):
        rows = (stop - start) * B
        u = [given.u[start:stop].flatten(0, 1)] * own_u
        before = [_before(leaf, first, start, stop) for leaf, first in zip(trace.states, given.initial, strict=True)]
        mask = [given.mask[start:stop].flatten(0, 1)] if given.mask is not None else []
        taken = (trace.pre[start:stop].flatten(0, 1), *u, *before, *given.constants, *mask)
        slopes = list(plan.jacobian(rows, masked)(*taken))
        width = 1 + own_u + len(own)
        by = [slopes[i : i + width] for i in range(0, len(slopes), width)]  # of each state
        totals = [leaf.new_empty(stop - start, B, H) for leaf in own]
        for t in reversed(range(start, stop)):
            total = [buffer[t - start] for buffer in totals]
            torch.add(dy[t], by_product, out=total[0])
            total[0] += own[0]
            for buffer, leaf in zip(total[1:], own[1:], strict=True):
                buffer.copy_(leaf)
            at = slice((t - start) * B, (t - start + 1) * B)
            _weigh([row[0] for row in by], total, at, dpre[t])
            own = [
                _weigh([row[1 + own_u + i] for row in by], total, at, torch.empty_like(own[i])) for i in range(len(own))
            ]
            torch.mm(dpre[t], given.weight, out=by_product)
        flat = [total.flatten(0, 1) for total in totals]
        if own_u:
            _weigh([row[1] for row in by], flat, slice(0, rows), du[start:stop].flatten(0, 1))
        floating = [change for change in changes if change.is_floating_point()]
        if floating:
            for change, found in zip(floating, plan.constants(rows, masked)(*taken, *flat), strict=True):
                change += found
    return own


def _weigh(slopes: Sequence[Tensor | None], weights: Sequence[Tensor], at: slice, out: Tensor) -> Tensor:
    """Write the sum of each slope [N, G H] times its weight [N, H] into `out`; a slope that is None is zero."""
    H, fresh = weights[0].shape[-1], True
    target = out.view(len(out), -1, H)
    for slope, weight in zip(slopes, weights, strict=True):
        if slope is None:
            continue
        part = slope[at].view(len(out), -1, H)
        by = weight.to(out.dtype)[:, None]
        if fresh:
            torch.mul(part, by, out=target)
        else:
            target.addcmul_(part, by)
        fresh = False
    return out.zero_() if fresh else out


def _before(leaf: Tensor, first: Tensor, start: int, stop: int) -> Tensor:
    """Return the state before each of some timesteps, as rows."""
    if start:
        return leaf[start - 1 : stop - 1].flatten(0, 1)
    return torch.cat((first[None], leaf[: stop - 1])).flatten(0, 1)


def _chunks(T: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) from the last timesteps to the first, in powers of two, so that few sizes are ever seen."""
    size = 1 << (most.bit_length() - 1)
    while T:
        while size > T:
            size //= 2
        yield T - size, T
        T -= size
