"""The learning rate over time, as a factor of the one that was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rnnpipe.config import TrainingConfig


class Schedule:
    """Warm-up, then constant, cosine or plateau; `factor` is what the first learning rates are multiplied with.

    constant: 1. cosine: from 1 to `final_lr` as progress goes from 0 to 1 (Loshchilov & Hutter 2017, eq. 5, one
    period). plateau: times `plateau_factor` after `plateau_patience` + 1 evaluations without improvement.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.plateau = 1.0
        self._waited = 0

    def factor(self, step: int, progress: float) -> float:
        """Return the factor for a step (counted from 0) at which `progress`, 0 to 1, of the training is done."""
        config = self.config
        factor = self.plateau
        if config.schedule == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
            factor = config.final_lr + (1 - config.final_lr) * share
        if step < config.warmup_steps:
            factor *= (step + 1) / config.warmup_steps
        return factor

    def on_evaluation(self, improved: bool) -> None:
        """Hear whether an evaluation was the best so far."""
        self._waited = 0 if improved else self._waited + 1
        if self.config.schedule == "plateau" and self._waited > self.config.plateau_patience:
            self.plateau *= self.config.plateau_factor
            self._waited = 0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint must keep."""
        return {"plateau": self.plateau, "waited": self._waited}

    def restore(self, state: Mapping[str, float]) -> None:
        """Take back what `state` returned."""
        self.plateau, self._waited = state["plateau"], int(state["waited"])
