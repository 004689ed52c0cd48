"""Word vectors by word2vec: skip-gram and CBOW with negative sampling, on token files.

Each token w has an input vector x_w, which is the result, and an output vector y_w. For each place t of the text and
its neighbours c, at most b places away, b drawn anew for each place from 1 to `window`, the loss is

    skip-gram:  sum over c of  -log s(x_c . y_t) - sum over k negatives n of log s(-x_c . y_n)
    CBOW:                      -log s(m . y_t)   - sum over k negatives n of log s(-m . y_n),   m the mean of all x_c

with s the logistic function; negatives are drawn by count to the power 0.75. A token of frequency f stays in the text,
anew in each epoch, with the probability sqrt(sample / f) + sample / f. The learning rate falls linearly. In CBOW each
neighbour gets the whole gradient of the mean, as in the authors' program and in gensim.

Mikolov et al. 2013, "Efficient estimation of word representations in vector space" and "Distributed representations of
words and phrases and their compositionality". Where we differ: the text is taken in spans of a few consecutive places
that share their negatives, each weighted so that a pair meets `negative` of them on average, and some spans form a step
whose gradients are summed before they are applied. All products of a step are then a few batched matrix products
(after Ji et al. 2016, "Parallelizing word2vec in shared and distributed memory"), and the result depends on the seed
and the number of threads alone, not on how threads race.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnnpipe.data.tokens import Ids, TokenFile
from rnnpipe.errors import DivergedError, InputError, UsageError
from rnnpipe.text.vocabulary import Vocabulary

_CHUNK = 1 << 20  # tokens that are thinned out at once; no window crosses its ends
_PADDING = -1


@dataclass(frozen=True)
class Settings:
    """What decides the vectors. lr: 0.025 for skip-gram and 0.05 for CBOW, as the authors' program has them."""

    model: Literal["skip-gram", "cbow"] = "skip-gram"
    size: int = 100
    window: int = 5
    negative: int = 5
    sample: float = 1e-3
    epochs: int = 5
    lr: float | None = None
    final_lr: float = 1e-4
    seed: int = 0
    span: int = 16  # consecutive places that share negatives, as many as there are places
    step: int | None = None  # places whose gradients are applied together; found from the text if not given

    def __post_init__(self) -> None:
        for name in ("size", "window", "negative", "epochs", "span", "step"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name}={value} is not accepted; it takes 1 or more.")
        for name in ("sample", "lr", "final_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name}={value} is not accepted; it takes a number above 0.")

    @property
    def first_lr(self) -> float:
        """Return the learning rate to begin with."""
        return self.lr if self.lr is not None else 0.025 if self.model == "skip-gram" else 0.05


@dataclass(frozen=True)
class Trained:
    """Input and output vectors [V, size] of the tokens with an id, in its order; tokens read and seconds taken."""

    vectors: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Return how many tokens of the text, before it is thinned out, were read a second."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class _Text:
    """The known tokens of a text and the number of the document that each stands in."""

    ids: Ids
    documents: npt.NDArray[np.int32]


