"""Answers on their way: at once or as events, and never longer than there is a client to read them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from rnnpipe.serving.limits import Refusal

T = TypeVar("T")


def too_slow(limit: float) -> Refusal:
    """Return the refusal of what takes longer than `limit` seconds."""
    return Refusal(408, f"not done within {limit:g} seconds; ask for fewer tokens.")


async def within(request: Request, limit: float, left: float, work: Awaitable[T]) -> T:
    """Return what the work comes to; raise Refusal, and end it, if that takes too long or the client has gone.

    limit: the seconds that a request may take, of which so many are `left`.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Refusal(499, "the client has gone.")
        raise too_slow(limit)
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


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


def event(record: Mapping[str, Any]) -> bytes:
    """Return a record as a server-sent event."""
    return b"data: " + json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
