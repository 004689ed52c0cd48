"""The callback `tensorboard`: scalars and weight histograms as TensorBoard events (extra `tensorboard`)."""

from __future__ import annotations

from pathlib import Path

from rnnpipe.errors import UsageError
from rnnpipe.training.callbacks import TrainState


class TensorBoard:
    """Writes losses, learning rate, gradient norm and speed, and a histogram of every parameter at each evaluation."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "callback 'tensorboard' needs the package tensorboard: pip install 'rnnpipe[tensorboard]'."
            ) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def on_start(self, state: TrainState) -> None:
        """Write the weights before training."""
        self._histograms(state)

    def on_step(self, state: TrainState) -> None:
        """Write the scalars of an interval."""
        self._writer.add_scalar(state.units.loss.replace("loss", "loss/train"), state.loss, state.step)
        self._writer.add_scalar("learning_rate", state.lr, state.step)
        self._writer.add_scalar(f"{state.units.items}_per_second", state.items_per_second, state.step)
        if state.gradient_norm is not None:
            self._writer.add_scalar("gradient_norm", state.gradient_norm, state.step)

    def on_evaluate(self, state: TrainState) -> None:
        """Write the validation loss and the weights."""
        if state.valid_loss is not None:
            self._writer.add_scalar(state.units.loss.replace("loss", "loss/valid"), state.valid_loss, state.step)
        for name, value in state.valid_figures.items():
            self._writer.add_scalar(f"valid/{name}", value, state.step)
        self._histograms(state)

    def on_end(self, state: TrainState) -> None:
        """Close the event file."""
        self._writer.close()

    def _histograms(self, state: TrainState) -> None:
        for name, parameter in state.model.named_parameters():
            self._writer.add_histogram(name, parameter.detach().float().cpu(), state.step)
