"""The matrix products of a layer alone, without anything between them: what bounds its speed from above."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rnnpipe.cells.base import Cell, GatedCell, ProjectedCell


def bare_products(cell: Cell, x: Tensor, precision: str) -> Callable[[], None] | None:
    """Return a function that does a cell's products forward and backward over x [T, B, I], or None if they are unknown.

    One product with `weight_ih` for all T and one for its gradient (that of x is not asked for); of a gated cell in
    each timestep one with `weight_hh` forward and one backward, and one for the gradient at the end.
    """
    known = {"weight_ih", "weight_hh"} if isinstance(cell, GatedCell) else {"weight_ih"}
    if not isinstance(cell, ProjectedCell) or {n for n, p in cell.named_parameters() if p.dim() > 1} != known:
        return None
    T, B, H = *x.shape[:2], cell.hidden_size
    like = x.new_empty((), dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)

    def drawn(*shape: int) -> Tensor:
        return like.new_empty(shape).normal_()

    flat, weight = x.flatten(0, 1).to(like.dtype), cell.weight_ih.detach().to(like.dtype)
    u, dweight = drawn(T * B, weight.shape[0]), torch.empty_like(weight)
    if not isinstance(cell, GatedCell):

        def of_input() -> None:
            torch.mm(flat, weight.t(), out=u)
            torch.mm(u.t(), flat, out=dweight)

        return of_input
    recurrent = cell.weight_hh.detach().to(like.dtype)
    h, pre, back = drawn(T, B, H), drawn(T, B, recurrent.shape[0]), drawn(B, H)
    drecurrent = torch.empty_like(recurrent)

    def of_both() -> None:
        torch.mm(flat, weight.t(), out=u)
        for t in range(T):
            torch.mm(h[t], recurrent.t(), out=pre[t])
        for t in range(T):
            torch.mm(pre[t], recurrent, out=back)
        torch.mm(pre.flatten(0, 1).t(), h.flatten(0, 1), out=drecurrent)
        torch.mm(u.t(), flat, out=dweight)

    return of_both
