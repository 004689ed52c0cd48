"""Texts that are read, not drawn: their log-probability, and the likely tokens behind them. In input order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rnnpipe.generation.engine import BATCH_ROWS, Drawing, Drawn, Finished, Job
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


class Scoring:
    """Reads texts, each known by a number, for their scores; with `end` that of the document's boundary is the last."""

    def __init__(self, reader: TextReader, *, end: bool = False) -> None:
        self._rules = reader.rules
        self._tokens = reader.tokens
        self._end = end
        self._given = reader.given()
        self._drawing = reader.drawing((self._given,), allow_unknown=True)

    def job(self, text: str, number: int) -> Job:
        """Return what the engine reads; `scored` reads its end, and until then the text is kept."""
        words = self._rules.tokenize(text)
        ids = [*encode(words, self._tokens), *([self._tokens.boundary] if self._end else [])]
        given = ids or [self._tokens.boundary]  # a job draws one token at least
        self._given.texts[number] = given
        return Job((text, words, len(ids)), (), self._drawing, len(given), number=number)

    def scored(self, end: Finished) -> Scored:
        """Return the score of a text that has been read, and forget the text."""
        text, words, count = end.job.key
        self.forget(end.job.number)
        scores = tuple(end.log_probabilities.tolist())[:count]
        return Scored(text, tuple(words), scores, unknown_words(words, self._tokens))

    def forget(self, number: int) -> None:
        """Forget a text whose end nobody waits for any more."""
        self._given.texts.pop(number, None)


def score(reader: TextReader, texts: Iterable[str], *, end: bool = False, rows: int = BATCH_ROWS) -> Iterator[Scored]:
    """Yield the score of each text; with `end` that of the document's boundary behind it is its last."""
    scoring = Scoring(reader, end=end)
    jobs = (scoring.job(text, number) for number, text in enumerate(texts))
    for finished, _ in in_order(reader.engine(rows), jobs):
        yield scoring.scored(finished)


def predict(reader: TextReader, texts: Iterable[str], top: int, *, rows: int = BATCH_ROWS) -> Iterator[Predicted]:
    """Yield the `top` likeliest tokens behind each text."""
    drawing = reader.drawing((), likely=top)
    jobs = (predict_job(reader, text, drawing) for text in texts)
    for finished, (drawn,) in in_order(reader.engine(rows), jobs):
        yield predicted(reader, finished, drawn)


def predict_job(reader: TextReader, text: str, drawing: Drawing) -> Job:
    """Return what the engine draws to tell what is likely behind a text; `predicted` reads its end."""
    words = reader.rules.tokenize(text)
    return Job((text, words), encode(words, reader.tokens), drawing, 1, follow=True)


def predicted(reader: TextReader, end: Finished, drawn: Drawn) -> Predicted:
    """Return what is likely behind a text, from the end of its job and the one token that it drew."""
    text, words = end.job.key
    likely = tuple((reader.tokens.texts[token_id], math.exp(score)) for token_id, score in drawn.likely)
    return Predicted(text, tuple(words), unknown_words(words, reader.tokens), likely)
