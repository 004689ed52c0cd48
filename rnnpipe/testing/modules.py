"""What the checks of cells, encoders and models ask of any torch module: its parameters and their gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from rnnpipe.testing.report import Failure
from rnnpipe.testing.tensors import expect_finite, expect_same


def expect_same_parameters(build: Callable[[], nn.Module], case: str) -> None:
    """Raise Failure unless what `build` gives has the same parameters, to the bit, each time, and fills them all."""
    with memory_of_nan():
        first, second = build(), build()
    others = dict(second.named_parameters())
    expect_finite(
        ((f"parameter {name}", p) for name, p in first.named_parameters()), f"{case}, in memory that held NaN"
    )
    pairs = [(f"parameter {name}", parameter, others[name]) for name, parameter in first.named_parameters()]
    expect_same(pairs, "that of another from the same seed", case)


@contextlib.contextmanager
def memory_of_nan() -> Iterator[None]:
    """Make torch fill all new memory with NaN: what a constructor leaves unfilled shows, whatever lay there before."""
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])


def expect_every_gradient(module: nn.Module, output: Tensor, case: str) -> str:
    """Return how many parameters got a gradient; raise Failure for one that got none, or zeros alone."""
    named = dict(module.named_parameters())
    if not named:
        return "there is no parameter"
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    total = (output * weights).sum()
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    for name, gradient in zip(named, found, strict=True):
        if gradient is None or not gradient.any():
            raise Failure(f"a gradient of {name}", "none" if gradient is None else "zeros alone", case)
    return f"a gradient of each of {len(named)} parameters"
