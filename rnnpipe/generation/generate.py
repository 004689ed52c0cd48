"""A trained language model of torch, opened for reading: likely next tokens, continuations of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from rnnpipe.generation.engine import Drawing, Engine
from rnnpipe.generation.prompts import Generated, Prompt, continue_prompts
from rnnpipe.generation.samplers import Sampler
from rnnpipe.generation.torch_network import TorchNetwork
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.runtime import autocast
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import Vocabulary

BATCH_ROWS = 64


class Reader:
    """A model with the rules and the vocabulary that its text passes through."""

    def __init__(
        self, model: LanguageModel, vocabulary: Vocabulary, rules: Rules, device: torch.device, precision: str
    ) -> None:
        self.model = model.to(device).eval()
        self.vocabulary = vocabulary
        self.rules = rules
        self.device = device
        self.precision = precision

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text under the run's own rules."""
        return self.rules.tokenize(text)

    @torch.inference_mode()
    def prime(
        self, prompts: Sequence[Sequence[str]]
    ) -> tuple[Tensor, tuple[Tensor, ...] | tuple[tuple[Tensor, ...], ...]]:
        """Return logits [B, V] in float64 behind each prompt, and the state; every prompt begins a document."""
        rows = [[self.vocabulary.doc_id, *self.vocabulary.encode(prompt).tolist()] for prompt in prompts]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.full((int(lengths.max()), len(rows)), self.vocabulary.doc_id)
        for column, row in enumerate(rows):
            ids[: len(row), column] = torch.tensor(row)
        with autocast(self.device, self.precision):
            logits, state = self.model.prime(ids.to(self.device), lengths.to(self.device))
        return logits.double(), state

    def next_tokens(self, text: str, top: int) -> tuple[list[tuple[str, float]], list[str], list[str]]:
        """Return the `top` most likely next tokens with their probabilities, the prompt's tokens, the unknown ones."""
        tokens = self.tokenize(text)
        logits, _ = self.prime([tokens])
        shares, ids = logits[0].softmax(-1).sort(descending=True, stable=True)
        likely = zip(ids[:top].tolist(), shares[:top].tolist(), strict=True)
        unknown = [token for token in tokens if token not in self.vocabulary.ids]
        return [(self.vocabulary.token(token_id), share) for token_id, share in likely], tokens, unknown

    def generate(
        self, prompts: Iterable[Prompt], samplers: Sequence[Sampler], max_tokens: int, *, allow_unknown: bool = False
    ) -> Iterator[Generated]:
        """Yield a continuation for each prompt, in order, `BATCH_ROWS` at a time.

        A continuation ends with the document (its boundary is drawn) or after `max_tokens`, and the next prompt takes
        its row at once. The unknown token is never drawn unless `allow_unknown`.
        """
        drawing = Drawing(tuple(samplers), () if allow_unknown else (self.vocabulary.unk_id,))
        return continue_prompts(self.engine(BATCH_ROWS), self.vocabulary, self.rules, prompts, drawing, max_tokens)

    def engine(self, rows: int) -> Engine:
        """Return an engine of so many rows for this model."""
        return Engine(TorchNetwork(self.model, self.vocabulary.doc_id, self.device, self.precision), rows)
