"""The linear recurrent network whose units remember themselves alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnpipe.cells.base import Gates, LinearCell


class LinearRecurrent(LinearCell):
    """h' = r h + W x + b_ih, elementwise in h, with no activation: r [H] is `weight_hh`, one weight a unit.

    With hidden_size=1, input_size=1 and no bias it has two weights, s' = r s + w x, which is the network of Roelants'
    "How to implement a recurrent neural network", part 1; with any size, the linear systems of Mozer 1993, "Neural net
    architectures for temporal sequence processing" (exponential memories). A full matrix in the place of r is `elman`
    with nonlinearity="identity".
    """

    projections = 1

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.weight_hh = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        return self.weight_hh.expand_as(u[0]), u[0]
