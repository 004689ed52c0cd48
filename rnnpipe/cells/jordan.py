"""The network of Jordan, whose outputs come back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.activations import ACTIVATIONS, Activation
from rnnpipe.cells.base import Gates, ProjectedCell, State
from rnnpipe.errors import UsageError


class Jordan(ProjectedCell):
    """h = f(W x + b_ih + R s); y = g(V h + b_out); s' = decay s + y: the outputs go back, not the hidden units.

    Its own output matrix V is `weight_out` [outputs, H]; R is `weight_hh` [H, outputs]; s [outputs] is the context.
    `outputs` of 0 stands for as many as there are hidden units; with as many as the target has and without a readout
    behind it (`model.name.readout=false`) the outputs of the network itself come back. `decay` is how much of the
    context each context unit keeps, from 0 to below 1.

    Jordan 1986, "Serial order: a parallel distributed processing approach", ICS report 8604, UC San Diego. Teacher
    forcing of the context, which he used in training, is not done.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        outputs: int = 0,
        nonlinearity: Activation = "tanh",
        output_nonlinearity: Activation = "identity",
        decay: float = 0.0,
    ) -> None:
        if outputs < 0 or not 0 <= decay < 1:
            raise UsageError(
                f"cell 'jordan': outputs={outputs}, decay={decay}: outputs is 0 or more, decay from 0 to below 1."
            )
        super().__init__(input_size, hidden_size, 1, bias=bias)
        self.nonlinearity = nonlinearity
        self.output_nonlinearity = output_nonlinearity
        self.decay = decay
        self.output_size = outputs or hidden_size
        self.state_shape = {"context": (self.output_size,)}
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, self.output_size))
        self.weight_out = nn.Parameter(torch.empty(self.output_size, hidden_size))
        self.bias_out = nn.Parameter(torch.empty(self.output_size)) if bias else None
        self.reset_parameters()

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        (context,) = state
        h = ACTIVATIONS[self.nonlinearity](u[0] + F.linear(context, self.weight_hh))
        y = ACTIVATIONS[self.output_nonlinearity](F.linear(h, self.weight_out, self.bias_out))
        return y, (self.decay * context + y,)
