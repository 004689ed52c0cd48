"""Language modelling: the loss of the next token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.config import TrainingConfig
from rnnpipe.data.tokens import Ids
from rnnpipe.data.windows import IGNORED, Batch, Cursor, single_windows, stream_batches_per_epoch, stream_windows
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import States
from rnnpipe.training.evaluate import loss_in_windows
from rnnpipe.training.objective import Evaluated, Units


@dataclass(frozen=True)
class TextObjective:
    """The mean negative log-likelihood of a text's tokens.

    train, valid: ids of the two texts (valid None: no evaluation). Windows of `training.bptt` tokens with the state
    carried, or single ones of `training.window`.
    """

    units: ClassVar[Units] = Units("loss_nats", "tokens", "nats a token")
    step_figures: ClassVar[tuple[str, ...]] = ("perplexity",)
    evaluation_figures: ClassVar[tuple[str, ...]] = ("perplexity",)

    varying: ClassVar[str | None] = None

    train: Ids
    valid: Ids | None
    config: TrainingConfig
    seed: int

    def batches(self, cursor: Cursor) -> Iterator[Batch]:
        """Yield windows of the training text."""
        config = self.config
        if config.window is not None:
            return single_windows(self.train, config.batch_size, config.window, self.seed, cursor)
        return stream_windows(self.train, config.batch_size, config.text_window, cursor)

    def steps_per_epoch(self) -> int:
        """Return how many windows (batches of them) an epoch has."""
        config, tokens = self.config, len(self.train)
        if config.window is not None:
            return max(1, -(-(tokens - config.window) // config.batch_size))
        return max(1, stream_batches_per_epoch(tokens, config.batch_size, config.text_window))

    def loss(self, model: LanguageModel, batch: Batch, state: States | None) -> tuple[Tensor, States]:
        """Return the mean loss of a batch's targets in nats."""
        logits, state = model(batch.inputs, state)
        return F.cross_entropy(logits.flatten(0, -2), batch.targets.flatten(), ignore_index=IGNORED), state

    def weight(self, batch: Batch) -> float:
        """Return the number of targets."""
        return batch.items

    def figures(self, loss: float) -> Mapping[str, float]:
        """Return the perplexity."""
        return {"perplexity": math.inf if loss >= 700 else math.exp(loss)}

    def evaluate(self, model: LanguageModel, device: torch.device, precision: str) -> Evaluated | None:
        """Return the loss of the validation text in reset windows."""
        if self.valid is None:
            return None
        result = loss_in_windows(model, self.valid, self.config.evaluation_window, device, precision)
        return Evaluated(result.nats, {"perplexity": result.perplexity})
