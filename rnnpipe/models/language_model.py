"""The recurrent language model: encoder, recurrent stack, readout."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.base import Model, last_outputs
from rnnpipe.models.recurrent import Recurrent, States

# What rows have read, in nested tuples whose leaves have the row as axis 0: the last output [B, H] and the state of the
# recurrent stack; with a window the last tokens [B, window] and how many there are [B].
Memory: TypeAlias = tuple[Any, ...]


class LanguageModel(Model):
    """Logits of the next token: readout(dropout(recurrent(dropout(encoder(ids))))).

    With `tied`, the readout uses the embedding's weight (Press & Wolf 2017; Inan et al. 2017); if the hidden size is
    not the embedding's, a linear `projection` comes between. With a `window` of k, the model predicts the token behind
    each k tokens from a zero state, instead of carrying its state along the text; only then may it be bidirectional.
    """

    reads = "text"

    def __init__(
        self,
        encoder: nn.Module,
        recurrent: Recurrent,
        vocab_size: int,
        *,
        dropout: float = 0.0,
        tied: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if recurrent.bidirectional and window is None:
            raise UsageError(
                "model.bidirectional=true: a language model that reads backwards sees the token it must predict. "
                "Set training.window=K to predict from windows of K tokens, where both directions are allowed."
            )
        self.encoder = encoder
        self.recurrent = recurrent
        self.vocab_size = vocab_size
        self.dropout = dropout
        self.window = window
        self.projection: nn.Linear | None = None
        if not tied:
            self.readout = nn.Linear(recurrent.output_size, vocab_size)
        else:
            weight = getattr(encoder, "weight", None)
            if not isinstance(weight, nn.Parameter):
                raise UsageError("model.tied=true needs the encoder 'embedding', whose weight the readout can share.")
            if weight.shape[1] != recurrent.output_size:
                self.projection = nn.Linear(recurrent.output_size, weight.shape[1])
            self.readout = nn.Linear(weight.shape[1], vocab_size)
            self.readout.weight = weight

    def forward(
        self, ids: Tensor, state: States | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Return logits and the final state for ids [T, B].

        Logits are [T, B, V]; with a window they are [B, V], those of the token behind the last one.
        """
        x = self.encoder(ids)
        if x.is_floating_point():
            x = F.dropout(x, self.dropout, self.training)
        y, state = self.recurrent(x, state, lengths=lengths)
        if self.window is not None:
            y = last_outputs(y, lengths, self.recurrent)
        return self.read_out(y), state

    def read_out(self, y: Tensor) -> Tensor:
        """Return the logits [..., V] for the stack's outputs [..., H]."""
        y = F.dropout(y, self.dropout, self.training)
        if self.projection is not None:
            y = self.projection(y)
        logits: Tensor = self.readout(y)
        return logits

    def example_input(self, timesteps: int) -> Tensor:
        """Return the encoded ids of a row: zeros."""
        encoded: Tensor = self.encoder(torch.zeros(timesteps, 1, dtype=torch.int64))
        return encoded

    # --- one token at a time ---

    def blank(self, rows: int) -> Memory:
        """Return the memory of rows that have read nothing; every leaf has the row as axis 0."""
        weight = self.readout.weight
        if self.window is not None:
            return weight.new_zeros(rows, self.window, dtype=torch.int64), weight.new_zeros(rows, dtype=torch.int64)
        y = weight.new_zeros(rows, self.recurrent.output_size)
        return y, self.recurrent.initial_state(rows, y)

    def absorb(self, tokens: Tensor, memory: Memory) -> Memory:
        """Read one token a row [B]; return the memory behind it."""
        if self.window is None:
            y, state = self.recurrent(self.encoder(tokens[None]), memory[1])
            return y[0], state
        recent, lengths = memory
        full = lengths == self.window
        recent = torch.where(full[:, None], recent.roll(-1, 1), recent)
        lengths = torch.where(full, lengths, lengths + 1)
        return recent.scatter(1, lengths[:, None] - 1, tokens[:, None]), lengths

    def absorb_all(self, ids: Tensor, memory: Memory) -> Memory:
        """Read some tokens of every row [T, B]; return the memory behind them. Not for a model with a window."""
        y, state = self.recurrent(self.encoder(ids), memory[1])
        return y[-1], state

    def foresee(self, memory: Memory) -> Tensor:
        """Return the logits [B, V] of the token behind what each row has read, one token at least."""
        if self.window is None:
            return self.read_out(memory[0])
        recent, lengths = memory
        logits: Tensor = self(recent.t(), lengths=lengths)[0]
        return logits

    def prime(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Memory]:
        """Read prompts at once: return the logits [B, V] behind each one's last token and the memory there.

        ids: [T, B], padded behind; lengths: [B], at least 1.
        """
        if self.window is not None:
            memory: Memory = self._last_tokens(ids, lengths)
        else:
            y, state = self.recurrent(self.encoder(ids), lengths=lengths)
            memory = (y[lengths.to(y.device) - 1, torch.arange(y.shape[1], device=y.device)], state)
        return self.foresee(memory), memory

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Read one token a row [B]: return the logits [B, V] behind it and the memory there."""
        memory = self.absorb(tokens, memory)
        return self.foresee(memory), memory

    def _last_tokens(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last `window` tokens of each prompt, [B, window], and how many there are."""
        assert self.window is not None
        kept = lengths.clamp(max=self.window)
        steps = torch.arange(self.window, device=ids.device)[:, None]
        index = (lengths - kept + steps).clamp(max=ids.shape[0] - 1)
        return ids.gather(0, index).t(), kept
