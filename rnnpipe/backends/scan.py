"""Linear cells over time without a loop over single timesteps: a scan over chunks, or kernels on a GPU.

Shapes: T timesteps, B batch, H hidden size, N elements of a timestep, K chunks of L timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rnnpipe.backends.kernels.ready import no_kernels
from rnnpipe.cells.base import Cell, Gates, LinearCell, State

# Measured on two cores: with fewer elements, an operation costs its call, whatever it computes.
_ELEMENTS = 16_384
_SHORTEST = 8  # timesteps of a chunk: with fewer, there are more chunks to scan than it saves


class ScanBackend:
    """Runs linear cells, h' = a * h + b, for all timesteps together; h is summed in float32 or wider.

    kernels: "auto" takes Triton's kernels for real states on a CUDA device where Triton is there, and torch's
    operations otherwise; "always" refuses what they cannot do; "never" goes without. They are proved in Triton's
    interpreter, and have not been run on a GPU yet.
    """

    name = "scan"
    priority = 10

    def __init__(self, kernels: Literal["auto", "never", "always"] = "auto") -> None:
        self.kernels = kernels

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Accept stacks of `LinearCell` whose step is the one that their coefficients make."""
        for cell in cells:
            name = type(cell).__name__
            if not isinstance(cell, LinearCell):
                return f"{name} is no LinearCell: a scan needs h' = a h + b with a and b of the input alone"
            if type(cell).step is not LinearCell.step:
                return f"{name} has a `step` of its own, which its coefficients do not tell"
            if self.kernels == "always" and (reason := self._no_kernels(cell, x_TBI.device)) is not None:
                return f"{name}: {reason}"
        return None

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Scan layer by layer."""
        finals = []
        for cell, state in zip(cells, states, strict=True):
            assert isinstance(cell, LinearCell), "the others are refused"
            wanted = self.kernels == "always" or (self.kernels == "auto" and x_TBI.is_cuda)
            kernels = wanted and self._no_kernels(cell, x_TBI.device) is None
            x_TBI, final = _run_layer(cell, x_TBI, state, lengths, kernels)
            finals.append(final)
        return x_TBI, finals

    def _no_kernels(self, cell: LinearCell, device: torch.device) -> str | None:
        return "the kernels take no complex state" if cell.complex_hidden else no_kernels(device, interpret=True)


def _run_layer(
    cell: LinearCell, x_TBI: Tensor, state: State, lengths: Tensor | None, kernels: bool
) -> tuple[Tensor, State]:
    gates = cell.project(x_TBI) if x_TBI.is_floating_point() else cell.project_classes(x_TBI)
    u = cell.delay(gates, state)
    # In float32, whatever the products are in: the number behind 1 - 1/256 is 1 in bfloat16, which never forgets.
    a, b = cell.coefficients(tuple(gate.to(torch.promote_types(gate.dtype, torch.float32)) for gate in u))
    a = a.expand_as(b)
    valid = None
    if lengths is not None:
        steps = torch.arange(len(a), device=a.device)[:, None, None]
        valid = steps < lengths.to(a.device)[:, None]
        a, b = torch.where(valid, a, 1.0), torch.where(valid, b, 0.0)
    first = cell.hidden(state)
    every, last = scan(a, b, first, kernels=kernels)
    dtype = torch.promote_types(gates[0].dtype, first.dtype)
    y = cell.output(u, every.to(dtype))
    if valid is not None:
        y = torch.where(valid, y, 0.0)
    return y, cell.state_of(last.to(dtype), _delayed(cell, gates, state, lengths))


def _delayed(cell: LinearCell, gates: Gates, state: State, lengths: Tensor | None) -> Gates:
    """Return the delayed projections [B, H] of each sequence's last timestep, those of the state if it has none."""
    if not cell.delayed:
        return ()
    late = gates[-cell.delayed :]
    if lengths is None:
        return tuple(gate[-1] for gate in late)
    rows = lengths.to(late[0].device)[None, :, None].expand_as(late[0][:1])
    before = state[1].unbind(1)
    return tuple(torch.cat((row[None], gate)).gather(0, rows)[0] for row, gate in zip(before, late, strict=True))


