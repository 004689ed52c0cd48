"""LSTM with layer normalization."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.base import GatedCell, Gates, State


class LayerNormLSTM(GatedCell):
    """i, f, g, o = gain_ih * N(W x) + gain_hh * N(R h) + b_ih; c' = sigmoid(f) c + sigmoid(i) tanh(g);
    h' = sigmoid(o) tanh(gain_c * N(c') + b_c), with N(v) = (v - mean v) / sqrt(var v + eps).

    Ba, Kiros & Hinton 2016, "Layer normalization", eq. 20 to 22: one mean and variance over all four gates together.
    Their two biases inside the sums and the one beside them are the same function as `bias_ih` alone; there is no
    bias_hh. Gains [4 H] and [H] start at 1. Gate order i, f, g, o.
    """

    input_gates = 4
    recurrent_gates = 4
    state_names = ("h", "c")
    reduces_hidden = True

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.eps = eps
        self.bias_hh = None
        self.gain_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.gain_hh = nn.Parameter(torch.empty(4 * hidden_size))
        self.gain_c = nn.Parameter(torch.empty(hidden_size))
        self.bias_c = nn.Parameter(torch.empty(hidden_size)) if bias else None
        self.reset_parameters()  # once more, now that all are there

    def reset_parameters(self) -> None:
        """Draw the weights as torch does; gains start at 1 and the bias of c at 0."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("gain"):
                nn.init.ones_(parameter)
            if name == "bias_c":
                nn.init.zeros_(parameter)

    def project(self, x: Tensor) -> Gates:
        return self._normalized(F.linear(x, self.weight_ih))

    def project_classes(self, classes: Tensor) -> Gates:
        return self._normalized(F.embedding(classes, self.weight_ih.t()))

    def _normalized(self, rows: Tensor) -> Gates:
        rows = F.layer_norm(rows, rows.shape[-1:], self.gain_ih, self.bias_ih, self.eps)
        return rows.chunk(4, -1)

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        recurrent = torch.cat(r, -1)
        recurrent = F.layer_norm(recurrent, recurrent.shape[-1:], self.gain_hh, None, self.eps)
        i, f, g, o = (from_input + other for from_input, other in zip(u, recurrent.chunk(4, -1), strict=True))
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        shown = F.layer_norm(c, c.shape[-1:], self.gain_c, self.bias_c, self.eps)
        return torch.sigmoid(o) * torch.tanh(shown), c
