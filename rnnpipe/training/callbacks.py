"""Callbacks: observers of training. They see a frozen record of where it stands and change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn


@dataclass(frozen=True)
class TrainState:
    """Where training stands. Losses are in nats a token; seconds are of training, without evaluation and saving."""

    step: int
    epoch: int
    tokens: int
    seconds: float
    loss_nats: float
    valid_loss_nats: float | None
    best_loss_nats: float | None
    best_step: int | None
    lr: float
    gradient_norm: float | None
    tokens_per_second: float
    total_steps: int | None  # where training will end if nothing stops it before, if that can be known
    progress: float  # 0 to 1: the share of steps or seconds that are done
    stopped_early: bool
    model: nn.Module  # for reading
    skipped_steps: int = 0  # whose loss or gradient was not finite, and that were left out


class Callback(Protocol):
    """What a callback may implement; it never changes the weights."""

    def on_start(self, state: TrainState) -> None:
        """Hear that training begins."""
        ...

    def on_step(self, state: TrainState) -> None:
        """Hear of an interval of steps; `loss_nats` is its mean."""
        ...

    def on_evaluate(self, state: TrainState) -> None:
        """Hear of an evaluation on the validation text."""
        ...

    def on_end(self, state: TrainState) -> None:
        """Hear that training has ended."""
        ...
