"""Loss of a language model on a text, in nats a token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.data.tokens import Ids
from rnnpipe.data.windows import reset_windows
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.runtime import autocast

_BATCH_TOKENS = 16_384  # of one evaluation batch
_BATCH_LOGITS = 1 << 25  # and the numbers that its logits may hold: 128 MiB
_CARRIED_STEPS = 1024


@dataclass(frozen=True)
class Loss:
    """The mean negative log-likelihood of `tokens` targets."""

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Return exp(nats)."""
        return math.exp(self.nats) if self.nats < 700 else math.inf

    @property
    def bits(self) -> float:
        """Return the loss in bits a token: for characters, bits per character."""
        return self.nats / math.log(2)


@torch.no_grad()
def loss_in_windows(model: LanguageModel, tokens: Ids, window: int, device: torch.device, precision: str) -> Loss:
    """Return the loss over consecutive windows, each read from a zero state; every token but the first is a target.

    A model of single windows has a context of its own and is evaluated on every position behind its first window.
    """
    if model.window is not None:
        return _loss_of_single_windows(model, tokens, device, precision)
    rows = _rows(model, window)
    total, count = 0.0, 0
    with evaluating(model), autocast(device, precision):
        for inputs, targets in reset_windows(tokens, window, rows):
            logits, _ = model(inputs.to(device))
            total += _sum_nats(logits, targets.to(device))
            count += targets.numel()
    return Loss(total / count, count)


@torch.no_grad()
def loss_carried(model: LanguageModel, tokens: Ids, device: torch.device, precision: str) -> Loss:
    """Return the loss over the whole text in one pass from its first token to its last, the state carried along."""
    if model.window is not None:
        return _loss_of_single_windows(model, tokens, device, precision)
    total, count, state = 0.0, 0, None
    with evaluating(model), autocast(device, precision):
        for first in range(0, len(tokens) - 1, _CARRIED_STEPS):
            piece = torch.from_numpy(tokens[first : first + _CARRIED_STEPS + 1].astype(np.int64)).to(device)
            logits, state = model(piece[:-1, None], state)
            total += _sum_nats(logits, piece[1:, None])
            count += len(piece) - 1
    return Loss(total / count, count)


def _loss_of_single_windows(model: LanguageModel, tokens: Ids, device: torch.device, precision: str) -> Loss:
    """Return the loss of the token behind each window; the first tokens have shorter windows behind them."""
    assert model.window is not None
    window = model.window
    total, count = 0.0, 0
    steps = np.arange(window)[:, None]
    with evaluating(model), autocast(device, precision):
        for first in range(1, min(window, len(tokens))):
            ids = torch.from_numpy(tokens[:first, None].astype(np.int64)).to(device)
            logits, _ = model(ids)
            total += _sum_nats(logits, torch.from_numpy(tokens[first : first + 1].astype(np.int64)).to(device))
            count += 1
        rows = min(_rows(model, 1), max(1, _BATCH_TOKENS // window))
        for begin in range(0, len(tokens) - window, rows):
            starts = np.arange(begin, min(begin + rows, len(tokens) - window))
            ids = torch.from_numpy(tokens[starts + steps].astype(np.int64)).to(device)
            targets = torch.from_numpy(tokens[starts + window].astype(np.int64)).to(device)
            total += _sum_nats(model(ids)[0], targets)
            count += len(starts)
    return Loss(total / count, count)


def _rows(model: LanguageModel, positions: int) -> int:
    """Return how many rows of so many predicted positions one evaluation batch may have."""
    return max(1, min(_BATCH_TOKENS, _BATCH_LOGITS // model.vocab_size) // positions)


def _sum_nats(logits: Tensor, targets: Tensor) -> float:
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="sum").item()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a block, then back into the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
