"""A trained language model of torch, opened for reading: likely next tokens, scores, continuations of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import torch

from rnnpipe.generation.engine import BATCH_ROWS, Drawing, Engine
from rnnpipe.generation.prompts import Generated, Manner, Prompt, continue_prompts
from rnnpipe.generation.reader import make_drawing
from rnnpipe.generation.samplers import Given, Sampler
from rnnpipe.generation.tokens import Tokens
from rnnpipe.generation.torch_network import TorchNetwork
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.runtime import ROW_TILE
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import Vocabulary


class Reader:
    """A model with the rules and the vocabulary that its text passes through."""

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        rules: Rules,
        device: torch.device,
        precision: str,
        *,
        row_tile: int = ROW_TILE,
    ) -> None:
        self.model = model.to(device).eval()
        self.vocabulary = vocabulary
        self.rules = rules
        self.device = device
        self.precision = precision
        self.row_tile = row_tile

    @cached_property
    def tokens(self) -> Tokens:
        """Return what the ids stand for."""
        return Tokens.of(self.vocabulary, self.rules)

    @cached_property
    def network(self) -> TorchNetwork:
        """Return the model as a network that an engine runs; one engine at a time."""
        boundary = self.vocabulary.doc_id
        return TorchNetwork(self.model, boundary, self.device, self.precision, tile=self.row_tile)

    def engine(self, rows: int = BATCH_ROWS) -> Engine:
        """Return a new engine of so many rows; the one before is over."""
        return Engine(self.network, rows)

    def drawing(self, samplers: Iterable[Sampler], *, allow_unknown: bool = False, likely: int = 0) -> Drawing:
        """Return samplers as the engine takes them, for this vocabulary; those that say `first` come first."""
        return make_drawing(samplers, self.tokens, allow_unknown=allow_unknown, likely=likely)

    def given(self) -> Given:
        """Return a sampler that chooses the tokens of texts that are there already."""
        return Given()

    def generate(
        self, prompts: Iterable[Prompt], samplers: Sequence[Sampler], max_tokens: int, *, allow_unknown: bool = False
    ) -> Iterator[Generated]:
        """Yield a continuation for each prompt, in order, `BATCH_ROWS` at a time.

        A continuation ends with the document (its boundary is drawn) or after `max_tokens`, and the next prompt takes
        its row at once. The unknown token is never drawn unless `allow_unknown`.
        """
        manner = Manner(self.drawing(samplers, allow_unknown=allow_unknown), max_tokens)
        return continue_prompts(self.engine(), self.tokens, self.rules, prompts, manner)
