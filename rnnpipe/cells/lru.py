"""The linear recurrent unit."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.base import Gates, LinearCell
from rnnpipe.errors import UsageError


class LRU(LinearCell):
    """h' = lambda h + gamma B x, complex [H]; y = Re(C h) + D x, with lambda = exp(-exp(nu) + i exp(theta)).

    Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu & De 2023, "Resurrecting recurrent neural networks for long
    sequences", section 3 and appendix A. |lambda| < 1 whatever nu is; at the start it is uniform on the ring from
    `r_min` to `r_max` with phases up to `max_phase`, and gamma, learnt from there on, is sqrt(1 - |lambda|²).
    `weight_ih` is Re B, Im B and D, [3 H, I], with a bias that theirs has not; `weight_out` [H, 2 H] is Re C and -Im C
    side by side.
    """

    projections = 3
    complex_hidden = True
    state_dtype: ClassVar[dict[str, torch.dtype]] = {"h": torch.float32}  # torch has no complex bfloat16

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
    ) -> None:
        if not 0 <= r_min < r_max <= 1:
            raise UsageError(f"cell 'lru': r_min={r_min}, r_max={r_max}: they are from 0 to 1, r_min below r_max.")
        if not 0 < max_phase <= 2 * math.pi:
            raise UsageError(f"cell 'lru': max_phase={max_phase} is not accepted; it is above 0 and at most 2 pi.")
        self.r_min, self.r_max, self.max_phase = r_min, r_max, max_phase
        super().__init__(input_size, hidden_size, bias=bias)
        self.nu = nn.Parameter(torch.empty(hidden_size))
        self.theta = nn.Parameter(torch.empty(hidden_size))
        self.log_gamma = nn.Parameter(torch.empty(hidden_size))
        self.weight_out = nn.Parameter(torch.empty(hidden_size, 2 * hidden_size))
        self._reset_recurrence()

    def reset_parameters(self) -> None:
        """Draw B and D from normal distributions of variance 1 / 2 I and 1 / I; the bias starts at 0."""
        H = self.hidden_size
        nn.init.normal_(self.weight_ih[: 2 * H].detach(), std=math.sqrt(0.5 / self.input_size))
        nn.init.normal_(self.weight_ih[2 * H :].detach(), std=math.sqrt(1 / self.input_size))
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)

    def _reset_recurrence(self) -> None:
        """Draw lambda on the ring, and C from a normal distribution of variance 1 / H."""
        draws = torch.rand(2, self.hidden_size).clamp(1e-6, 1 - 1e-6)  # neither 0 nor 1, which have no logarithm
        squared = draws[0] * (self.r_max**2 - self.r_min**2) + self.r_min**2
        with torch.no_grad():
            self.nu.copy_(torch.log(-0.5 * torch.log(squared)))
            self.theta.copy_(torch.log(self.max_phase * draws[1]))
            self.log_gamma.copy_(0.5 * torch.log1p(-squared))
        nn.init.normal_(self.weight_out, std=math.sqrt(1 / self.hidden_size))

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(u[0].dtype, torch.float32)
        nu, theta, log_gamma = (parameter.to(dtype) for parameter in (self.nu, self.theta, self.log_gamma))
        b = torch.complex(u[0].to(dtype), u[1].to(dtype)) * torch.exp(log_gamma)
        radius, phase = torch.exp(-torch.exp(nu)), torch.exp(theta)
        # Expanded before it is complex: exporters know no complex `expand`.
        real, imaginary = (radius * part(phase) for part in (torch.cos, torch.sin))
        return torch.complex(real.expand_as(b), imaginary.expand_as(b)), b

    def output(self, u: Gates, h: Tensor) -> Tensor:
        pairs = torch.cat((h.real, h.imag), -1)
        return F.linear(pairs.to(self.weight_out.dtype), self.weight_out) + u[2]
