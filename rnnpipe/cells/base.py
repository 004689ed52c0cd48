"""The contract of a recurrent cell.

`step` is the single definition of a cell. `GatedCell` and `LinearCell` tell backends more about its structure; a
backend is an optimization that is proved equal to `step`, outputs and gradients.

Shapes: T timesteps, B batch, I input size, H hidden size, V classes of a one-hot input.
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError

State: TypeAlias = tuple[Tensor, ...]  # batch is axis 0 of every leaf
Gates: TypeAlias = tuple[Tensor, ...]  # what a timestep needs of its input, each [..., H]


class Cell(nn.Module):
    """A recurrent layer, defined by one timestep: Cell(input_size, hidden_size, *, bias=True, **options).

    A subclass sets `state_shape` and `output_size` if they differ from one hidden vector, and defines `project` and
    `step`. State leaves named in `state_dtype` start in that type where the network's own is a narrower one, and `step`
    keeps them in it: sums over many timesteps, which bfloat16 would not hold.
    """

    state_dtype: ClassVar[dict[str, torch.dtype]] = {}

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.has_bias = bias
        self.output_size = hidden_size
        self.state_shape: dict[str, tuple[int, ...]] = {"h": (hidden_size,)}  # ordered: names are checkpoint keys

    def initial_state(self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype) -> State:
        """Return the state before the first timestep: zeros."""
        return tuple(
            torch.zeros(
                batch_size, *shape, device=device, dtype=torch.promote_types(dtype, self.state_dtype.get(name, dtype))
            )
            for name, shape in self.state_shape.items()
        )

    def shift_bias(self) -> None:
        """Add to newly drawn biases what the cell's options say, as `forget_bias` does: nothing, unless overridden."""

    def project(self, x: Tensor) -> Gates:
        """Return what `step` needs of the input x [..., I]. It needs no state, so it runs once for all T."""
        raise TypeError(f"{type(self).__name__} defines no `project`")

    def project_classes(self, classes: Tensor) -> Gates:
        """Return `project` of one-hot rows, given their classes [...] of int64, without building the rows."""
        raise UsageError(
            f"cell '{type(self).__name__}' cannot take one-hot input directly; "
            "use the encoder 'embedding', or 'one-hot' with a size."
        )

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        """Return the output [B, output_size] and the next state of one timestep."""
        raise TypeError(f"{type(self).__name__} defines no `step`")


