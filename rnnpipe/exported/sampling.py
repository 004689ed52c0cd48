"""The samplers and the one draw of rnnpipe.generation in NumPy: the same tokens for the same logits and the same facts.

What each does and whence it comes is told there. Shapes: B rows, V vocabulary, L tokens. Logits are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from rnnpipe.errors import UsageError, did_you_mean
from rnnpipe.generation.engine import NOTHING, Facts, Ints
from rnnpipe.generation.tokens import Tokens
from rnnpipe.options import bind_options

Logits: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float64]]

LEAST_TEMPERATURE = 1e-6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class ArraySampler(Protocol):
    """Changes logits [B, V], row by row."""

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Return the adjusted logits; -inf forbids a token."""
        ...


class Greedy:
    """Only the most likely token; of equal ones the first."""

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid all but the largest."""
        return _kept(np.where(logits > -np.inf, 0.0, -np.inf), logits.argmax(-1)[:, None])


class Temperature:
    """Probabilities to the power 1 / temperature; 0 is greedy."""

    def __init__(self, temperature: float = 1.0) -> None:
        if temperature != 0 and not LEAST_TEMPERATURE <= temperature < math.inf:
            raise UsageError(
                f"temperature={temperature} is not accepted; it takes 0 (greedy), or {LEAST_TEMPERATURE} or more."
            )
        self.temperature = temperature

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Divide by the temperature."""
        return logits / self.temperature if self.temperature else Greedy().adjust(logits, facts)


class TopK:
    """Only the k most likely tokens; of equal ones the first; all if k is larger."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UsageError(f"top-k={k} is not accepted; it takes 1 or more.")
        self.k = k

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid all but the k largest."""
        return _kept(logits, np.argsort(-logits, -1, kind="stable")[:, : self.k])


class TopP:
    """The fewest most likely tokens whose probabilities reach p together."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UsageError(f"top-p={p} is not accepted; it takes a number above 0, up to 1.")
        self.p = p

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid every token that is not needed to reach p."""
        return _fewest(logits, np.argsort(-logits, -1, kind="stable"), self.p)


class MinP:
    """Only tokens with at least p times the probability of the likeliest."""

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise UsageError(f"min-p={p} is not accepted; it takes a number from 0 (all tokens) to 1 (the likeliest).")
        self.p = p

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid what lies further below the largest than log p."""
        least = math.log(self.p) if self.p else -math.inf
        return np.where(logits < logits.max(-1, keepdims=True) + least, -np.inf, logits)


class Typical:
    """The fewest tokens of nearest to the expected surprise whose probabilities reach p together."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UsageError(f"typical={p} is not accepted; it takes a number above 0, up to 1.")
        self.p = p

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid every token that is not needed to reach p."""
        scores = logits - log_total(logits)[:, None]
        expected = np.multiply(np.exp(scores), scores, where=scores > -np.inf, out=np.zeros_like(scores)).sum(-1)
        return _fewest(logits, np.argsort(np.abs(scores - expected[:, None]), -1, kind="stable"), self.p)


class RepetitionPenalty:
    """Tokens of the prompt or the text so far, or of the `last` of them, get less likely."""

    first = True

    def __init__(self, penalty: float, last: int = 0) -> None:
        if not 1e-6 <= penalty <= 1e6:
            raise UsageError(f"repetition-penalty={penalty} is not accepted; it takes 1e-6 to 1e6, 1 for none.")
        if last < 0:
            raise UsageError(f"repetition-penalty: last={last} is not accepted; it takes 0 (all) or more.")
        self.penalty = penalty
        self.last = last

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Scale the logits of the tokens that were there."""
        past = facts.history()
        if self.last:
            ends = (past >= 0).sum(-1, keepdims=True)
            past = np.where(np.arange(past.shape[1]) < ends - self.last, NOTHING, past)
        there = np.zeros((len(logits), logits.shape[1] + 1), bool)
        np.put_along_axis(there, past + 1, True, 1)  # what is no token goes in front of the first
        scaled = np.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return np.where(there[:, 1:], scaled, logits)


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

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid them."""
        adjusted = logits.copy()
        adjusted[:, self._ids] = -np.inf
        return adjusted


class MinLength:
    """The document does not end before so many tokens."""

    first = True

    def __init__(self, tokens: int) -> None:
        if not 0 <= tokens < 1 << 62:
            raise UsageError(f"min-length={tokens} is not accepted; it takes 0 or more tokens, below 2^62.")
        self.tokens = self.least = tokens
        self._boundary = NOTHING

    def for_tokens(self, tokens: Tokens) -> MinLength:
        """Return the sampler for a vocabulary."""
        bound = MinLength(self.tokens)
        bound._boundary = tokens.boundary
        return bound

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Forbid the boundary in rows that are too short."""
        adjusted = logits.copy()
        if self._boundary != NOTHING:
            adjusted[facts.positions < self.tokens, self._boundary] = -np.inf
        return adjusted


