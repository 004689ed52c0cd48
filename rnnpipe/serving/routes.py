"""What each route answers."""

from __future__ import annotations

import contextlib
import time
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rnnpipe import __version__
from rnnpipe.errors import UsageError
from rnnpipe.generation.read import predicted
from rnnpipe.serving.answers import Answer
from rnnpipe.serving.bodies import read_body, texts_of
from rnnpipe.serving.completions import parse_wanted
from rnnpipe.serving.limits import Refusal
from rnnpipe.serving.metrics import CONTENT_TYPE
from rnnpipe.serving.sending import EventStream, within
from rnnpipe.serving.service import Service

MOST_LIKELY = 100
PAGE = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
        "/page.css": ("page.css", "text/css")}  # fmt: skip
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'"


class Routes:
    """One method a route."""

    def __init__(self, service: Service) -> None:
        self.service = service
        page = files("rnnpipe.serving") / "page"
        self._page = {path: (page / name).read_bytes() for path, (name, _) in PAGE.items()}

    async def completions(self, request: Request) -> Response:
        """Continue prompts, as OpenAI's API does."""
        service, arrived = self.service, time.monotonic()
        wanted = parse_wanted(await read_body(request, service.limits))
        jobs = await service.prepare(lambda: service.completion_jobs(wanted))
        answer = Answer(service, wanted, jobs)
        left = service.limits.seconds - (time.monotonic() - arrived)
        if wanted.stream:
            # Whether there is room for it is known before the answer begins.
            running = contextlib.ExitStack()
            delivery = running.enter_context(service.running(jobs))
            return EventStream(answer.pieces(running, delivery, left))
        return JSONResponse(await within(request, service.limits.seconds, left, answer.whole()))

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
        service, limit = self.service, self.service.limits.seconds
        body = await read_body(request, service.limits)
        texts, single = texts_of(body, service.limits, ("top",))
        top = body.get("top", 10)
        if not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= MOST_LIKELY:
            raise UsageError(f"top={top!r} is not accepted; it takes a whole number from 1 to {MOST_LIKELY}.")
        jobs = await service.prepare(lambda: service.predict_jobs(texts, top))
        ends = await within(request, limit, limit, service.ends(jobs))
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
        service, limit = self.service, self.service.limits.seconds
        body = await read_body(request, service.limits)
        texts, single = texts_of(body, service.limits, ("end",))
        end = body.get("end", False)
        if not isinstance(end, bool):
            raise UsageError(f"end={end!r} is not accepted; it takes true or false.")
        jobs = await service.prepare(lambda: service.score_jobs(texts, end))
        try:
            ends = await within(request, limit, limit, service.ends(jobs))
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
        return Response(self._page[path], media_type=PAGE[path][1], headers=headers)
