"""A server under load, against the batch command on the same prompts, in turns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from rnnpipe.errors import RnnpipeError
from rnnpipe.generation.engine import BATCH_ROWS
from rnnpipe.pipeline.manners import Manners, answer_prompts
from rnnpipe.pipeline.reading import Opened, open_for_reading
from rnnpipe.pipeline.requests import Options, Record, number_prompts
from rnnpipe.text.rules import Named
from rnnpipe.text.vocabulary import DOC

Report = Callable[[str], None]
_ENDLESS = Named("forbid", {"tokens": DOC})  # every text has as many tokens as are asked for
_WAITING_CLIENTS = 16  # whose first tokens are waited for


@dataclass(frozen=True)
class ServeRow:
    """Tokens drawn a second in one way, the median of the rounds, and the median of its by the batch command's.

    first_token_seconds: medians of the rounds, of the median and of the 99th percentile; None where nothing streams.
    """

    way: str
    clients: int
    tokens_per_second: float
    ratio: float
    first_token_seconds: tuple[float, float] | None


@dataclass(frozen=True)
class Soak:
    """A long load: requests answered and lost, and the server's resident bytes at its beginning and end."""

    seconds: float
    requests: int
    lost: int
    resident_bytes: tuple[int, int]


@dataclass(frozen=True)
class ServeBench:
    """What was measured; soak: None if none was asked for."""

    rows: list[ServeRow]
    soak: Soak | None


@dataclass
class _Counts:
    """What clients have got."""

    tokens: int = 0
    requests: int = 0
    lost: int = 0
    first_token_seconds: list[float] = field(default_factory=list)


def bench_serve(
    run: Path, clients: int, tokens: int, longest: int, rounds: int, soak_seconds: float, report: Report
) -> ServeBench:
    """Measure a server with so many clients; each asks again for a text of `tokens` as soon as it has one.

    Prompts have from 1 to `longest` tokens. soak_seconds: how long the load lasts that looks for what is lost, 0 for
    none.
    """
    opened = open_for_reading(run)
    prompts = _prompts(opened, 4 * clients, longest)
    with _served(run) as url:
        load = _Load(url, prompts, tokens)
        ways: dict[str, Callable[[], tuple[float, list[float]]]] = {
            "batch command": lambda: (_batch(opened, prompts, tokens, BATCH_ROWS), []),
            f"batch command, {clients} texts at once": lambda: (_batch(opened, prompts, tokens, clients), []),
            "server": lambda: load.measure(clients, 4, stream=False),
            "server, streaming": lambda: load.measure(clients, 4, stream=True),
        }
        found: list[list[tuple[float, list[float]]]] = []
        for _ in range(rounds + 1):  # the first is for warming up
            found.append([way() for way in ways.values()])
            report(
                ", ".join(f"{name}: {speed:,.0f} tokens/s" for name, (speed, _) in zip(ways, found[-1], strict=True))
            )
        rows = [
            _row(name, clients, [each[k] for each in found[1:]], [each[0][0] for each in found[1:]])
            for k, name in enumerate(ways)
        ]
        few = [load.measure(_WAITING_CLIENTS, 8, stream=True) for _ in range(rounds)]
        rows.append(_row("server, streaming", _WAITING_CLIENTS, few, [each[0][0] for each in found[1:]]))
        return ServeBench(rows, load.soak(clients, soak_seconds, report) if soak_seconds else None)


def _row(way: str, clients: int, found: Sequence[tuple[float, list[float]]], batch: Sequence[float]) -> ServeRow:
    ratio = statistics.median(speed / its for (speed, _), its in zip(found, batch, strict=True))
    waited = [np.percentile(first, (50, 99)) for _, first in found if first]
    medians = np.median(waited, 0).tolist() if waited else None
    return ServeRow(
        way, clients, statistics.median(speed for speed, _ in found), ratio, tuple(medians) if medians else None
    )


def _prompts(opened: Opened, number: int, longest: int) -> list[str]:
    chance = np.random.default_rng(0)
    tokens = opened.reader.tokens
    known = np.setdiff1d(np.arange(len(tokens.texts)), (tokens.boundary, tokens.unknown))
    return [tokens.spell(chance.choice(known, chance.integers(1, longest, endpoint=True))) for _ in range(number)]


