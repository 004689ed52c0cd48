"""Figures of a server in the text form of Prometheus."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How many values were at most each bound, and their sum."""

    def __init__(self, bounds: Iterable[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """What a server has done so far."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.request_seconds = Histogram()
        self.first_token_seconds = Histogram()
        self.prompt_tokens = 0
        self.drawn_tokens = 0
        self.ended: Counter[str] = Counter()  # texts, by what ended them

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return all figures, with the `gauges` of this moment: a help text and a value by name."""
        return "\n".join([*self._lines(), *_gauges(gauges)]) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests that were answered, by path and HTTP status.")
        for (path, status), count in sorted(self.requests.items()):
            yield f'rnnpipe_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("texts_total", "counter", "Texts that ended, by what ended them.")
        for finish, count in sorted(self.ended.items()):
            yield f'rnnpipe_texts_total{{finish="{finish}"}} {count}'
        yield from _head("tokens_total", "counter", "Tokens of prompts, and tokens drawn, of texts that ended.")
        yield f'rnnpipe_tokens_total{{kind="prompt"}} {self.prompt_tokens}'
        yield f'rnnpipe_tokens_total{{kind="drawn"}} {self.drawn_tokens}'
        yield from _histogram("request_seconds", "From a request to the end of its answer.", self.request_seconds)
        yield from _histogram(
            "first_token_seconds", "From a text's request to its first token, if it is streamed.",
            self.first_token_seconds,
        )  # fmt: skip


def _head(name: str, kind: str, told: str) -> tuple[str, str]:
    return f"# HELP rnnpipe_{name} {told}", f"# TYPE rnnpipe_{name} {kind}"


def _histogram(name: str, told: str, histogram: Histogram) -> Iterator[str]:
    yield from _head(name, "histogram", told)
    below = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        below += count
        yield f'rnnpipe_{name}_bucket{{le="{bound}"}} {below}'
    yield f"rnnpipe_{name}_sum {histogram.total:.6f}"
    yield f"rnnpipe_{name}_count {below}"


def _gauges(gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    for name, (told, value) in gauges.items():
        yield from _head(name, "gauge", told)
        yield f"rnnpipe_{name} {value:.17g}"


def resident_bytes() -> int:
    """Return how much memory this process has resident, 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
