"""The sequence model: numbers in, numbers out, for the last timestep or for every one."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.base import Model, last_outputs
from rnnpipe.models.recurrent import Recurrent, States


class SequenceModel(Model):
    """Outputs readout(dropout(recurrent(dropout(input_layer(x))))) at the last valid timestep or at every one.

    input_layer: a linear layer in front of the stack, or None. Without `readout` the stack's own output is the model's,
    and must have its size. Outputs are what the loss takes: numbers for squared errors, logits for the cross-entropies.
    """

    reads = "sequences"

    def __init__(
        self,
        input_layer: nn.Linear | None,
        recurrent: Recurrent,
        output_size: int,
        *,
        target: Literal["last", "every"],
        dropout: float = 0.0,
        readout: bool = True,
        readout_bias: bool = True,
    ) -> None:
        super().__init__()
        self.input_layer = input_layer
        self.recurrent = recurrent
        self.output_size = output_size
        self.target = target
        self.dropout = dropout
        self.readout = nn.Linear(recurrent.output_size, output_size, bias=readout_bias) if readout else None
        if self.readout is None and recurrent.output_size != output_size:
            raise UsageError(
                f"model.name.readout=false: the recurrent stack gives {recurrent.output_size} numbers, the target has "
                f"{output_size}; set model.hidden_size so that they agree, or leave the readout in."
            )

    @property
    def input_size(self) -> int:
        """Return how many numbers an input has."""
        return self.recurrent.input_size if self.input_layer is None else self.input_layer.in_features

    def forward(
        self, x: Tensor, state: States | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Return outputs and the final state for inputs [T, B, I]; lengths [B] are the valid timesteps.

        Outputs are [T, B, output_size], or [B, output_size] where only the last timestep has a target.
        """
        y, state = self.recurrent(self.encode(x), state, lengths=lengths)
        if self.target == "last":
            y = last_outputs(y, lengths, self.recurrent)
        return self.read_out(y), state

    def encode(self, x: Tensor) -> Tensor:
        """Return what the recurrent stack is given for inputs [T, B, I]."""
        if self.input_layer is None:
            return x
        return F.dropout(self.input_layer(x), self.dropout, self.training)

    def read_out(self, y: Tensor) -> Tensor:
        """Return the outputs for the stack's own [..., H]."""
        if self.readout is None:
            return y
        outputs: Tensor = self.readout(F.dropout(y, self.dropout, self.training))
        return outputs

    def example_input(self, timesteps: int) -> Tensor:
        """Return zeros of the stack's input size."""
        return torch.zeros(timesteps, 1, self.recurrent.input_size)
