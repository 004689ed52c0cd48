"""Checks of samplers: pure, row by row, and drawing from the distribution that is meant.

V is the number of tokens, B of rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from rnnpipe.generation.samplers import Rows, Sampler, choose, draw
from rnnpipe.generation.tokens import Tokens
from rnnpipe.testing.randomness import require_untouched, undisturbed
from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.things import build, in_order, require_reachable, resolve

SIZES = (1, 2, 5, 17)  # V
ROWS = 7
DRAWS = 100_000
LEVEL = 1e-6  # how rarely a good sampler would fail, if the seeds were not always the same
_DRAWN = 3  # tokens that a row has drawn and that its prompt has, at most
LEAST_EXPECTED = 5  # draws; rarer tokens are counted together, as the chi-square distribution asks

_FACTS = ("seeds", "prompts", "positions", "left", "drawn", "history")

Make = Callable[[], Sampler]
Expected = Callable[[Tensor], Tensor]  # from shares [V] float64 to shares [V]


def check_sampler(thing: Any, *, expected: Expected | None = None, **options: Any) -> list[Finding]:
    """Check a sampler, a factory or a registered name; raise ConformanceError with every check that failed.

    expected: from the model's probabilities [V], float64, to those with which the tokens shall be drawn; without it
    they are what the sampler's method `probabilities` says, or else the softmax of what it makes of a row alone.
    """
    thing, name = resolve("sampler", thing)
    return require(f"sampler '{name}'", _checks(thing, options, expected))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a sampler."""
    return _checks(thing, options, None)


def _checks(thing: Any, options: Mapping[str, Any], expected: Expected | None) -> list[Check]:
    make: Make = functools.partial(build, "sampler", thing, options)
    made = in_order(
        Check("builds", lambda: _builds(thing, make)),
        [
            Check("shapes", lambda: _shapes(make())),
            Check("input untouched", lambda: _input_untouched(make())),
            Check("forbidden tokens", lambda: _forbidden_tokens(make())),
            Check("a token is left", lambda: _a_token_is_left(make())),
            Check("batch order", lambda: _batch_order(make())),
            Check("seeded", lambda: _seeded(make)),
            Check("random state", lambda: _random_state(make)),
            Check("chooses", lambda: _chooses(make())),
            Check("chi-square", lambda: _chi_square(make(), expected)),
        ],
    )
    return undisturbed(made)


def _builds(thing: Any, make: Make) -> str:
    require_reachable(thing)
    sampler = make()
    if not callable(getattr(sampler, "adjust", None)):
        raise Failure("a sampler with adjust(logits, rows)", type(sampler).__name__, "building it")
    return type(sampler).__name__


# --- the cases ---


