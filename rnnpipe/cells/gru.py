"""The gated recurrent unit."""

from __future__ import annotations

import torch

from rnnpipe.cells.base import GatedCell, Gates, State


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
