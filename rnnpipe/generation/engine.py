"""A continuous batch: texts join and leave between two tokens, and a row never depends on its neighbours.

A recurrent network's state has one size however long its text is. So a row is free as soon as its text ends, the next
text takes it at once, and prompts of any length are read beside rows that already draw, a token a row at a time; or in
pieces ahead of them, where a network does that faster and to the same bits.

Nothing here needs torch: a network of torch and one in ONNX Runtime are run by the same engine. What is known of the
rows lies in arrays: at a thousand rows an object for each row and token would take as long as the network.

Shapes: N rows, B some of them, L tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

BATCH_ROWS = 1024  # of an engine, where nobody asks for another number
NOTHING = -1  # in the place of a token where there is none: behind a row's last, or drawn where none is allowed
PIECE = 16  # tokens of a prompt that a network may read at once
_AHEAD = 1024  # tokens that are read ahead in a step, about: nobody who draws waits long for those who read
_CHUNK = 256  # tokens of a row that are kept beside those of the others; what is longer is cut off in such pieces
_CROWDED = 7 / 8  # the rows are moved together when fewer than this share of them is in use

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Likely: TypeAlias = tuple[tuple[int, float], ...]  # ids and log-probabilities, the likeliest first
Finish = Literal["document", "length", "stop", "none allowed"]
Stop: TypeAlias = Callable[[Ints], bool]


@dataclass(frozen=True, eq=False)
class Drawing:
    """How tokens are drawn: the samplers, of the network's kind, and the ids that are never drawn.

    likely: how many of the likeliest tokens are told with each token. Rows with the same object are drawn together.
    """

    samplers: tuple[Any, ...] = ()
    banned: tuple[int, ...] = ()
    likely: int = 0


@dataclass(frozen=True, eq=False)
class Job:
    """A text to draw: `key` is whatever the caller knows it by, `prompt` the ids behind the document's boundary.

    Its random numbers are keyed by `seed`, `number` and the position in the text. It ends with the boundary, after
    `max_tokens`, at least 1, or where `stop` says so of the tokens drawn so far. follow: each token is told as it is
    drawn, not only all of them at the end.
    """

    key: Any
    prompt: Sequence[int] | Ints
    drawing: Drawing
    max_tokens: int
    seed: int = 0
    number: int = 0
    stop: Stop | None = None
    follow: bool = False


@dataclass(frozen=True)
class Drawn:
    """A token of a job that is followed, and its log-probability in nats in the network's own distribution."""

    job: Job
    token: int
    log_probability: float
    likely: Likely


@dataclass(frozen=True)
class Finished:
    """All tokens of a job, the boundary that ended it included, and their log-probabilities in nats.

    The log-probabilities are those of the network's own distribution, before any sampler. finish: "document" (the
    boundary was drawn), "length", "stop", or "none allowed" if the samplers left no token to go on with.
    """

    job: Job
    tokens: Ints
    log_probabilities: Floats
    finish: Finish


@dataclass(frozen=True)
class Facts:
    """What is known of some rows: what keys their random numbers, how many tokens they may still draw, and the past.

    drawn, history: functions, since few samplers look back. They return ids [B, L], NOTHING behind each row's last:
    those drawn so far; the prompt's and then those drawn.
    """

    seeds: Ints
    numbers: Ints
    positions: Ints
    left: Ints
    drawn: Callable[[], Ints]
    history: Callable[[], Ints]


@dataclass(frozen=True)
class Draws:
    """What was drawn for some rows: tokens, their log-probabilities, and the likeliest tokens of each row if asked."""

    tokens: Ints
    log_probabilities: Floats
    likely: Sequence[Likely] | None = None


class Network(Protocol):
    """A network that reads one token a row, with a memory for each row. A fresh row has read the boundary."""

    boundary: int  # the id that ends a document
    context: int | None  # how many tokens of a prompt it sees; None for all
    tile: int  # it computes a multiple of so many rows, whatever is asked

    def arrange(self, order: Ints) -> None:
        """Make row i what row order[i] was, or fresh where that is -1; there are len(order) rows from now on."""
        ...

    def read(self, tokens: Ints) -> None:
        """Read one token a row [N]."""
        ...

    def read_ahead(self, rows: Ints, pieces: Callable[[], Ints]) -> bool:
        """Read `PIECE` tokens, [B, PIECE] together, in some rows, given in ascending order, and nothing in the others.

        Return False, with nothing read and `pieces` not called, where `read` would be as fast, or leave other bits.
        """
        ...

    def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
        """Return the next token of some rows, given in ascending order."""
        ...


