"""Samplers that hold a text to a regular expression over its characters, or to a beginning.

Shapes: B rows, V vocabulary, S states, L tokens.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnpipe.errors import UsageError
from rnnpipe.generation.engine import NOTHING, Ints
from rnnpipe.generation.regex import DEAD, Automaton, compile_regex, escape
from rnnpipe.generation.samplers import Rows
from rnnpipe.generation.tokens import Tokens

_MOST_CELLS = 1 << 26  # of a table of states and tokens: 512 MB
_CHUNK = 512  # tokens
_MOST_KNOWN = 1 << 14
_NEVER = 1 << 40  # tokens to the end of a text that cannot end


@dataclass(frozen=True)
class _Walk:
    """How tokens move between states: the state behind each state and token [S, V], and how far an end then is.

    A text begins in the last state. cost: tokens that are still needed behind a token until the text may end, [S, V].
    ends: where the text may end, [S]. least: tokens of the shortest text.
    """

    table: Tensor
    cost: Tensor
    ends: Tensor
    boundary: int
    least: int

    def on(self, device: torch.device) -> _Walk:
        """Return the walk on a device."""
        if self.table.device == device:
            return self
        return replace(self, table=self.table.to(device), cost=self.cost.to(device), ends=self.ends.to(device))

    def follow(self, states: Tensor, drawn: Tensor) -> Tensor:
        """Return the states [B] behind tokens [B, L], NOTHING behind each row's last."""
        for tokens in drawn.unbind(1):
            states = torch.where(tokens < 0, states, self.table[states, tokens.clamp(min=0)])
        return states


class Pattern:
    """The whole text matches a regular expression (`rnnpipe.generation.regex` says which are read).

    A token is allowed if the text can still come to match, and within the tokens that are left (Willard & Louf 2023,
    arXiv:2307.09702); the document ends only where the text matches.
    """

    first = True

    def __init__(self, regex: str) -> None:
        self.regex = regex
        self.least = 0
        self.settled: int | None = None  # behind so many tokens the state stays as it is
        self._walk: _Walk | None = None
        self._known: dict[bytes, int] = {}  # states behind whole chunks, by the digest of all tokens up to there

    def for_tokens(self, tokens: Tokens) -> Pattern:
        """Return the sampler for a vocabulary; raise UsageError if no text of its tokens matches."""
        bound = copy.copy(self)
        bound._known = {}
        bound._walk = _walk(self.regex, tokens, str(self))
        bound.least = bound._walk.least
        return bound

    def __str__(self) -> str:
        return f"pattern {self.regex!r}"

    def adjust(self, logits: Tensor, rows: Rows) -> Tensor:
        """Forbid what cannot come to match."""
        if self._walk is None:
            return logits
        self._walk = walk = self._walk.on(logits.device)
        states = self._states(walk, rows.drawn[:, : self.settled])
        allowed = walk.cost[states] < rows.left[:, None]
        allowed[:, walk.boundary] = walk.ends[states]
        return logits.masked_fill(~allowed, -math.inf)

    def _states(self, walk: _Walk, drawn: Tensor) -> Tensor:
        """Return the state behind each row of tokens [B, L]; a long text is walked from its last whole chunk."""
        counts = (drawn >= 0).sum(1)
        whole = counts // _CHUNK * _CHUNK
        states = drawn.new_full((len(drawn),), len(walk.table) - 1)
        for row in whole.nonzero()[:, 0].tolist():
            states[row] = self._behind(walk, drawn[row, : whole[row]])
        places = whole[:, None] + torch.arange(min(_CHUNK, drawn.shape[1]), device=drawn.device)
        rest = drawn.gather(1, places.clamp(max=drawn.shape[1] - 1)).masked_fill(places >= counts[:, None], NOTHING)
        return walk.follow(states, rest)

    def _behind(self, walk: _Walk, drawn: Tensor) -> int:
        """Return the state behind whole chunks of tokens [L]."""
        ids = drawn.cpu().numpy()
        end = len(ids)
        while end and _digest(ids[:end]) not in self._known:
            end -= _CHUNK
        state = self._known[_digest(ids[:end])] if end else len(walk.table) - 1
        for chunk in drawn[end:].view(-1, _CHUNK):
            end += _CHUNK
            state = int(walk.follow(chunk.new_tensor([state]), chunk[None]))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[_digest(ids[:end])] = state
        return state


class Prefix(Pattern):
    """The text begins with a given one, and goes on freely."""

    def __init__(self, text: str) -> None:
        super().__init__(escape(text) + r"(?:.|\n)*")
        self.text = text
        self.settled = len(text)  # a token has a character at least

    def __str__(self) -> str:
        return f"prefix {self.text!r}"


def _digest(ids: Ints) -> bytes:
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()


def _walk(regex: str, tokens: Tokens, what: str) -> _Walk:
    between = tokens.between
    if between is None:
        raise UsageError(f"{what}: the run's tokenizer does not put the same between any two tokens, which this needs.")
    texts = ["" if n in (tokens.boundary, tokens.unknown) else text for n, text in enumerate(tokens.texts)]
    automaton = compile_regex(regex, set("".join(texts)) | set(between))
    table = _by_token(automaton, texts, between)
    ends = np.append(automaton.accepting, automaton.accepting[0])
    table[:, [tokens.boundary, tokens.unknown]] = DEAD
    distance = _to_the_end(table, ends)
    cost = np.where(table == DEAD, _NEVER, distance[table])
    if distance[-1] >= _NEVER:
        raise UsageError(f"{what}: no text of this run's tokens can match it.")
    moves = torch.from_numpy(np.maximum(table, 0))
    return _Walk(moves, torch.from_numpy(cost), torch.from_numpy(ends), tokens.boundary, int(distance[-1]))


def _by_token(automaton: Automaton, texts: list[str], between: str) -> Ints:
    """Return the state behind each state and token [S + 1, V]; in the last row a text begins."""
    states, width = len(automaton.table), max(map(len, texts), default=0)
    if (states + 1) * len(texts) > _MOST_CELLS:
        raise UsageError(f"the pattern has {states} states, too many for {len(texts)} tokens; make it simpler.")
    # Behind its end a token leaves the state as it is: one more column. Once dead, a text stays dead: one more row.
    stay = np.arange(states + 1)[:, None]
    stay[-1] = DEAD
    moves = np.concatenate((np.concatenate((automaton.table, np.full((1, automaton.table.shape[1]), DEAD))), stay), 1)
    columns = np.full((len(texts), width), moves.shape[1] - 1)
    for number, text in enumerate(texts):
        columns[number, : len(text)] = [automaton.characters[character] for character in text]
    behind: Any = np.arange(states)
    for character in between:
        behind = moves[behind, automaton.characters[character]]
    found = np.repeat(np.append(behind, 0)[:, None], len(texts), 1)
    for column in columns.T:
        found = moves[found, column]
    return found


def _to_the_end(table: Ints, ends: np.ndarray[Any, np.dtype[np.bool_]]) -> Ints:
    """Return how many tokens each state is from one where a text may end, _NEVER if there is none."""
    before: list[list[int]] = [[] for _ in table]
    for state, row in enumerate(table):
        for target in np.unique(row[row != DEAD]).tolist():
            before[target].append(state)
    distance = np.full(len(table), _NEVER)
    distance[ends] = 0
    waiting = np.flatnonzero(ends).tolist()
    for state in waiting:  # it grows on the way
        for other in before[state]:
            if distance[other] == _NEVER:
                distance[other] = distance[state] + 1
                waiting.append(other)
    return distance
