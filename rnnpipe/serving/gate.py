"""Who may ask, and what is counted of each request, before and behind the routes."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from starlette.responses import JSONResponse

from rnnpipe.serving.limits import Refusal
from rnnpipe.serving.metrics import Metrics

OPEN = ("/", "/page.js", "/page.css", "/health")  # they tell nothing of the model, and need no key
OTHER = "other"  # the paths that are not there, in the figures


class Gate:
    """Lets requests pass to an application.

    A request needs the `key`, if there is one (401), and one of the `hosts` by name (403): a page of somebody else's
    whose name leads to this machine does not have it. An address has at most `most` requests at once (429).
    """

    def __init__(
        self, app: Any, metrics: Metrics, paths: Collection[str], *,
        key: str | None, hosts: Sequence[str] | None, most: int,
    ) -> None:  # fmt: skip
        self.app = app
        self._metrics = metrics
        self._paths = paths
        self._key = key
        self._hosts = hosts
        self._most = most
        self._clients: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, statuses = time.monotonic(), []

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        client = (scope.get("client") or ("",))[0]
        self._clients[client] += 1
        try:
            self._admit(scope, client)
            await self.app(scope, receive, noted)
        except Refusal as refusal:
            headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(refusal.status)
            await JSONResponse(refusal.to_json(), refusal.status, headers)(scope, receive, noted)
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            path = scope["path"] if scope["path"] in self._paths else OTHER
            self._metrics.requests[path, statuses[0] if statuses else 500] += 1
            self._metrics.request_seconds.add(time.monotonic() - began)

    def _admit(self, scope: Any, client: str) -> None:
        headers = dict(scope["headers"])
        if self._hosts is not None and _name(headers.get(b"host", b"")) not in self._hosts:
            raise Refusal(403, "this server is called by another name; a key lets it be called by any.")
        if self._key is not None and scope["path"] not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not secrets.compare_digest(given.strip(), self._key.encode()):
                raise Refusal(401, "a key is needed: Authorization: Bearer KEY.", code="invalid_api_key")
        if self._clients[client] > self._most:
            raise Refusal(429, f"more than {self._most} requests at once from {client}; wait for one to end.")


def _name(host: bytes) -> str:
    """Return a Host header without its port."""
    name = host.decode("latin-1").lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
