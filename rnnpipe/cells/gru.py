"""The gated recurrent unit, with its reset gate after the recurrent product or before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.base import GatedCell, Gates, ProjectedCell, State


class GRU(GatedCell):
    """r, z = sigmoid(u + s); n = tanh(u_n + r * s_n); h' = (1 - z) n + z h, with u = W x + b_ih and s = R h + b_hh.

    Cho et al. 2014, with the reset gate after the product as in cuDNN and torch (the paper has it before); gate order
    r, z, n and parameters are torch's.
    """

    input_gates = 3
    recurrent_gates = 3
    cudnn_mode = "GRU"

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        reset = torch.sigmoid(u[0] + r[0])
        update = torch.sigmoid(u[1] + r[1])
        candidate = torch.tanh(u[2] + reset * r[2])
        return (candidate + update * (state[0] - candidate),)


class GRUResetBefore(ProjectedCell):
    """r, z = sigmoid(W x + b_ih + R h + b_hh); n = tanh(W_n x + b_in + R_n (r h) + b_hn); h' = (1 - z) n + z h.

    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    section 2.3, eq. 5 to 8. The second product is of a gated state, so it is no `GatedCell`: it has no faster backend,
    which `gru` has. Gate order r, z, n, as in `gru`, whose parameters have the same names and shapes, another meaning.
    """

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, 3, bias=bias)
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden_size)) if bias else None
        self.reset_parameters()

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        (h,) = state
        sizes = [2 * self.hidden_size, self.hidden_size]
        R_gates, R_n = torch.split(self.weight_hh, sizes)
        b_gates, b_n = (None, None) if self.bias_hh is None else torch.split(self.bias_hh, sizes)
        r, z = F.linear(h, R_gates, b_gates).chunk(2, -1)
        reset, update = torch.sigmoid(u[0] + r), torch.sigmoid(u[1] + z)
        candidate = torch.tanh(u[2] + F.linear(reset * h, R_n, b_n))
        h = candidate + update * (h - candidate)
        return h, (h,)
