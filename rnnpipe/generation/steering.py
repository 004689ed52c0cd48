"""Samplers that come before the temperature: repeated, forbidden and too early tokens.

Shapes: B rows, V vocabulary, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rnnpipe.errors import UsageError
from rnnpipe.generation.samplers import Rows
from rnnpipe.generation.tokens import Tokens

_LEAST = 1e-6


class RepetitionPenalty:
    """Tokens of the prompt or the text so far get less likely: a logit l > 0 becomes l / penalty, another l * penalty.

    last: only those among so many last tokens; 0 is all. A penalty below 1 makes them likelier. Keskar et al. 2019
    (CTRL), section 4.1; the form for negative logits is that of Hugging Face transformers.
    """

    first = True

    def __init__(self, penalty: float, last: int = 0) -> None:
        if not _LEAST <= penalty <= 1 / _LEAST:
            raise UsageError(f"repetition-penalty={penalty} is not accepted; it takes 1e-6 to 1e6, 1 for none.")
        if last < 0:
            raise UsageError(f"repetition-penalty: last={last} is not accepted; it takes 0 (all) or more.")
        self.penalty = penalty
        self.last = last

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Scale the logits of the tokens that were there."""
        past = rows.history
        if self.last:
            ends = (past >= 0).sum(-1, keepdim=True)
            places = torch.arange(past.shape[1], device=past.device)
            past = past.masked_fill(places < ends - self.last, -1)
        there = torch.zeros(len(logits), logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
        there = there.scatter(1, past + 1, True)[:, 1:]  # what is no token goes in front of the first
        return torch.where(there, torch.where(logits > 0, logits / self.penalty, logits * self.penalty), logits)


class Forbid:
    """Some tokens are never drawn; `<doc>` is the end of the document."""

    first = True

    def __init__(self, tokens: Sequence[str] | str) -> None:
        self.tokens = [tokens] if isinstance(tokens, str) else list(tokens)
        self._ids: list[int] = []

    def for_tokens(self, tokens: Tokens) -> Forbid:
        """Return the sampler for a vocabulary; raise UsageError for a token that it does not have."""
        bound = Forbid(self.tokens)
        bound._ids = [tokens.id(text) for text in self.tokens]
        return bound

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid them."""
        return logits.index_fill(-1, torch.tensor(self._ids, dtype=torch.int64, device=logits.device), -math.inf)


class MinLength:
    """The document does not end before so many tokens."""

    first = True

    def __init__(self, tokens: int) -> None:
        if not 0 <= tokens < 1 << 62:
            raise UsageError(f"min-length={tokens} is not accepted; it takes 0 or more tokens, below 2^62.")
        self.tokens = self.least = tokens
        self._boundary: int | None = None

    def for_tokens(self, tokens: Tokens) -> MinLength:
        """Return the sampler for a vocabulary."""
        bound = MinLength(self.tokens)
        bound._boundary = tokens.boundary
        return bound

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid the boundary in rows that are too short."""
        if self._boundary is None:
            return logits
        adjusted = logits.clone()
        adjusted[rows.positions < self.tokens, self._boundary] = -math.inf
        return adjusted
