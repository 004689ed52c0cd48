"""One engine for many clients: a thread runs it, and what it tells comes back to the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from rnnpipe.generation.engine import NOTHING, Drawing, Drawn, Draws, Engine, Facts, Finished, Ints, Job, Network
from rnnpipe.serving.limits import Refusal

COALESCED_SECONDS = 0.05  # tokens are told together that long, but a text's first token and its end at once


@dataclass(frozen=True)
class Failed:
    """A job does not come to an end: its sampler or the engine has failed."""

    reason: str


Told: TypeAlias = Drawn | Finished | Failed


class Delivery:
    """What is told of the jobs of one request, each known by its place among them. Used in the event loop only."""

    def __init__(self) -> None:
        self._told: list[tuple[int, Told]] = []
        self._changed = asyncio.Event()

    def put(self, place: int, told: Iterable[Told]) -> None:
        """Add what was told of a job."""
        self._told += [(place, each) for each in told]
        self._changed.set()

    async def more(self) -> list[tuple[int, Told]]:
        """Wait until something was told; return all of it, in order."""
        await self._changed.wait()
        self._changed.clear()
        told, self._told = self._told, []
        return told


@dataclass(eq=False)
class Ticket:
    """A job on its way: where what is told of it goes, and, in the engine's thread, what is still held back."""

    job: Job
    delivery: Delivery
    place: int
    arrived: float = field(default_factory=time.monotonic)
    noted: bool = False
    held: list[Told] = field(default_factory=list)
    begun: bool = False


class GuardedNetwork:
    """A network in which a sampler that fails ends the texts that it draws, and no others.

    failures: why, by the drawing.
    """

    def __init__(self, network: Network) -> None:
        self.boundary = network.boundary
        self.context = network.context
        self.tile = network.tile
        self.failures: WeakKeyDictionary[Drawing, str] = WeakKeyDictionary()
        self._network = network

    def arrange(self, order: Ints) -> None:
        """Arrange rows."""
        self._network.arrange(order)

    def read(self, tokens: Ints) -> None:
        """Read one token a row."""
        self._network.read(tokens)

    def read_ahead(self, rows: Ints, pieces: Callable[[], Ints]) -> bool:
        """Read pieces of prompts, where that saves time."""
        return self._network.read_ahead(rows, pieces)

    def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
        """Return the next token of some rows, none where that fails."""
        try:
            return self._network.draw(rows, facts, drawing)
        except Exception as error:  # whatever a plugin's sampler raises
            self.failures[drawing] = f"{type(error).__name__}: {error}"
            return Draws(np.full(len(rows), NOTHING), np.full(len(rows), np.nan))


class SharedBatch:
    """Runs jobs of any number of requests on one engine; they join and leave between two tokens.

    `submit` and `drop` are for the event loop in which it was made. noted: told, there, of each ticket's first token
    and end, for figures.
    """

    def __init__(self, engine: Engine, most_waiting: int, noted: Callable[[Ticket, Told], None]) -> None:
        self.engine = engine
        self.engine.network = self._network = GuardedNetwork(engine.network)
        self.failure: str | None = None
        self.steps = 0
        self._most = engine.rows + most_waiting
        self._noted = noted
        self._loop = asyncio.get_running_loop()
        self._tickets: set[Ticket] = set()  # of the event loop
        self._changed = threading.Condition()
        self._new: list[Ticket] = []
        self._gone: list[Ticket] = []
        self._ending = False
        self._told_at = 0.0
        self._holding: set[Ticket] = set()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def texts(self) -> int:
        """Return how many texts are on their way, with a row or without."""
        return len(self._tickets)

    def submit(self, jobs: Sequence[Job]) -> tuple[list[Ticket], Delivery]:
        """Have jobs run; raise Refusal (503) if more would wait than may."""
        if self.failure:
            raise Refusal(503, f"the engine has failed: {self.failure}")
        if len(self._tickets) + len(jobs) > self._most:
            raise Refusal(503, f"{self.texts:,} texts are on their way, as many as this server takes; try again later.")
        delivery = Delivery()
        tickets = [Ticket(job, delivery, place) for place, job in enumerate(jobs)]
        self._tickets.update(tickets)
        with self._changed:
            self._new += tickets
            self._changed.notify()
        return tickets, delivery

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Forget those of some jobs that have not ended: nobody waits for them any more."""
        gone = [ticket for ticket in tickets if ticket in self._tickets]
        if gone:
            self._tickets.difference_update(gone)
            with self._changed:
                self._gone += gone
                self._changed.notify()

    def close(self) -> None:
        """End the thread, whatever still runs."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    # --- the thread ---

    def _run(self) -> None:
        try:
            while self._take():
                told = self.engine.step()
                self.steps += 1
                self._tell(told)
        except Exception as error:  # whatever a plugin's sampler or cell raises: every client must hear of it
            failure = f"{type(error).__name__}: {error}"
            self._loop.call_soon_threadsafe(self._fail, failure)
            raise

    def _take(self) -> bool:
        """Wait until there is something to run; give the engine what is new. Return False to end."""
        engine = self.engine
        with self._changed:
            while not (self._ending or self._new or self._gone or engine.running or engine.waiting):
                self._changed.wait()
            new, self._new = self._new, []
            gone, self._gone = self._gone, []
        for ticket in new:
            engine.add(replace(ticket.job, key=ticket))
        if gone:
            engine.cancel(gone)
            self._holding.difference_update(gone)
        return not self._ending

    def _tell(self, told: Iterable[Drawn | Finished]) -> None:
        due = set()
        for event in told:
            ticket: Ticket = event.job.key
            ticket.held.append(event)
            if not ticket.begun or isinstance(event, Finished):
                ticket.begun = True
                due.add(ticket)
            else:
                self._holding.add(ticket)
        now = time.monotonic()
        if self._holding and now - self._told_at >= COALESCED_SECONDS:
            due |= self._holding
            self._told_at = now
        if not due:
            return
        self._holding -= due
        parcels = [(ticket, ticket.held) for ticket in due]
        for ticket in due:
            ticket.held = []
        self._loop.call_soon_threadsafe(self._deliver, parcels)

    # --- the event loop ---

    def _deliver(self, parcels: Sequence[tuple[Ticket, list[Told]]]) -> None:
        for ticket, told in parcels:
            if ticket not in self._tickets:
                continue
            for event in told:
                self._noted(ticket, event)
            if isinstance(end := told[-1], Finished):
                self._tickets.discard(ticket)
                told[-1] = self._end(end, ticket)
            ticket.delivery.put(ticket.place, told)

    def _end(self, end: Finished, ticket: Ticket) -> Told:
        """Return the end of a job, with the job as it was given: the engine knew it by the ticket."""
        failure = self._network.failures.get(ticket.job.drawing)
        return replace(end, job=ticket.job) if failure is None else Failed(f"a sampler has failed: {failure}")

    def _fail(self, failure: str) -> None:
        self.failure = failure
        for ticket in self._tickets:
            ticket.delivery.put(ticket.place, [Failed(f"the engine has failed: {failure}")])
        self._tickets.clear()
