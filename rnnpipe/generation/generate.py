"""Batches of prompts in, continuations out, in input order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from rnnpipe.generation.samplers import Rows, Sampler, draw
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.runtime import autocast
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import Vocabulary

BATCH_ROWS = 64


@dataclass(frozen=True)
class Prompt:
    """A text to continue. `number` and `seed` key its random numbers; `id` is the caller's name for it."""

    id: str
    text: str
    number: int
    seed: int


@dataclass(frozen=True)
class Generated:
    """A continuation: its tokens and text, its log-probability in nats under the model, and why it ended.

    `unknown` are the words of the prompt that the vocabulary does not have; `log_probability` is of the model's own
    distribution, before any sampler.
    """

    prompt: Prompt
    tokens: tuple[str, ...]
    text: str
    log_probability: float
    finish: str  # "length" or "document"
    unknown: tuple[str, ...]


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
        """Yield a continuation for each prompt, in order, `BATCH_ROWS` prompts at a time.

        A continuation ends with the document (its boundary is drawn) or after `max_tokens`. The unknown token is never
        drawn unless `allow_unknown`.
        """
        iterator = iter(prompts)
        while batch := list(islice(iterator, BATCH_ROWS)):
            yield from self._generate_batch(batch, samplers, max_tokens, allow_unknown)

    @torch.inference_mode()
    def _generate_batch(
        self, prompts: Sequence[Prompt], samplers: Sequence[Sampler], max_tokens: int, allow_unknown: bool
    ) -> list[Generated]:
        vocabulary = self.vocabulary
        tokenized = [self.tokenize(prompt.text) for prompt in prompts]
        logits, state = self.prime(tokenized)
        seeds = torch.tensor([prompt.seed for prompt in prompts], device=self.device)
        numbers = torch.tensor([prompt.number for prompt in prompts], device=self.device)
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        scores = torch.zeros(len(prompts), dtype=torch.float64, device=self.device)
        drawn = []
        for position in range(max_tokens):
            log_shares = logits.log_softmax(-1)
            adjusted = (
                logits
                if allow_unknown
                else logits.index_fill(-1, torch.tensor([vocabulary.unk_id], device=self.device), -math.inf)
            )
            rows = Rows(seeds, numbers, torch.full_like(numbers, position))
            for sampler in samplers:
                adjusted = sampler.adjust(adjusted, rows)
            tokens = draw(adjusted, rows)
            drawn.append(torch.where(ended, vocabulary.doc_id, tokens))
            scores += torch.where(ended, 0.0, log_shares.gather(-1, tokens[:, None])[:, 0])
            ended = ended | (tokens == vocabulary.doc_id)
            if bool(ended.all()) or position == max_tokens - 1:
                break
            with autocast(self.device, self.precision):
                step_logits, state = self.model.step(tokens, state)
            logits = step_logits.double()
        table = torch.stack(drawn, 1).tolist() if drawn else [[] for _ in prompts]
        return [
            self._finish(prompt, words, ids, score)
            for prompt, words, ids, score in zip(prompts, tokenized, table, scores.tolist(), strict=True)
        ]

    def _finish(self, prompt: Prompt, words: Sequence[str], ids: Sequence[int], score: float) -> Generated:
        vocabulary = self.vocabulary
        at_end = vocabulary.doc_id in ids
        kept = ids[: list(ids).index(vocabulary.doc_id)] if at_end else ids
        tokens = tuple(vocabulary.token(token_id) for token_id in kept)
        return Generated(
            prompt=prompt,
            tokens=tokens,
            text=self.rules.tokenizer.join(tokens),
            log_probability=score,
            finish="document" if at_end else "length",
            unknown=tuple(dict.fromkeys(word for word in words if word not in vocabulary.ids)),
        )
