"""Gated cells with all that does not need the state taken out of the loop over time.

One product for the input of all timesteps; in each timestep one recurrent product and one elementwise function;
backward the vector-Jacobian product of that function, the recurrent product transposed, and the gradients of the
weights in one product at the end.

Shapes: T timesteps, B batch, I input size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.backends.compile import no_compiler
from rnnpipe.backends.derive import Untraceable, tensors_of, trace_pointwise
from rnnpipe.backends.layer import Inputs, Plan, lengths_mask, run_compiled
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.backends.plain import run_plain
from rnnpipe.cells.base import Cell, GatedCell, Gates, State
from rnnpipe.errors import BackendRefusal

Compile = Literal["auto", "never", "always"]

# Compiling takes seconds, which a window of fewer elements (T B H) does not win back in a training of minutes.
_WORTH_COMPILING = 1 << 17
# Below this many elements a timestep (B H), what a call costs outweighs what plain torch saves over the loop.
_WORTH_HOISTING = 1 << 12
_MOST_PLANS = 256
_plans: dict[Any, Plan | str] = {}  # of every cell as it was met, or why there is none; shared by all backends


class HoistedBackend:
    """Runs any gated cell by its `pointwise`; compiled where that pays, otherwise in plain torch.

    compile: "auto" compiles training in float32 or bfloat16 from a certain size of window, where a compiler is there;
    other training runs in plain torch. What needs no gradient runs in the loop: there is nothing to win.
    """

    name = "hoisted"
    priority = 5

    def __init__(self, compile: Compile = "auto") -> None:  # noqa: A002 - what it does
        self.compile = compile
        self._failure: str | None = None

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Accept gated cells whose `step` is their `pointwise`, if that can be traced."""
        for cell in cells:
            if not isinstance(cell, GatedCell):
                return f"{type(cell).__name__} is no GatedCell, whose step is two products and a pointwise"
            if type(cell).step is not GatedCell.step:
                return f"{type(cell).__name__} has a step of its own beside its pointwise"
            if set(cell.state_shape.values()) != {(cell.hidden_size,)} or cell.output_size != cell.hidden_size:
                return f"{type(cell).__name__} has a state or an output of another shape than [B, H]"
            plan = self.plan(cell, x_TBI.shape[1])
            if isinstance(plan, str):
                return f"{type(cell).__name__}: {plan}"
        return None

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Run each layer over all timesteps."""
        if not torch.is_grad_enabled():
            return LoopBackend().run(cells, x_TBI, states, lengths)
        mask = lengths_mask(x_TBI, lengths)
        finals = []
        for cell, state in zip(cells, states, strict=True):
            assert isinstance(cell, GatedCell), "it has not been refused"
            x_TBI, final = self._run_layer(cell, x_TBI, state, mask)
            finals.append(final)
        return x_TBI, finals

    def drawback(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Decline what would run in plain torch where that measured below the loop's speed."""
        steps, batch = x_TBI.shape[:2]
        for cell in cells:
            assert isinstance(cell, GatedCell), "it has not been refused"
            reason = self._why_plain(cell, steps, batch)
            if reason is None:
                continue
            if batch * cell.hidden_size < _WORTH_HOISTING:
                return f"in plain torch it is no faster than the loop on so little at once ({reason})"
            plan = self.plan(cell, batch)
            if isinstance(plan, Plan) and not plan.pointwise.elementwise:
                return f"in plain torch it is no faster than the loop with a reduction over hidden units ({reason})"
        return None

    def to_be_measured(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> bool:
        """Ask for it on a GPU; on a CPU it has been measured."""
        return x_TBI.is_cuda

    def elementwise(self, cells: Sequence[Cell], steps: int, batch: int, *, ready: bool) -> tuple[str, str | None]:
        """Return "compiled" or "plain", how training on such windows runs what is elementwise, and why it is plain.

        ready: compile now what will be needed, which tells whether the compiler works.
        """
        for cell in cells:
            assert isinstance(cell, GatedCell), "it has not been refused"
            reason = self._why_plain(cell, steps, batch)
            if reason is None and ready:
                states = [leaf.dtype for leaf in cell.initial_state(1, dtype=cell.weight_hh.dtype)]
                plan = self._plan(cell, batch, _product_dtype(cell), states)
                assert isinstance(plan, Plan), "it has not been refused"
                reason = self._compile(plan, batch, masked=False)
            if reason is not None:
                return "plain", reason
        return "compiled", None

    def _compile(self, plan: Plan, batch: int, *, masked: bool) -> str | None:
        """Compile a plan's two functions, once; return why that failed, in words, or None."""
        try:
            plan.forward(batch, masked)
            plan.backward(batch, masked)
        except Exception as error:  # the compiler's: training goes on without it
            if self.compile == "always":
                raise
            self._failure = f"the compiler fails: {' '.join(str(error).split())[:200]}"
        return self._failure

    def _why_plain(self, cell: GatedCell, steps: int, batch: int) -> str | None:
        if self.compile == "always":
            return None
        if self.compile == "never":
            return "compiling is switched off"
        if cell.weight_hh.dtype == torch.float64:
            return "float64 is not compiled"
        if steps * batch * cell.hidden_size < _WORTH_COMPILING:
            return "windows too small to win back the compilation"
        return self._failure or no_compiler(cell.weight_hh.device.type)

    def plan(self, cell: GatedCell, batch: int) -> Plan | str:
        """Return the plan for a cell with input and states in its own type, or why there is none."""
        return self._plan(cell, batch, _product_dtype(cell), [cell.weight_hh.dtype] * len(cell.state_shape))

    def _plan(self, cell: GatedCell, batch: int, u_dtype: torch.dtype, states: Sequence[torch.dtype]) -> Plan | str:
        """Return the plan for a cell as it is, or why there is none."""
        device = cell.weight_hh.device
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        key = (type(cell), cell.hidden_size, device, autocast, u_dtype, *states, _settings(cell))
        for of_batch in (None, batch):
            found = _plans.get((*key, of_batch))
            if found is not None:
                return found
        try:
            traced = trace_pointwise(cell, batch, u_dtype, _product_dtype(cell), states)
            found, of_batch = Plan(traced), None if traced.any_rows else batch
        except Untraceable as reason:
            found, of_batch = str(reason), None
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[(*key, of_batch)] = found
        return found

    def _run_layer(self, cell: GatedCell, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        plan, given = self.prepare(cell, x, state, mask)
        steps, batch = x.shape[:2]
        compiled = self._why_plain(cell, steps, batch) is None
        compiled = compiled and self._compile(plan, batch, masked=mask is not None) is None
        outputs, *finals = run_compiled(plan, given) if compiled else run_plain(plan, given)
        y = outputs if mask is None else torch.where(mask, outputs, outputs.new_zeros(()))
        return y, (outputs[-1], *finals)

    def prepare(self, cell: GatedCell, x: Tensor, state: State, mask: Tensor | None) -> tuple[Plan, Inputs]:
        """Return the plan for a layer and what it is run on; raise BackendRefusal where there is none."""
        product = _product_dtype(cell)
        gates = _own_projection(cell, x)
        u_dtype = (product if x.is_floating_point() else cell.weight_ih.dtype) if gates is None else gates[0].dtype
        plan = self._plan(cell, x.shape[1], u_dtype, [leaf.dtype for leaf in state])
        if isinstance(plan, str):
            raise BackendRefusal(f"backend '{self.name}' refuses: {plan}.")
        u, bias = _input(cell, x, gates, plan.pointwise.summed)
        initial = tuple(s.to(d).contiguous() for s, d in zip(state, plan.pointwise.state_dtypes, strict=True))
        known = tensors_of(cell)
        constants = tuple(known[name].contiguous() for name in plan.pointwise.constants)
        weight, bias = cell.recurrent_weight().to(product), None if bias is None else bias.to(product)
        spare = gates is None  # u is our own product
        return plan, Inputs(u.contiguous(), weight, bias, initial, constants, mask, spare)


def _product_dtype(cell: GatedCell) -> torch.dtype:
    """Return the type in which torch's linear would multiply here."""
    weight, device = cell.weight_hh.dtype, cell.weight_hh.device.type
    autocast = torch.is_autocast_enabled(device) and weight != torch.float64
    return torch.get_autocast_dtype(device) if autocast else weight


def _settings(cell: GatedCell) -> tuple[Any, ...]:
    """Return what a cell's equation may depend on beside its tensors: the attributes of it and of its modules."""
    own = vars(torch.nn.Module()).keys() - {"training"}
    settings = []
    for module in cell.modules():
        items = [(name, value) for name, value in vars(module).items() if name not in own]
        settings.append((type(module), *((name, _hashable(value)) for name, value in items)))
    return tuple(settings)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _own_projection(cell: GatedCell, x: Tensor) -> Gates | None:
    """Return the gates of a cell that projects in a way of its own; None where it is the product of its base class."""
    if x.is_floating_point():
        return None if type(cell).project is GatedCell.project else cell.project(x)
    plain = type(cell).project is GatedCell.project and type(cell).project_classes is GatedCell.project_classes
    return None if plain else cell.project_classes(x)


def _input(cell: GatedCell, x: Tensor, gates: Gates | None, summed: bool) -> tuple[Tensor, Tensor | None]:
    """Return u [T, B, G H], and the bias that the recurrent product has to add, None if it is in u."""
    bias, recurrent_bias = cell.bias_ih, cell.bias_hh
    inside = recurrent_bias if summed else None
    if gates is not None:
        u = torch.cat(gates, -1)
        return (u, recurrent_bias) if inside is None else (u + inside, None)
    total = bias if bias is None or inside is None else bias + inside
    if x.is_floating_point():
        u = F.linear(x, cell.weight_ih, total)
    else:
        u = F.embedding(x, cell.weight_ih.t())
        u = u if total is None else u + total
    return u, None if inside is not None else recurrent_bias
