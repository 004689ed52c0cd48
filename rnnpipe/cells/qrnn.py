"""The quasi-recurrent network."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnpipe.cells.base import Gates, LinearCell


class QRNN(LinearCell):
    """z = tanh, f, o = sigmoid of W x_t + V x_{t-1} + b; h' = f h + (1 - f) z; y = o h.

    Bradbury, Merity, Xiong & Socher 2017, "Quasi-recurrent neural networks": a convolution of width 2 and
    "fo-pooling", whose c is h here and whose h is y. What stands before the first input is 0. `weight_ih` is W and then
    V, [6 H, I], each in the order z, f, o; the bias is [3 H].
    """

    projections = 6
    delayed = 3

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        z, f = torch.tanh(u[0] + u[3]), torch.sigmoid(u[1] + u[4])
        return f, (1 - f) * z

    def output(self, u: Gates, h: Tensor) -> Tensor:
        return torch.sigmoid(u[2] + u[5]) * h
