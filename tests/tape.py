"""A recorder for the CPU that knows no more than a CUDA graph does: operations, and the tensors that they were given.

It shows on a machine without a GPU that a step can be recorded: what Python decides is decided once, and looking at a
tensor's value is refused. Operations below torch's dispatcher, as compiled kernels, are not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


class _Taping(TorchDispatchMode):
    """Runs operations and keeps them. changed: what stood before in tensors that were there and were written to."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor], bool]] = []
        self.own: set[int] = set()
        self.changed: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise RuntimeError(f"{func} looks at a tensor's value, which is not there while recording")
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        written = {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
            if name in written:
                for tensor in tensors(value):
                    place = tensor.untyped_storage().data_ptr()
                    if place not in self.own and id(tensor) not in self.changed:
                        self.changed[id(tensor)] = tensor, tensor.clone()
        results = func(*args, **kwargs)
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        made = [t for t in tensors(results) if t.untyped_storage().data_ptr() not in given]
        self.own |= {tensor.untyped_storage().data_ptr() for tensor in made}
        views = bool(tensors(results)) and not made and not written
        if not views:
            # Some functions keep more where there is to be a gradient.
            self.operations.append((func, args, kwargs, tensors(results) if made else [], torch.is_grad_enabled()))
        return results


class Tape:
    """Records operations; a replay does them again on the same tensors."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def warm(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        drawn = torch.get_rng_state()
        taping = _Taping()
        with taping:
            result = work()
        torch.set_rng_state(drawn)
        with torch.no_grad():
            for tensor, was in taping.changed.values():
                tensor.copy_(was)
            for tensor in tensors(result):
                tensor.fill_(float("nan"))  # it is not computed yet
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            with torch._C._AutoDispatchBelowAutograd():
                for func, args, kwargs, made, grad in taping.operations:
                    with torch.set_grad_enabled(grad):
                        again = func(*args, **kwargs)
                    for tensor, value in zip(made, tensors(again) if made else [], strict=True):
                        tensor.copy_(value)

        return result, replay


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dictionaries."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
