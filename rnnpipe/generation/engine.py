"""A continuous batch: texts join and leave between two tokens, and a row never depends on its neighbours.

A recurrent network's state has one size however long its text is. So a row is free as soon as its text ends, the next
text takes it at once, and prompts of any length are read beside rows that already draw, a token a row at a time.

Nothing here needs torch: a network of torch and one in ONNX Runtime are run by the same engine.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

ROW_TILE = 8  # rows are rounded up to a multiple: products of fewer run in other kernels, which add in another order
Ints: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]
Likely: TypeAlias = tuple[tuple[int, float], ...]  # ids and log-probabilities, the likeliest first


@dataclass(frozen=True, eq=False)
class Drawing:
    """How tokens are drawn: the samplers, of the network's kind, and the ids that are never drawn.

    likely: how many of the likeliest tokens are told with each token. Rows with the same object are drawn together.
    """

    samplers: tuple[Any, ...] = ()
    banned: tuple[int, ...] = ()
    likely: int = 0


@dataclass(frozen=True)
class Job:
    """A text to draw: `key` is the caller's name for it, `prompt` the ids behind the document's boundary.

    Its random numbers are keyed by `seed`, `number` and the position in the text. It ends with the boundary, or after
    `max_tokens`, at least 1.
    """

    key: Hashable
    prompt: Sequence[int]
    drawing: Drawing
    max_tokens: int
    seed: int = 0
    number: int = 0


@dataclass(frozen=True)
class Drawn:
    """A token of a job, and its log-probability in nats in the network's own distribution, before any sampler.

    finish: why the text ended with it, "document" or "length"; None if it goes on.
    """

    job: Job
    token: int
    log_probability: float
    likely: Likely
    finish: str | None


@dataclass(frozen=True)
class Keys:
    """What keys the random number of each of some rows."""

    seeds: Ints
    numbers: Ints
    positions: Ints


@dataclass(frozen=True)
class Draws:
    """What was drawn for some rows: tokens, their log-probabilities, and the likeliest tokens of each row."""

    tokens: Ints
    log_probabilities: Floats
    likely: Sequence[Likely]


class Network(Protocol):
    """A network that reads one token a row, with a state for each row. A fresh row has read the boundary."""

    boundary: int  # the id that ends a document
    context: int | None  # how many tokens of a prompt it sees; None for all

    def arrange(self, order: Sequence[int]) -> None:
        """Make row i what row order[i] was, or fresh where that is -1; there are len(order) rows from now on."""
        ...

    def read(self, tokens: Ints) -> None:
        """Read one token a row [B]."""
        ...

    def draw(self, rows: Ints, keys: Keys, drawing: Drawing) -> Draws:
        """Return the next token of some rows."""
        ...


@dataclass
class _Row:
    job: Job
    prompt: Sequence[int]
    read: int = 0  # tokens of the prompt
    drawn: int = 0
    ended: bool = False


@dataclass
class Engine:
    """Runs jobs on the rows of one network, `rows` of them at most, and the others wait in order."""

    network: Network
    rows: int
    _waiting: deque[Job] = field(default_factory=deque)
    _running: list[_Row] = field(default_factory=list)

    def add(self, job: Job) -> None:
        """Have a text drawn as soon as a row is free."""
        self._waiting.append(job)

    def cancel(self, keys: Iterable[Hashable]) -> None:
        """Forget jobs: nothing more is heard of them."""
        gone = set(keys)
        self._waiting = deque(job for job in self._waiting if job.key not in gone)
        for row in self._running:
            row.ended = row.ended or row.job.key in gone

    @property
    def waiting(self) -> int:
        """Return how many jobs have no row yet."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """Return how many more jobs would get a row with the next step."""
        return self.rows - self.running - self.waiting

    @property
    def running(self) -> int:
        """Return how many jobs have a row."""
        return sum(not row.ended for row in self._running)

    def step(self) -> list[Drawn]:
        """Draw a token for each row whose prompt is read, and read one token in each; return what was drawn."""
        self._take_places()
        tokens: Ints = np.zeros(len(self._running), np.int64)  # a row that has ended reads anything once more
        ready: dict[Drawing, list[int]] = {}
        for place, row in enumerate(self._running):
            if row.read < len(row.prompt):
                tokens[place] = row.prompt[row.read]
                row.read += 1
            else:
                ready.setdefault(row.job.drawing, []).append(place)
        drawn = [event for drawing, places in ready.items() for event in self._draw(places, drawing, tokens)]
        if not all(row.ended for row in self._running):
            self.network.read(tokens)
        return drawn

    def _draw(self, places: list[int], drawing: Drawing, tokens: Ints) -> list[Drawn]:
        rows = [self._running[place] for place in places]
        keys = Keys(
            np.array([row.job.seed for row in rows], np.int64),
            np.array([row.job.number for row in rows], np.int64),
            np.array([row.drawn for row in rows], np.int64),
        )
        draws = self.network.draw(np.array(places, np.int64), keys, drawing)
        tokens[places] = draws.tokens
        found = zip(rows, draws.tokens.tolist(), draws.log_probabilities.tolist(), draws.likely, strict=True)
        return [self._note(row, token, score, likely) for row, token, score, likely in found]

    def _note(self, row: _Row, token: int, log_probability: float, likely: Likely) -> Drawn:
        row.drawn += 1
        finish = "document" if token == self.network.boundary else None
        if finish is None and row.drawn >= row.job.max_tokens:
            finish = "length"
        row.ended = finish is not None
        return Drawn(row.job, token, log_probability, likely, finish)

    def _take_places(self) -> None:
        """Give the places of texts that have ended to those that wait, then close the gaps with the last rows."""
        order = list(range(len(self._running)))
        free = [place for place in order if self._running[place].ended]
        while self._waiting and (free or len(order) < self.rows):
            if not free:
                free.append(len(order))
                order.append(-1)
            place = free.pop(0)
            order[place] = -1
            self._running[place : place + 1] = [self._begin(self._waiting.popleft())]
        for place in free:
            while order and self._running[-1].ended:
                order.pop()
                self._running.pop()
            if place >= len(order):
                break
            order[place] = order.pop()
            self._running[place] = self._running.pop()
        if order != list(range(len(order))) or len(free):
            self.network.arrange(order)

    def _begin(self, job: Job) -> _Row:
        context = self.network.context
        return _Row(job, job.prompt if context is None else job.prompt[-context:])
