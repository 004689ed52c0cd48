"""What is served: texts become jobs of one batch that all requests share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from rnnpipe.generation.engine import Drawing, Drawn, Finished, Job
from rnnpipe.generation.prompts import Prompt, prompt_job
from rnnpipe.generation.read import Scoring, predict_job
from rnnpipe.pipeline.manners import Manners
from rnnpipe.pipeline.reading import Opened
from rnnpipe.serving.completions import Wanted
from rnnpipe.serving.limits import Limits, Refusal
from rnnpipe.serving.metrics import Metrics, resident_bytes
from rnnpipe.serving.shared import Delivery, Failed, SharedBatch, Ticket, Told

T = TypeVar("T")


class Service:
    """What the routes share: the model, the batch, the figures. `start` and `stop` are called in the event loop."""

    def __init__(self, opened: Opened, name: str, rows: int, limits: Limits) -> None:
        self.opened = opened
        self.name = name
        self.limits = limits
        self.metrics = Metrics()
        self.made = int(time.time())
        self.reader = opened.reader
        self._rows = rows
        self._manners = Manners(opened, lambda message: None)
        self._scorings = {end: Scoring(self.reader, end=end) for end in (False, True)}
        self._numbers = count()
        self._plain = self.reader.drawing(())
        self._tellings: WeakKeyDictionary[Drawing, dict[int, Drawing]] = WeakKeyDictionary()
        # Texts are cleaned and samplers made beside the event loop, one request after the other.
        self._preparing = ThreadPoolExecutor(1, "preparing")
        self.batch: SharedBatch

    def start(self) -> None:
        """Begin to run texts."""
        self.batch = SharedBatch(self.reader.engine(self._rows), self.limits.waiting, self._note)

    def stop(self) -> None:
        """End, whatever still runs."""
        self.batch.close()
        self._preparing.shutdown()

    async def prepare(self, make: Callable[[], T]) -> T:
        """Return what `make` returns, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, make)

    def _note(self, ticket: Ticket, told: Told) -> None:
        metrics = self.metrics
        if not ticket.noted and ticket.job.follow:
            metrics.first_token_seconds.add(time.monotonic() - ticket.arrived)
        ticket.noted = True
        if isinstance(told, Finished):
            metrics.ended[told.finish] += 1
            metrics.prompt_tokens += len(told.job.prompt)
            metrics.drawn_tokens += len(told.tokens)

    # --- jobs ---

    def completion_jobs(self, wanted: Wanted) -> list[Job]:
        """Return a job for each text; raise Refusal (400) for more than the limits let pass."""
        limits, options = self.limits, wanted.options
        if len(wanted.prompts) * wanted.copies > limits.texts:
            raise Refusal(400, f"{len(wanted.prompts) * wanted.copies} texts are asked for; at most {limits.texts}.")
        if options.max_tokens > limits.tokens:
            raise Refusal(400, f"max_tokens={options.max_tokens} is not accepted; at most {limits.tokens}.")
        manner = self._manners.make(options)
        likely = min(wanted.logprobs or 0, self.reader.vocabulary.size)
        if likely:
            manner = replace(manner, drawing=self._telling(manner.drawing, likely))
        jobs: list[Job] = []
        for text in wanted.prompts:
            for copy in range(wanted.copies):
                prompt = Prompt(str(len(jobs)), text, copy, wanted.seed)
                jobs.append(self._checked(prompt_job(prompt, self.reader.tokens, self.reader.rules, manner)))
        follow = wanted.stream or wanted.logprobs is not None
        return [replace(job, follow=follow) for job in jobs]

    def _telling(self, drawing: Drawing, likely: int) -> Drawing:
        """Return a drawing that tells so many likely tokens, the same for every request, so that all draw together."""
        return self._tellings.setdefault(drawing, {}).setdefault(likely, replace(drawing, likely=likely))

    def predict_jobs(self, texts: Sequence[str], top: int) -> list[Job]:
        """Return a job for each text to predict behind."""
        drawing = self._telling(self._plain, min(top, self.reader.vocabulary.size))
        return [self._checked(predict_job(self.reader, text, drawing)) for text in texts]

    def score_jobs(self, texts: Sequence[str], end: bool) -> list[Job]:
        """Return a job for each text to score; they are kept until `scored` or `forget`."""
        jobs: list[Job] = []
        try:
            for text in texts:
                jobs.append(self._scorings[end].job(text, next(self._numbers)))
                if jobs[-1].max_tokens > self.limits.tokens:
                    raise Refusal(400, f"a text of {jobs[-1].max_tokens} tokens; at most {self.limits.tokens}.")
        except Exception:
            self.forget(jobs, end)
            raise
        return jobs

    def _checked(self, job: Job) -> Job:
        if len(job.prompt) > self.limits.tokens:
            raise Refusal(400, f"the prompt has {len(job.prompt)} tokens; at most {self.limits.tokens}.")
        return job

    def scored(self, finished: Finished, end: bool) -> dict[str, Any]:
        """Return the score of a text as JSON."""
        scored = self._scorings[end].scored(finished)
        return {
            "text": scored.text,
            "log_probability": scored.log_probability,
            "tokens": len(scored.log_probabilities),
            "perplexity": scored.perplexity,
            "unknown": list(scored.unknown),
        }

    def forget(self, jobs: Sequence[Job], end: bool) -> None:
        """Forget texts to score."""
        for job in jobs:
            self._scorings[end].forget(job.number)

    # --- running them ---

    @contextlib.contextmanager
    def running(self, jobs: Sequence[Job]) -> Iterator[Delivery]:
        """Run jobs; those that have not ended behind the block are dropped."""
        tickets, delivery = self.batch.submit(jobs)
        try:
            yield delivery
        finally:
            self.batch.drop(tickets)

    async def ends(self, jobs: Sequence[Job]) -> list[tuple[Finished, list[Drawn]]]:
        """Run jobs; return the end of each, and what was told before if it is followed."""
        ends: dict[int, Finished] = {}
        drawn: list[list[Drawn]] = [[] for _ in jobs]
        with self.running(jobs) as delivery:
            while len(ends) < len(jobs):
                for place, told in await delivery.more():
                    if isinstance(told, Failed):
                        raise Refusal(500, told.reason)
                    if isinstance(told, Finished):
                        ends[place] = told
                    else:
                        drawn[place].append(told)
        return [(ends[place], drawn[place]) for place in range(len(jobs))]

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return what is true at this moment."""
        engine = self.batch.engine
        return {
            "texts": ("Texts on their way.", self.batch.texts),
            "rows_running": ("Texts that have a row of the batch.", engine.running),
            "rows": ("Rows of the batch at most.", engine.rows),
            "steps": ("Steps of the batch so far.", self.batch.steps),
            "resident_bytes": ("Resident memory of the process.", resident_bytes()),
        }
