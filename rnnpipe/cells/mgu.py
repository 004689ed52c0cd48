"""The minimal gated unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.base import Gates, ProjectedCell, State


class MGU(ProjectedCell):
    """f = sigmoid(W_f x + R_f h); n = tanh(W_n x + R_n (f h)); h' = (1 - f) h + f n, biases added as in torch's GRU.

    Zhou, Wu, Zhang & Zhou 2016, "Minimal gated unit for recurrent neural networks". The second product is
    of a gated state, so it is no `GatedCell`. Gate order f, n.
    """

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, 2, bias=bias)
        self.weight_hh = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(2 * hidden_size)) if bias else None
        self.reset_parameters()

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        (h,) = state
        R_f, R_n = self.weight_hh.chunk(2)
        b_f, b_n = (None, None) if self.bias_hh is None else self.bias_hh.chunk(2)
        f = torch.sigmoid(u[0] + F.linear(h, R_f, b_f))
        candidate = torch.tanh(u[1] + F.linear(f * h, R_n, b_n))
        h = h + f * (candidate - h)
        return h, (h,)
