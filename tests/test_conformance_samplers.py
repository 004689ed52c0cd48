"""The checks of samplers: built-ins draw as they say, and for each check there is a wrong sampler that it catches."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from rnnpipe.generation.samplers import Rows, Temperature
from rnnpipe.generation.truncation import TopK
from rnnpipe.plugins import full_registry
from rnnpipe.testing import ConformanceError, Finding, checks_for, findings
from rnnpipe.testing.samplers import check_sampler, critical_value

SLOW = "chi-square"


def outcomes(thing: Any, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(checks_for("sampler", thing, options))}


def failed(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.outcome == "failed"}


# --- the exact distributions of the built-ins, from their papers ---


def greedy(shares: Tensor) -> Tensor:
    return torch.zeros_like(shares).index_fill(0, shares.argmax(), 1.0)


def temperature(value: float) -> Callable[[Tensor], Tensor]:
    return lambda shares: shares ** (1 / value) / (shares ** (1 / value)).sum()


def top_k(k: int) -> Callable[[Tensor], Tensor]:
    return lambda shares: _only(shares, sorted(range(len(shares)), key=lambda token: -float(shares[token]))[:k])


def top_p(p: float) -> Callable[[Tensor], Tensor]:
    def exact(shares: Tensor) -> Tensor:
        kept: list[int] = []
        for token in sorted(range(len(shares)), key=lambda token: -float(shares[token])):
            if math.fsum(float(shares[n]) for n in kept) >= p:
                break
            kept.append(token)
        return _only(shares, kept)

    return exact


def min_p(p: float) -> Callable[[Tensor], Tensor]:
    return lambda shares: _only(shares, [n for n, q in enumerate(shares.tolist()) if q >= p * float(shares.max())])


def typical(p: float) -> Callable[[Tensor], Tensor]:
    def exact(shares: Tensor) -> Tensor:
        there = [n for n, q in enumerate(shares.tolist()) if q > 0]
        entropy = -math.fsum(float(shares[n]) * math.log(float(shares[n])) for n in there)
        kept: list[int] = []
        for token in sorted(there, key=lambda n: round(abs(-math.log(float(shares[n])) - entropy), 9)):
            if math.fsum(float(shares[n]) for n in kept) >= p:
                break
            kept.append(token)
        return _only(shares, kept)

    return exact


def _only(shares: Tensor, kept: list[int]) -> Tensor:
    mask = torch.zeros_like(shares)
    mask[kept] = 1
    return shares * mask / (shares * mask).sum()


EXACT: list[tuple[str, dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ("greedy", {}, greedy),
    ("temperature", {}, lambda shares: shares),
    ("temperature", {"temperature": 0.7}, temperature(0.7)),
    ("temperature", {"temperature": 2.5}, temperature(2.5)),
    ("temperature", {"temperature": 0}, greedy),
    ("top-k", {"k": 1}, greedy),
    ("top-k", {"k": 3}, top_k(3)),
    ("top-p", {"p": 0.77}, top_p(0.77)),
    ("top-p", {"p": 1}, lambda shares: shares),
    ("min-p", {"p": 0.2}, min_p(0.2)),
    ("min-p", {"p": 0}, lambda shares: shares),
    ("min-p", {"p": 1}, min_p(1.0)),
    ("typical", {"p": 0.6}, typical(0.6)),
    ("typical", {"p": 1}, lambda shares: shares),
]
# Samplers that look at tokens or at what was drawn: their distributions are enumerated in test_steering.py.
STEERING = {"forbid": {"tokens": ["<doc>"]}, "min-length": {"tokens": 2}, "pattern": {"regex": "(a|b|c)*"},
            "prefix": {"text": "a"}, "repetition-penalty": {"penalty": 1.3, "last": 4}}  # fmt: skip


@pytest.mark.parametrize(("name", "options", "exact"), EXACT)
def test_built_ins_draw_from_the_exact_distribution(name: str, options: dict[str, Any], exact: Any) -> None:
    assert {finding.outcome for finding in check_sampler(name, expected=exact, **options)} == {"passed"}


def test_every_built_in_has_its_distribution_here() -> None:
    built_in = {entry.name for entry in full_registry().entries("sampler") if entry.distribution == "rnnpipe"}
    assert built_in == {name for name, _, _ in EXACT} | set(STEERING)


@pytest.mark.parametrize("name", STEERING)
def test_built_ins_that_steer_pass_every_check(name: str) -> None:
    assert {finding.outcome for finding in check_sampler(name, **STEERING[name])} == {"passed"}


def test_without_an_exact_distribution_each_row_is_held_against_itself_alone() -> None:
    assert {finding.outcome for finding in check_sampler("top-k", k=4)} == {"passed"}


@pytest.mark.parametrize(
    ("freedom", "value", "within"),
    [(5, 37.33, 0.01), (10, 47.69, 0.01), (32, 85.75, 0.01), (1, 23.93, 0.16), (2, 27.63, 0.1)],
)
def test_the_critical_values_are_those_of_the_tables(freedom: int, value: float, within: float) -> None:
    assert value * 0.999 <= critical_value(freedom) <= value * (1 + within)


# --- wrong ones ---


class Plain:
    """A right sampler, for the wrong ones to differ from in one thing each."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return logits / 1.5

    def probabilities(self, shares: Tensor) -> Tensor:
        return temperature(1.5)(shares)


class NoAdjust:
    pass


class Named(Plain):
    def __init__(self, name: str = "x") -> None:
        pass


class Halves(Plain):
    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return super().adjust(logits, rows).float()


