"""Encoders: from token ids [T, B] to the network's input [T, B, output_size]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError


class Embedding(nn.Module):
    """A learnt vector of `size` numbers for each token; drawn normal with deviation `std`.

    pretrained: a folder of vectors that `rnnpipe embed` wrote. A training begins with those of the tokens that have
    one, and the size is theirs; to read them is the pipeline's business.
    """

    def __init__(self, vocab_size: int, *, size: int = 128, std: float = 0.1, pretrained: str | None = None) -> None:
        super().__init__()
        if size < 1:
            raise UsageError(f"encoder 'embedding': size={size}; it takes a whole number above 0.")
        self.output_size = size
        self.pretrained = pretrained
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(vocab_size, size), 0.0, std))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of ids."""
        return F.embedding(ids, self.weight)


class OneHot(nn.Module):
    """One-hot vectors of the vocabulary's size, without building them.

    With a `size`, a linear layer follows: W x + b of a one-hot x is a column of W, which is gathered. Without one the
    first layer's own input product is gathered in the same way: the ids are passed on, and the cell does it.
    """

    def __init__(self, vocab_size: int, *, size: int | None = None) -> None:
        super().__init__()
        self.output_size = vocab_size if size is None else size
        self.linear = None if size is None else nn.Linear(vocab_size, size)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the encoded ids, or the ids themselves to stand for one-hot vectors."""
        if self.linear is None:
            return ids
        return F.embedding(ids, self.linear.weight.t()) + self.linear.bias
