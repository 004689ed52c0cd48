"""Latent variables of variational models: Gaussians of independent numbers, and how fast their cost comes in.

Shapes: B rows, Z numbers of the variable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError

_SMALLEST_VARIANCE = 1e-4


class Gaussian(NamedTuple):
    """Means and variances [B, Z]."""

    mean: Tensor
    variance: Tensor

    def draw(self) -> Tensor:
        """Return mean + deviation * noise, through which there is a gradient (Kingma & Welling 2014, 2.4)."""
        return self.mean + self.variance.sqrt() * torch.randn_like(self.mean)


class GaussianLayer(nn.Module):
    """A Gaussian from a vector v [B, I]: mean W v, variance softplus(U v)."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, 2 * size)

    def forward(self, vector: Tensor) -> Gaussian:
        """Return the Gaussian, in float32 at least."""
        found = self.linear(vector)
        mean, free = (found.float() if found.dtype == torch.bfloat16 else found).chunk(2, -1)
        return Gaussian(mean, F.softplus(free) + _SMALLEST_VARIANCE)


def divergence(q: Gaussian, p: Gaussian | None = None) -> Tensor:
    """Return KL(q || p) in nats, summed over all rows; p None is the standard normal distribution.

    0.5 sum (log(v_p / v_q) + (v_q + (m_q - m_p)^2) / v_p - 1) (Kingma & Welling 2014, appendix B).
    """
    if p is None:
        p = Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.variance))
    ratio = q.variance / p.variance
    return 0.5 * (ratio + (q.mean - p.mean).square() / p.variance - 1 - ratio.log()).sum()


class Annealing(nn.Module):
    """The weight of the divergence: it grows from near 0 to 1 over so many training steps (Bowman et al. 2016, 3.1).

    Outside training it is 1. The count is a buffer, so that a training that is resumed goes on where it was.
    """

    steps: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        if length < 0:
            raise UsageError(f"model.name.anneal_steps={length}: it takes 0 or more.")
        self.length = length
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, cost: Tensor) -> Tensor:
        """Return the cost times the weight of this step of training, which is counted; outside it, the whole cost."""
        if not self.training:
            return cost
        self.steps += 1
        return cost * (self.steps / self.length).clamp(max=1.0).to(cost.dtype) if self.length else cost
