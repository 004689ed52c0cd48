"""The light gated recurrent unit."""

from __future__ import annotations

import torch

from rnnpipe.cells.base import GatedCell, Gates, State


class LightGRU(GatedCell):
    """z = sigmoid, n = relu of W x + b_ih + R h + b_hh; h' = z h + (1 - z) n.

    Ravanelli, Brakel, Omologo & Bengio 2018, "Light gated recurrent units for speech recognition". Theirs normalizes
    W x over the batch, which would make a sequence depend on the others beside it, and is left out; without it relu has
    no bound: lower the learning rate if the loss runs away. Gate order z, n.
    """

    input_gates = 2
    recurrent_gates = 2

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        z = torch.sigmoid(u[0] + r[0])
        candidate = torch.relu(u[1] + r[1])
        return (candidate + z * (state[0] - candidate),)
