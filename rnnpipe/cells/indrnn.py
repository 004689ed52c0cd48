"""The independently recurrent network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rnnpipe.cells.base import Gates, ProjectedCell, State


class IndRNN(ProjectedCell):
    """h' = f(W x + b_ih + w h), with w [H] elementwise; f is relu unless told.

    Li, Li, Cook, Zhu & Gao 2018, "Independently recurrent neural network". Each hidden unit sees its own past
    alone; layers above mix them. w starts uniformly in [0, 1]: with relu, a memory of many lengths.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        nonlinearity: Literal["relu", "tanh"] = "relu",
    ) -> None:
        super().__init__(input_size, hidden_size, 1, bias=bias)
        self.nonlinearity = nonlinearity
        self.recurrent = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the input's weights as torch does, w from [0, 1]."""
        super().reset_parameters()
        nn.init.uniform_(self.recurrent)

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        x = u[0] + self.recurrent * state[0]
        h = torch.relu(x) if self.nonlinearity == "relu" else torch.tanh(x)
        return h, (h,)
