"""The fully recurrent network of Williams and Zipser."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.activations import ACTIVATIONS, Activation
from rnnpipe.cells.base import Gates, ProjectedCell, State
from rnnpipe.errors import UsageError


class FullyRecurrent(ProjectedCell):
    """y' = f(W x + b_ih + R y): every unit sees every input and every unit, itself too.

    The first `visible` units are the output; 0 stands for all. f is the logistic function unless told. There is one
    bias: the weight of the input that is always on.

    Williams & Zipser 1989, "A learning algorithm for continually running fully recurrent neural networks", Neural
    Computation 1. Without a readout behind it (`model.name.readout=false`) the visible units are trained
    directly, as theirs are; the gradient is that of backpropagation through time and not of their real-time algorithm,
    which is the same for weights that hold still.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        visible: int = 0,
        nonlinearity: Activation = "sigmoid",
    ) -> None:
        if not 0 <= visible <= hidden_size:
            raise UsageError(
                f"cell 'fully-recurrent': visible={visible} is not accepted; of {hidden_size} units, 0 (all) to "
                f"{hidden_size} can be visible."
            )
        super().__init__(input_size, hidden_size, 1, bias=bias)
        self.nonlinearity = nonlinearity
        self.output_size = visible or hidden_size
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.reset_parameters()

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        y = ACTIVATIONS[self.nonlinearity](u[0] + F.linear(state[0], self.weight_hh))
        return y[..., : self.output_size], (y,)