def train_word2vec(
    part: TokenFile,
    vocabulary: Vocabulary,
    settings: Settings = Settings(),
    progress: Callable[[int], None] = lambda tokens: None,
) -> Trained:
    """Return the vectors of a text's tokens; `progress` hears of the tokens read since it was last called.

    Unknown tokens and document boundaries are left out; no window crosses a boundary. Raises InputError for a text
    with fewer than two known tokens, DivergedError where a learning rate is too high.
    """
    text = _known_tokens(part, vocabulary)
    counts = np.bincount(text.ids, minlength=vocabulary.kept)
    if len(text.ids) < 2:
        raise InputError("the text has fewer than two known tokens; there is nothing to learn from.")
    generator = torch.Generator().manual_seed(settings.seed)
    width = 1 / settings.size
    vectors = torch.empty(vocabulary.kept, settings.size).uniform_(-width / 2, width / 2, generator=generator)
    output = torch.zeros_like(vectors)
    settings = replace(settings, step=places_of_step(counts, settings))
    update = _skip_gram if settings.model == "skip-gram" else _cbow
    total = len(text.ids) * settings.epochs
    begun = time.perf_counter()
    read = 0
    for epoch in range(settings.epochs):
        for start in range(0, len(text.ids), _CHUNK):
            chunk = _Text(text.ids[start : start + _CHUNK], text.documents[start : start + _CHUNK])
            random = np.random.default_rng([settings.seed, epoch, start])
            done = 0.0
            for step, share in _steps(chunk, counts, settings, random):
                so_far = (read + done * len(chunk.ids)) / total
                update(vectors, output, step, settings, _rate(settings, so_far))
                progress(int(share * len(chunk.ids)) - int(done * len(chunk.ids)))
                done = share
            read += len(chunk.ids)
    if not (vectors.isfinite().all() and output.isfinite().all()):
        raise DivergedError("the vectors are not numbers any more; take a lower --lr.")
    return Trained(vectors.numpy(), output.numpy(), read, time.perf_counter() - begun)


def places_of_step(counts: npt.NDArray[np.int64], settings: Settings) -> int:
    """Return how many places may form a step.

    None of them sees what the others have learnt: the more often the most frequent token stands in a step, the further
    its vector goes beyond where the last of the gradients would still point. The bounds were found by the loss on
    English: with twice as many places it is the same, with eight times they diverge.
    """
    if settings.step is not None:
        return settings.step
    most, bound = (512, 0.1) if settings.model == "skip-gram" else (2048, 0.4)
    stay = counts * np.minimum(_keep_probability(counts, settings.sample), 1)
    return min(most, int(bound / settings.first_lr * stay.sum() / stay.max()))


def _rate(settings: Settings, done: float) -> float:
    """Return the learning rate after a share of the work."""
    return max(settings.final_lr, settings.first_lr * (1 - done))


def _known_tokens(part: TokenFile, vocabulary: Vocabulary) -> _Text:
    lengths = np.diff(np.append(part.offsets, len(part.tokens)))
    documents = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    known = part.tokens < vocabulary.kept
    return _Text(np.asarray(part.tokens[known]), documents[known])


@dataclass(frozen=True)
class _Step:
    """Spans of a text [B] with what belongs to them.

    inputs [B, E]: tokens of a span with `window` places on either side. near [B, E, T]: 1 where the place E is a
    neighbour of the span's place T. negatives [B, K].
    """

    inputs: Tensor
    near: Tensor
    negatives: Tensor

    def targets(self, window: int) -> Tensor:
        """Return the tokens of the spans themselves [B, T]."""
        return self.inputs[:, window : self.inputs.shape[1] - window]


