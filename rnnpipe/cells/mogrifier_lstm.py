"""LSTM whose input and state gate each other first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.base import Gates, ProjectedCell, State
from rnnpipe.errors import UsageError


class MogrifierLSTM(ProjectedCell):
    """x = 2 sigmoid(Q h) x and h = 2 sigmoid(R x) h, one after the other, `rounds` of both in all; then torch's LSTM.

    Melis, Kočiský & Blunsom 2020, "Mogrifier LSTM", with full matrices: Q is `weight_qh` [rounds of x, I,
    H], R is `weight_rx` [rounds of h, H, I]. Its input meets the state before any product, so nothing can be projected
    for all timesteps at once, and it is no `GatedCell`.
    """

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, rounds: int = 5) -> None:
        if rounds < 1:
            raise UsageError(f"cell 'mogrifier-lstm': rounds={rounds} is not accepted; with none it is 'lstm'.")
        super().__init__(input_size, hidden_size, 4, bias=bias)
        self.state_shape = dict.fromkeys("hc", (hidden_size,))
        self.rounds = rounds
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size)) if bias else None
        self.weight_qh = nn.Parameter(torch.empty((rounds + 1) // 2, input_size, hidden_size))
        self.weight_rx = nn.Parameter(torch.empty(rounds // 2, hidden_size, input_size))
        self.reset_parameters()

    def project(self, x: Tensor) -> Gates:
        return (x,)

    def project_classes(self, classes: Tensor) -> Gates:
        return (F.one_hot(classes, self.input_size).to(self.weight_ih.dtype),)

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        x, (h, c) = u[0], state
        for number in range(self.rounds):
            if number % 2 == 0:
                x = 2 * torch.sigmoid(F.linear(h, self.weight_qh[number // 2])) * x
            else:
                h = 2 * torch.sigmoid(F.linear(x, self.weight_rx[number // 2])) * h
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)
