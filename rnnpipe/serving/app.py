"""The routes of a server, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import count
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rnnpipe import __version__
from rnnpipe.errors import UsageError
from rnnpipe.generation.engine import Drawing, Drawn, Finished, Job
from rnnpipe.generation.prompts import Generated, Prompt, continuation, prompt_job
from rnnpipe.generation.read import Scoring, predict_job, predicted
from rnnpipe.pipeline.manners import Manners
from rnnpipe.pipeline.reading import Opened
from rnnpipe.serving.completions import Choice, Wanted, parse_wanted, usage
from rnnpipe.serving.gate import Gate
from rnnpipe.serving.limits import Limits, Refusal
from rnnpipe.serving.metrics import CONTENT_TYPE, Metrics, resident_bytes
from rnnpipe.serving.shared import Delivery, Failed, SharedBatch, Ticket, Told

T = TypeVar("T")
MOST_LIKELY = 100
_PAGE = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
         "/page.css": ("page.css", "text/css")}  # fmt: skip
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'"


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


def build_app(service: Service, key: str | None, hosts: Sequence[str] | None) -> Gate:
    """Return the application. key: asked for; hosts: the names that the server is called by, None for any."""
    routes = Routes(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    app = Starlette(
        routes=[
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/models", routes.models, methods=["GET"]),
            Route("/v1/models/{name:path}", routes.model, methods=["GET"]),
            Route("/predict", routes.predict, methods=["POST"]),
            Route("/score", routes.score, methods=["POST"]),
            Route("/health", routes.health, methods=["GET"]),
            Route("/metrics", routes.figures, methods=["GET"]),
            *(Route(path, routes.page, methods=["GET"]) for path in _PAGE),
        ],
        exception_handlers={
            Refusal: _refuse,
            UsageError: lambda request, error: _refuse(request, Refusal(400, str(error))),
            HTTPException: _refuse_http,
            Exception: _refuse_failure,
        },
        lifespan=lifespan,
    )
    paths = {route.path for route in app.routes if isinstance(route, Route)}
    return Gate(app, service.metrics, paths, key=key, hosts=hosts, most=service.limits.client_requests)


class Routes:
    """One method a route."""

    def __init__(self, service: Service) -> None:
        self.service = service
        page = files("rnnpipe.serving") / "page"
        self._page = {path: (page / name).read_bytes() for path, (name, _) in _PAGE.items()}

    async def completions(self, request: Request) -> Response:
        """Continue prompts, as OpenAI's API does."""
        service, arrived = self.service, time.monotonic()
        wanted = parse_wanted(await self._body(request))
        jobs = await service.prepare(lambda: service.completion_jobs(wanted))
        answer = _Answer(service, wanted, jobs)
        left = service.limits.seconds - (time.monotonic() - arrived)
        if wanted.stream:
            # Whether there is room for it is known before the answer begins.
            running = contextlib.ExitStack()
            delivery = running.enter_context(service.running(jobs))
            return EventStream(answer.pieces(running, delivery, left))
        return JSONResponse(await self._within(request, left, answer.whole()))

    async def models(self, request: Request) -> Response:
        """List the one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """Describe the model, if it is called by its name."""
        if request.path_params["name"] != self.service.name:
            raise Refusal(404, f"no model '{request.path_params['name']}'; there is '{self.service.name}'.")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        return {"id": self.service.name, "object": "model", "created": self.service.made, "owned_by": "rnnpipe"}

    async def predict(self, request: Request) -> Response:
        """Tell what is likely behind texts."""
        service = self.service
        body = await self._body(request)
        texts, single = _texts(body, service.limits, ("top",))
        top = body.get("top", 10)
        if not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= MOST_LIKELY:
            raise UsageError(f"top={top!r} is not accepted; it takes a whole number from 1 to {MOST_LIKELY}.")
        jobs = await service.prepare(lambda: service.predict_jobs(texts, top))
        ends = await self._within(request, service.limits.seconds, service.ends(jobs))
        told = [predicted(service.reader, end, drawn) for end, (drawn,) in ends]
        results = [
            {
                "text": each.text,
                "tokens": list(each.tokens),
                "unknown": list(each.unknown),
                "next": [{"token": token, "probability": share} for token, share in each.likely],
            }
            for each in told
        ]
        return JSONResponse(results[0] if single else {"results": results})

    async def score(self, request: Request) -> Response:
        """Tell the log-probabilities of texts."""
        service = self.service
        body = await self._body(request)
        texts, single = _texts(body, service.limits, ("end",))
        end = body.get("end", False)
        if not isinstance(end, bool):
            raise UsageError(f"end={end!r} is not accepted; it takes true or false.")
        jobs = await service.prepare(lambda: service.score_jobs(texts, end))
        try:
            ends = await self._within(request, service.limits.seconds, service.ends(jobs))
            results = [service.scored(finished, end) for finished, _ in ends]
        finally:
            service.forget(jobs, end)
        return JSONResponse(results[0] if single else {"results": results})

    async def health(self, request: Request) -> Response:
        """Say whether texts can be drawn."""
        failure = self.service.batch.failure
        if failure:
            raise Refusal(503, f"the engine has failed: {failure}")
        return JSONResponse({"status": "ok", "model": self.service.name, "version": __version__})

    async def figures(self, request: Request) -> Response:
        """Return the figures for Prometheus."""
        return Response(self.service.metrics.text(self.service.gauges()), media_type=CONTENT_TYPE)

    async def page(self, request: Request) -> Response:
        """Return the page on which a person tries the model, or a part of it."""
        path = request.url.path
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
        return Response(self._page[path], media_type=_PAGE[path][1], headers=headers)

    async def _body(self, request: Request) -> dict[str, Any]:
        """Return the body, a JSON object; raise Refusal for one too large (413), too slow (408) or no such (400)."""
        most, read = self.service.limits.body_bytes, bytearray()
        try:
            async with asyncio.timeout(self.service.limits.seconds):
                async for chunk in request.stream():
                    read += chunk
                    if len(read) > most:
                        raise Refusal(413, f"the body is larger than {most:,} bytes.")
        except TimeoutError:
            raise Refusal(408, "the body did not come in time.") from None
        try:
            body = json.loads(bytes(read))
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refusal(400, "the body has half of a surrogate pair, which is no text.") from None
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise Refusal(400, f"the body is not JSON: {reason}.") from None
        if not isinstance(body, dict):
            raise Refusal(400, f"the body is a JSON {type(body).__name__}; it takes an object.")
        return body

    async def _within(self, request: Request, seconds: float, work: Awaitable[T]) -> T:
        """Return what the work comes to; end it if that takes too long, or the client has gone."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
        try:
            await asyncio.wait({task, gone}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise Refusal(499, "the client has gone.")
            raise Refusal(408, f"not done within {self.service.limits.seconds:g} seconds; ask for fewer tokens.")
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


class _Answer:
    """An answer to a request for completions."""

    def __init__(self, service: Service, wanted: Wanted, jobs: Sequence[Job]) -> None:
        self._service = service
        self._wanted = wanted
        self._jobs = jobs
        self._head = {
            "id": f"cmpl-{time.time_ns():x}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
            "seed": wanted.seed,
        }
        tokens = service.reader.tokens
        self._choices = []
        for index in range(len(jobs)):
            prompt = wanted.prompts[index // wanted.copies]
            lead = service.reader.rules.tokenizer.join([prompt, ""]).removeprefix(prompt) if prompt else ""
            self._choices.append(Choice(wanted, index, lead, tokens))

    async def whole(self) -> dict[str, Any]:
        """Return the answer at once."""
        ends = await self._service.ends(self._jobs)
        made = [continuation(end, self._service.reader.tokens) for end, _ in ends]
        pieces = []
        for choice, (_, drawn), text in zip(self._choices, ends, made, strict=True):
            for event in drawn:
                choice.add(event)
            pieces.append(choice.last_piece(text))
        return {**self._head, "choices": pieces, "usage": usage([end for end, _ in ends], made, self._wanted.copies)}

    async def pieces(self, running: contextlib.ExitStack, delivery: Delivery, seconds: float) -> AsyncIterator[bytes]:
        """Yield the answer as server-sent events, as it comes."""
        ends: list[Finished] = []
        made: list[Generated] = []
        with running:
            try:
                async with asyncio.timeout(max(0.0, seconds)):
                    while len(ends) < len(self._jobs):
                        told = await delivery.more()
                        for piece in self._read(told, ends, made):
                            yield _event({**self._head, "choices": [piece]})
            except TimeoutError:
                limit = self._service.limits.seconds
                yield _event(Refusal(408, f"not done within {limit:g} seconds; ask for fewer tokens.").to_json())
                return
            except Refusal as refusal:
                yield _event(refusal.to_json())
                return
        if self._wanted.usage:
            yield _event({**self._head, "choices": [], "usage": usage(ends, made, self._wanted.copies)})
        yield b"data: [DONE]\n\n"

    def _read(
        self, told: Sequence[tuple[int, Told]], ends: list[Finished], made: list[Generated]
    ) -> Iterator[Mapping[str, Any]]:
        for place in dict.fromkeys(place for place, _ in told):
            choice = self._choices[place]
            last = None
            for event in (event for at, event in told if at == place):
                if isinstance(event, Failed):
                    raise Refusal(500, event.reason)
                if isinstance(event, Finished):
                    ends.append(event)
                    last = continuation(event, self._service.reader.tokens)
                    made.append(last)
                else:
                    choice.add(event)
            piece = choice.piece() if last is None else choice.last_piece(last)
            if piece is not None:
                yield piece


@dataclass
class EventStream(Response):
    """Sends events as they are made, until the client goes."""

    parts: AsyncIterator[bytes]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
                   (b"x-accel-buffering", b"no")]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending, gone = asyncio.ensure_future(self._send_all(send)), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (sending, gone):
                each.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if sending.done() and not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Any) -> None:
        async with contextlib.aclosing(self.parts) as parts:  # type: ignore[type-var]
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Any) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(record: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _texts(body: Mapping[str, Any], limits: Limits, more: Sequence[str]) -> tuple[list[str], bool]:
    """Return the texts of a body, and whether it has one alone; raise UsageError for what it must not have."""
    for key in body:
        if key not in ("text", "texts", *more):
            raise UsageError(f"unknown parameter '{key}'; accepted: text or texts, {', '.join(more)}.")
    if ("text" in body) == ("texts" in body):
        raise UsageError("give either text, a text, or texts, a list of them.")
    texts = [body["text"]] if "text" in body else body["texts"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError("text takes a text, texts a list of them.")
    if len(texts) > limits.texts:
        raise UsageError(f"{len(texts)} texts; at most {limits.texts}.")
    return texts, "text" in body


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    if error.status in (408, 413):
        headers["Connection"] = "close"  # what is left of the body is not read
    return JSONResponse(error.to_json(), error.status, headers)


def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"no {request.url.path} here" if error.status_code == 404 else error.detail
    return JSONResponse(Refusal(error.status_code, f"{message}.").to_json(), error.status_code, error.headers)


def _refuse_failure(request: Request, error: Exception) -> Response:
    return JSONResponse(Refusal(500, f"unexpected {type(error).__name__}.").to_json(), 500)
