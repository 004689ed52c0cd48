"""What every model of pairs has in common: it reads a source, and writes a target token by token.

Shapes: S source tokens, T target tokens, B pairs, V ids of the target side, F numbers of a feature vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.base import Model
from rnnpipe.models.recurrent import Recurrent

# Nested tuples of tensors, each with the rows as its first axis, so that rows can be taken, left out and repeated.
DecoderState: TypeAlias = "tuple[Tensor | DecoderState, ...]"


@dataclass(frozen=True)
class PairParts:
    """What a model of pairs is built from, as a configuration says.

    source_size, target_size: how many ids each side has; `joint`: they are those of one dictionary. source_id: the id
    of a source token, None if it has none. embed: makes the encoder of a side's ids from their number. recur: makes a
    stack of the configured cell from its input size, its hidden size (the configured one if None) and whether it has
    two directions. hidden_size, num_layers, dropout, tied: as under [model].
    """

    source_size: int
    target_size: int
    joint: bool
    source_id: Callable[[str], int | None]
    embed: Callable[[int], nn.Module]
    recur: Callable[[int, int | None, bool], Recurrent]
    hidden_size: int
    num_layers: int
    dropout: float
    tied: bool


class PairModel(Model):
    """A network from a source to the next token of a target: embeddings of both sides, and a readout.

    With `tied` the readout has the target embedding's weight (Press & Wolf 2017), and with a joint dictionary both
    sides have one embedding. A subclass defines `forward`, `begin`, `step` and `recurrents`, and leaves the readout as
    it is: a linear layer behind dropout, whose loss in training is computed with its gradient (`readout_loss`). One
    with attention says so by `attends`, one with a latent variable is `variational` and defines `bound`, one without a
    recurrent stack says so by `has_cell`.
    """

    reads = "pairs"
    has_cell: ClassVar[bool] = True
    variational: ClassVar[bool] = False

    def __init__(self, parts: PairParts) -> None:
        super().__init__()
        self.dropout = parts.dropout
        self.target_encoder = parts.embed(parts.target_size)
        self.source_encoder = self.target_encoder if parts.tied and parts.joint else parts.embed(parts.source_size)
        for encoder in (self.source_encoder, self.target_encoder):
            if not encoder(torch.zeros(1, 1, dtype=torch.int64)).is_floating_point():
                raise UsageError("model.encoder=one-hot needs a size here, as in --set model.encoder.size=128.")
        self.embedding_size = width_of(self.target_encoder)
        self.source_encoder_size = width_of(self.source_encoder)
        self.readout = nn.Linear(self.embedding_size, parts.target_size)
        if parts.tied:
            weight = getattr(self.target_encoder, "weight", None)
            if not isinstance(weight, nn.Parameter):
                raise UsageError("model.tied=true needs the encoder 'embedding', whose weight the readout can share.")
            self.readout.weight = weight

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features [T, B, F] behind each token of the target [T, B], which is read (teacher forcing).

        source: [S, B], ended by the boundary; lengths: [B], the boundary included. Beside the features comes what is
        to be added to the sum of the batch's losses, in nats, or None.
        """
        raise NotImplementedError

    @property
    def attends(self) -> bool:
        """Say whether `step` gives attention."""
        return False

    def bound(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what `forward` does, such that losses and addend are no less than -log p(target | source).

        It is what evaluation takes, in nats. Without a latent variable there is no addend, and they are equal to it. A
        variational model draws its variable z given the target, and adds KL(q(z | target, source) || p(z | source))
        whole: the expected sum is a bound (Kingma & Welling 2014, eq. 2). At the mean of z it would be none.
        """
        features, extra = self(source, lengths, target)
        return features, extra

    def begin(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Return the state before the first target token, for a source as `forward` takes it."""
        raise NotImplementedError

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Read one target token a row [B]: return logits [B, V] behind it, attention [B, S] or None, and the state."""
        raise NotImplementedError

    def read_out(self, features: Tensor) -> Tensor:
        """Return logits [..., V] for features [..., F]."""
        logits: Tensor = self.readout(self.drop(features))
        return logits

    def embed_source(self, ids: Tensor) -> Tensor:
        """Return the vectors of source ids [S, B]."""
        return self.drop(self.source_encoder(ids))

    def embed_target(self, ids: Tensor) -> Tensor:
        """Return the vectors of target ids [T, B]."""
        return self.drop(self.target_encoder(ids))

    def drop(self, values: Tensor) -> Tensor:
        """Return values with some left out in training (`model.dropout`)."""
        return F.dropout(values, self.dropout, self.training)


def width_of(encoder: nn.Module) -> int:
    """Return how many numbers an encoder of ids gives for each."""
    size = encoder.output_size
    assert isinstance(size, int)
    return size


class Bridge(nn.Module):
    """A decoder's first state from a vector that sums the source up: tanh(W v + b) (Bahdanau et al. 2015, A.2.2).

    It fills the hidden and the cell state of every layer; of a cell whose state has other parts, whose scale the cell
    alone knows, the hidden state only.
    """

    def __init__(self, size: int, decoder: Recurrent) -> None:
        super().__init__()
        self.names = [_bridged(list(cell.state_shape)) for cell in decoder.cells()]
        first = decoder.initial_state(1, torch.zeros(0))
        self.sizes = [
            leaf.numel() * (2 if leaf.is_complex() else 1)
            for cell, names, state in zip(decoder.cells(), self.names, first, strict=True)
            for name, leaf in zip(cell.state_shape, state, strict=True)
            if name in names
        ]
        self.linear = nn.Linear(size, sum(self.sizes)) if self.sizes else None

    def forward(self, vector: Tensor, decoder: Recurrent) -> tuple[tuple[Tensor, ...], ...]:
        """Return the state of `decoder` for vectors [B, size]."""
        empty = decoder.initial_state(len(vector), vector)
        if self.linear is None:
            return empty
        pieces = iter(torch.split(torch.tanh(self.linear(vector)), self.sizes, -1))
        return tuple(
            tuple(
                _shaped(next(pieces), leaf) if name in names else leaf
                for name, leaf in zip(cell.state_shape, state, strict=True)
            )
            for cell, names, state in zip(decoder.cells(), self.names, empty, strict=True)
        )


def _bridged(names: list[str]) -> set[str]:
    return {"h", "c"} if set(names) <= {"h", "c"} else {"h"} & set(names)


def _shaped(values: Tensor, leaf: Tensor) -> Tensor:
    """Return values [B, n] in the shape and type of a leaf; two numbers make a complex one."""
    if leaf.is_complex():
        return torch.view_as_complex(values.float().reshape(*leaf.shape, 2).contiguous()).to(leaf.dtype)
    return values.reshape(leaf.shape).to(leaf.dtype)
