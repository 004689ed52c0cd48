"""Texts that are read, not drawn: their log-probability, and the likely tokens behind them. In input order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rnnpipe.generation.engine import BATCH_ROWS, Job
from rnnpipe.generation.prompts import encode, in_order, unknown_words
from rnnpipe.generation.reader import TextReader


@dataclass(frozen=True)
class Scored:
    """A text's tokens and their log-probabilities in nats, each given those before it in a document of its own.

    unknown: the words that the vocabulary does not have, which score as the unknown token.
    """

    text: str
    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]
    unknown: tuple[str, ...]

    @property
    def log_probability(self) -> float:
        """Return that of the whole text."""
        return math.fsum(self.log_probabilities)

    @property
    def perplexity(self) -> float | None:
        """Return exp of the mean nats a token; None for a text without tokens."""
        if not self.log_probabilities:
            return None
        nats = -self.log_probability / len(self.log_probabilities)
        return math.exp(nats) if nats < 700 else math.inf


@dataclass(frozen=True)
class Predicted:
    """The likely next tokens behind a text with their probabilities, the likeliest first."""

    text: str
    tokens: tuple[str, ...]
    unknown: tuple[str, ...]
    likely: tuple[tuple[str, float], ...]


def score(reader: TextReader, texts: Iterable[str], *, end: bool = False, rows: int = BATCH_ROWS) -> Iterator[Scored]:
    """Yield the score of each text; with `end` that of the document's boundary behind it is its last."""
    tokens = reader.tokens
    given = reader.given()
    drawing = reader.drawing((given,), allow_unknown=True)

    def jobs() -> Iterator[Job]:
        for number, text in enumerate(texts):
            words = reader.rules.tokenize(text)
            ids = [*encode(words, tokens), *([tokens.boundary] if end else [])]
            given.texts[number] = ids or [tokens.boundary]  # a job draws one token at least
            yield Job((text, words, len(ids)), (), drawing, len(given.texts[number]), number=number)

    for finished, _ in in_order(reader.engine(rows), jobs()):
        text, words, count = finished.job.key
        scores = tuple(finished.log_probabilities.tolist())[:count]
        del given.texts[finished.job.number]
        yield Scored(text, tuple(words), scores, unknown_words(words, tokens))


def predict(reader: TextReader, texts: Iterable[str], top: int, *, rows: int = BATCH_ROWS) -> Iterator[Predicted]:
    """Yield the `top` likeliest tokens behind each text."""
    tokens = reader.tokens
    drawing = reader.drawing((), likely=top)

    def job(text: str) -> Job:
        words = reader.rules.tokenize(text)
        return Job((text, words), encode(words, tokens), drawing, 1, follow=True)

    for finished, (drawn,) in in_order(reader.engine(rows), map(job, texts)):
        text, words = finished.job.key
        likely = tuple((tokens.texts[token_id], math.exp(score)) for token_id, score in drawn.likely)
        yield Predicted(text, tuple(words), unknown_words(words, tokens), likely)
