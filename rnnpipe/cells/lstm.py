"""Long short-term memory."""

from __future__ import annotations

import torch
from torch import nn

from rnnpipe.cells.base import GatedCell, Gates, State
from rnnpipe.errors import UsageError


class LSTM(GatedCell):
    """i, f, o = sigmoid, g = tanh of W x + b_ih + R h + b_hh; c' = f c + i g; h' = o tanh(c').

    With `peepholes` p_i, p_f, p_o [H] the gates see their own cell: p_i c and p_f c are added to i and f before the
    sigmoid, p_o c' to o (Gers & Schmidhuber 2000, "Recurrent nets that time and count").

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000; gate order i, f, g, o and
    parameters are torch's. `forget_bias` is added to the forget gate's bias when it is initialized (TensorFlow's
    `BasicLSTMCell` adds it at every step: the same function, since that bias is learnt).
    """

    input_gates = 4
    recurrent_gates = 4
    state_names = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        forget_bias: float = 0.0,
        peepholes: bool = False,
    ) -> None:
        if forget_bias and not bias:
            raise UsageError(f"cell 'lstm': forget_bias={forget_bias} needs bias=true; there is no bias to add it to.")
        self.forget_bias = forget_bias
        super().__init__(input_size, hidden_size, bias=bias)
        self.peepholes = nn.Parameter(torch.empty(3, hidden_size)) if peepholes else None
        if peepholes:
            self.reset_parameters()  # once more, now that the peepholes are there

    @property
    def cudnn_mode(self) -> str | None:
        """Return torch's name for this cell; torch has none with peepholes."""
        return "LSTM" if self.peepholes is None else None

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
        c = state[1]
        if self.peepholes is not None:
            i, f = i + self.peepholes[0] * c, f + self.peepholes[1] * c
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if self.peepholes is not None:
            o = o + self.peepholes[2] * c
        return torch.sigmoid(o) * torch.tanh(c), c
