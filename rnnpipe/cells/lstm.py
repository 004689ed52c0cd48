"""Long short-term memory."""

from __future__ import annotations

import torch

from rnnpipe.cells.base import GatedCell, Gates, State
from rnnpipe.errors import UsageError


class LSTM(GatedCell):
    """i, f, o = sigmoid, g = tanh of W x + b_ih + R h + b_hh; c' = f c + i g; h' = o tanh(c').

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000; gate order i, f, g, o and
    parameters are torch's. `forget_bias` is added to the forget gate's bias when it is initialized (TensorFlow's
    `BasicLSTMCell` adds it at every step: the same function, since that bias is learnt).
    """

    input_gates = 4
    recurrent_gates = 4
    state_names = ("h", "c")
    cudnn_mode = "LSTM"

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, forget_bias: float = 0.0) -> None:
        if forget_bias and not bias:
            raise UsageError(f"cell 'lstm': forget_bias={forget_bias} needs bias=true; there is no bias to add it to.")
        self.forget_bias = forget_bias
        super().__init__(input_size, hidden_size, bias=bias)

    def reset_parameters(self) -> None:
        """Draw as torch does, then add `forget_bias`."""
        super().reset_parameters()
        self.shift_bias()

    def shift_bias(self) -> None:
        """Add `forget_bias` to the forget gate's bias."""
        if self.bias_ih is not None:
            with torch.no_grad():
                self.bias_ih[self.hidden_size : 2 * self.hidden_size] += self.forget_bias

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        i, f, g, o = (from_input + recurrent for from_input, recurrent in zip(u, r, strict=True))
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
