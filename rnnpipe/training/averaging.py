"""A moving average of a network's weights, which stands for them where it is evaluated and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Average:
    """The mean of the weights behind all steps, each step counting `decay` times as much as the one after it.

        a_t = a_(t-1) + (w_t - a_(t-1)) (1 - d) / (1 - d^t)

    It is an exponential moving average whose start is corrected for as in Adam (Kingma & Ba 2015, section 3), so that
    it does not lean on the first weights. Descent goes on from the weights themselves (Polyak & Juditsky 1992).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.decay = decay
        self.weights = self._own()
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights behind another step."""
        self.steps += 1
        rate = (1 - self.decay) / (1 - self.decay**self.steps)
        for name, parameter in self.parameters.items():
            self.weights[name].lerp_(parameter, rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the network use the average for a block, and its own weights again behind it."""
        own = self._own()
        self._set(self.weights)
        try:
            yield
        finally:
            self._set(own)

    def settle(self) -> None:
        """Leave the network with the average, at the end of training."""
        self._set(self.weights)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside the average, which it has as the network's weights."""
        return {"steps": self.steps, "weights": self._own()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the network's weights for the average, and give it its own ones of a checkpoint."""
        self.steps = state["steps"]
        self.weights = self._own()
        self._set(state["weights"])

    def _own(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def _set(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])
