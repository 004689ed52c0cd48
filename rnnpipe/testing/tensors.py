"""Tensors compared: the largest difference, where it is, and the two numbers there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from rnnpipe.testing.report import Failure

Pair: TypeAlias = tuple[str, Tensor, Tensor]  # what it is, as it came, as it should be

RTOL, ATOL = 1e-9, 1e-11  # float64: a sum in another order is this near, a wrong equation is not


def expect_near(pairs: Iterable[Pair], reference: str, case: str, *, rtol: float = RTOL, atol: float = ATOL) -> float:
    """Return the largest difference over all pairs; raise Failure for the first pair that differs by more.

    Near means |a - b| <= atol + rtol |b|; not a number is near nothing. `reference` says what b is, in words.
    """
    largest = 0.0
    for name, ours, theirs in pairs:
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise Failure(f"{name} equal to {reference}: {describe(theirs)}", describe(ours), case)
        if not ours.numel():
            continue
        ours, theirs = ours.detach().double(), theirs.detach().double()
        off = (ours - theirs).abs().masked_fill(ours == theirs, 0)  # infinities that are equal are near
        far = ~(off <= atol + rtol * theirs.abs()) & (ours != theirs)
        if far.any():
            worst = int(torch.nan_to_num(off, nan=torch.inf).masked_fill(~far, -1).argmax())
            index = [int(i) for i in torch.unravel_index(torch.tensor(worst), ours.shape)]
            numbers = f"{ours.flatten()[worst]:.6g} for {theirs.flatten()[worst]:.6g}"
            received = f"off by {off.flatten()[worst]:.2g} at {index}: {numbers}"
            raise Failure(f"{name} equal to {reference}", received, case)
        largest = max(largest, float(off.max()))
    return largest


def expect_same(pairs: Iterable[Pair], reference: str, case: str) -> None:
    """Raise Failure for the first pair that is not the same to the bit; where both are not a number they are."""
    for name, ours, theirs in pairs:
        if ours.shape == theirs.shape and ours.is_floating_point() and theirs.is_floating_point():
            both = ours.isnan() & theirs.isnan()
            ours, theirs = ours.masked_fill(both, 0), theirs.masked_fill(both, 0)
        expect_near([(name, ours, theirs)], reference, case, rtol=0.0, atol=0.0)


def expect_shape(name: str, tensor: object, shape: Sequence[int], dtype: torch.dtype, case: str) -> None:
    """Raise Failure unless `tensor` is a tensor of this shape and type."""
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
        raise Failure(f"{name} {list(shape)} of {_plain(dtype)}", describe(tensor), case)


def expect_finite(named: Iterable[tuple[str, Tensor]], case: str) -> None:
    """Raise Failure for the first tensor with an element that is infinite or not a number."""
    for name, tensor in named:
        if bad := int((~torch.isfinite(tensor.detach())).sum()):
            raise Failure(f"{name} of finite numbers", f"{bad} of {tensor.numel()} that are not", case)


def describe(value: object) -> str:
    """Return a tensor's shape and type in words, or what else it is."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} of {_plain(value.dtype)}"
    return f"{type(value).__name__} {value!r}"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
