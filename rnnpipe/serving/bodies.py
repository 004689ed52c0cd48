"""What a request brings: a JSON object, and the texts in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from rnnpipe.errors import UsageError
from rnnpipe.serving.limits import Limits, Refusal


async def read_body(request: Request, limits: Limits) -> dict[str, Any]:
    """Return the body, a JSON object; raise Refusal for one too large (413), too slow (408) or no such (400)."""
    most, read = limits.body_bytes, bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
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


def texts_of(body: Mapping[str, Any], limits: Limits, more: Sequence[str]) -> tuple[list[str], bool]:
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