class Given:
    """Only the tokens of texts that are there already; a row's number is that of its text."""

    def __init__(self) -> None:
        self.texts: dict[int, list[int]] = {}

    def adjust(self, logits: Logits, facts: Facts) -> Logits:
        """Leave one token, whatever its logit."""
        places = zip(facts.numbers.tolist(), facts.positions.tolist(), strict=True)
        forced = np.full_like(logits, -np.inf)
        forced[np.arange(len(logits)), [self.texts[number][place] for number, place in places]] = 0.0
        return forced


SAMPLERS: dict[str, Callable[..., ArraySampler]] = {
    "forbid": Forbid,
    "greedy": Greedy,
    "min-length": MinLength,
    "min-p": MinP,
    "repetition-penalty": RepetitionPenalty,
    "temperature": Temperature,
    "top-k": TopK,
    "top-p": TopP,
    "typical": Typical,
}


def build_sampler(name: str, options: Mapping[str, Any]) -> ArraySampler:
    """Return a sampler by the name that it has in torch; raise UsageError if there is none in NumPy."""
    if name not in SAMPLERS:
        raise UsageError(
            f"sampler '{name}' is not there without torch.{did_you_mean(name, SAMPLERS)} An exported model takes "
            f"{', '.join(SAMPLERS)}."
        )
    made = SAMPLERS[name]
    return made(**bind_options(made, options, f"sampler '{name}'"))


def _kept(logits: Logits, ids: Ints) -> Logits:
    """Return logits with all but some tokens [B, L] forbidden."""
    forbidden = np.full_like(logits, -np.inf)
    np.put_along_axis(forbidden, ids, np.take_along_axis(logits, ids, -1), -1)
    return forbidden


def _fewest(logits: Logits, order: Ints, p: float) -> Logits:
    """Return logits without the tokens that, in their order [B, V], are not needed to reach probability p."""
    ordered = np.take_along_axis(logits, order, -1)
    shares = softmax(ordered)
    before = np.cumsum(shares, -1) - shares
    forbidden = np.full_like(logits, -np.inf)
    np.put_along_axis(forbidden, order, np.where(before >= p, -np.inf, ordered), -1)
    return forbidden


def softmax(logits: Logits) -> Logits:
    """Return the probabilities of logits; a row in which all is forbidden has none."""
    largest = logits.max(-1, keepdims=True)
    powers = np.exp(logits - np.where(largest == -np.inf, 0.0, largest))
    total = powers.sum(-1, keepdims=True)
    shares: Logits = powers / np.where(total == 0, 1.0, total)
    return shares


def log_total(logits: Logits) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return log(sum(exp(logits))) of each row [B], one token of which at least is allowed."""
    largest = logits.max(-1, keepdims=True)
    total: np.ndarray[Any, np.dtype[np.float64]] = largest[:, 0] + np.log(np.exp(logits - largest).sum(-1))
    return total


def draw(logits: Logits, facts: Facts) -> Ints:
    """Return one token a row [B], drawn from softmax(logits) with the row's own random number; -1 if none is left."""
    cumulative = np.cumsum(softmax(logits), -1)
    threshold = uniform(facts) * cumulative[:, -1]
    tokens = (cumulative <= threshold[:, None]).sum(-1)
    # Where rounding carries the threshold to the very end, the last possible token is meant, not one behind it.
    last = logits.shape[-1] - 1 - np.isfinite(logits)[:, ::-1].argmax(-1)
    found: Ints = np.where(cumulative[:, -1] == 0, NOTHING, np.minimum(tokens, last))
    return found


def uniform(facts: Facts) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a number in [0, 1) a row, from the counter-based generator that rnnpipe.generation.samplers describes."""
    seeds, numbers, positions = (key.astype(np.uint64) for key in (facts.seeds, facts.numbers, facts.positions))
    mixed = _mix(seeds)
    mixed = _mix(mixed + numbers * _GOLDEN)
    mixed = _mix(mixed + positions * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))
