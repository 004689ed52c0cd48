"""Samplers that draw from some of the tokens only: top-k, top-p, min-p, typical.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rnnpipe.errors import UsageError
from rnnpipe.generation.samplers import Rows

_FIRST_WIDTH = 64  # tokens whose probabilities are likely to reach p together


class TopK:
    """Only the k most likely tokens (Fan, Lewis & Dauphin 2018); of equal ones the first; all if k is larger."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UsageError(f"top-k={k} is not accepted; it takes 1 or more.")
        self.k = k

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid all but the k largest."""
        if self.k >= logits.shape[-1]:
            return logits
        return _largest(logits, logits, logits.topk(self.k).values[:, -1:], self.k)


class TopP:
    """The fewest most likely tokens whose probabilities reach p together (Holtzman et al. 2020)."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UsageError(f"top-p={p} is not accepted; it takes a number above 0, up to 1.")
        self.p = p

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid every token that is not needed to reach p."""
        if self.p == 1:
            return logits
        shares = logits.softmax(-1)
        counts, least = _to_reach(shares, self.p, _FIRST_WIDTH)
        return _largest(logits, shares, least, counts)


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
        order = (scores + entropy).abs().argsort(stable=True, dim=-1)
        ordered = logits.gather(-1, order)
        shares = ordered.softmax(-1)
        before = shares.cumsum(-1) - shares
        kept = ordered.masked_fill(before >= self.p, -math.inf)
        return torch.full_like(logits, -math.inf).scatter(-1, order, kept)


def _to_reach(shares: Tensor, p: float, width: int) -> tuple[Tensor, Tensor]:
    """Return how many of the largest shares [B, V] reach p together, [B, 1], and the smallest of them, [B, 1].

    So many largest ones are looked at as are likely to do, and eight times more in rows where they do not.
    """
    width = min(width, shares.shape[-1])
    largest = shares.topk(width).values
    before = largest.cumsum(-1) - largest
    counts = (before < p).sum(-1, keepdim=True).clamp(min=1)
    least = largest.gather(-1, counts - 1)
    short = (counts[:, 0] == width).nonzero()[:, 0]
    if len(short) and width < shares.shape[-1]:
        counts[short], least[short] = _to_reach(shares[short], p, 8 * width)
    return counts, least


def _largest(logits: Tensor, by: Tensor, least: Tensor, counts: Tensor | int) -> Tensor:
    """Return logits without all but the `counts` tokens of the largest `by`, down to `least`; of equal ones the first.

    logits, by: [B, V]. least, counts: [B, 1].
    """
    kept = by >= least
    if bool((kept.sum(-1, keepdim=True) > counts).any()):
        equal = by == least
        room = counts - (kept & ~equal).sum(-1, keepdim=True)
        kept &= ~equal | (equal.cumsum(-1) <= room)
    return logits.masked_fill(~kept, -math.inf)
