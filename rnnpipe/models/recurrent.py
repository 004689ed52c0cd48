"""`Recurrent`: a stack of any cell, shaped like `nn.LSTM`, for anybody's own training loop."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.backends.base import Backend, Unavailable, choose, refusal_of
from rnnpipe.cells.base import Cell, State
from rnnpipe.errors import PluginError, RnnpipeError, UsageError

States = tuple[State, ...]  # one per layer; with two directions: layer 0 forward, layer 0 reverse, layer 1 forward, ...


class Recurrent(nn.Module):
    """`num_layers` layers of one cell over time, in one or both directions.

        output, state = rnn(x, state, lengths=lengths)

    x: [T, B, input_size], or [T, B] of int64 for one-hot input given by its classes. output: [T, B, hidden_size], with
    both directions side by side if `bidirectional`. state: one tuple a layer and direction, in the order of `nn.LSTM`;
    None starts from zeros. lengths: [B], the valid timesteps of each sequence; past its end its state holds and its
    output is 0.

    cell: the name of a registered cell, or a subclass of `Cell`. dropout: between layers, in training. backend: "auto"
    or the name of one that must be used; `backend_used` tells which ran last. Further options go to the cell.
    """

    def __init__(
        self,
        cell: str | type[Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backend: str = "auto",
        backends: Sequence[Backend] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout={dropout} is not accepted; it takes a number from 0 to below 1.")
        if num_layers < 1 or hidden_size < 1 or input_size < 1:
            raise UsageError(
                f"input_size={input_size}, hidden_size={hidden_size}, num_layers={num_layers}: each must be above 0."
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.backend = backend
        self.backend_used: str | None = None
        self.backends = list(backends) if backends is not None else _registered_backends()
        directions = 2 if bidirectional else 1
        layers: list[Cell] = []
        for layer in range(num_layers):
            size = input_size if layer == 0 else layers[-1].output_size * directions
            layers += [_build_cell(cell, size, hidden_size, bias, options) for _ in range(directions)]
        self.layers = nn.ModuleList(layers)
        self.output_size = layers[-1].output_size * directions

    def cells(self) -> list[Cell]:
        """Return the cells, in the order of the states."""
        return [layer for layer in self.layers if isinstance(layer, Cell)]

    def initial_state(self, batch_size: int, like: Tensor) -> States:
        """Return zeros for every layer, on the device of `like`."""
        weights = itertools.chain(self.parameters(), self.buffers())  # a reservoir's are never trained
        dtype = next((w.dtype for w in weights if w.is_floating_point()), torch.get_default_dtype())
        return tuple(cell.initial_state(batch_size, device=like.device, dtype=dtype) for cell in self.cells())

    def forward(
        self, x: Tensor, state: States | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Run over all timesteps; return the outputs and the final state. Raises UsageError for a wrong shape."""
        self._check_shapes(x, state, lengths)
        states = self.initial_state(x.shape[1], x) if state is None else state
        cells = self.cells()
        if self.bidirectional:
            return self._both_directions(x, states, lengths)
        if self.dropout == 0 or not self.training or self.num_layers == 1:
            y, finals = self._run(cells, x, states, lengths)
            return y, tuple(finals)
        # A backend runs a stack in one call; dropout between the layers needs one call a layer.
        finals = []
        for layer, cell in enumerate(cells):
            x, final = self._run([cell], x, states[layer : layer + 1], lengths)
            finals += final
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout)
        return x, tuple(finals)

    def outputs(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the outputs alone, from a zero state: what `forward` returns first, but faster.

        A timestep does not depend on those behind it, so sequences need not be packed: all run to the end, and what
        stands behind theirs is set to 0. Only the final state would be another one.
        """
        self._check_shapes(x, None, lengths)
        inside = _inside(lengths, x.shape[0], x.device)
        cells = self.cells()
        directions = 2 if self.bidirectional else 1
        states = self.initial_state(x.shape[1], x)
        for layer in range(0, len(cells), directions):
            forward, _ = self._run(cells[layer : layer + 1], x, states[layer : layer + 1], None)
            y = forward
            if self.bidirectional:
                flipped = flip(x, lengths)
                reverse, _ = self._run(cells[layer + 1 : layer + 2], flipped, states[layer + 1 : layer + 2], None)
                y = torch.cat((forward, flip(reverse, lengths)), -1)
            x = y
            if layer + directions < len(cells) and self.training:
                x = F.dropout(x, self.dropout)
        return x * inside.to(x.dtype)

    def _check_shapes(self, x: Tensor, state: States | None, lengths: Tensor | None) -> None:
        # Torch's fused functions, called without the module around them, do not check: they compute garbage or crash.
        if x.is_floating_point():
            if x.dim() != 3 or x.shape[2] != self.input_size:
                raise UsageError(f"x has the shape {list(x.shape)}; it takes [T, B, {self.input_size}], time first.")
        elif x.dim() != 2:
            raise UsageError(f"x has the shape {list(x.shape)}; classes of a one-hot input are [T, B].")
        batch = x.shape[1]
        if lengths is not None:
            if not isinstance(lengths, Tensor) or lengths.shape != (batch,):
                raise UsageError(f"lengths: it takes a tensor of {batch} whole numbers, one for each sequence.")
            if torch.compiler.is_exporting():
                return  # a graph is made for lengths that are not known yet
            if batch and not 0 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[0]:
                raise UsageError(f"lengths: {lengths.tolist()} is not accepted; each is from 0 to {x.shape[0]}.")
        if state is None:
            return
        expected = [[(batch, *shape) for shape in cell.state_shape.values()] for cell in self.cells()]
        if [[tuple(leaf.shape) for leaf in layer] for layer in state] != expected:
            raise UsageError(f"state: it takes, layer by layer, tensors of the shapes {expected}.")

    def _run(
        self, cells: Sequence[Cell], x: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        backend, _ = choose(self.backends, self.backend, cells, x, lengths)
        self.backend_used = backend.name
        return backend.run(cells, x, states, lengths)

    def _both_directions(self, x: Tensor, states: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        cells = self.cells()
        finals: list[State] = []
        for layer in range(0, len(cells), 2):
            forward, final = self._run(cells[layer : layer + 1], x, states[layer : layer + 1], lengths)
            finals += final
            flipped = flip(x, lengths)
            reverse, final = self._run(cells[layer + 1 : layer + 2], flipped, states[layer + 1 : layer + 2], lengths)
            finals += final
            x = torch.cat((forward, flip(reverse, lengths)), -1)
            if layer + 2 < len(cells) and self.training:
                x = F.dropout(x, self.dropout)
        return x, tuple(finals)

    def refusals(self, x: Tensor, lengths: Tensor | None = None) -> tuple[str, dict[str, str]]:
        """Return the backend that would run `x` through the whole stack, and why those before it refuse."""
        backend, refused = choose(self.backends, self.backend, self.cells(), x, lengths)
        return backend.name, refused

    def answers(self, x: Tensor, lengths: Tensor | None = None) -> dict[str, str | None]:
        """Return, for each backend by name, None if it would run `x` through the whole stack, or why it refuses."""
        return {backend.name: refusal_of(backend, self.cells(), x, lengths) for backend in self.backends}


def flip(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return x [T, B, ...] with each sequence reversed in time within its length; padding stays where it is."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    reversed_steps = lengths.to(x.device) - 1 - steps
    index = torch.where(reversed_steps >= 0, reversed_steps, steps)
    return x.gather(0, index.view(*index.shape, *(1,) * (x.dim() - 2)).expand_as(x))


def _inside(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """Return [T, B, 1]: whether a timestep is within a sequence's length."""
    return (torch.arange(steps, device=device)[:, None] < lengths.to(device))[..., None]


def detach(state: States) -> States:
    """Return the state cut off from the computation that made it: truncated backpropagation through time."""
    return tuple(tuple(leaf.detach() for leaf in layer) for layer in state)


def _build_cell(
    cell: str | type[Cell], input_size: int, hidden_size: int, bias: bool, options: Mapping[str, Any]
) -> Cell:
    # The one place in this room that turns a name into an object: people call `Recurrent("lstm", ...)` in their code.
    from rnnpipe.options import bind_options
    from rnnpipe.plugins import full_registry

    kind = full_registry().get("cell", cell) if isinstance(cell, str) else cell
    name = f"cell '{cell if isinstance(cell, str) else cell.__name__}'"
    bound = bind_options(kind, {"bias": bias, **options}, name, reserved=2)
    built: Cell = kind(input_size, hidden_size, **bound)
    return built


def _registered_backends() -> list[Backend]:
    from rnnpipe.plugins import full_registry

    registry = full_registry()
    built: list[Backend] = []
    for name in registry.names("backend"):
        try:
            backend: Backend = registry.build("backend", name, {})
            if backend.name != name:
                raise PluginError(f"calls itself '{backend.name}', but is registered as '{name}'")
            float(backend.priority)  # is there, and is a number
        except (RnnpipeError, AttributeError, TypeError) as error:  # a plugin's fault: the others serve
            backend = Unavailable(name, str(error))
        built.append(backend)
    return built
