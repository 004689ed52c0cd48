"""JANET: an LSTM of the forget gate alone."""

from __future__ import annotations

import torch

from rnnpipe.cells.base import GatedCell, Gates, State


class JANET(GatedCell):
    """s, g = W x + b_ih + R h + b_hh; h' = sigmoid(s) h + (1 - sigmoid(s - beta)) tanh(g).

    van der Westhuizen & Lasenby 2018, "The unreasonable effectiveness of the forget gate", whose c is h here.
    `beta` lets less be written than was forgotten; theirs is 1. Their start of the forget gate's bias, from the length
    of the sequences ("chrono"), is left to an initializer.
    """

    input_gates = 2
    recurrent_gates = 2

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, beta: float = 1.0) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.beta = beta

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        s = u[0] + r[0]
        write = torch.sigmoid(self.beta - s)  # 1 - sigmoid(s - beta)
        return (torch.sigmoid(s) * state[0] + write * torch.tanh(u[1] + r[1]),)
