"""Callbacks: observers of training. They see a frozen record of where it stands and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from rnnpipe.training.objective import Units


@dataclass(frozen=True)
class TrainState:
    """Where training stands. Seconds are of training, without evaluation and saving.

    Losses are in `units.of_loss` (a language model's in nats a token), `items` counts `units.items` (tokens, or
    timesteps of sequences). figures, valid_figures: further figures by name, of the last interval (as `perplexity`) and
    of the last evaluation (as `accuracy`).
    """

    step: int
    epoch: int
    items: int
    seconds: float
    loss: float
    figures: Mapping[str, float]
    valid_loss: float | None
    valid_figures: Mapping[str, float]
    best_loss: float | None
    best_step: int | None
    lr: float
    gradient_norm: float | None
    items_per_second: float
    total_steps: int | None  # where training will end if nothing stops it before, if that can be known
    progress: float  # 0 to 1: the share of steps or seconds that are done
    stopped_early: bool
    model: nn.Module  # for reading
    units: Units
    skipped_steps: int = 0  # whose loss or gradient was not finite, and that were left out


class Callback(Protocol):
    """What a callback may implement; it never changes the weights."""

    def on_start(self, state: TrainState) -> None:
        """Hear that training begins."""
        ...

    def on_step(self, state: TrainState) -> None:
        """Hear of an interval of steps; `loss` is its mean."""
        ...

    def on_evaluate(self, state: TrainState) -> None:
        """Hear of an evaluation on the validation part."""
        ...

    def on_end(self, state: TrainState) -> None:
        """Hear that training has ended."""
        ...
