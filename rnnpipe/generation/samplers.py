"""Samplers: pure adjustments of logits, row by row, applied one after the other before the one draw.

Shapes: B rows, V vocabulary, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from rnnpipe.errors import UsageError
from rnnpipe.generation.engine import NOTHING, Facts

Past = Callable[[], Tensor]
_ENDLESS = 1 << 62
LEAST_TEMPERATURE = 1e-6  # below it logits divided by it may be too large for a number


class Rows:
    """What a sampler may know of each row.

    seeds, prompts: its seed and its prompt's number, [B] int64. positions: how many tokens it has drawn, [B]. left: how
    many it may still draw, this one counted, [B]. drawn: the ids of those that it has drawn, [B, L], -1 behind the
    last. history: the same of its prompt and behind it of what it has drawn. Both are made only when asked for.
    """

    def __init__(
        self,
        seeds: Tensor,
        prompts: Tensor,
        positions: Tensor,
        left: Tensor | None = None,
        drawn: Past | None = None,
        history: Past | None = None,
    ) -> None:
        self.seeds = seeds
        self.prompts = prompts
        self.positions = positions
        self.left = torch.full_like(positions, _ENDLESS) if left is None else left
        self._drawn = drawn or self._none
        self._history = history or self._drawn

    @classmethod
    def of(cls, facts: Facts, device: torch.device) -> Rows:
        """Return what an engine knows of some rows, on a device."""
        seeds, prompts, positions, left = (
            torch.from_numpy(each).to(device) for each in (facts.seeds, facts.numbers, facts.positions, facts.left)
        )
        return cls(
            seeds,
            prompts,
            positions,
            left,
            lambda: torch.from_numpy(facts.drawn()).to(device),
            lambda: torch.from_numpy(facts.history()).to(device),
        )

    @cached_property
    def drawn(self) -> Tensor:
        """Return the ids that each row has drawn."""
        return self._drawn()

    @cached_property
    def history(self) -> Tensor:
        """Return the ids of each row's prompt and behind them those that it has drawn."""
        return self._history()

    def pick(self, index: Tensor | slice) -> Rows:
        """Return some of the rows."""
        return Rows(
            self.seeds[index],
            self.prompts[index],
            self.positions[index],
            self.left[index],
            lambda: self.drawn[index],
            lambda: self.history[index],
        )

    def _none(self) -> Tensor:
        return self.positions.new_empty(len(self.positions), 0)


class Sampler(Protocol):
    """Changes logits [B, V], in float64, so that a row's result depends on that row alone.

    A sampler may also have
    - a method `probabilities(shares)` from the model's probabilities of the tokens, [V] float64, to those with which
      they shall be drawn. `rnnpipe plugins check` then holds what is drawn against it, and against `adjust` otherwise.
    - a method `for_tokens(tokens: Tokens) -> Sampler` that returns the sampler for a vocabulary; it is called once.
    - an attribute `least`: so many tokens are needed at least, whatever is drawn; a person who allows fewer is warned.
    - an attribute `first = True`: it comes before the temperature, wherever it is named. It says of tokens what may
      follow, or looks at the model's own logits.
    - a method `choose(logits, rows) -> tokens [B]`, what a draw behind `adjust` comes to where only one token is left.
    """

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the adjusted logits; -inf forbids a token."""
        ...


class Greedy:
    """Only the most likely token; of equal ones the first."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid all but the largest."""
        largest, best = logits.max(-1, keepdim=True)
        allowed = torch.where(largest == -math.inf, largest, torch.zeros_like(largest))
        return torch.full_like(logits, -math.inf).scatter(-1, best, allowed)

    def choose(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the largest."""
        largest, best = logits.max(-1)
        return torch.where(largest == -math.inf, NOTHING, best)


class Temperature:
    """Probabilities to the power 1 / temperature: below 1 sharper, above 1 flatter; 0 is greedy."""

    def __init__(self, temperature: float = 1.0) -> None:
        if temperature != 0 and not LEAST_TEMPERATURE <= temperature < math.inf:
            raise UsageError(
                f"temperature={temperature} is not accepted; it takes 0 (greedy), or {LEAST_TEMPERATURE} or more."
            )
        self.temperature = temperature
        if not temperature:
            self.choose = Greedy().choose

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Divide by the temperature."""
        if self.temperature == 1:
            return logits
        return logits / self.temperature if self.temperature else Greedy().adjust(logits, rows)


class Given:
    """Only the tokens of texts that are there already; a row's `prompts` is the number of its text."""

    def __init__(self) -> None:
        self.texts: dict[int, list[int]] = {}

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid all others."""
        chosen = self.choose(logits, rows)[:, None]
        return torch.full_like(logits, -math.inf).scatter(-1, chosen, 0.0)

    def choose(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the next token of each text."""
        places = zip(rows.prompts.tolist(), rows.positions.tolist(), strict=True)
        return torch.tensor([self.texts[number][place] for number, place in places], device=logits.device)


def choose(logits: Tensor, rows: Rows, samplers: Sequence[Sampler]) -> Tensor:
    """Return one token a row [B], drawn from logits [B, V] adjusted by samplers; -1 where none is left."""
    for sampler in samplers[:-1]:
        logits = sampler.adjust(logits, rows)
    if not samplers:
        return draw(logits, rows)
    last: Callable[[Tensor, Rows], Tensor] | None = getattr(samplers[-1], "choose", None)
    return draw(samplers[-1].adjust(logits, rows), rows) if last is None else last(logits, rows)


def draw(logits: Tensor, rows: Rows) -> Tensor:
    """Return one token a row [B], drawn from softmax(logits) [B, V] with the row's own random number.

    It is -1 where all logits are -inf. The number is a function of seed, prompt and position (`uniform`), so that a
    row's token depends on nothing else.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    total = cumulative[:, -1]
    tokens = torch.searchsorted(cumulative, (uniform(rows) * total)[:, None], right=True)[:, 0]
    # Where rounding carries the threshold to the very end, the last possible token is meant, not one behind it.
    if bool((tokens >= logits.shape[-1]).any()):
        last = logits.shape[-1] - 1 - torch.isfinite(logits).flip(-1).int().argmax(-1)
        tokens = torch.minimum(tokens, last)
    return torch.where(total.isnan(), NOTHING, tokens)


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
