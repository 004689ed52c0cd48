"""The callback `tensorboard`: scalars, histograms and the network's graph as TensorBoard events (extra)."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.training.callbacks import TrainState

_GRAPH_TIMESTEPS = 3  # of the input that the graph is drawn from: a plain loop is drawn timestep by timestep
_PARTS = ("encoder", "input_layer", "recurrent", "readout")  # of a model, whose outputs get histograms


class TensorBoard:
    """Writes losses and their figures, learning rate, gradient norm and speed; at each evaluation histograms of every
    parameter and of the outputs of the model's parts, as they were in the last batch; and the network's graph.
    """

    def __init__(self, folder: Path, *, graph: bool = True) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "callback 'tensorboard' needs the package tensorboard: pip install 'rnnpipe[tensorboard]'."
            ) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._graph = graph
        self._outputs: dict[str, Tensor] = {}
        self._input: Tensor | None = None
        self._hooks: list[Any] = []

    def on_start(self, state: TrainState) -> None:
        """Write the weights before training; from now on hear what the model's parts give."""
        self._write_weights(state)
        self._listen(state.model)

    def on_step(self, state: TrainState) -> None:
        """Write the scalars of an interval, and once the graph."""
        self._writer.add_scalar(state.units.loss.replace("loss", "loss/train"), state.loss, state.step)
        for name, value in state.figures.items():
            self._writer.add_scalar(f"train/{name}", value, state.step)
        self._writer.add_scalar("learning_rate", state.lr, state.step)
        self._writer.add_scalar(f"{state.units.items}_per_second", state.items_per_second, state.step)
        if state.gradient_norm is not None:
            self._writer.add_scalar("gradient_norm", state.gradient_norm, state.step)
        if self._graph and self._input is not None:
            self._graph = False
            self._write_graph(state.model, self._input)

    def on_evaluate(self, state: TrainState) -> None:
        """Write the validation loss with its figures, the weights and the outputs."""
        if state.valid_loss is not None:
            self._writer.add_scalar(state.units.loss.replace("loss", "loss/valid"), state.valid_loss, state.step)
        for name, value in state.valid_figures.items():
            self._writer.add_scalar(f"valid/{name}", value, state.step)
        self._write_weights(state)
        for name, output in self._outputs.items():
            self._writer.add_histogram(f"output/{name}", output.float().cpu(), state.step)

    def on_end(self, state: TrainState) -> None:
        """Hear no more, and close the event file."""
        for hook in self._hooks:
            hook.remove()
        self._writer.close()

    def _listen(self, model: nn.Module) -> None:
        if self._graph:
            self._hooks.append(model.register_forward_pre_hook(self._keep_input))
        for name, part in model.named_children():
            if name in _PARTS:
                self._hooks.append(part.register_forward_hook(self._keeper(name)))

    def _write_weights(self, state: TrainState) -> None:
        for name, parameter in state.model.named_parameters():
            self._writer.add_histogram(name, parameter.detach().float().cpu(), state.step)

    def _keep_input(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        if self._input is None and given and isinstance(given[0], Tensor):
            self._input = given[0][:_GRAPH_TIMESTEPS].detach().cpu()

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            values = output[0] if isinstance(output, tuple) else output
            if module.training and values.is_floating_point():
                self._outputs[name] = values.detach()

        return keep

    def _write_graph(self, model: nn.Module, example: Tensor) -> None:
        """Write the graph of a copy, traced on the CPU timestep by timestep: training hears nothing of it.

        Where a model cannot be traced, the reason is written in the graph's place.
        """
        hooks, self._hooks = self._hooks, []
        for hook in hooks:  # what is heard of the copy is of no interest
            hook.remove()
        traced = copy.deepcopy(model).cpu().eval()
        self._listen(model)
        for module in traced.modules():
            if isinstance(module, Recurrent):
                module.backend = "loop"
        quiet = contextlib.redirect_stdout(io.StringIO())  # torch prints what it raises as well
        with quiet, warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # torch's own: that it traces at all, and each branch on a shape
            try:
                self._writer.add_graph(_Outputs(traced), example)
            except Exception as error:  # a plugin's model may do what tracing cannot follow, in any way
                self._writer.add_text("graph", f"no graph: {type(error).__name__}: {error}")


class _Outputs(nn.Module):
    """A model without its state, as tracing wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs alone."""
        outputs: Tensor = self.model(x)[0]
        return outputs
