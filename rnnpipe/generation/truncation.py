"""Samplers that draw from some of the tokens only: top-k, top-p, min-p, typical.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rnnpipe.errors import UsageError
from rnnpipe.generation.samplers import Rows


class TopK:
    """Only the k most likely tokens (Fan, Lewis & Dauphin 2018); of equal ones the first; all if k is larger."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UsageError(f"top-k={k} is not accepted; it takes 1 or more.")
        self.k = k

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid all but the k largest."""
        order = logits.argsort(stable=True, dim=-1, descending=True)
        kept = order[:, : self.k]
        return torch.full_like(logits, -math.inf).scatter(-1, kept, logits.gather(-1, kept))


class TopP:
    """The fewest most likely tokens whose probabilities reach p together (Holtzman et al. 2020)."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UsageError(f"top-p={p} is not accepted; it takes a number above 0, up to 1.")
        self.p = p

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid every token that is not needed to reach p."""
        return _fewest(logits, logits.argsort(stable=True, dim=-1, descending=True), self.p)


class MinP:
    """Only tokens with at least p times the probability of the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise UsageError(f"min-p={p} is not accepted; it takes a number from 0 (all tokens) to 1 (the likeliest).")
        self.p = p

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid what lies further below the largest than log p."""
        least = math.log(self.p) if self.p else -math.inf
        return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + least, -math.inf)


class Typical:
    """The fewest tokens of nearest to the expected surprise whose probabilities reach p together.

    A token's surprise is -log q, the expected one the entropy, H = -sum q log q; tokens go by |-log q - H|, of equal
    ones the first (Meister et al. 2023, "Locally Typical Sampling").
    """

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UsageError(f"typical={p} is not accepted; it takes a number above 0, up to 1.")
        self.p = p

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid every token that is not needed to reach p."""
        scores = logits.log_softmax(-1)
        entropy = -torch.where(scores > -math.inf, scores.exp() * scores, 0.0).sum(-1, keepdim=True)
        return _fewest(logits, (scores + entropy).abs().argsort(stable=True, dim=-1), self.p)


def _fewest(logits: Tensor, order: Tensor, p: float) -> Tensor:
    """Return logits [B, V] without the tokens that, in their order [B, V], are not needed to reach probability p."""
    ordered = logits.gather(-1, order)
    shares = ordered.softmax(-1)
    before = shares.cumsum(-1) - shares
    kept = ordered.masked_fill(before >= p, -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, order, kept)