class ProjectedCell(Cell):
    """A cell whose input enters through one matrix product, `weight_ih` [gates * H, I].

    The last `without_bias` gates have none: `bias_ih` is [(gates - without_bias) * H].
    """

    def __init__(
        self, input_size: int, hidden_size: int, gates: int, *, bias: bool = True, without_bias: int = 0
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self._gates = gates
        self._without_bias = without_bias
        self.weight_ih = nn.Parameter(torch.empty(gates * hidden_size, input_size))
        self.bias_ih = nn.Parameter(torch.empty((gates - without_bias) * hidden_size)) if bias else None

    def project(self, x: Tensor) -> Gates:
        return F.linear(x, self.weight_ih, self._bias()).chunk(self._gates, -1)

    def project_classes(self, classes: Tensor) -> Gates:
        if type(self).project is not ProjectedCell.project:
            return super().project_classes(classes)  # it has an input product of its own, which a gather is not
        return self._gather(classes)

    def _gather(self, classes: Tensor) -> Gates:
        rows = F.embedding(classes, self.weight_ih.t())
        bias = self._bias()
        return (rows if bias is None else rows + bias).chunk(self._gates, -1)

    def _bias(self) -> Tensor | None:
        if self.bias_ih is None or not self._without_bias:
            return self.bias_ih
        return F.pad(self.bias_ih, (0, self._without_bias * self.hidden_size))

    def reset_parameters(self) -> None:
        """Draw every parameter uniformly from ±1/sqrt(H), as torch's own recurrent layers do."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)


class GatedCell(ProjectedCell):
    """Two matrix products; the rest is elementwise over H, hence fusible.

        u = W x + b_ih    r = R h + b_hh    state' = pointwise(u, r, state)

    A subclass sets `input_gates`, `recurrent_gates` and `state_names` and defines `pointwise`. state[0] meets R and is
    the output. Parameter names and shapes are torch's: weight_ih [input_gates * H, I], weight_hh [recurrent_gates * H,
    H], bias_ih, bias_hh.
    """

    input_gates: int
    recurrent_gates: int
    state_names: tuple[str, ...] = ("h",)
    reduces_hidden: bool = False  # True: `pointwise` has a reduction over H (LayerNorm), which not every backend takes

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, self.input_gates, bias=bias)
        self.state_shape = dict.fromkeys(self.state_names, (hidden_size,))
        self.weight_hh = nn.Parameter(torch.empty(self.recurrent_gates * hidden_size, hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(self.recurrent_gates * hidden_size)) if bias else None
        self.reset_parameters()

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        """Return the next state from `input_gates` and `recurrent_gates` tensors [B, H], biases added.

        Pure and elementwise: no random operation, no Python branch on a tensor's values, no reduction but over H in a
        cell that declares `reduces_hidden`.
        """
        raise TypeError(f"{type(self).__name__} defines no `pointwise`")

    def recurrent_weight(self) -> Tensor:
        """Return R as it is used in this window; weight drop and the like override it."""
        return self.weight_hh

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        r = F.linear(state[0], self.recurrent_weight(), self.bias_hh).chunk(self.recurrent_gates, -1)
        state = self.pointwise(u, r, state)
        return state[0], state


class LinearCell(ProjectedCell):
    """h' = a * h + b, with a and b functions of the input alone: time is parallel (a scan).

    A subclass sets `projections` and defines `coefficients`.

    complex_hidden: a, b and h are complex; the state holds h as pairs of a real and an imaginary part, [B, H, 2].
    delayed: so many of the projections, the last ones, reach `coefficients` and `output` one timestep later, for a
    window of two inputs. They have no bias, and the state carries those of the timestep before, [B, delayed, H].
    """

    projections: int
    complex_hidden: bool = False
    delayed: int = 0

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, self.projections, bias=bias, without_bias=self.delayed)
        if self.complex_hidden:
            self.state_shape = {"h": (hidden_size, 2)}
        if self.delayed:
            self.state_shape["delayed"] = (self.delayed, hidden_size)
        self.reset_parameters()

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        """Return a and b, each [..., H], from `projections` tensors [..., H]."""
        raise TypeError(f"{type(self).__name__} defines no `coefficients`")

    def output(self, u: Gates, h: Tensor) -> Tensor:
        """Return the output [..., output_size] from the projections and the hidden states, all timesteps at once."""
        return h

    def hidden(self, state: State) -> Tensor:
        """Return h [B, H] of a state."""
        return torch.complex(*state[0].unbind(-1)) if self.complex_hidden else state[0]

    def state_of(self, h: Tensor, delayed: Gates) -> State:
        """Return the state of h [B, H] and of the projections [B, H] that are delayed."""
        leaf = torch.view_as_real(h) if self.complex_hidden else h
        return (leaf, torch.stack(delayed, 1)) if self.delayed else (leaf,)

    def delay(self, u: Gates, state: State) -> Gates:
        """Return projections [T, B, H] as `coefficients` takes them at each timestep, behind a state."""
        kept = len(u) - self.delayed
        before = state[1].unbind(1) if self.delayed else ()
        late = (torch.cat((first[None], gate[:-1])) for first, gate in zip(before, u[kept:], strict=True))
        return (*u[:kept], *late)

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        kept = len(u) - self.delayed
        following = u[kept:]
        if self.delayed:
            u = (*u[:kept], *state[1].unbind(1))
        a, b = self.coefficients(u)
        h = a * self.hidden(state) + b
        return self.output(u, h), self.state_of(h, following)
