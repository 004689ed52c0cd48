"""Speed and quality of training word vectors against gensim: the same tokens and settings, in turns, in one process.

Ours uses one thread, gensim one worker for each processor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from rnnpipe.data.tokens import TokenFile, TokenFolder
from rnnpipe.errors import InputError, UsageError
from rnnpipe.text.workers import default_workers
from rnnpipe.vectors.word2vec import Settings, train_word2vec

_HELD_OUT = 20  # one part in so many, at the end, is not trained on
_SENTENCE = 1000  # tokens; gensim cuts at 10,000
_PAIRS = 50_000
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One model by one program: median tokens a second, and the loss of held-out places, in nats, lower is better."""

    model: str
    program: str
    tokens_per_second: float
    loss_nats: float


def bench_vectors(folder: TokenFolder, epochs: int, rounds: int, report: Callable[[str], None]) -> list[Row]:
    """Measure skip-gram and CBOW on the known tokens of a token folder; raise UsageError without gensim."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise UsageError("bench vectors needs gensim: pip install 'rnnpipe[bench]'.") from None
    torch.set_num_threads(1)
    vocabulary = folder.vocabulary()
    part = folder.part(folder.parts[0])
    ids = part.tokens[part.tokens < vocabulary.kept]
    cut = len(ids) - len(ids) // _HELD_OUT
    if len(ids) < _HELD_OUT * 1000:
        raise InputError(f"{folder.path}: {len(ids)} tokens are too few to measure with.")
    text = TokenFile(ids[:cut], np.zeros(1, np.int64))
    sentences = [list(map(str, ids[k : min(k + _SENTENCE, cut)])) for k in range(0, cut, _SENTENCE)]
    rows = []
    models: tuple[Literal["skip-gram", "cbow"], ...] = ("skip-gram", "cbow")
    for model in models:
        ours, theirs = [], []
        losses = (0.0, 0.0)
        for number in range(rounds):
            settings = Settings(model, epochs=epochs, seed=number)
            trained = train_word2vec(text, vocabulary, settings)
            ours.append(trained.tokens_per_second)
            peer = Word2Vec(
                vector_size=settings.size, window=settings.window, negative=settings.negative, sample=settings.sample,
                sg=int(model == "skip-gram"), alpha=settings.first_lr, min_alpha=settings.final_lr,
                min_count=1, workers=default_workers(), seed=number,
            )  # fmt: skip
            peer.build_vocab(sentences)
            begun = time.perf_counter()
            peer.train(sentences, total_examples=peer.corpus_count, epochs=epochs)
            theirs.append(cut * epochs / (time.perf_counter() - begun))
            losses = (
                held_out_loss(ids[cut:], ids[:cut], trained.vectors, trained.output, settings),
                held_out_loss(ids[cut:], ids[:cut], *_rows_of(peer, vocabulary.kept), settings),
            )
            report(f"{model}: {ours[-1]:,.0f} tokens/s, gensim {theirs[-1]:,.0f}")
        for program, rates, loss in (("rnnpipe", ours, losses[0]), ("gensim", theirs, losses[1])):
            rows.append(Row(model, program, statistics.median(rates), loss))
    return rows


def _rows_of(peer: Any, size: int) -> tuple[Rows, Rows]:
    """Return gensim's input and output vectors in the order of our ids."""
    vectors, output = (np.zeros((size, peer.vector_size), np.float32) for _ in range(2))
    places = np.array([int(token) for token in peer.wv.index_to_key])
    vectors[places], output[places] = peer.wv.vectors, peer.syn1neg
    return vectors, output


def held_out_loss(
    ids: npt.NDArray[Any], trained_on: npt.NDArray[Any], vectors: Rows, output: Rows, settings: Settings
) -> float:
    """Return the mean loss in nats of places of a text, with the whole window and negatives drawn alike for all."""
    random = np.random.default_rng(0)
    window = settings.window
    probability = np.bincount(trained_on, minlength=len(vectors)) ** 0.75
    probability /= probability.sum()
    places = random.integers(window, len(ids) - window, _PAIRS)
    offsets = [k for k in range(-window, window + 1) if k]
    if settings.model == "skip-gram":
        x = vectors[ids[places + random.choice(offsets, _PAIRS)]]
    else:
        x = np.mean([vectors[ids[places + k]] for k in offsets], axis=0)
    drawn = random.choice(len(vectors), (_PAIRS, settings.negative), p=probability)
    pull = np.einsum("ns,ns->n", x, output[ids[places]])
    push = np.einsum("ns,nks->nk", x, output[drawn])
    return float(np.logaddexp(0, -pull).mean() + np.logaddexp(0, push).sum(1).mean())