def _cases(sampler: Sampler, rows: int = ROWS) -> Iterator[tuple[str, Tensor]]:
    """Yield logits [B, V] float64 with what they are called: the fewest tokens first; some of them forbidden.

    A sampler for a vocabulary gets those in which there are tokens beside the specials.
    """
    for size in SIZES[2:] if hasattr(sampler, "for_tokens") else SIZES:
        generator = torch.Generator().manual_seed(size)
        normal = torch.randn(rows, size, generator=generator, dtype=torch.float64)
        yield f"V={size}, random logits", 2 * normal
        yield f"V={size}, equal logits", torch.zeros(rows, size, dtype=torch.float64)
        yield f"V={size}, logits up to 1e4", 1e4 * normal
        if size > 1:
            yield f"V={size}, half of the tokens forbidden", _forbid(2 * normal, size // 2)
            yield f"V={size}, all tokens but one forbidden", _forbid(2 * normal, size - 1)


def _number(sampler: Sampler) -> int:
    return sum(1 for _ in _cases(sampler))


def _forbid(logits: Tensor, number: int) -> Tensor:
    """Forbid `number` tokens in a row, others in each row."""
    places = torch.arange(len(logits))[:, None] + torch.arange(number)
    return logits.scatter(-1, places % logits.shape[-1], -math.inf)


def _rows(number: int, size: int, *, alike: bool = False) -> Rows:
    """Return rows of V = `size` that differ in seed and prompt and, unless they are `alike`, in what they have read."""
    generator = torch.Generator().manual_seed(number)
    seeds = torch.randint(0, 2**62, (number,), generator=generator)
    positions = torch.full((number,), _DRAWN)
    past = torch.randint(0, size, (1 if alike else number, 2 * _DRAWN), generator=generator).expand(number, -1)
    if not alike:
        positions = torch.arange(number) % (_DRAWN + 1)
    places = torch.arange(2 * _DRAWN)
    drawn = past.masked_fill(places >= positions[:, None], -1)[:, :_DRAWN]
    history = past.masked_fill(places >= positions[:, None] + _DRAWN, -1)
    return Rows(seeds, torch.arange(number), positions, _DRAWN + 1 - positions, lambda: drawn, lambda: history)


def _copy(rows: Rows) -> Rows:
    """Return rows of which nothing is shared."""
    return Rows(
        rows.seeds.clone(),
        rows.prompts.clone(),
        rows.positions.clone(),
        rows.left.clone(),
        rows.drawn.clone,
        rows.history.clone,
    )


def _bound(sampler: Sampler, size: int) -> Sampler:
    """Return the sampler for a vocabulary of this size, letters and the specials, if it asks for one."""
    bind = getattr(sampler, "for_tokens", None)
    if bind is None:
        return sampler
    texts = [chr(ord("a") + number) for number in range(size)]
    ids = {text: number for number, text in enumerate(texts[:-2])}
    bound: Sampler = bind(Tokens(texts, size - 2, size - 1, ids, "".join))
    return bound


def _adjust(sampler: Sampler, logits: Tensor, rows: Rows) -> Tensor:
    """Adjust copies: whether it writes to what it is given is one check's concern."""
    return _bound(sampler, logits.shape[-1]).adjust(logits.clone(), _copy(rows))


# --- the checks ---


def _shapes(sampler: Sampler) -> str:
    for case, logits in _cases(sampler):
        adjusted = _adjust(sampler, logits, _rows(ROWS, logits.shape[-1]))
        if not isinstance(adjusted, Tensor) or adjusted.shape != logits.shape or adjusted.dtype != torch.float64:
            what = f"{adjusted.dtype} {list(adjusted.shape)}" if isinstance(adjusted, Tensor) else repr(adjusted)
            raise Failure(f"logits {list(logits.shape)} in float64", what, case)
    return f"kept, and float64, in {_number(sampler)} cases"


def _input_untouched(sampler: Sampler) -> str:
    for case, logits in _cases(sampler):
        rows = _rows(ROWS, logits.shape[-1])
        own, own_rows = logits.clone(), _copy(rows)
        _bound(sampler, logits.shape[-1]).adjust(own, own_rows)
        for name, before, after in (
            ("logits", logits, own),
            *((name, getattr(rows, name), getattr(own_rows, name)) for name in _FACTS),
        ):
            if not torch.equal(before, after):
                first = [int(place) for place in (before != after).nonzero()[0]]
                raise Failure(f"{name} that are not written to", f"another value at {first}", case)
    return f"logits and rows as they were in {_number(sampler)} cases"


def _forbidden_tokens(sampler: Sampler) -> str:
    for case, logits in _cases(sampler):
        adjusted = _adjust(sampler, logits, _rows(ROWS, logits.shape[-1]))
        allowed_again = (logits == -math.inf) & (adjusted != -math.inf)
        if allowed_again.any():
            row, token = allowed_again.nonzero()[0].tolist()
            raise Failure("-inf stays -inf", f"{float(adjusted[row, token]):g} for token {token} of row {row}", case)
    return f"stay forbidden in {_number(sampler)} cases"


def _a_token_is_left(sampler: Sampler) -> str:
    fewest = max(SIZES)
    for case, logits in _cases(sampler):
        adjusted = _adjust(sampler, logits, _rows(ROWS, logits.shape[-1]))
        if wrong := (adjusted.isnan() | (adjusted == math.inf)).nonzero().tolist():
            row, token = wrong[0]
            raise Failure("logits that are finite or -inf", f"{float(adjusted[row, token])} in row {row}", case)
        left = adjusted.isfinite().sum(-1)
        if not left.all() and not getattr(sampler, "first", False):  # what says what may follow may leave nothing
            raise Failure("a token that can be drawn in each row", f"none in row {int(left.argmin())}", case)
        fewest = min(fewest, int(left.min()))
    return f"at least {fewest}, and none not a number"


def _batch_order(sampler: Sampler) -> str:
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    for case, logits in _cases(sampler):
        rows = _rows(ROWS, logits.shape[-1])
        whole = _adjust(sampler, logits, rows)
        _require_equal(whole[order], _adjust(sampler, logits[order], rows.pick(order)), "in another order", case)
        for row in range(ROWS):
            alone = _adjust(sampler, logits[row : row + 1], rows.pick(torch.tensor([row])))
            _require_equal(whole[row : row + 1], alone, "alone in its batch", f"{case}, row {row} of {ROWS}")
    return f"of no consequence, to the bit, in {_number(sampler)} cases"


def _require_equal(expected: Tensor, received: Tensor, what: str, case: str) -> None:
    differs = (expected != received) & ~(expected.isnan() & received.isnan())
    if differs.any():
        row, token = differs.nonzero()[0].tolist()
        first, second = float(expected[row, token]), float(received[row, token])
        raise Failure(f"each row the same {what}", f"{second:.17g} for {first:.17g}, token {token}", case)


def _seeded(make: Make) -> str:
    sampler, other = make(), make()
    for case, logits in _cases(sampler):
        rows = _rows(ROWS, logits.shape[-1])
        first = _adjust(sampler, logits, rows)
        for again, what in ((sampler, "on a second call"), (other, "built anew")):
            _require_equal(first, _adjust(again, logits, rows), what, case)
    return f"the same for the same seeds, prompts and positions, to the bit, in {_number(sampler)} cases"


def _random_state(make: Make) -> str:
    def work() -> list[list[int]]:
        sampler = make()
        cases = ((logits, _rows(ROWS, logits.shape[-1])) for _, logits in _cases(sampler))
        return [draw(_adjust(sampler, logits, rows), rows).tolist() for logits, rows in cases]

    return require_untouched(work, f"{ROWS} rows each of V={', '.join(map(str, SIZES))}")


def _chooses(sampler: Sampler) -> str:
    """A `choose` of its own gives what a draw behind `adjust` does."""
    if getattr(sampler, "choose", None) is None:
        return "draws behind adjust"
    for case, logits in _cases(sampler):
        rows = _rows(ROWS, logits.shape[-1])
        drawn = draw(_adjust(sampler, logits, rows), rows)
        chosen = choose(logits.clone(), _copy(rows), [_bound(sampler, logits.shape[-1])])
        if not torch.equal(drawn, chosen):
            row = int((drawn != chosen).nonzero()[0, 0])
            raise Failure("from choose what a draw behind adjust gives", f"{chosen[row]} for {drawn[row]}", case)
    return f"what a draw behind adjust gives, in {_number(sampler)} cases"


def _chi_square(sampler: Sampler, expected: Expected | None) -> str:
    """Draw many times from each distribution, with other seeds and prompts each time, and count."""
    expected = expected or getattr(sampler, "probabilities", None)
    worst = ""
    highest = 0.0
    for case, logits in _cases(sampler, rows=1):
        rows = _rows(DRAWS, logits.shape[-1], alike=True)
        if expected is None:
            shares = _adjust(sampler, logits, rows.pick(slice(1)))[0].softmax(-1)
        else:
            shares = expected(logits[0].softmax(-1))
        if bool(shares.isnan().all()):  # nothing is left to draw from
            continue
        drawn = draw(_adjust(sampler, logits.repeat(DRAWS, 1), rows), rows)
        statistic, freedom = _statistic(drawn, shares, case)
        limit = critical_value(freedom)
        if freedom and statistic > limit:
            came = torch.bincount(drawn, minlength=len(shares)) / DRAWS
            token = int((came - shares).abs().argmax())
            raise Failure(
                f"a statistic of at most {limit:.1f} ({freedom} degrees of freedom, {DRAWS} draws)",
                f"{statistic:.1f}; token {token} came with {float(came[token]):.4f}, not {float(shares[token]):.4f}",
                case,
            )
        if freedom and statistic / limit >= highest:
            highest = statistic / limit
            worst = f"the highest statistic {statistic:.1f} of at most {limit:.1f} ({case})"
    return f"{_number(sampler)} distributions, {DRAWS} draws each; {worst or 'one token possible in each'}"


def _statistic(drawn: Tensor, shares: Tensor, case: str) -> tuple[float, int]:
    """Return Pearson's statistic of the drawn tokens and its degrees of freedom.

    Raises Failure for shares that are no distribution and for a token drawn that has none.
    """
    if not bool((shares >= 0).all()) or abs(float(shares.sum()) - 1) > 1e-9:
        raise Failure("probabilities that add up to 1", str(float(shares.sum())), case)
    observed = torch.bincount(drawn, minlength=len(shares)).double()
    impossible = observed[shares == 0]
    if impossible.any():
        token = int(((shares == 0) & (observed > 0)).nonzero()[0, 0])
        raise Failure("no token of probability 0", f"token {token}, {int(observed[token])} times", case)
    counts = shares * DRAWS
    rare = counts < LEAST_EXPECTED
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
    if counts[-1] < LEAST_EXPECTED:  # too few even together: with the likeliest
        likeliest = int(counts.argmax())
        counts[likeliest] += counts[-1]
        observed[likeliest] += observed[-1]
        counts, observed = counts[:-1], observed[:-1]
    return float(((observed - counts).square() / counts).sum()), len(counts) - 1


def critical_value(freedom: int) -> float:
    """Return what a chi-square statistic exceeds with probability LEVEL at most (Wilson & Hilferty 1931).

    The approximation is good to a hundredth from 5 degrees of freedom on, and on the safe side below.
    """
    if freedom == 0:
        return 0.0
    quantile = NormalDist().inv_cdf(1 - LEVEL)
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + quantile * math.sqrt(spread)) ** 3
