"""What a language model opened for reading can do, whether torch or ONNX Runtime computes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from rnnpipe.generation.engine import BATCH_ROWS, Drawing, Engine
from rnnpipe.generation.tokens import Tokens
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import Vocabulary


def make_drawing(samplers: Iterable[Any], tokens: Tokens, *, allow_unknown: bool, likely: int) -> Drawing:
    """Return samplers as the engine takes them, for these tokens; those that say `first` come first."""
    bound = [sampler.for_tokens(tokens) if hasattr(sampler, "for_tokens") else sampler for sampler in samplers]
    ordered = sorted(bound, key=lambda sampler: not getattr(sampler, "first", False))
    return Drawing(tuple(ordered), () if allow_unknown else (tokens.unknown,), likely)


class GivenTokens(Protocol):
    """A sampler that chooses the tokens of texts that are there already, by the numbers of their jobs."""

    texts: dict[int, list[int]]


class TextReader(Protocol):
    """A model with the rules and the vocabulary that its text passes through. Samplers are of the model's own kind."""

    rules: Rules
    vocabulary: Vocabulary

    @property
    def tokens(self) -> Tokens:
        """Return what the ids stand for."""
        ...

    def engine(self, rows: int = BATCH_ROWS) -> Engine:
        """Return a new engine of so many rows; the one before is over."""
        ...

    def drawing(self, samplers: Iterable[Any], *, allow_unknown: bool = False, likely: int = 0) -> Drawing:
        """Return samplers as the engine takes them, for this vocabulary."""
        ...

    def given(self) -> GivenTokens:
        """Return a sampler that chooses the tokens of texts that are there already."""
        ...
