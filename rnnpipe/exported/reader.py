"""An exported model, opened for reading."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from rnnpipe.exported.network import Exported
from rnnpipe.exported.sampling import ArraySampler, Given
from rnnpipe.generation.engine import BATCH_ROWS, Drawing, Engine
from rnnpipe.generation.reader import make_drawing
from rnnpipe.generation.tokens import Tokens
from rnnpipe.text.rules import Rules


class ExportedReader:
    """An exported model with the rules and the vocabulary that its text passes through."""

    def __init__(self, exported: Exported, rules: Rules) -> None:
        self.vocabulary = exported.metadata.vocabulary
        self.rules = rules
        self._network = exported.network

    @cached_property
    def tokens(self) -> Tokens:
        """Return what the ids stand for."""
        return Tokens.of(self.vocabulary, self.rules)

    def engine(self, rows: int = BATCH_ROWS) -> Engine:
        """Return a new engine of so many rows; the one before is over."""
        return Engine(self._network, rows)

    def drawing(self, samplers: Iterable[ArraySampler], *, allow_unknown: bool = False, likely: int = 0) -> Drawing:
        """Return samplers as the engine takes them, for this vocabulary; those that say `first` come first."""
        return make_drawing(samplers, self.tokens, allow_unknown=allow_unknown, likely=likely)

    def given(self) -> Given:
        """Return a sampler that chooses the tokens of texts that are there already."""
        return Given()
