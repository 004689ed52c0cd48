"""Samplers: pure adjustments of logits, row by row, applied one after the other before the one draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rnnpipe.errors import UsageError


@dataclass(frozen=True)
class Rows:
    """What a sampler may know of each row: its seed, its prompt's number, and how many tokens it has drawn."""

    seeds: Tensor  # [B] int64
    prompts: Tensor  # [B] int64
    positions: Tensor  # [B] int64


class Sampler(Protocol):
    """Changes logits [B, V], in float64, so that a row's result depends on that row alone.

    A sampler may also have a method `probabilities(shares)` from the model's probabilities of the tokens, [V] float64,
    to those with which they shall be drawn. `rnnpipe plugins check` then holds what is drawn against it, and against
    `adjust` otherwise.
    """

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the adjusted logits; -inf forbids a token."""
        ...


class Greedy:
    """Only the most likely token; of equal ones the first."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid all but the largest."""
        forbidden = torch.full_like(logits, -math.inf)
        best = logits.argmax(-1, keepdim=True)
        return forbidden.scatter(-1, best, 0.0)


class Temperature:
    """Probabilities to the power 1 / temperature: below 1 sharper, above 1 flatter; 0 is greedy."""

    def __init__(self, temperature: float = 1.0) -> None:
        if not 0 <= temperature < math.inf:
            raise UsageError(f"temperature={temperature} is not accepted; it takes 0 (greedy) or more.")
        self.temperature = temperature

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Divide by the temperature."""
        return logits / self.temperature if self.temperature else Greedy().adjust(logits, rows)


class TopK:
    """Only the k most likely tokens (Fan, Lewis & Dauphin 2018); of equal ones the first; all if k is larger."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UsageError(f"top-k={k} is not accepted; it takes 1 or more.")
        self.k = k

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid all but the k largest."""
        order = logits.argsort(stable=True, dim=-1, descending=True)
        forbidden = torch.full_like(logits, -math.inf)
        kept = order[:, : self.k]
        return forbidden.scatter(-1, kept, logits.gather(-1, kept))


class TopP:
    """The fewest most likely tokens whose probabilities reach p together (Holtzman et al. 2020)."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UsageError(f"top-p={p} is not accepted; it takes a number above 0, up to 1.")
        self.p = p

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid every token that is not needed to reach p."""
        order = logits.argsort(stable=True, dim=-1, descending=True)
        sorted_logits = logits.gather(-1, order)
        shares = sorted_logits.softmax(-1)
        before = shares.cumsum(-1) - shares
        kept = sorted_logits.masked_fill(before >= self.p, -math.inf)
        return torch.full_like(logits, -math.inf).scatter(-1, order, kept)


def draw(logits: Tensor, rows: Rows) -> Tensor:
    """Return one token a row [B], drawn from softmax(logits) [B, V] with the row's own random number.

    The number is a function of seed, prompt and position (`uniform`), so that a row's token depends on nothing else.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    threshold = uniform(rows) * cumulative[:, -1]
    tokens = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    # Where rounding carries the threshold to the very end, the last possible token is meant, not one behind it.
    last = logits.shape[-1] - 1 - torch.isfinite(logits).flip(-1).int().argmax(-1)
    return torch.minimum(tokens, last)


def uniform(rows: Rows) -> Tensor:
    """Return a number in [0, 1) a row, float64, from a counter-based generator keyed by (seed, prompt, position).

    Three rounds of the finalizer of SplitMix64 (Steele, Lea & Flood 2014), the key's parts mixed in one a round; the
    upper 53 bits count. Integers wrap around modulo 2^64.
    """
    mixed = _mix(rows.seeds)
    mixed = _mix(mixed + rows.prompts * _GOLDEN)
    mixed = _mix(mixed + rows.positions * _GOLDEN)
    return _shift(mixed, 11).double() * 2.0**-53


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shift right without the sign: torch's int64 is all there is for 64 bits."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = value + _GOLDEN
    value = (value ^ _shift(value, 30)) * _FIRST
    value = (value ^ _shift(value, 27)) * _SECOND
    return value ^ _shift(value, 31)
