"""Weights in fewer bits, for a trained model that only reads: int8 or bfloat16, on the CPU.

Every matrix that a step multiplies by is replaced by a tensor that does the product itself, so that any cell and any
model is quantized without a word about it. The rest of a step, the state included, stays in float32.

Shapes: N rows, I inputs, O outputs of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from rnnpipe.errors import UsageError
from rnnpipe.models.language_model import LanguageModel

Form: TypeAlias = Literal["bf16", "int8"]
FORMS: tuple[Form, ...] = ("bf16", "int8")


class NarrowWeight(Tensor):
    """A matrix [O, I] in fewer bits. `F.linear` and `F.embedding` use it as it is; all else sees it in float32."""

    def __init__(self, weight: Tensor) -> None:
        raise NotImplementedError

    def widen(self) -> Tensor:
        """Return the matrix in float32."""
        raise NotImplementedError

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return x W' + bias [N, O] in float32 for x [N, I]; a row of it hangs on that row of x alone, to the bit."""
        raise NotImplementedError

    def rows(self, index: Tensor) -> Tensor:
        """Return rows of the matrix in float32, for an index of any shape."""
        raise NotImplementedError

    def bytes_held(self) -> int:
        """Return how many bytes it takes."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do products and look-ups; give any other function the matrix in float32."""
        kwargs = kwargs or {}
        if func is F.linear and isinstance(args[1], cls):
            return _linear(args[1], args[0], args[2] if len(args) > 2 else kwargs.get("bias"))
        if func is F.embedding and len(args) == 2 and not kwargs:
            return args[1].rows(args[0])
        with torch._C.DisableTorchFunctionSubclass():
            if getattr(func, "__name__", "") == "__get__":  # of an attribute such as `shape`
                return func(*args, **kwargs)
            return func(*_widened(args), **_widened(kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Give what torch calls by itself the matrix in float32."""
        return func(*_widened(args), **_widened(kwargs or {}))


def _widened(arguments: Any) -> Any:
    return tree_map(lambda each: each.widen() if isinstance(each, NarrowWeight) else each, arguments)


def _linear(weight: NarrowWeight, x: Tensor, bias: Tensor | None) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        added = torch.zeros(()) if bias is None else bias
        return weight.product(x.reshape(-1, x.shape[-1]), added).view(*x.shape[:-1], -1)


def _shell(cls: type[NarrowWeight], weight: Tensor) -> Any:
    """Return a tensor of a class with the shape of a matrix and no numbers of its own."""
    return torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=torch.float32, device=weight.device)


class Int8Weight(NarrowWeight):
    """W = stored * scales, with a scale for each output, its largest weight / 127.

    In a product x is quantized too, each row by its own largest value, so that all sums are of integers: exact, in
    whatever order, and the same for a row in every batch.
    """

    stored: Tensor  # [O, I] int8
    scales: Tensor  # [O] float32

    def __new__(cls, weight: Tensor) -> Int8Weight:
        return cast(Int8Weight, _shell(cls, weight))

    def __init__(self, weight: Tensor) -> None:
        self.stored, scales = _to_int8(weight.detach().float())
        self.scales = scales[:, 0]
        # The product is fastest with it. Cloned, since `contiguous` leaves odd strides where I is 1, and `_int_mm` then
        # reads beyond the matrix.
        self._transposed = self.stored.t().clone(memory_format=torch.contiguous_format)

    def widen(self) -> Tensor:
        return self.stored * self.scales[:, None]

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        rounded, scales = _to_int8(x.float())
        sums = torch._int_mm(rounded, self._transposed)
        return torch.addcmul(bias, sums * scales, self.scales)

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.stored) * self.scales[index][..., None]

    def bytes_held(self) -> int:
        return self.stored.nbytes + self.scales.nbytes


class BFloat16Weight(NarrowWeight):
    """W in bfloat16; in a product x is rounded to it too, and sums are kept in float32 until they are rounded."""

    stored: Tensor

    def __new__(cls, weight: Tensor) -> BFloat16Weight:
        return cast(BFloat16Weight, _shell(cls, weight))

    def __init__(self, weight: Tensor) -> None:
        self.stored = weight.detach().bfloat16()

    def widen(self) -> Tensor:
        return self.stored.float()

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self.stored) + bias

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.stored).float()

    def bytes_held(self) -> int:
        return self.stored.nbytes


def _to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [N, I] as whole numbers from -127 to 127, and what each row is to be multiplied by, [N, 1]."""
    scales = rows.abs().amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny) / 127
    return (rows / scales).round_().to(torch.int8, memory_format=torch.contiguous_format), scales


@dataclass(frozen=True)
class Size:
    """The bytes of a model's parameters and buffers, as trained and quantized, and which matrices were quantized."""

    before: int
    after: int
    matrices: tuple[str, ...]


def quantize(model: LanguageModel, form: Form) -> Size:
    """Replace, in place, each matrix that a step of a model multiplies by or looks up rows of; return what it saves.

    The model must be on the CPU; from then on it can only read. Its steps run in the plain loop, whose products these
    are. Raises UsageError if there is none such.
    """
    if next(model.parameters()).device.type != "cpu":
        raise UsageError(f"--quantize {form} is for the CPU; use --device cpu.")
    model.float().eval().requires_grad_(False)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = sum(tensor.nbytes for tensor in held.values())
    multiplied = _multiplied(model)
    chosen = {name for name, tensor in held.items() if tensor.dim() == 2 and any(tensor is each for each in multiplied)}
    if not chosen:
        raise UsageError(f"--quantize {form}: no matrix of this model enters a product as it is; leave it out.")
    kind = Int8Weight if form == "int8" else BFloat16Weight
    made: dict[int, NarrowWeight] = {}
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and any(tensor is held[each] for each in chosen):
                delattr(module, name)
                setattr(module, name, made.setdefault(id(tensor), kind(tensor)))
    left = sum(tensor.nbytes for name, tensor in held.items() if name not in chosen)
    model.recurrent.backend = "loop"
    return Size(before, left + sum(weight.bytes_held() for weight in made.values()), tuple(sorted(chosen)))


def _multiplied(model: LanguageModel) -> list[Tensor]:
    """Return what one step of a model takes as the matrix of a product or of a look-up."""
    seen: list[Tensor] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
        ) -> Any:
            if func in (F.linear, F.embedding):
                seen.append(args[1])
            return func(*args, **(kwargs or {}))

    model.recurrent.backend = "loop"
    with torch.no_grad():
        _, state = model.prime(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
        with Watch():
            model.step(torch.zeros(1, dtype=torch.int64), state)
    return seen
