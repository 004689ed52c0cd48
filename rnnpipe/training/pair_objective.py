"""Pairs: the loss of each target token, given the source and the target tokens before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.config import TrainingConfig
from rnnpipe.data.pairs import PairBatch, Pairs, batches_per_epoch, make_batch, pair_batches
from rnnpipe.data.windows import Cursor
from rnnpipe.models.pair_model import PairModel
from rnnpipe.models.recurrent import States
from rnnpipe.runtime import autocast, seeded
from rnnpipe.training.evaluate import Loss, evaluating
from rnnpipe.training.objective import Evaluated, Units
from rnnpipe.training.readout_loss import readout_loss

_BATCH_PAIRS = 64  # of one evaluation batch


@dataclass(frozen=True)
class PairLoss(Loss):
    """The loss of `tokens` target tokens; of a variational model an upper bound of it.

    divergence: the nats a token that a latent variable costs among those of the bound; None if there is none.
    """

    divergence: float | None = None

    @property
    def reconstruction(self) -> float:
        """Return the nats a token that the target costs, once the latent variable is known."""
        return self.nats - (self.divergence or 0.0)


@dataclass(frozen=True)
class PairObjective:
    """The mean negative log-likelihood of target tokens, the boundary at the end included.

    train, valid: the parts (valid None: no evaluation). source_end, target_end: the boundary's id on each side.
    """

    units: ClassVar[Units] = Units("loss_nats", "tokens", "nats a target token")
    step_figures: ClassVar[tuple[str, ...]] = ()
    evaluation_figures: ClassVar[tuple[str, ...]] = ("perplexity",)

    varying: ClassVar[str | None] = "pairs differ in their lengths"

    train: Pairs
    valid: Pairs | None
    source_end: int
    target_end: int
    config: TrainingConfig
    seed: int

    def batches(self, cursor: Cursor) -> Iterator[PairBatch]:
        """Yield batches of pairs of like length."""
        size = self.config.batch_size or len(self.train)
        return pair_batches(self.train, size, self.source_end, self.target_end, self.seed, cursor)

    def steps_per_epoch(self) -> int:
        """Return how many batches an epoch has."""
        return batches_per_epoch(len(self.train), self.config.batch_size or len(self.train))

    def loss(self, model: PairModel, batch: PairBatch, state: States | None) -> tuple[Tensor, States]:
        """Return the mean loss of a batch's target tokens, smoothed as `training.label_smoothing` says.

        Its gradient counts every token of the training part alike, those of a batch of short texts too.
        """
        sampled, smoothing = self._sampling_rate(batch.epoch), self.config.label_smoothing
        share = batch.items / self._mean_items()
        if sampled:
            logits = sampled_logits(model, batch, sampled).float()
            return with_gradient_of(F.cross_entropy(logits, wanted(batch), label_smoothing=smoothing), share), ()
        features, extra = target_features(model, batch)
        loss = readout_loss(model.readout, model.drop(features), wanted(batch), smoothing)
        return with_gradient_of(loss if extra is None else loss + extra / batch.items, share), ()

    def _mean_items(self) -> float:
        """Return how many target tokens a batch has in the mean."""
        return (len(self.train.target.ids) + len(self.train)) / self.steps_per_epoch()

    def _sampling_rate(self, epoch: int) -> float:
        """Return how often the decoder reads its own token in this epoch; the last epochs' rate is the configured."""
        ramp = self.config.scheduled_sampling_epochs
        return self.config.scheduled_sampling * (min(1.0, epoch / ramp) if ramp else 1.0)

    def weight(self, batch: PairBatch) -> float:
        """Return the number of target tokens."""
        return batch.items

    def figures(self, loss: float) -> Mapping[str, float]:
        """Return no figures beside the loss: smoothed, it has no perplexity."""
        return {}

    def evaluate(self, model: PairModel, device: torch.device, precision: str) -> Evaluated | None:
        """Return the loss of the validation part, not smoothed, or its bound, and the perplexity."""
        if self.valid is None:
            return None
        found = pair_loss(model, self.valid, self.source_end, self.target_end, device, precision)
        return Evaluated(found.nats, {"perplexity": found.perplexity})


def with_gradient_of(loss: Tensor, share: float) -> Tensor:
    """Return a loss of the same value, be it finite or not, whose gradient is `share` times as large."""
    weighed = loss.clone()
    if weighed.requires_grad:
        weighed.register_hook(lambda gradient: gradient * share)  # type: ignore[no-untyped-call]
    return weighed


def target_features(model: PairModel, batch: PairBatch) -> tuple[Tensor, Tensor | None]:
    """Return features [N, F] of a batch's N target tokens, each read behind the true ones, and what else is a loss.

    The readout, which costs most, thus sees no padding.
    """
    features, extra = model(batch.source, batch.source_lengths, batch.target[:-1])
    return features[_inside(batch)], extra


def sampled_logits(model: PairModel, batch: PairBatch, rate: float) -> Tensor:
    """Return logits [N, V] where the decoder reads, with probability `rate`, a token drawn from its own prediction.

    Scheduled sampling (Bengio, Vinyals, Jaitly & Shazeer 2015); through the draw there is no gradient.
    """
    state = model.begin(batch.source, batch.source_lengths)
    tokens, found = batch.target[0], []
    for step in range(len(batch.target) - 1):
        logits, _, state = model.step(tokens, state)
        found.append(logits)
        drawn = torch.multinomial(logits.detach().float().softmax(-1), 1)[:, 0]
        own = torch.rand(len(drawn), device=drawn.device) < rate
        tokens = torch.where(own, drawn, batch.target[step + 1])
    return torch.stack(found)[_inside(batch)]


def wanted(batch: PairBatch) -> Tensor:
    """Return the N target tokens that are to be predicted."""
    return batch.target[1:][_inside(batch)]


def _inside(batch: PairBatch) -> Tensor:
    """Return [T, B]: whether a target token is to be predicted there, or there is padding."""
    steps = torch.arange(len(batch.target) - 1, device=batch.target.device)[:, None]
    return steps < batch.target_lengths


@torch.no_grad()
def pair_loss(
    model: PairModel, pairs: Pairs, source_end: int, target_end: int, device: torch.device, precision: str
) -> PairLoss:
    """Return the loss of all target tokens of a part, or the bound of it (`PairModel.bound`).

    What a variational model draws is the same each time, and leaves the random generators where they were.
    """
    order = np.lexsort((pairs.source.lengths, pairs.target.lengths))
    right, divergence, count = 0.0, 0.0, 0
    with evaluating(model), autocast(device, precision), seeded(0, device):
        for first in range(0, len(order), _BATCH_PAIRS):
            batch = make_batch(pairs, order[first : first + _BATCH_PAIRS], source_end, target_end).to(device)
            features, extra = model.bound(batch.source, batch.source_lengths, batch.target[:-1])
            logits = model.read_out(features[_inside(batch)]).float()
            right += F.cross_entropy(logits, wanted(batch), reduction="sum").item()
            divergence += 0.0 if extra is None else float(extra)
            count += batch.items
    return PairLoss((right + divergence) / count, count, divergence / count if model.variational else None)
