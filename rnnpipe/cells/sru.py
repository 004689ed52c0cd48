"""The simple recurrent unit."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.cells.base import Gates, LinearCell


class SRU(LinearCell):
    """f, r = sigmoid, g of W x + b_ih; h' = f h + (1 - f) g; y = r s(h) + (1 - r) x, with s identity or tanh.

    Lei, Zhang & Artzi 2017, "Training RNNs as fast as CNNs" (arXiv:1709.02755, version 1), whose c is h here and whose
    h is y. Where input and hidden size differ, one more product of x stands for x, as in their code. The later version
    of 2018 lets f and r see c elementwise, which is not linear in it. Gate order f, r, g; the bias is for all of them.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        nonlinearity: Literal["identity", "tanh"] = "identity",
    ) -> None:
        self.projections = 3 if input_size == hidden_size else 4
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias=bias)

    def project(self, x: Tensor) -> Gates:
        gates = super().project(x)
        return gates if self.projections == 4 else (*gates, x)

    def project_classes(self, classes: Tensor) -> Gates:
        gates = self._gather(classes)
        if self.projections == 4:
            return gates
        return (*gates, F.one_hot(classes, self.input_size).to(gates[0].dtype))

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        f = torch.sigmoid(u[0])
        return f, (1 - f) * u[2]

    def output(self, u: Gates, h: Tensor) -> Tensor:
        shown = torch.tanh(h) if self.nonlinearity == "tanh" else h
        return u[3] + torch.sigmoid(u[1]) * (shown - u[3])
