"""The best continuations of prompts by beam search, in input order.

Shapes: B prompts, N rows: as many for each prompt as the beam is wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rnnpipe.generation.beam import BeamState, Hypothesis, beam_search
from rnnpipe.generation.blocks import blocks
from rnnpipe.generation.engine import BATCH_ROWS, Finish
from rnnpipe.generation.generate import Reader
from rnnpipe.generation.prompts import Generated, Prompt, encode, generated, unknown_words
from rnnpipe.generation.tokens import Tokens


def best_continuations(
    reader: Reader,
    prompts: Iterable[Prompt],
    *,
    width: int,
    best: int,
    max_tokens: int,
    alpha: float,
    allow_unknown: bool,
    rows: int = BATCH_ROWS,
) -> Iterator[list[Generated]]:
    """Yield the `best` continuations of each prompt, at most `width`, the best first.

    They are ranked by log-probability / length^alpha, the document's end counted; see `beam_search`. Where there are
    not so many, as in a vocabulary of a few tokens, the rest are empty and finish with "none allowed". An error in the
    making of a prompt is raised once those before it are done.
    """
    tokens, network = reader.tokens, reader.network
    banned = () if allow_unknown else (tokens.unknown,)
    for batch in blocks(prompts, max(1, rows // width)):
        words = [reader.rules.tokenize(prompt.text) for prompt in batch]
        ids = [[tokens.boundary, *encode(each, tokens)] for each in words]

        def step(following: Tensor, state: BeamState) -> tuple[Tensor, None, BeamState]:
            waiting, memory = state
            # The first token that a row reads is the last of its prompt, whatever the search begins with.
            logits, memory = network.step(torch.where(waiting < 0, following, waiting), memory)
            return logits, None, (torch.full_like(waiting, -1), memory)

        last = torch.tensor([each[-1] for each in ids], device=reader.device)
        found = beam_search(
            step,
            (last, network.prime([each[:-1] for each in ids])),
            len(batch),
            width=width,
            end=tokens.boundary,
            max_length=max_tokens,
            alpha=alpha,
            banned=banned,
            device=reader.device,
        )
        for prompt, own, hypotheses in zip(batch, words, found, strict=True):
            unknown = unknown_words(own, tokens)
            texts = [_text(prompt, one, unknown, tokens) for one in hypotheses[:best]]
            yield texts + [Generated(prompt, (), "", -math.inf, "none allowed", unknown)] * (best - len(texts))


def _text(prompt: Prompt, found: Hypothesis, unknown: tuple[str, ...], tokens: Tokens) -> Generated:
    finish: Finish = "document" if found.ended else "length"
    ids = found.tokens
    if found.ended:
        ids = (*ids, tokens.boundary)
    return generated(prompt, ids, [found.log_probability], finish, unknown, None, tokens)
