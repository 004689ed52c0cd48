"""One layer of a gated cell over all timesteps, as one autograd function: compiled.

Shapes: T timesteps, B batch, H hidden size, G gates. pre [T, B, G H]: what the recurrent products give, r, or u + r
where the cell makes nothing else of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from rnnpipe.backends.compile import Kernel, compile_graph
from rnnpipe.backends.derive import (
    Halves,
    Pointwise,
    backward_graph,
    derive_halves,
    fake_shapes,
    forward_graph,
    with_cheap_tanh,
)
from rnnpipe.errors import UsageError


class Plan:
    """The functions of a cell for each number of rows, made when they are first needed."""

    def __init__(self, pointwise: Pointwise) -> None:
        self.pointwise = pointwise
        self._compiled: dict[Any, Kernel] = {}
        self._halves: dict[Any, Halves] = {}

    def forward(self, rows: int, masked: bool) -> Kernel:
        """Return the function of a timestep, compiled; see `forward_graph`."""
        narrow = None if self.pointwise.state_dtypes[0] == self.pointwise.r_dtype else self.pointwise.r_dtype
        return self._compile(lambda p, shapes: forward_graph(p, shapes, narrow), "forward", rows, masked)

    def backward(self, rows: int, masked: bool) -> Kernel:
        """Return the function of a timestep backward, compiled; see `backward_graph`."""
        return self._compile(backward_graph, "backward", rows, masked)

    def _compile(self, derive: Callable[..., GraphModule], name: str, rows: int, masked: bool) -> Kernel:
        key = (name, rows, masked)
        if key not in self._compiled:
            graph = derive(self.pointwise, fake_shapes(self.pointwise, rows, masked))
            self._compiled[key] = compile_graph(with_cheap_tanh(graph))
        return self._compiled[key]

    def halves(self, rows: int, masked: bool) -> Halves:
        """Return a timestep forward and backward in plain torch; they take any number of rows if the cell does."""
        for key in ((None, masked), (rows, masked)):
            if key in self._halves:
                return self._halves[key]
        halves, any_rows = derive_halves(self.pointwise, rows, masked)
        self._halves[None if any_rows else rows, masked] = halves
        return halves


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


def _run_forward(plan: Plan, given: Inputs) -> Trace:
    """Return the states of all timesteps."""
    (T, B), weight = given.u.shape[:2], given.weight.t()
    summed, kernel = plan.pointwise.summed, plan.forward(B, given.mask is not None)
    pre = given.u if summed and given.spare else given.weight.new_empty(T, B, weight.shape[1])
    states = tuple(s.new_empty(T, *s.shape) for s in given.initial)
    narrow = None
    if given.initial[0].dtype != weight.dtype:
        narrow = weight.new_empty(T + 1, *given.initial[0].shape)
        narrow[0] = given.initial[0]
    before, masks = given.initial, by_timestep(given.mask, T)
    pres, us, narrows = pre.unbind(0), given.u.unbind(0), None if narrow is None else narrow.unbind(0)
    buffers = [leaf.unbind(0) for leaf in states]
    for t in range(T):
        product = pres[t]
        h = before[0] if narrows is None else narrows[t]
        added = us[t] if summed else given.bias
        if added is None:
            torch.mm(h, weight, out=product)
        else:
            torch.addmm(added, h, weight, out=product)
        after = tuple(leaf[t] for leaf in buffers)
        also = () if narrows is None else (narrows[t + 1],)
        kernel(product, *(() if summed else (us[t],)), *before, *given.constants, *masks[t], *after, *also)
        before = after
    return Trace(pre, states, narrow)


def lengths_mask(x_TBI: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return [T, B, 1], true where a sequence still goes on; None if all have their full length."""
    if lengths is None:
        return None
    steps = torch.arange(x_TBI.shape[0], device=x_TBI.device)
    return (steps[:, None] < lengths.to(x_TBI.device))[..., None]


def by_timestep(mask: Tensor | None, T: int) -> list[tuple[Tensor, ...]]:
    """Return what each timestep's function takes of a mask: one row of it, or nothing."""
    return [()] * T if mask is None else [(step,) for step in mask.unbind(0)]


def refuse_second_derivative() -> None:
    """Raise UsageError in a backward pass whose result is to be differentiated again."""
    if torch.is_grad_enabled():
        raise UsageError("backend 'hoisted' has no second derivative (create_graph=True); use the backend 'loop'.")


def run_compiled(plan: Plan, given: Inputs) -> tuple[Tensor, ...]:
    """Return state 0 behind each timestep, [T, B, H], and the other states behind the last; with a gradient."""
    rest = (given.u, given.weight, given.bias, *given.initial, *given.constants)
    results: tuple[Tensor, ...] = _Layer.apply(plan, given.spare, given.mask, *rest)  # type: ignore[no-untyped-call]
    return results


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
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
            trace = _run_forward(plan, given)
        needed_u = None if plan.pointwise.summed else u
        ctx.plan = plan
        ctx.save_for_backward(needed_u, weight, bias, mask, trace.pre, trace.narrow, *trace.states, *rest)
        return trace.states[0], *(leaf[-1].clone() for leaf in trace.states[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dfinal: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        plan: Plan = ctx.plan
        count = len(plan.pointwise.state_dtypes)
        u, weight, bias, mask, pre, narrow, *rest = ctx.saved_tensors
        states, initial, constants = rest[:count], rest[count : 2 * count], rest[2 * count :]
        given = Inputs(pre if u is None else u, weight, bias, tuple(initial), tuple(constants), mask, False)
        trace = Trace(pre, tuple(states), narrow)
        with torch.autocast(weight.device.type, enabled=False):
            gradients = _run_backward(plan, given, trace, dy.contiguous(), dfinal)
        return None, None, None, *gradients


def _run_backward(
    plan: Plan, given: Inputs, trace: Trace, dy: Tensor, dfinal: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of u, weight, bias, initial states and constants."""
    (T, B), summed = dy.shape[:2], plan.pointwise.summed
    kernel = plan.backward(B, given.mask is not None)
    dpre = torch.empty_like(trace.pre)
    du = dpre if summed else torch.empty_like(given.u)
    own = [torch.zeros_like(given.initial[0]), *(leaf.contiguous() for leaf in dfinal)]
    spare = [torch.empty_like(leaf) for leaf in own]
    by_product = torch.zeros_like(given.initial[0], dtype=given.weight.dtype)
    changes = [torch.zeros_like(constant) for constant in given.constants]
    floating = [change for change in changes if change.is_floating_point()]
    pres, dpres, dys, masks = trace.pre.unbind(0), dpre.unbind(0), dy.unbind(0), by_timestep(given.mask, T)
    us, dus = ((), ()) if summed else (given.u.unbind(0), du.unbind(0))
    states = list(zip(*(leaf.unbind(0) for leaf in trace.states), strict=True))
    for t in reversed(range(T)):
        before = states[t - 1] if t else given.initial
        u, gradient_u = ((), ()) if summed else ((us[t],), (dus[t],))
        taken = (pres[t], *u, *before, *given.constants, *masks[t], dys[t], by_product, *own)
        kernel(*taken, dpres[t], *gradient_u, *spare, *floating)
        own, spare = spare, own
        torch.mm(dpres[t], given.weight, out=by_product)
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
