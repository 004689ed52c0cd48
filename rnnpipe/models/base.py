"""What every model has in common: a recurrent stack, and something in front of it and behind it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rnnpipe.models.recurrent import Recurrent


class Model(nn.Module):
    """A network around one recurrent stack, `recurrent`. `reads` says of which kind of task it is a model.

    varying: what its `forward` decides in Python anew from step to step, in words, so that a step cannot be replayed.
    """

    reads: ClassVar[str]
    varying: ClassVar[str | None] = None
    recurrent: Recurrent

    def recurrents(self) -> list[Recurrent]:
        """Return all recurrent stacks of the network."""
        return [self.recurrent]

    def example_input(self, timesteps: int) -> Tensor:
        """Return what the recurrent stack is given for a row of so many timesteps: [T, 1, I], or ids [T, 1]."""
        raise TypeError(f"{type(self).__name__} defines no `example_input`")


def last_outputs(y: Tensor, lengths: Tensor | None, recurrent: Recurrent) -> Tensor:
    """Return [B, H]: the outputs [T, B, H] at each sequence's end; for two directions each one's own end."""
    last = y[-1] if lengths is None else y[lengths.to(y.device) - 1, torch.arange(y.shape[1], device=y.device)]
    if not recurrent.bidirectional:
        return last
    half = recurrent.output_size // 2
    return torch.cat((last[:, :half], y[0, :, half:]), -1)
