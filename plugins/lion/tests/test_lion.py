"""The optimizer against algorithm 2 of the paper in NumPy, and the conformance checks."""

import math

import numpy as np
import pytest
import torch
from rnnpipe_lion import Lion

from rnnpipe.testing import check_optimizer


def algorithm_2(w, gradients, lr, beta1, beta2, weight_decay):
    """Return the weights after each gradient, as the paper writes them."""
    m = np.zeros_like(w)
    for g in gradients:
        c = beta1 * m + (1 - beta1) * g
        w = w - lr * (np.sign(c) + weight_decay * w)
        m = beta2 * m + (1 - beta2) * g
        yield w


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_algorithm(weight_decay):
    generator = np.random.default_rng(0)
    start = generator.normal(size=(3, 4))
    gradients = generator.normal(size=(20, 3, 4))
    gradients[:3, 0] = 0  # sign(0) is 0: nothing moves
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = Lion([weight], lr=0.05, betas=(0.8, 0.95), weight_decay=weight_decay)
    for step, expected in enumerate(algorithm_2(start, gradients, 0.05, 0.8, 0.95, weight_decay)):
        weight.grad = torch.tensor(gradients[step])
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)
    assert list(optimizer.state[weight]) == ["momentum"]


def test_groups_closure_and_a_weight_without_gradient():
    slow, fast, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = Lion([{"params": [slow, idle]}, {"params": [fast], "lr": 0.5}], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (slow + fast).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    torch.testing.assert_close(slow.detach(), torch.full((2,), 0.9))
    torch.testing.assert_close(fast.detach(), torch.full((2,), 0.5))
    torch.testing.assert_close(idle.detach(), torch.ones(2))
    assert idle not in optimizer.state


@pytest.mark.parametrize(
    "options", [{"lr": -1e-4}, {"lr": math.nan}, {"betas": (1.0, 0.99)}, {"betas": (0.9, -0.1)}, {"weight_decay": -1.0}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"Invalid .*: (-|nan|1\.0)"):
        Lion([torch.nn.Parameter(torch.ones(1))], **options)


def test_conformance():
    check_optimizer(Lion)