def _batch(opened: Opened, prompts: Sequence[str], tokens: int, rows: int) -> float:
    """Return the tokens a second of what the batch command does."""
    options = Options(max_tokens=tokens, samplers=(_ENDLESS,))
    asked = number_prompts((Record(n, "", {"prompt": text}) for n, text in enumerate(prompts, 1)), options, 0, 1)
    start = time.perf_counter()
    drawn = sum(len(made.tokens) for _, made in answer_prompts(Manners(opened, lambda message: None), asked, rows=rows))
    return drawn / (time.perf_counter() - start)


@contextlib.contextmanager
def _served(run: Path) -> Iterator[str]:
    """Serve a run from a process of its own."""
    words = [sys.executable, "-m", "rnnpipe", "serve", str(run), "--port", "0", "--max-requests", "4096"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not (url := process.stdout.readline().strip()):
                raise RnnpipeError(f"{run}: the server did not start.")
            yield url
        finally:
            process.terminate()


class _Load:
    """Clients of a server, in one event loop."""

    def __init__(self, url: str, prompts: Sequence[str], tokens: int) -> None:
        address = urllib.parse.urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 0
        self._prompts = prompts
        self._tokens = tokens

    def measure(self, clients: int, each: int, *, stream: bool) -> tuple[float, list[float]]:
        """Have clients ask for some texts each; return the tokens a second, and how long first tokens took."""
        counts = _Counts()
        start = time.perf_counter()
        asyncio.run(self._all(counts, clients, stream, lambda number: number < each * clients))
        if counts.lost:
            raise RnnpipeError(f"{counts.lost} of {counts.requests + counts.lost} requests were not answered in full.")
        return counts.tokens / (time.perf_counter() - start), counts.first_token_seconds

    def soak(self, clients: int, seconds: float, report: Report) -> Soak:
        """Have clients ask for texts for so long, half of them streaming."""
        counts = _Counts()
        asyncio.run(self._all(counts, clients, True, lambda number: number < 4 * clients))  # memory grows at first
        before, counts = asyncio.run(self._resident()), _Counts()
        end = time.monotonic() + seconds
        asyncio.run(self._all(counts, clients, None, lambda number: time.monotonic() < end))
        soak = Soak(seconds, counts.requests, counts.lost, (before, asyncio.run(self._resident())))
        report(f"{soak.requests:,} requests in {seconds:,.0f} s, {soak.lost} lost")
        return soak

    async def _all(self, counts: _Counts, clients: int, stream: bool | None, go_on: Callable[[int], bool]) -> None:
        numbers = count()
        await asyncio.gather(
            *(
                self._client(counts, numbers, stream if stream is not None else client % 2 == 0, go_on)
                for client in range(clients)
            )
        )

    async def _client(
        self, counts: _Counts, numbers: Iterator[int], stream: bool, go_on: Callable[[int], bool]
    ) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while go_on(number := next(numbers)):
            body = {
                "prompt": self._prompts[number % len(self._prompts)],
                "max_tokens": self._tokens,
                "seed": number,
                "samplers": [_ENDLESS.to_json()],
                "stream": stream,
            }
            if stream:
                body["stream_options"] = {"include_usage": True}
            began = time.perf_counter()
            drawn, first = await _ask(reader, writer, "POST /v1/completions", json.dumps(body).encode())
            counts.tokens += drawn
            counts.requests += drawn == self._tokens
            counts.lost += drawn != self._tokens
            if stream:
                counts.first_token_seconds.append(first - began)
        writer.close()
        await writer.wait_closed()

    async def _resident(self) -> int:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return int(float(text.rpartition("\nrnnpipe_resident_bytes ")[2].split()[0]))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str, body: bytes) -> tuple[int, float]:
    """Ask; return how many tokens came, 0 for any other answer, and when the first of it did."""
    writer.write(f"{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    if length:
        first, answer = time.perf_counter(), await reader.readexactly(int(length))
        return _drawn(answer), first
    chunks: list[bytes] = []
    first = 0.0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
        first = first or time.perf_counter()
    await reader.readexactly(2)
    *_, last, done, _ = b"".join(chunks).split(b"\n\n")
    return _drawn(last.removeprefix(b"data: ")) if done == b"data: [DONE]" else 0, first


def _drawn(answer: bytes) -> int:
    found: dict[str, Any] = json.loads(answer)
    return int(found.get("usage", {}).get("completion_tokens", 0))
