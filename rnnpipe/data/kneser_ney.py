"""An interpolated Kneser-Ney model of n-grams over ids: what a network has to beat.

N tokens, V ids of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnpipe.data.tokens import Ids
from rnnpipe.errors import UsageError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """All k-grams of one k: the sorted keys (index of the first k-1 tokens' gram x V + last token), and their shares.

    `discounted` is (c - D(c)) / total of the context; `left` is, for each context, the share that the discounts left
    for the shorter context (1 where a context has never been continued).
    """

    keys: Integers
    discounted: Floats
    left: Floats


class KneserNey:
    """n-grams with modified Kneser-Ney smoothing, interpolated down to the uniform distribution 1 / V.

        p_k(w | h) = max(c(h w) - D(c), 0) / c(h) + left(h) p_{k-1}(w | h without its first token)

    c counts occurrences for k = n, and for shorter grams the different tokens that come before them; D has three
    values, for c = 1, 2 and 3 or more, estimated from how many grams are seen once to four times. What comes before the
    text is taken as n - 1 document boundaries.

    Source: Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3
    (modified Kneser-Ney); Kneser & Ney 1995. Raises UsageError for an n below 1 or a text without tokens.
    """

    def __init__(self, tokens: Ids, vocab_size: int, n: int, boundary: int) -> None:
        if n < 1:
            raise UsageError(f"n-grams of {n} tokens are not accepted; n is 1 or more.")
        if not len(tokens):
            raise UsageError("n-grams need a text of at least one token.")
        self.vocab_size, self.n, self.boundary = vocab_size, n, boundary
        text = self._padded(tokens)
        ends = np.arange(n - 1, len(text))  # those that end inside the padding do not count
        found = _number_grams(text, vocab_size, n)
        self._orders: list[_Order] = []
        for k, (keys, grams) in enumerate(found, 1):
            counted = ends
            if k < n:
                _, first = np.unique(found[k][1][ends], return_index=True)
                counted = ends[first]  # one place for each different gram that is a token longer
            counts = np.bincount(grams[counted], minlength=len(keys))
            self._orders.append(_smooth(keys, counts, len(found[k - 2][0]) if k > 1 else 1, vocab_size))

    def _padded(self, tokens: Ids) -> Integers:
        return np.concatenate((np.full(self.n - 1, self.boundary, np.int64), np.asarray(tokens, np.int64)))

    def log_probabilities(self, tokens: Ids) -> Floats:
        """Return ln p(token | up to n - 1 before it), [N], for a text that begins a document."""
        text = self._padded(tokens)
        shares = np.full(len(text), 1 / self.vocab_size)
        grams = np.full(len(text), -1, np.int64)  # -1: not seen in training
        for k, order in enumerate(self._orders, 1):
            contexts = np.concatenate(([-1], grams[:-1])) if k > 1 else np.zeros(len(text), np.int64)
            known = contexts >= 0
            wanted = contexts * self.vocab_size + text
            places = np.minimum(np.searchsorted(order.keys, wanted), len(order.keys) - 1)
            seen = known & (order.keys[places] == wanted)
            own = np.where(seen, order.discounted[places], 0.0)
            shares = np.where(known, own + order.left[contexts] * shares, shares)
            grams = np.where(seen, places, -1)
        logs: Floats = np.log(shares[self.n - 1 :])
        return logs


def _number_grams(text: Integers, vocab_size: int, n: int) -> list[tuple[Integers, Integers]]:
    """Return for k = 1 to n the sorted keys of all k-grams, and the index of the one that ends at each position."""
    found: list[tuple[Integers, Integers]] = []
    grams = np.zeros(len(text), np.int64)
    for k in range(1, n + 1):
        places = np.arange(k - 1, len(text))
        shorter = grams[places - 1] if k > 1 else np.zeros(len(text), np.int64)
        keys, indices = np.unique(shorter * vocab_size + text[places], return_inverse=True)
        grams = np.concatenate((np.zeros(k - 1, np.int64), indices))
        found.append((keys, grams))
    return found


def _smooth(keys: Integers, counts: Integers, contexts: int, vocab_size: int) -> _Order:
    """Return the discounted shares of grams with those counts (0 for those of the padding alone)."""
    discounts = _discounts(counts)
    removed = discounts[np.minimum(counts, 3)]
    owners = keys // vocab_size
    totals = np.bincount(owners, counts, contexts)
    continued = totals > 0
    divisors = np.where(continued, totals, 1.0)
    left = np.where(continued, np.bincount(owners, removed, contexts) / divisors, 1.0)
    return _Order(keys, (counts - removed) / divisors[owners], left)


def _discounts(counts: Integers) -> Floats:
    """Return what is taken from a count of 0, 1, 2, and 3 or more (Chen & Goodman 1999, section 3).

    A text too small for the estimate has half a count taken from each.
    """
    seen = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if not seen[1:5].all():
        return np.array([0.0, 0.5, 0.5, 0.5])
    share = seen[1] / (seen[1] + 2 * seen[2])
    estimated = [k - (k + 1) * share * seen[k + 1] / seen[k] for k in (1, 2, 3)]
    return np.array([0.0, *(min(max(value, 0.0), float(k)) for k, value in enumerate(estimated, 1))])
