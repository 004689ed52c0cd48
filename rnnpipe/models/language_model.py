"""The recurrent language model: encoder, recurrent stack, readout."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.base import Model, last_outputs
from rnnpipe.models.recurrent import Recurrent, States

GenerationState: TypeAlias = tuple[Tensor, ...] | States


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

    def prime(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, GenerationState]:
        """Read prompts: return the logits [B, V] behind each prompt's last token and the state there.

        ids: [T, B], padded behind; lengths: [B], at least 1. Every leaf of the state has the batch as axis 0.
        """
        if self.window is not None:
            recent = self._last_tokens(ids, lengths)
            return self._from_window(*recent), recent
        x = self.encoder(ids)
        y, state = self.recurrent(x, lengths=lengths)
        ends = y[lengths.to(y.device) - 1, torch.arange(y.shape[1], device=y.device)]
        return self.read_out(ends), state

    def step(self, tokens: Tensor, state: GenerationState) -> tuple[Tensor, GenerationState]:
        """Read one token a row [B]: return the logits [B, V] behind it and the next state."""
        if self.window is None:
            y, following = self.recurrent(self.encoder(tokens[None]), state)
            return self.read_out(y[0]), following
        recent, lengths = state
        assert isinstance(recent, Tensor) and isinstance(lengths, Tensor)
        full = lengths == self.window
        recent = torch.where(full[:, None], recent.roll(-1, 1), recent)
        lengths = torch.where(full, lengths, lengths + 1)
        recent = recent.scatter(1, lengths[:, None] - 1, tokens[:, None])
        return self._from_window(recent, lengths), (recent, lengths)

    def _last_tokens(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last `window` tokens of each prompt, [B, window], and how many there are."""
        assert self.window is not None
        kept = lengths.clamp(max=self.window)
        steps = torch.arange(self.window, device=ids.device)[:, None]
        index = (lengths - kept + steps).clamp(max=ids.shape[0] - 1)
        return ids.gather(0, index).t(), kept

    def _from_window(self, recent: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self(recent.t(), lengths=lengths)[0]
        return logits
