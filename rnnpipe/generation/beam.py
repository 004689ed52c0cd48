"""Beam search over anything that reads a token a row and gives the logits of the next.

Shapes: B rows, K beams of each, N = B * K, V vocabulary, L tokens so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

# Nested tuples of tensors, each with the rows as its first axis.
BeamState: TypeAlias = Any
# From one token a row [N] and the state to logits [N, V], a mark of each row's step [N] or None, and the state behind.
Step: TypeAlias = Callable[[Tensor, BeamState], tuple[Tensor, Tensor | None, BeamState]]


@dataclass(frozen=True)
class Hypothesis:
    """A way to go on: its tokens without the end, its log-probability in nats (the end's included, if it ended).

    score: what hypotheses are ranked by, the log-probability over length^alpha; one that was cut is ranked as if it
    ended there. marks: what the step gave beside the logits of each token, if anything.
    ended: by the end token; otherwise cut at the limit, where another token was likelier than the end.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool
    marks: tuple[int, ...]


@dataclass
class _Beams:
    """The hypotheses that go on: scores [B, K] in nats, tokens and marks [B, K, L]."""

    scores: Tensor
    tokens: Tensor
    marks: Tensor


def beam_search(
    step: Step,
    state: BeamState,
    rows: int,
    *,
    width: int,
    end: int,
    max_length: int,
    alpha: float = 1.0,
    banned: Sequence[int] = (),
    device: torch.device,
) -> list[list[Hypothesis]]:
    """Return the best hypotheses of each row, at most `width`, best first; every row begins by reading `end`.

    A row is done once `width` hypotheses have ended, at `max_length` tokens otherwise; it then leaves the batch. Of
    those that have come to the limit, the ones whose likeliest next token is the end have ended, the others are cut.
    Width 1 is greedy search. alpha: the exponent of the length, the end counted, by which log-probabilities are divided
    (0: not at all). Scores are added in float64, so that they do not depend on their order.
    """
    ended: list[list[Hypothesis]] = [[] for _ in range(rows)]
    alive = torch.arange(rows, device=device)
    state = take_rows(state, alive.repeat_interleave(width))
    scores = torch.full((rows, width), -math.inf, dtype=torch.float64, device=device)
    scores[:, 0] = 0.0  # the beams are equal as yet: one of them may be chosen from
    nothing = torch.zeros(rows, width, 0, dtype=torch.int64, device=device)
    beams = _Beams(scores, nothing, nothing)
    last = torch.full((rows * width,), end, device=device)
    for length in range(1, max_length + 2):
        logits, marks, state = step(last, state)
        shares = logits.double().log_softmax(-1)
        shares[:, list(banned)] = -math.inf
        if length > max_length:  # only an end has room
            ends = shares[:, end]
            likeliest = ends >= shares.amax(-1)
            _close(beams, ends.view(-1, width), likeliest.view(-1, width), alive.tolist(), ended, length, alpha)
            break
        count = len(alive)
        totals = (beams.scores.view(-1, 1) + shares).view(count, -1)
        best, places = totals.topk(min(2 * width, totals.shape[1]), -1)
        vocabulary = shares.shape[1]
        parents, tokens = places // vocabulary, places % vocabulary
        finishes = (tokens == end) & (best > -math.inf)
        # Ends among the best `width` are taken; behind them there are as many candidates that go on.
        _collect(beams, best, parents, finishes[:, :width], alive.tolist(), ended, length, alpha)
        scores, order = best.masked_fill(finishes, -math.inf).topk(width, -1)
        going = torch.tensor([len(ended[row]) < width for row in alive.tolist()], device=device)
        kept = going.nonzero()[:, 0]
        if not len(kept):
            break
        parents, tokens = parents.gather(1, order)[kept], tokens.gather(1, order)[kept]
        flat = (kept[:, None] * width + parents).flatten()
        state = take_rows(state, flat)
        mark = torch.zeros_like(flat) if marks is None else marks.index_select(0, flat)
        beams = _Beams(
            scores[kept],
            torch.cat((_follow(beams.tokens[kept], parents), tokens[..., None]), -1),
            torch.cat((_follow(beams.marks[kept], parents), mark.view(-1, width, 1)), -1),
        )
        alive, last = alive[kept], tokens.flatten()
    return [sorted(found, key=lambda each: (-each.score, each.tokens))[:width] for found in ended]


def take_rows(state: BeamState, rows: Tensor) -> BeamState:
    """Return a state with these rows, as often as they are named."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    return tuple(take_rows(leaf, rows) for leaf in state)


def _follow(history: Tensor, parents: Tensor) -> Tensor:
    """Return the histories [B, K, L] of the beams that others, [B, K], go on from."""
    return history.gather(1, parents[..., None].expand(-1, -1, history.shape[2]))


def _collect(
    beams: _Beams,
    best: Tensor,
    parents: Tensor,
    finishes: Tensor,
    alive: Sequence[int],
    ended: list[list[Hypothesis]],
    length: int,
    alpha: float,
) -> None:
    """Note the hypotheses that end here."""
    for row, rank in finishes.nonzero().tolist():
        if len(ended[alive[row]]) == finishes.shape[1]:
            continue
        parent, total = int(parents[row, rank]), float(best[row, rank])
        ended[alive[row]].append(_hypothesis(beams, row, parent, total, total / length**alpha, True))


def _close(
    beams: _Beams,
    ends: Tensor,
    likeliest: Tensor,
    alive: Sequence[int],
    ended: list[list[Hypothesis]],
    length: int,
    alpha: float,
) -> None:
    """Note the hypotheses that have come to the limit, ranked with their ends, log-probabilities [B, K].

    likeliest: [B, K], where the end is the likeliest next token: there a hypothesis has ended.
    """
    for row, number in enumerate(alive):
        for beam, total in enumerate(beams.scores[row].tolist()):
            if total > -math.inf:
                whole, ends_here = total + float(ends[row, beam]), bool(likeliest[row, beam])
                found = _hypothesis(beams, row, beam, whole if ends_here else total, whole / length**alpha, ends_here)
                ended[number].append(found)


def _hypothesis(beams: _Beams, row: int, beam: int, total: float, score: float, ended: bool) -> Hypothesis:
    return Hypothesis(
        tuple(beams.tokens[row, beam].tolist()), total, score, ended, tuple(beams.marks[row, beam].tolist())
    )
