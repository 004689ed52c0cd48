"""Batches of source texts in, translations out, in input order.

Shapes: S source tokens with the boundary, T target tokens, N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rnnpipe.errors import UsageError
from rnnpipe.generation.beam import BeamState, Hypothesis, beam_search
from rnnpipe.generation.blocks import Waits, blocks, never
from rnnpipe.models.pair_model import PairModel
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import Vocabulary

BATCH_ROWS = 64
_BATCH_TOKENS = 1 << 13  # of sources, padding included: a text of thousands of tokens is translated by itself
_SORTED_BATCHES = 16  # batches' worth of texts that are sorted by length, so that little is padded


@dataclass(frozen=True)
class Lexicon:
    """The dictionary of one side of a model of pairs, and the rules that its texts pass through."""

    vocabulary: Vocabulary
    rules: Rules


@dataclass(frozen=True)
class Candidate:
    """One translation: its tokens and text, its log-probability in nats, the score that it is ranked by.

    finish: "end", or "length" where it was cut. replaced: how many unknown tokens a source word stands for.
    """

    tokens: tuple[str, ...]
    text: str
    log_probability: float
    score: float
    finish: str
    replaced: int = 0


@dataclass(frozen=True)
class Translation:
    """A source text, its tokens, those among them that the dictionary does not have, and translations, best first."""

    source: str
    tokens: tuple[str, ...]
    unknown: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Search:
    """How translations are looked for: see `beam_search`. The unknown token is banned unless it is to be replaced."""

    width: int = 5
    max_length: int = 60
    alpha: float = 1.0
    n_best: int = 1
    replace_unknown: bool = False
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        if self.n_best > self.width:
            raise UsageError(f"n-best {self.n_best} needs a beam of at least {self.n_best}; it is {self.width}.")


def cut_batches(order: Sequence[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the rows of `order`, which go by length, in batches of so many rows, fewer where they are long."""
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else []
        if last and len(last) < batch_size and (len(last) + 1) * lengths[row] <= _BATCH_TOKENS:
            last.append(row)
        else:
            batches.append([row])
    return batches


class Translator:
    """A model of pairs with the rules and dictionaries of both sides.

    It computes in float64 (float32 where a device has no more): how a sum is rounded depends on the size of a batch,
    and in lower precision a translation would now and then depend on those beside it.
    """

    def __init__(self, model: PairModel, source: Lexicon, target: Lexicon, device: torch.device) -> None:
        self.model = model.to(device, torch.float32 if device.type == "mps" else torch.float64).eval()
        self.source = source
        self.target = target
        self.device = device

    def translate(
        self, texts: Iterable[str], search: Search, batch_size: int = BATCH_ROWS, waits: Waits = never
    ) -> Iterator[Translation]:
        """Return a translation for each text, in order, as they are made; an empty text has an empty one.

        waits: says whether the next text would have to be waited for; those that are there are then translated first.
        An error in the making of a text is raised once those before it are done. Raises UsageError for a search that
        needs attention with a model that has none.
        """
        if search.replace_unknown and not self.model.attends:
            raise UsageError("unknown words are replaced through attention, which this run's model does not have.")
        return self._translations(texts, search, batch_size, waits)

    def _translations(
        self, texts: Iterable[str], search: Search, batch_size: int, waits: Waits
    ) -> Iterator[Translation]:
        for block in blocks(texts, batch_size * _SORTED_BATCHES, waits):
            tokens = [tuple(self.source.rules.tokenize(text)) for text in block]
            order = sorted((row for row in range(len(block)) if tokens[row]), key=lambda row: len(tokens[row]))
            nothing = (Candidate((), "", 0.0, 0.0, "end"),)
            found: dict[int, tuple[Candidate, ...]] = dict.fromkeys(range(len(block)), nothing)
            for rows in cut_batches(order, [len(each) for each in tokens], batch_size):
                found.update(zip(rows, self._translate_batch([tokens[row] for row in rows], search), strict=True))
            for row, text in enumerate(block):
                yield Translation(text, tokens[row], self.unknown(tokens[row]), found[row])

    def unknown(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Return the source tokens that the dictionary does not have, each once."""
        return tuple(dict.fromkeys(token for token in tokens if token not in self.source.vocabulary.ids))

    @torch.inference_mode()
    def _translate_batch(self, texts: Sequence[Sequence[str]], search: Search) -> list[tuple[Candidate, ...]]:
        source, lengths = self._ids(texts)
        vocabulary = self.target.vocabulary
        inside = torch.arange(len(source), device=self.device) < (lengths - 1)[:, None]  # the boundary is no word
        known = search.replace_unknown or search.allow_unknown
        found = beam_search(
            self._step,
            (self.model.begin(source, lengths), inside),
            len(texts),
            width=search.width,
            end=vocabulary.doc_id,
            max_length=search.max_length,
            alpha=search.alpha,
            banned=() if known else (vocabulary.unk_id,),
            device=self.device,
        )
        return [
            tuple(self._candidate(each, text, search.replace_unknown) for each in hypotheses[: search.n_best])
            for text, hypotheses in zip(texts, found, strict=True)
        ]

    def _ids(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        vocabulary = self.source.vocabulary
        rows = [torch.tensor([*vocabulary.encode(text).tolist(), vocabulary.doc_id]) for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        return pad_sequence(rows, padding_value=vocabulary.doc_id).to(self.device), lengths.to(self.device)

    def _step(self, tokens: Tensor, state: BeamState) -> tuple[Tensor, Tensor | None, BeamState]:
        """Read a token a row; the mark of a step is the source token that it looked at most."""
        own, inside = state
        logits, weights, own = self.model.step(tokens, own)
        return logits, None if weights is None else (weights * inside).argmax(-1), (own, inside)

    def _candidate(self, found: Hypothesis, source: Sequence[str], replace: bool) -> Candidate:
        vocabulary = self.target.vocabulary
        tokens = [vocabulary.token(token) for token in found.tokens]
        unknown = [at for at, token in enumerate(found.tokens) if token == vocabulary.unk_id] if replace else []
        for at in unknown:
            tokens[at] = source[found.marks[at]]
        return Candidate(
            tuple(tokens),
            self.target.rules.tokenizer.join(tokens),
            found.log_probability,
            found.score,
            "end" if found.ended else "length",
            len(unknown),
        )

    @torch.inference_mode()
    def align(self, tokens: Sequence[str], translation: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the attention [T, S] of each target token, the end last, on each source token, the boundary last.

        Raises UsageError for a model without attention.
        """
        if not self.model.attends:
            raise UsageError("this run's model has no attention that could be drawn.")
        source, lengths = self._ids([tokens])
        vocabulary = self.target.vocabulary
        state = self.model.begin(source, lengths)
        rows = []
        for token in (vocabulary.doc_id, *vocabulary.encode(translation).tolist()):
            _, weights, state = self.model.step(torch.tensor([token], device=self.device), state)
            assert weights is not None, "the model attends"
            rows.append(weights[0])
        return torch.stack(rows).float().cpu().numpy()
