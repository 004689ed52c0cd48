"""The checks of an initializer: it fills a parameter in place, wholly, with finite numbers, the same under a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rnnpipe.options import bind_options
from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.tensors import describe, expect_same, expect_shape
from rnnpipe.testing.things import attempt, in_order, require_reachable, resolve, seeded, seeded_check

# What models have: a bias, gates of a recurrent matrix, an input matrix, an embedding; from the smallest.
SHAPES = ((1,), (1, 1), (20,), (5, 5), (4, 7), (33, 5))
DTYPES = (torch.float32, torch.float64)


def check_initializer(thing: str | Callable[..., object], /, **options: Any) -> list[Finding]:
    """Check an initializer, given itself or by its registered name, with its `options`.

    Raises ConformanceError with every check that failed.
    """
    function, name = resolve("initializer", thing)
    return require(f"initializer '{name}'", checks(function, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of an initializer."""
    subject = _Subject(thing, options)
    rest = {
        "in place": in_place,
        "finite numbers": finite_numbers,
        "shape and dtype": shape_and_dtype,
        "block of a parameter": block_of_a_parameter,
        "determinism": determinism,
    }
    return in_order(
        seeded_check("options", accepted_options, subject),
        [seeded_check(name, function, subject) for name, function in rest.items()],
    )


@dataclass(frozen=True)
class _Subject:
    """An initializer and the options that it is called with."""

    function: Any
    options: Mapping[str, Any]

    def bound(self) -> Callable[[Tensor], object]:
        """Return it as a function of a tensor alone; raise UsageError for options that it does not take."""
        owner = f"initializer '{resolve('initializer', self.function)[1]}'"
        return partial(self.function, **bind_options(self.function, self.options, owner, reserved=1))

    def fill(self, tensor: Tensor) -> bool:
        """Fill a tensor as `initialize` does; return False for a vector refused by ValueError, as torch's do."""
        with torch.no_grad(), seeded(), attempt("a filled tensor", _case(tensor)):
            try:
                self.bound()(tensor)
            except ValueError:
                if tensor.dim() == 1:
                    return False
                raise
        return True

    def filled(self) -> list[Tensor]:
        """Return a tensor of each shape and type that it takes, filled; it held NaN before."""
        blank = [torch.full(shape, math.nan, dtype=dtype) for shape in SHAPES for dtype in DTYPES]
        return [tensor for tensor in blank if self.fill(tensor)]


def _case(tensor: Tensor) -> str:
    return f"a tensor {describe(tensor)}"


def accepted_options(subject: _Subject) -> str:
    """It takes the tensor first, and its options are what its signature says."""
    require_reachable(subject.function, reserved=1)
    subject.bound()
    return ", ".join(f"{name}={value}" for name, value in subject.options.items()) or "its defaults"


def in_place(subject: _Subject) -> str:
    """Every element of the tensor that it is given is written: of matrices, and of vectors if it takes them."""
    taken: dict[str, None] = {}
    for tensor in subject.filled():
        if left := int(tensor.isnan().sum()):
            raise Failure("every element filled with a number", f"{left} of {tensor.numel()} are not", _case(tensor))
        taken[str(list(tensor.shape))] = None
    return f"shapes {', '.join(taken)}" + ("" if len(taken) == len(SHAPES) else "; it refuses vectors")


def finite_numbers(subject: _Subject) -> str:
    """No number that it writes is infinite."""
    largest = 0.0
    for tensor in subject.filled():
        if infinite := int(tensor.isinf().sum()):
            raise Failure("finite numbers", f"{infinite} of {tensor.numel()} infinite", _case(tensor))
        largest = max(largest, float(tensor.abs().max()))
    return f"up to {largest:.3g}"


def shape_and_dtype(subject: _Subject) -> str:
    """A parameter keeps its shape, its type and its place in memory."""
    kept = 0
    for shape in SHAPES:
        for dtype in DTYPES:
            parameter = nn.Parameter(torch.zeros(shape, dtype=dtype))
            case, memory = _case(parameter), parameter.data_ptr()
            if not subject.fill(parameter):
                continue
            expect_shape("a parameter", parameter, shape, dtype, case)
            if parameter.data_ptr() != memory:
                raise Failure("the parameter's own memory filled", "other memory in its place", case)
            kept += 1
    return f"{kept} parameters"


def block_of_a_parameter(subject: _Subject) -> str:
    """One gate of a recurrent matrix is filled, as `initialize` asks, and nothing beside it."""
    for H in (1, 5):
        whole = torch.full((3 * H, H), math.nan)
        case = f"rows {H} to {2 * H} of [{3 * H}, {H}]"
        subject.fill(whole[H : 2 * H])
        written = (~whole.isnan()).any(1)
        if not written[H : 2 * H].all():
            raise Failure("the rows of that gate filled", "rows left as they were", case)
        if written[:H].any() or written[2 * H :].any():
            raise Failure("the other gates left as they were", "numbers there", case)
    return "one gate of three, and no other"


def determinism(subject: _Subject) -> str:
    """The same seed gives the same numbers."""
    first, second = subject.filled(), subject.filled()
    for once, again in zip(first, second, strict=True):
        expect_same([("a filled tensor", again, once)], "that of the first time from the same seed", _case(once))
    return f"the same bits in {len(first)} tensors"