class Engine:
    """Runs jobs on the rows of one network, `rows` of them at most, and the others wait in order."""

    def __init__(self, network: Network, rows: int) -> None:
        self.network = network
        self.rows = rows
        self._waiting: deque[Job] = deque()
        self._used = 0  # the network has so many rows, some of which may have ended
        self._jobs: dict[int, Job] = {}  # by row; one that has ended keeps its own until the next
        self._prompts: list[Ints] = [np.zeros(0, np.int64)] * rows
        self._unread = np.zeros(rows, np.int64)  # tokens of the prompt
        self._running = np.zeros(rows, bool)
        self._seeds, self._numbers, self._positions, self._limits = np.zeros((4, rows), np.int64)
        self._groups = np.zeros(rows, np.int64)  # rows of one group have the same drawing
        self._watched = np.zeros(rows, bool)  # something is to be done at each token
        self._drawn = np.full((rows, _CHUNK), NOTHING, np.int64)  # since the last whole chunk
        self._scores = np.zeros((rows, _CHUNK))
        self._chunks: list[list[tuple[Ints, Floats]]] = [[] for _ in range(rows)]

    def add(self, job: Job) -> None:
        """Have a text drawn as soon as a row is free."""
        self._waiting.append(job)

    def cancel(self, keys: Iterable[Hashable]) -> None:
        """Forget jobs: nothing more is heard of them."""
        gone = set(keys)
        self._waiting = deque(job for job in self._waiting if job.key not in gone)
        for row in np.flatnonzero(self._running).tolist():
            self._running[row] = self._jobs[row].key not in gone

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
        return int(self._running.sum())

    def step(self) -> list[Drawn | Finished]:
        """Draw a token for each row whose prompt is read, and read one token in each; return what is to be told."""
        self._take_rows()
        self._read_ahead()
        running, unread = self._running[: self._used], self._unread[: self._used]
        tokens: Ints = np.zeros(self._used, np.int64)  # a row that has ended reads anything once more
        reading = np.flatnonzero(running & (unread > 0))
        tokens[reading] = [self._prompts[row][-left] for row, left in zip(reading, unread[reading], strict=True)]
        ready = np.flatnonzero(running & (unread == 0))
        unread[reading] -= 1
        told = [event for rows, drawing in self._by_drawing(ready) for event in self._draw(rows, drawing, tokens)]
        if running.any():
            self.network.read(tokens)
        return told

    def _read_ahead(self) -> None:
        """Read pieces of long prompts, apart from the other rows, as far as the network finds that faster."""
        unread, read = self._unread[: self._used], 0
        while read < _AHEAD:
            rows = np.flatnonzero(self._running[: self._used] & (unread >= PIECE))
            if not len(rows):
                return
            if not self.network.read_ahead(rows, functools.partial(self._pieces, rows)):
                return
            unread[rows] -= PIECE
            read += self._tiles(len(rows)) * self.network.tile * PIECE

    def _pieces(self, rows: Ints) -> Ints:
        """Return the next tokens of some rows' prompts, [B, PIECE]."""
        starts = [len(self._prompts[row]) - self._unread[row] for row in rows]
        return np.stack([self._prompts[row][start : start + PIECE] for row, start in zip(rows, starts, strict=True)])

    def _by_drawing(self, rows: Ints) -> Iterator[tuple[Ints, Drawing]]:
        """Yield the rows of each drawing, which are drawn together."""
        groups = self._groups[rows]
        for group in set(groups.tolist()):
            found = rows[groups == group]
            yield found, self._jobs[found[0]].drawing

    def _draw(self, rows: Ints, drawing: Drawing, tokens: Ints) -> list[Drawn | Finished]:
        at = self._positions[rows]
        draws = self.network.draw(rows, self._facts(rows), drawing)
        self._keep(rows, at, draws)
        tokens[rows] = np.maximum(draws.tokens, 0)
        ended = (draws.tokens == self.network.boundary) | (draws.tokens == NOTHING) | (at + 1 >= self._limits[rows])
        told: list[Drawn | Finished] = []
        for index in np.flatnonzero(ended | self._watched[rows]).tolist():
            job, token = self._jobs[rows[index]], int(draws.tokens[index])
            if job.follow and token != NOTHING:
                likely = draws.likely[index] if draws.likely else ()
                told.append(Drawn(job, token, float(draws.log_probabilities[index]), likely))
            told += self._end(rows[index], job, token, ended[index])
        return told

    def _keep(self, rows: Ints, at: Ints, draws: Draws) -> None:
        self._drawn[rows, at % _CHUNK] = draws.tokens
        self._scores[rows, at % _CHUNK] = draws.log_probabilities
        self._positions[rows] = at + (draws.tokens != NOTHING)
        for row in rows[at % _CHUNK == _CHUNK - 1]:
            if self._positions[row] % _CHUNK == 0:
                self._chunks[row].append((self._drawn[row].copy(), self._scores[row].copy()))
                self._drawn[row] = NOTHING

    def _past(self, row: int) -> tuple[Ints, Floats]:
        """Return the tokens that a row has drawn, and their log-probabilities."""
        count = self._positions[row] % _CHUNK
        recent = (self._drawn[row, :count], self._scores[row, :count])
        if not self._chunks[row]:
            return recent
        tokens, scores = zip(*self._chunks[row], recent, strict=True)
        return np.concatenate(tokens), np.concatenate(scores)

    def _end(self, row: int, job: Job, token: int, ended: bool) -> Iterator[Finished]:
        """Yield a job's end, if it ends with this token."""
        drawn, scores = self._past(row)
        finish: Finish = "length"
        if token in (NOTHING, self.network.boundary):
            finish = "none allowed" if token == NOTHING else "document"
        elif job.stop is not None and job.stop(drawn):
            finish = "stop"
        elif not ended:
            return
        self._running[row] = False
        yield Finished(job, drawn.copy(), scores.copy(), finish)

    def _facts(self, rows: Ints) -> Facts:
        positions = self._positions[rows]

        def drawn() -> Ints:
            longest = int(positions.max())
            return self._drawn[rows, :longest] if longest < _CHUNK else _padded([self._past(row)[0] for row in rows])

        def history() -> Ints:
            return _padded([np.concatenate((self._prompts[row], self._past(row)[0])) for row in rows])

        return Facts(self._seeds[rows], self._numbers[rows], positions, self._limits[rows] - positions, drawn, history)

    def _take_rows(self) -> None:
        """Give the rows of texts that have ended to those that wait; where none wait, move the others together."""
        free = deque(np.flatnonzero(~self._running[: self._used]).tolist())
        order = np.arange(self._used)
        added: list[int] = []
        while self._waiting and (free or self._used + len(added) < self.rows):
            if free:
                order[row := free.popleft()] = -1
            else:
                added.append(-1)
                row = self._used + len(added) - 1
            self._begin(row, self._waiting.popleft())
        if added or -1 in order:
            self.network.arrange(np.concatenate((order, added)).astype(np.int64))
            self._used += len(added)
        elif self._tiles(self._used - len(free)) < _CROWDED * self._tiles(self._used):
            self._move_together()

    def _tiles(self, rows: int) -> int:
        return -(-rows // self.network.tile)

    def _begin(self, row: int, job: Job) -> None:
        context = self.network.context
        prompt = np.asarray(job.prompt, np.int64)
        self._prompts[row] = prompt if context is None else prompt[-context:]
        self._jobs[row], self._running[row] = job, True
        self._unread[row], self._positions[row], self._limits[row] = len(self._prompts[row]), 0, job.max_tokens
        self._seeds[row], self._numbers[row] = job.seed, job.number
        self._drawn[row], self._chunks[row] = NOTHING, []
        self._groups[row] = id(job.drawing)
        self._watched[row] = job.follow or job.stop is not None

    def _move_together(self) -> None:
        order = np.flatnonzero(self._running)
        self.network.arrange(order)
        self._used = len(order)
        for facts in (
            self._unread, self._running, self._seeds, self._numbers, self._positions, self._limits, self._groups,
            self._watched, self._drawn, self._scores,
        ):  # fmt: skip
            facts[: len(order)] = facts[order]
        self._running[len(order) :] = False
        self._jobs = {place: self._jobs[row] for place, row in enumerate(order.tolist())}
        self._prompts[: len(order)] = [self._prompts[row] for row in order]
        self._chunks[: len(order)] = [self._chunks[row] for row in order]


def _padded(rows: Sequence[Ints]) -> Ints:
    """Return rows of ids as one array, NOTHING behind each one's last."""
    found = np.full((len(rows), max(map(len, rows))), NOTHING, np.int64)
    for row, ids in zip(found, rows, strict=True):
        row[: len(ids)] = ids
    return found