def scan(a: Tensor, b: Tensor, first: Tensor, *, kernels: bool = False) -> tuple[Tensor, Tensor]:
    """Return h_t = a_t * h_{t-1} + b_t for all t, and the last of them, from a and b [T, ...] and the h before, [...].

    Real or complex, in the widest type of the three; its gradient can be differentiated again. Every h_t is computed
    from the one before it, as in a loop, except the first of a chunk, which takes the product of the coefficients of a
    chunk. There is no division and no logarithm, hence nothing to guard where a is 0, 1 or negative. Where that product
    overflows (|a| > 1 for long) it is kept finite, so that a state of 0 stays 0; complex a are to stay within 1.

    kernels: by Triton's, which sum in float32 at least; on a GPU, or in Triton's interpreter, and real.
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), first.dtype)
    every, last = _Scan.apply(a.to(dtype), b.to(dtype), first.to(dtype), kernels)  # type: ignore[no-untyped-call]
    return every, last


class _Scan(torch.autograd.Function):
    """h_t = a_t h_{t-1} + b_t; returns every h and the last. Backward in time runs `_ReverseScan`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor, kernels: bool) -> tuple[Tensor, Tensor]:
        every = torch.empty_like(b, memory_format=torch.contiguous_format)
        if kernels:
            from rnnpipe.backends.kernels.scan import fill  # Triton is an extra

            fill(a, b, first, every)
        else:
            _fill(a, b, first, every)
        ctx.kernels = kernels
        ctx.save_for_backward(a, first, every)
        return every, every[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        a, first, every = ctx.saved_tensors
        if ctx.kernels and not torch.is_grad_enabled():
            from rnnpipe.backends.kernels.scan import fill_back

            return *fill_back(a, gradients[0], gradients[1], first, every), None
        a = a.conj().resolve_conj()
        dh: Tensor = _ReverseScan.apply(a, *gradients)  # type: ignore[no-untyped-call]
        da = _times_previous(dh, first, every) if ctx.needs_input_grad[0] else None
        return da, dh, a[0] * dh[0] if ctx.needs_input_grad[2] else None, None


class _ReverseScan(torch.autograd.Function):
    """g_t = a_{t+1} g_{t+1} + d_t, and at the end g_T = last + d_T; a_1 has no part in it."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, d: Tensor, last: Tensor) -> Tensor:
        every = torch.empty_like(d, memory_format=torch.contiguous_format)
        torch.add(d[-1], last, out=every[-1])
        _fill(a[1:], d[:-1], every[-1], every[:-1], reverse=True)
        ctx.save_for_backward(a, every)
        return every

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, every = ctx.saved_tensors
        zero = torch.zeros_like(every[0])
        s, last = _Scan.apply(a.conj().resolve_conj(), gradients[0], zero, False)  # type: ignore[no-untyped-call]
        return torch.cat((zero[None], s[:-1] * every[1:].conj())), s, last


def _times_previous(dh: Tensor, first: Tensor, every: Tensor) -> Tensor:
    """Return dh_t times the conjugate of h_{t-1}, which is the gradient of a_t."""
    if torch.is_grad_enabled():  # a gradient of the gradient is wanted, which writing in place cannot give
        return torch.cat((dh[:1] * first.conj(), dh[1:] * every[:-1].conj()))
    product = torch.empty_like(dh)
    torch.mul(dh[0], first.conj(), out=product[0])
    torch.mul(dh[1:], every[:-1].conj(), out=product[1:])
    return product


def _fill(a: Tensor, b: Tensor, start: Tensor, out: Tensor, *, reverse: bool = False) -> None:
    """Write h' = a * h + b for all T into out, from `start` on; from the last timestep to the first if `reverse`.

    One operation computes one timestep of all chunks at once. A chunk's coefficients make it one step, h' = A h + B;
    the scan of those steps (by this function) tells where each chunk starts; then all chunks run side by side.
    """
    T, N = len(a), start.numel()
    L = min(T, max(_SHORTEST, T * N // _ELEMENTS))
    K = T // max(L, 1)
    if K < 2:
        _run(_rows(a, reverse), _rows(b, reverse), start, _rows(out, reverse))
        return
    main = slice(T % L, T) if reverse else slice(0, K * L)
    a_KL, b_KL, out_KL = (rows[main].view(K, L, *rows.shape[1:]).transpose(0, 1) for rows in (a, b, out))
    a_rows, b_rows = _rows(a_KL, reverse), _rows(b_KL, reverse)
    A, B = _compose(a_rows, b_rows)
    starts = torch.empty_like(B)
    starts[-1 if reverse else 0] = start
    before, behind = (slice(1, K), slice(0, K - 1)) if reverse else (slice(0, K - 1), slice(1, K))
    _fill(A[before], B[before], start, starts[behind], reverse=reverse)
    _run(a_rows, b_rows, starts, _rows(out_KL, reverse))
    if left := T % L:
        end, others = (left, slice(0, left)) if reverse else (T - left - 1, slice(T - left, T))
        _fill(a[others], b[others], out[end], out[others], reverse=reverse)


def _rows(x: Tensor, reverse: bool) -> Sequence[Tensor]:
    return x.unbind(0)[::-1] if reverse else x.unbind(0)


def _run(a: Sequence[Tensor], b: Sequence[Tensor], h: Tensor, out: Sequence[Tensor]) -> None:
    for a_t, b_t, out_t in zip(a, b, out, strict=True):
        h = torch.addcmul(b_t, a_t, h, out=out_t)


def _compose(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return A and B of h' = A h + B for the steps of a chunk, one after the other."""
    A, B = a[0].clone(), b[0].clone()
    for a_t, b_t in zip(a[1:], b[1:], strict=True):
        torch.addcmul(b_t, a_t, B, out=B)
        A.mul_(a_t)
    if not A.is_complex():
        largest = torch.finfo(A.dtype).max
        if A.isnan().any():  # 0 times infinity: kept finite on the way, which takes longer
            A = a[0].clone()
            for a_t in a[1:]:
                A.mul_(a_t).clamp_(-largest, largest)
        A.clamp_(-largest, largest)
    return A, B