def _steps(
    text: _Text, counts: npt.NDArray[np.int64], settings: Settings, random: np.random.Generator
) -> Iterator[tuple[_Step, float]]:
    """Yield the steps of a piece of text, thinned out, each with the share of the piece that is then done."""
    span, window = settings.span, settings.window
    kept = random.random(len(text.ids)) < _keep_probability(counts, settings.sample)[text.ids]
    ids, documents = text.ids[kept], text.documents[kept]
    spans = -(-len(ids) // span)
    places = np.zeros(spans * span + 2 * window, np.int64)
    places[window : window + len(ids)] = ids
    document = np.full(len(places), _PADDING, np.int32)
    document[window : window + len(ids)] = documents
    reach = torch.from_numpy(random.integers(1, window + 1, (spans, 1, span), np.int16))
    negatives = torch.from_numpy(_draw_negatives(counts, (spans, span), random))
    distance = (torch.arange(span + 2 * window)[:, None] - torch.arange(span) - window).abs().to(torch.int16)
    distance[distance == 0] = torch.iinfo(torch.int16).max  # a place is no neighbour of itself
    all_inputs = torch.from_numpy(places).unfold(0, span + 2 * window, span)
    all_documents = torch.from_numpy(document).unfold(0, span + 2 * window, span)
    assert settings.step is not None, "the settings are resolved"
    size = max(1, settings.step // span)
    for start in range(0, spans, size):
        stop = min(start + size, spans)
        near = distance <= reach[start:stop]
        if start == 0 or stop == spans or document[start * span] != document[stop * span + 2 * window - 1]:
            own = all_documents[start:stop]  # of several documents, or with padding
            here = own[:, window : window + span]
            near &= (own[:, :, None] == here[:, None, :]) & (here != _PADDING)[:, None, :]
        yield _Step(all_inputs[start:stop], near.float(), negatives[start:stop]), stop / spans


def _keep_probability(counts: npt.NDArray[np.int64], sample: float) -> npt.NDArray[np.float64]:
    frequency = np.maximum(counts, 1) / counts.sum()
    return np.asarray(np.sqrt(sample / frequency) + sample / frequency)


def _draw_negatives(
    counts: npt.NDArray[np.int64], shape: tuple[int, int], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    cumulative = np.cumsum(counts**0.75)
    drawn = np.searchsorted(cumulative, random.random(shape) * cumulative[-1], side="right")
    return np.asarray(np.minimum(drawn, len(counts) - 1), np.int64)


def _skip_gram(vectors: Tensor, output: Tensor, step: _Step, settings: Settings, lr: float) -> None:
    """Apply the gradients of a step of skip-gram, in place."""
    size = vectors.shape[1]
    targets = step.targets(settings.window)
    x, y, n = vectors[step.inputs], output[targets], output[step.negatives]
    pull = torch.bmm(x, y.mT).sigmoid_().neg_().add_(1).mul_(step.near).mul_(lr)  # [B, E, T]
    # Of a span's pairs, how many each input meets each negative in: all but those whose target it is.
    same = (targets[:, :, None] == step.negatives[:, None, :]).float()
    pairs = step.near.sum(2, keepdim=True) - torch.bmm(step.near, same)  # [B, E, K]
    push = torch.bmm(x, n.mT).sigmoid_().mul_(pairs).mul_(-lr * settings.negative / settings.span)
    x_change = torch.bmm(pull, y).baddbmm_(push, n)
    output.index_add_(0, targets.reshape(-1), torch.bmm(pull.mT, x).view(-1, size))
    output.index_add_(0, step.negatives.reshape(-1), torch.bmm(push.mT, x).view(-1, size))
    vectors.index_add_(0, step.inputs.reshape(-1), x_change.view(-1, size))


def _cbow(vectors: Tensor, output: Tensor, step: _Step, settings: Settings, lr: float) -> None:
    """Apply the gradients of a step of CBOW, in place."""
    size = vectors.shape[1]
    targets = step.targets(settings.window)
    x, y, n = vectors[step.inputs], output[targets], output[step.negatives]
    neighbours = step.near.sum(1)  # [B, T]
    mean = torch.bmm(step.near.mT, x).div_(neighbours.clamp(min=1)[:, :, None])  # [B, T, size]
    some = (neighbours > 0).float()[:, :, None].mul_(lr)
    pull = (mean * y).sum(2, keepdim=True).sigmoid_().neg_().add_(1).mul_(some)  # [B, T, 1]
    other = (targets[:, :, None] != step.negatives[:, None, :]).float()
    push = torch.bmm(mean, n.mT).sigmoid_().mul_(other).mul_(some).mul_(-settings.negative / settings.span)
    mean_change = torch.bmm(push, n).add_(pull * y)
    output.index_add_(0, targets.reshape(-1), (pull * mean).view(-1, size))
    output.index_add_(0, step.negatives.reshape(-1), torch.bmm(push.mT, mean).view(-1, size))
    vectors.index_add_(0, step.inputs.reshape(-1), torch.bmm(step.near, mean_change).view(-1, size))


def to_table(settings: Settings) -> dict[str, Any]:
    """Return all settings by name, the learning rate resolved."""
    return {**asdict(settings), "lr": settings.first_lr}
