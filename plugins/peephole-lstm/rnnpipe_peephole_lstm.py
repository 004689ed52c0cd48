"""The LSTM cell with peephole connections, as a plugin for rnnpipe."""

import torch
from torch import nn

from rnnpipe import GatedCell, hookimpl
from rnnpipe.errors import UsageError


class PeepholeLSTM(GatedCell):
    """i, f = sigmoid(a + p c); g = tanh(a_g); c' = f c + i g; o = sigmoid(a_o + p_o c'); h' = o tanh(c').

    a = W x + b_ih + R h + b_hh, gates in torch's order i, f, g, o. The peepholes p_i, p_f, p_o [H] let each gate see
    its own cell: i and f the cell before the step, o the one after it.

    Gers & Schmidhuber 2000, "Recurrent nets that time and count"; Gers, Schraudolph & Schmidhuber 2002, JMLR 3. Theirs
    squashes input and output with scaled sigmoids or not at all; tanh is what became usual (Greff et al. 2017), and
    gradients flow through the peepholes too, which the papers cut. `forget_bias` is added to the forget gate's bias
    when it is initialized.
    """

    input_gates = recurrent_gates = 4
    state_names = ("h", "c")

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, forget_bias: float = 0.0) -> None:
        if forget_bias and not bias:
            raise UsageError(f"cell 'peephole-lstm': forget_bias={forget_bias} needs bias=true.")
        self.forget_bias = forget_bias
        super().__init__(input_size, hidden_size, bias=bias)
        self.peephole_i = nn.Parameter(torch.empty(hidden_size))
        self.peephole_f = nn.Parameter(torch.empty(hidden_size))
        self.peephole_o = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()  # once more, now that the peepholes are there

    def reset_parameters(self) -> None:
        """Draw every parameter uniformly from ±1/sqrt(H), then add `forget_bias`."""
        super().reset_parameters()
        if self.bias_ih is not None:
            with torch.no_grad():
                self.bias_ih[self.hidden_size : 2 * self.hidden_size] += self.forget_bias

    def pointwise(self, u, r, state):
        i, f, g, o = (from_input + recurrent for from_input, recurrent in zip(u, r, strict=True))
        c = state[1]
        i = torch.sigmoid(i + self.peephole_i * c)
        f = torch.sigmoid(f + self.peephole_f * c)
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + self.peephole_o * c)
        return o * torch.tanh(c), c


@hookimpl
def register_cells():
    return {"peephole-lstm": PeepholeLSTM}
