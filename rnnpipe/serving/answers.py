"""An answer to a request for completions, whole or piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from rnnpipe.generation.engine import Finished, Job
from rnnpipe.generation.prompts import Generated, continuation
from rnnpipe.serving.completions import Choice, Wanted, usage
from rnnpipe.serving.limits import Refusal
from rnnpipe.serving.sending import event, too_slow
from rnnpipe.serving.service import Service
from rnnpipe.serving.shared import Delivery, Failed, Told


class Answer:
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
            for each in drawn:
                choice.add(each)
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
                            yield event({**self._head, "choices": [piece]})
            except TimeoutError:
                yield event(too_slow(self._service.limits.seconds).to_json())
                return
            except Refusal as refusal:
                yield event(refusal.to_json())
                return
        if self._wanted.usage:
            yield event({**self._head, "choices": [], "usage": usage(ends, made, self._wanted.copies)})
        yield b"data: [DONE]\n\n"

    def _read(
        self, told: Sequence[tuple[int, Told]], ends: list[Finished], made: list[Generated]
    ) -> Iterator[Mapping[str, Any]]:
        for place in dict.fromkeys(place for place, _ in told):
            choice = self._choices[place]
            last = None
            for each in (each for at, each in told if at == place):
                if isinstance(each, Failed):
                    raise Refusal(500, each.reason)
                if isinstance(each, Finished):
                    ends.append(each)
                    last = continuation(each, self._service.reader.tokens)
                    made.append(last)
                else:
                    choice.add(each)
            piece = choice.piece() if last is None else choice.last_piece(last)
            if piece is not None:
                yield piece
