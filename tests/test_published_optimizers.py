"""Momentum, Nesterov and RMSProp as Keras and TensorFlow have it, against their formulas in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from rnnpipe.errors import UsageError
from rnnpipe.pipeline.build import build_optimizer
from rnnpipe.text.rules import Named

GRADIENTS = (0.5, -0.25, 1e-4, 3.0)


def momentum(lr: float = 0.01, m: float = 0.9) -> Iterator[float]:
    v = 0.0
    for g in GRADIENTS:
        v = m * v + g
        yield lr * v


def nesterov(lr: float = 0.01, m: float = 0.9) -> Iterator[float]:
    v = 0.0
    for g in GRADIENTS:
        v = m * v + g
        yield lr * (g + m * v)


def keras(lr: float = 0.001, rho: float = 0.9, epsilon: float = 1e-7) -> Iterator[float]:
    v = 0.0
    for g in GRADIENTS:
        v = rho * v + (1 - rho) * g * g
        yield lr * g / (math.sqrt(v) + epsilon)


def tensorflow(lr: float = 0.001, decay: float = 0.9, m: float = 0.0, epsilon: float = 1e-10) -> Iterator[float]:
    square, moved = 1.0, 0.0
    for g in GRADIENTS:
        square = decay * square + (1 - decay) * g * g
        moved = m * moved + lr * g / math.sqrt(square + epsilon)
        yield moved


@pytest.mark.parametrize(
    ("named", "formula"),
    [
        (Named("momentum"), momentum),
        (Named("momentum", {"lr": 0.1, "momentum": 0.5}), lambda: momentum(0.1, 0.5)),
        (Named("nesterov"), nesterov),
        (Named("nesterov", {"lr": 0.1, "momentum": 0.5}), lambda: nesterov(0.1, 0.5)),
        (Named("rmsprop-keras"), keras),
        (Named("rmsprop-keras", {"epsilon": 0.1, "rho": 0.5}), lambda: keras(0.001, 0.5, 0.1)),
        (Named("rmsprop-tensorflow"), tensorflow),
        (Named("rmsprop-tensorflow", {"momentum": 0.9, "epsilon": 0.1}), lambda: tensorflow(0.001, 0.9, 0.9, 0.1)),
    ],
    ids=lambda each: str(each) if isinstance(each, Named) else "",
)
def test_steps_are_those_of_the_formula(named: Named, formula: Callable[[], Iterator[float]]) -> None:
    model = nn.Linear(1, 1, bias=False).double()
    optimizer = build_optimizer(named, model)
    with torch.no_grad():
        model.weight.fill_(1.0)
    expected = 1.0
    for gradient, moved in zip(GRADIENTS, formula(), strict=True):
        model.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        expected -= moved
        assert float(model.weight.detach()) == pytest.approx(expected, rel=1e-12)


def test_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="optimizer 'rmsprop-tensorflow': decay is out of its range"):
        build_optimizer(Named("rmsprop-tensorflow", {"decay": 1.5}), nn.Linear(1, 1))
