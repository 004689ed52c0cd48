"""Gated cells on a GPU with one Triton kernel a timestep, written from the cell's `pointwise`.

Forward: the recurrent product and the elementwise part behind it in one kernel. Backward: the vector-Jacobian product
in one, the transposed product in another; the gradients of the weights in one product at the end.

Proved equal to the loop in Triton's interpreter, and compiled for GPUs, but never run on one.

Shapes: T timesteps, B batch, H hidden size, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rnnpipe.backends.derive import Pointwise
from rnnpipe.backends.hoisted import HoistedBackend
from rnnpipe.backends.kernels.emit import Unfusible
from rnnpipe.backends.kernels.gated import load, source
from rnnpipe.backends.kernels.ready import interpreted, no_kernels, on_device_of
from rnnpipe.backends.layer import Inputs, Plan, lengths_mask
from rnnpipe.cells.base import Cell, GatedCell, State
from rnnpipe.errors import BackendRefusal, UsageError

_MOST_ELEMENTS = (1 << 31) - 1  # of a timestep or a weight, which kernels count in 32 bits
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Tiles:
    """How much of a product one program does: rows of the batch, hidden units, and how its inner loop goes."""

    rows: int
    cols: int
    depth: int
    stages: int = 3
    warps: int = 4


class FusedBackend:
    """Runs gated cells whose `pointwise` is elementwise over [B, H] by generated kernels, on a CUDA device.

    Training measures it beside the others and takes it where it is the fastest; elsewhere the automatic choice passes
    over it, and `runtime.backend=fused` takes it.

    interpret: take tensors on a CPU too, in Triton's interpreter, which TRITON_INTERPRET=1 switches on: a check, and
    some thousand times slower.
    """

    name = "fused"
    priority = 4

    def __init__(self, interpret: bool = False) -> None:
        self.interpret = interpret
        self._graphs = HoistedBackend("never")
        self._kernels: WeakKeyDictionary[Plan, ModuleType | str] = WeakKeyDictionary()

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Accept gated cells, on a device with Triton, whose operations are all known to the kernels' text."""
        if (reason := no_kernels(x_TBI.device, interpret=self.interpret)) is not None:
            return reason
        if (reason := self._graphs.refusal(cells, x_TBI, lengths)) is not None:
            return reason
        for cell in cells:
            assert isinstance(cell, GatedCell), "it has not been refused"
            name, B, H = type(cell).__name__, x_TBI.shape[1], cell.hidden_size
            gates = max(cell.input_gates, cell.recurrent_gates)
            if gates * H * max(H, B) > _MOST_ELEMENTS:
                return f"{name}: H={H} with B={B} is too large for the kernels, which count in 32 bits"
            if cell.weight_hh.dtype not in _DTYPES:
                return f"{name}: its kernels take no {cell.weight_hh.dtype}"
            plan = self._graphs.plan(cell, B)
            assert isinstance(plan, Plan), "it has not been refused"
            if isinstance(found := self._module(plan), str):
                return f"{name}: {found}"
        return None

    def drawback(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Decline: whether it is the fastest is not known."""
        return "only measuring tells where it is the fastest, which training does"

    def to_be_measured(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> bool:
        """Ask for it, but in the interpreter."""
        return x_TBI.is_cuda

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Run each layer over all timesteps."""
        mask = lengths_mask(x_TBI, lengths)
        finals = []
        for cell, state in zip(cells, states, strict=True):
            assert isinstance(cell, GatedCell), "it has not been refused"
            x_TBI, final = self._run_layer(cell, x_TBI, state, mask)
            finals.append(final)
        return x_TBI, finals

    def _run_layer(self, cell: GatedCell, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        plan, given = self._graphs.prepare(cell, x, state, mask)
        module = self._module(plan)
        if isinstance(module, str):
            raise BackendRefusal(f"backend '{self.name}' refuses: {module}.")
        kept = None if mask is None else mask.to(torch.int8)
        rest = (given.u, given.weight.contiguous(), given.bias, *given.initial, *given.constants)
        outputs, *ends = _Layer.apply(plan.pointwise, module, kept, *rest)  # type: ignore[no-untyped-call]
        y = outputs if mask is None else torch.where(mask, outputs, outputs.new_zeros(()))
        return y, (outputs[-1], *ends)

    def _module(self, plan: Plan) -> ModuleType | str:
        """Return the module with a cell's kernels, or why there is none, in words."""
        if plan not in self._kernels:
            try:
                self._kernels[plan] = load(source(plan.pointwise))
            except Unfusible as reason:
                self._kernels[plan] = str(reason)
        return self._kernels[plan]


def tiles(B: int, dtype: torch.dtype, product: Literal["forward", "backward"]) -> Tiles:
    """Return the tiles of a product: those of the prototype that was measured on an H200, in bfloat16."""
    rows = 16 if B <= 16 else 32 if product == "forward" or B <= 32 else 64
    depth = 128 // max(1, dtype.itemsize // 2)  # the same bytes in every type
    return Tiles(rows, 16 if product == "forward" else 32, max(16, depth))


class _Layer(torch.autograd.Function):
    """A layer over all timesteps: state 0 behind each, and the other states behind the last."""

    @staticmethod
    def forward(
        ctx: Any,
        pointwise: Pointwise,
        module: ModuleType,
        mask: Tensor | None,
        u: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(pointwise.state_dtypes)
        given = Inputs(u, weight, bias, rest[:count], rest[count:], mask, False)
        keep = any(ctx.needs_input_grad)
        with on_device_of(u):
            pre, states, narrow = _forward(pointwise, module.forward, given, keep)
        if keep:
            ctx.pointwise, ctx.module, ctx.biased = pointwise, module, bias is not None
            needed = None if pointwise.summed else u
            ctx.save_for_backward(needed, weight, mask, pre, narrow, *states, *rest)
        return states[0], *(leaf[-1].clone() for leaf in states[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dfinal: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UsageError("backend 'fused' has no second derivative (create_graph=True); use the backend 'loop'.")
        count = len(ctx.pointwise.state_dtypes)
        u, weight, mask, pre, narrow, *rest = ctx.saved_tensors
        states, initial, constants = rest[:count], rest[count : 2 * count], rest[2 * count :]
        given = Inputs(pre if u is None else u, weight, None, tuple(initial), tuple(constants), mask, False)
        with on_device_of(dy):
            dpre, du, own, changes = _backward(ctx.pointwise, ctx.module.backward, given, pre, states, dy, dfinal)
        flat = dpre.flatten(0, 1)
        with torch.autocast(dpre.device.type, enabled=False):  # whatever it was forward
            if narrow is None:
                first = dpre[0].t() @ initial[0]
                dweight = torch.addmm(first, dpre[1:].flatten(0, 1).t(), states[0][:-1].flatten(0, 1))
            else:
                dweight = flat.t() @ narrow[:-1].flatten(0, 1)
        dbias = flat.sum(0) if ctx.biased else None
        return None, None, None, du, dweight, dbias, *own, *changes


def _forward(
    pointwise: Pointwise, kernel: Any, given: Inputs, keep: bool
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Return pre of all timesteps if it is kept, all states, and state 0 in the type of products if it has another."""
    (T, B), H = given.u.shape[:2], pointwise.hidden_size
    tile = tiles(B, given.weight.dtype, "forward")
    pre = given.weight.new_empty(T if keep else 1, B, pointwise.recurrent_gates * H)
    states = [leaf.new_empty(T, B, H) for leaf in given.initial]
    narrow = None
    if given.initial[0].dtype != given.weight.dtype:
        narrow = given.weight.new_empty(T + 1, B, H)
        narrow[0] = given.initial[0]
    constants = {
        "BIASED": given.bias is not None,
        "MASKED": given.mask is not None,
        "KEEP": keep,
        "NARROW": narrow is not None,
        "ROWS": tile.rows,
        "COLS": tile.cols,
        "DEPTH": tile.depth,
        "STAGES": tile.stages,
        "WIDEN": interpreted(),
        "num_warps": tile.warps,
    }
    launch = kernel[_grid(B, H, tile)]
    before = list(given.initial)
    for t in range(T):
        h = before[0] if narrow is None else narrow[t]
        after = [leaf[t] for leaf in states]
        added = (given.u[t],) if pointwise.summed else (_or(given.bias, pre), given.u[t])
        mask = pre if given.mask is None else given.mask[t]  # some tensor, where a kernel looks at none
        saved, also = pre[t if keep else 0], pre if narrow is None else narrow[t + 1]
        launch(h, given.weight, *added, *before, *given.constants, mask, saved, *after, also, B, H, **constants)
        before = after
    return pre, states, narrow


def _backward(
    pointwise: Pointwise,
    kernel: Any,
    given: Inputs,
    pre: Tensor,
    states: Sequence[Tensor],
    dy: Tensor,
    dfinal: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor | None]]:
    """Return the gradients of pre, u, the initial states and the constants."""
    (T, B), H = dy.shape[:2], pointwise.hidden_size
    dy = dy.contiguous()
    dpre = torch.empty_like(pre)
    du = dpre if pointwise.summed else torch.empty_like(given.u)
    wide = [torch.promote_types(leaf.dtype, torch.float32) for leaf in given.initial]
    own = [torch.zeros_like(given.initial[0], dtype=wide[0])]
    own += [leaf.to(dtype, copy=True) for leaf, dtype in zip(dfinal, wide[1:], strict=True)]
    floating = [constant for constant in given.constants if constant.is_floating_point()]
    sums = [own[0].new_zeros(B, H, dtype=torch.promote_types(c.dtype, torch.float32)) for c in floating]
    multiply, parts = _product_back(given.weight, B)
    tile = tiles(B, given.weight.dtype, "backward")
    launch = kernel[_grid(B, H, tile)]
    constants = {"MASKED": given.mask is not None, "ROWS": tile.rows, "COLS": tile.cols, "num_warps": tile.warps}
    for t in reversed(range(T)):
        before = [leaf[t - 1] for leaf in states] if t else given.initial
        u, changed = ((), ()) if pointwise.summed else ((given.u[t],), (du[t],))
        mask = pre if given.mask is None else given.mask[t]
        taken = (pre[t], *u, *before, *given.constants, mask, dy[t], parts, *own)
        count = 0 if t == T - 1 else len(parts)
        launch(*taken, dpre[t], *changed, *sums, B, H, PARTS=count, **constants)
        multiply(dpre[t])
    own[0] = own[0] + parts.sum(0)
    changes = iter(_as_constant(total, like) for total, like in zip(sums, floating, strict=True))
    return (
        dpre,
        du,
        [gradient.to(leaf.dtype) for gradient, leaf in zip(own, given.initial, strict=True)],
        [next(changes) if constant.is_floating_point() else None for constant in given.constants],
    )


def _product_back(weight: Tensor, B: int) -> tuple[Callable[[Tensor], None], Tensor]:
    """Return the function that multiplies dpre [B, G H] with the weight, and where it writes parts of the product."""
    import triton.language as tl

    from rnnpipe.backends.kernels.product_kernels import product_back

    (K, H), tile = weight.shape, tiles(B, weight.dtype, "backward")
    most = -(-K // tile.depth)
    length = -(-most // min(4, most)) * tile.depth  # in four parts, each of whole steps of the inner loop
    dtype = torch.promote_types(weight.dtype, torch.float32)
    parts = weight.new_empty(-(-K // length), B, H, dtype=dtype)
    grid = (*_grid(B, H, tile), len(parts))
    constants = {
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
        "WIDEN": interpreted(),
        "ROWS": tile.rows,
        "COLS": tile.cols,
        "DEPTH": tile.depth,
        "STAGES": tile.stages,
        "num_warps": tile.warps,
    }

    def multiply(dpre: Tensor) -> None:
        product_back[grid](dpre, weight, parts, B, H, K, length, **constants)

    return multiply, parts


def _grid(B: int, H: int, tile: Tiles) -> tuple[int, int]:
    return -(-H // tile.cols), -(-B // tile.rows)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    return other if tensor is None else tensor


def _as_constant(total: Tensor, like: Tensor) -> Tensor:
    """Return what all rows of a batch give to a constant: a vector [H], or one number."""
    total = total.sum(0) if like.dim() and like.numel() == total.shape[1] else total.sum()
    return total.reshape(like.shape).to(like.dtype)
