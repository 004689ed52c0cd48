"""The simple recurrent network of Elman."""

from __future__ import annotations

from rnnpipe.cells.activations import ACTIVATIONS, Activation
from rnnpipe.cells.base import GatedCell, Gates, State


class Elman(GatedCell):
    """h' = f(W x + b_ih + R h + b_hh); f is tanh unless told.

    Elman 1990, "Finding structure in time", Cognitive Science 14. Torch's `nn.RNN` for tanh and relu.
    """

    input_gates = 1
    recurrent_gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        nonlinearity: Activation = "tanh",
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.nonlinearity = nonlinearity

    @property
    def cudnn_mode(self) -> str | None:
        """Return torch's name for this cell, if torch has it."""
        return {"tanh": "RNN_TANH", "relu": "RNN_RELU"}.get(self.nonlinearity)

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (ACTIVATIONS[self.nonlinearity](u[0] + r[0]),)
