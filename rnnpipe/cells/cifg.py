"""LSTM with coupled input and forget gates."""

from __future__ import annotations

import torch

from rnnpipe.cells.base import GatedCell, Gates, State


class CIFG(GatedCell):
    """f, o = sigmoid, g = tanh of W x + b_ih + R h + b_hh; c' = f c + (1 - f) g; h' = o tanh(c').

    Greff, Srivastava, Koutník, Steunebrink & Schmidhuber 2017, "LSTM: A search space odyssey", their variant CIFG:
    the input gate is 1 - f. Gate order f, g, o.
    """

    input_gates = 3
    recurrent_gates = 3
    state_names = ("h", "c")

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        f, g, o = (from_input + recurrent for from_input, recurrent in zip(u, r, strict=True))
        candidate = torch.tanh(g)
        c = candidate + torch.sigmoid(f) * (state[1] - candidate)
        return torch.sigmoid(o) * torch.tanh(c), c
