"""A server as an ASGI application: which route is where, and what it says where none answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rnnpipe.errors import UsageError
from rnnpipe.serving.gate import Gate
from rnnpipe.serving.limits import Refusal
from rnnpipe.serving.routes import PAGE, Routes
from rnnpipe.serving.service import Service


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
            *(Route(path, routes.page, methods=["GET"]) for path in PAGE),
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