class InPlace(Plain):
    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return logits.div_(1.5)


class CountsInTheRows(Plain):
    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        rows.positions.add_(1)
        return super().adjust(logits, rows)


class FloorsLogits(Plain):
    """Tokens that were forbidden come back, hardly ever."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return super().adjust(logits, rows).clamp(min=-1e9)


class NeverTheLikeliest(Plain):
    """Where one token is left, that is forbidden too."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return super().adjust(logits, rows).scatter(-1, logits.argmax(-1, keepdim=True), -math.inf)

    def probabilities(self, shares: Tensor) -> Tensor:
        return shares


class Standardizes(Plain):
    """Minus infinity has no mean, and neither has it a spread."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return (logits - logits.mean(-1, keepdim=True)) / 1.5


class LooksAtItsNeighbours(Plain):
    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        finite = logits.masked_fill(logits == -math.inf, 0)
        return super().adjust(logits, rows) - finite.mean()


class LooksAtItsPlace(Plain):
    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return super().adjust(logits, rows) + torch.arange(len(logits))[:, None] * 1e-9


class CoolsDown(Plain):
    """Its temperature falls with each call: a state of its own."""

    def __init__(self) -> None:
        self.temperature = 1.5

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        self.temperature *= 0.7
        return logits / self.temperature


class ChoosesTheSecond(Plain):
    """Says of itself what is not so."""

    def choose(self, logits: Tensor, rows: Rows) -> Tensor:
        return logits.argsort(-1, descending=True)[:, min(1, logits.shape[1] - 1)]


class LooksAtOthersPasts(Plain):
    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return super().adjust(logits, rows) - (rows.history >= 0).sum()


class Gumbel(Plain):
    """Draws by torch's global generator."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        noise = -torch.empty_like(logits).exponential_().log()
        best = (logits / 1.5 + noise).argmax(-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)


class Biased(Plain):
    """The first token comes a little too often."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        adjusted = super().adjust(logits, rows)
        adjusted[:, 0] += 0.05
        return adjusted


class BiasedBySeed(Plain):
    """Each row looks right alone; the rows together do not draw from one distribution."""

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        return logits / torch.where(rows.seeds % 2 == 0, 1.5, 3.0)[:, None]


WRONG: dict[str, list[tuple[type, set[str]]]] = {
    "builds": [(NoAdjust, set()), (Named, set())],
    "shapes": [(Halves, set())],
    "input untouched": [(InPlace, set()), (CountsInTheRows, set())],
    "forbidden tokens": [(FloorsLogits, set())],
    "a token is left": [
        (NeverTheLikeliest, {"chi-square"}),
        (Standardizes, {"forbidden tokens", "chi-square"}),
    ],
    "batch order": [(LooksAtItsNeighbours, set()), (LooksAtItsPlace, set()), (LooksAtOthersPasts, set())],
    "chooses": [(ChoosesTheSecond, set())],
    "seeded": [(CoolsDown, {"batch order", "chi-square"})],
    "random state": [(Gumbel, {"batch order", "seeded"})],
    "chi-square": [(Biased, set()), (BiasedBySeed, set())],
}


@pytest.mark.parametrize(
    ("check", "wrong", "others"),
    [(check, thing, others) for check, things in WRONG.items() for thing, others in things],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_samplers_are_caught(check: str, wrong: type, others: set[str]) -> None:
    # The chi-square test takes a second: there only for those that it concerns.
    made = [made for made in checks_for("sampler", wrong, {}) if made.name in (check, *others) or made.name != SLOW]
    found = {finding.check: finding for finding in findings(made)}
    assert check in failed(found), found[check]
    assert failed(found) <= {check} | others, found
    assert re.fullmatch(r"expected .+; received .+; smallest case: .+", found[check].detail)


def test_each_check_has_a_wrong_sampler() -> None:
    assert {check.name for check in checks_for("sampler", Plain, {})} == set(WRONG)


def test_a_right_sampler_passes() -> None:
    assert {finding.outcome for finding in check_sampler(Plain)} == {"passed"}


def test_a_bias_is_caught_against_the_authors_distribution_alone() -> None:
    """Held against itself a temperature of 1.1 is right; held against one of 1 it is not."""
    assert not failed(outcomes(Temperature, temperature=1.1))
    with pytest.raises(ConformanceError, match="fails 1 of 10 checks:\n  chi-square: expected a statistic of at most"):
        check_sampler(Temperature, temperature=1.1, expected=lambda shares: shares)


def test_the_smallest_number_of_tokens_that_shows_it_is_told() -> None:
    detail = outcomes(Biased)["chi-square"].detail
    assert "token 0 came with" in detail
    assert detail.endswith("smallest case: V=2, random logits")
    assert "one token possible in each" in outcomes(TopK, k=1)["chi-square"].detail


def test_expectations_that_are_no_distribution_are_refused() -> None:
    with pytest.raises(ConformanceError, match="expected probabilities that add up to 1; received 2"):
        check_sampler(Plain, expected=lambda shares: 2 * shares)
    with pytest.raises(ConformanceError, match="expected no token of probability 0; received token 1, "):
        check_sampler(Plain, expected=lambda shares: torch.eye(len(shares), dtype=torch.float64)[0])


def test_torchs_generator_and_default_dtype_are_left_as_they_were() -> None:
    class Rude(Gumbel):
        def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
            torch.set_default_dtype(torch.float16)
            return super().adjust(logits, rows)

    state = torch.get_rng_state()
    assert "random state" in failed(outcomes(Rude))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
