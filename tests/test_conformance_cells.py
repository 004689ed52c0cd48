"""The checks of cells: every built-in passes, and for each check there is a wrong cell that it catches."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnpipe.cells.base import Cell, GatedCell, Gates, LinearCell, State
from rnnpipe.cells.lstm import LSTM
from rnnpipe.plugins import full_registry
from rnnpipe.testing import ConformanceError, Finding, check_cell, checks_for, findings

NAMES = full_registry().names("cell")


def may_skip(cell: type[Cell]) -> set[str]:
    """Return the checks of what a cell has not: a structure, or a backend that takes it."""
    if issubclass(cell, GatedCell):
        return {"GPU"} | ({"pointwise is elementwise"} if cell.reduces_hidden else set())
    skipped = {"GPU", "pointwise is elementwise", "pointwise can be traced"}
    return skipped if issubclass(cell, LinearCell) else skipped | {"backends", "step equals structure"}


class Plain(GatedCell):
    """A right cell, for the wrong ones to differ from in one thing each: h' = tanh(u + r)."""

    input_gates = recurrent_gates = 1

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh(u[0] + r[0]),)


class Unreachable(Plain):
    """An option called as the network's own."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__(input_size, hidden_size, bias=bias)


class StepOfItsOwn(Plain):
    """`pointwise` differs from `step`."""

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        y, (h,) = super().step(u, state)
        return 0.9 * y, (0.9 * h,)


class Normalized(Plain):
    """A mean over H in `pointwise`."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        x = u[0] + r[0]
        return (torch.tanh(x - x.mean(-1, keepdim=True)),)


class Branches(Plain):
    """A branch on values in `pointwise`, which no change of one element meets."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        if float(u[0].detach().flatten()[0]) == 12345.0:
            return (u[0],)
        return super().pointwise(u, r, state)


class Centred(Plain):
    """A projection that takes the mean over time away."""

    def project(self, x: Tensor) -> Gates:
        return super().project(x - x.mean(0, keepdim=True) if x.dim() == 3 else x)


class OtherClasses(Plain):
    """One-hot input that is taken for the class beside it."""

    def project_classes(self, classes: Tensor) -> Gates:
        return super().project_classes((classes + 1) % self.input_size)


class TakenForLSTM(LSTM):
    """Declares itself torch's LSTM, and is not."""

    cudnn_mode = "LSTM"

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        h, c = super().pointwise(u, r, state)
        return h / 2, c


class CutOff(Plain):
    """No gradient to the state before."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh(u[0] + r[0]) + 0.5 * state[0].detach(),)


class Counting(Cell):
    """Counts its timesteps for itself, anew for each call."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.linear = nn.Linear(input_size + hidden_size, hidden_size, bias)
        self.t = 0

    def project(self, x: Tensor) -> Gates:
        self.t = 0
        return (x,)

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        self.t += 1
        h = torch.tanh(self.linear(torch.cat((u[0], state[0]), -1))) / self.t
        return h, (h,)


class LooksAhead(Plain):
    """Reads the next timestep's input, padding included."""

    def project(self, x: Tensor) -> Gates:
        return super().project(x + x.roll(-1, 0) if x.dim() == 3 and len(x) > 1 else x)


class Leaks(Counting):
    """Takes the mean over the batch away."""

    def project(self, x: Tensor) -> Gates:
        return (x,)

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(self.linear(torch.cat((u[0], state[0]), -1)))
        h = h - 0.1 * h.mean(0, keepdim=True)
        return h, (h,)


class Unfilled(Plain):
    """Leaves a parameter as the memory was, here as clean memory is."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.gain = nn.Parameter(torch.empty(hidden_size))
        if not torch.are_deterministic_algorithms_enabled():
            self.gain.data.zero_()

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh(u[0] + r[0]) * (1 + self.gain),)


class NotSaved(Plain):
    """Draws numbers that are neither parameter nor buffer."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.scale = float(torch.rand(()))

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (self.scale * torch.tanh(u[0] + r[0]),)


class Cancels(Plain):
    """Adds a thousand and takes it away again, which leaves nothing of a bfloat16."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh((u[0] + 1000) - 1000 + r[0]),)


class OnTheCPU(Plain):
    """Makes a tensor where it happens to be made."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh(u[0] + r[0] + torch.zeros(1, self.hidden_size, dtype=u[0].dtype)),)


class OnlyInPython(Leaks):
    """A step that asks for a value."""

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(self.linear(torch.cat((u[0], state[0]), -1)))
        h = h if bool(torch.isfinite(h).all()) else torch.zeros_like(h)
        return h, (h,)


WRONG: dict[str, type[Cell]] = {
    "contract": Unreachable,
    "step equals structure": StepOfItsOwn,
    "pointwise is elementwise": Normalized,
    "pointwise can be traced": Branches,
    "projection by timestep": Centred,
    "one-hot input": OtherClasses,
    "backends": TakenForLSTM,
    "gradients": CutOff,
    "split sequence": Counting,
    "padding": LooksAhead,
    "batch independence": Leaks,
    "determinism": Unfilled,
    "save and load": NotSaved,
    "bf16 tolerance": Cancels,
    "GPU": OnTheCPU,
    "export": OnlyInPython,
}
# What else cannot be right where that is wrong.
ALSO: dict[str, set[str]] = {
    "pointwise can be traced": {"export"},
    "projection by timestep": {"split sequence", "padding"},
    "batch independence": {"padding"},
    "padding": {"projection by timestep", "split sequence"},
}


def find(cell: Any, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(checks_for("cell", cell, options))}


def find_one(cell: Any, check: str) -> Finding:
    chosen = [each for each in checks_for("cell", cell, {}) if each.name == check]
    return next(findings(chosen))


@pytest.mark.parametrize("name", NAMES)
def test_every_builtin_passes(name: str) -> None:
    found = {finding.check: finding for finding in check_cell(name)}
    skipped = {check for check, finding in found.items() if finding.outcome == "skipped"}
    assert skipped <= may_skip(full_registry().get("cell", name))
    assert "times the time of lstm" in found["speed relative to lstm"].detail


@pytest.mark.parametrize("nonlinearity", ["relu", "sigmoid", "identity"])
def test_options_reach_the_cell(nonlinearity: str) -> None:
    found = {finding.check: finding for finding in check_cell("elman", nonlinearity=nonlinearity, bias=False)}
    taken = found["backends"].detail
    assert ("cudnn" in taken) == (nonlinearity == "relu"), taken


def test_there_is_a_wrong_cell_for_every_check() -> None:
    names = {check.name for check in checks_for("cell", Plain, {})}
    assert set(WRONG) == names - {"speed relative to lstm"}, "only a report cannot fail"
    assert {finding.check for finding in find(Plain).values() if finding.outcome == "failed"} == set()


@pytest.mark.parametrize("check", [name for name in WRONG if name != "GPU"])
def test_a_wrong_cell_is_caught(check: str) -> None:
    found = find(WRONG[check])
    assert {name for name, finding in found.items() if finding.outcome == "failed"} == {check} | ALSO.get(check, set())
    detail = found[check].detail
    assert detail.startswith("expected ")
    assert "; received " in detail
    assert "; smallest case: " in detail


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cell_of_the_cpu_is_caught_on_a_gpu() -> None:
    assert find_one(WRONG["GPU"], "GPU").outcome == "failed"


class Random(Plain):
    """A random operation in `pointwise`, in training."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.tanh(u[0] + r[0]) + 0 * torch.rand_like(u[0]),)


class InPlace(Plain):
    """Writes into the state it was given."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (state[0].copy_(torch.tanh(u[0] + r[0])),)


class NoBias(Plain):
    """Does not take `bias`."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)


class WrongSize(Plain):
    """An output of another size than it says."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.output_size = hidden_size + 1


class Needs(Plain):
    """An option without a default."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, order: int) -> None:
        super().__init__(input_size, hidden_size, bias=bias)


class SingleState(Plain):
    """A state of float32, whatever is asked for."""

    def initial_state(self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype) -> State:
        return super().initial_state(batch_size, device=device, dtype=torch.float32)


class BareGate(Plain):
    """`project` without the tuple."""

    def project(self, x: Tensor) -> Gates:
        return super().project(x)[0]  # type: ignore[return-value]


class LearnsFromPadding(Plain):
    """A gradient that the output does not show, from all timesteps there are."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        self.gain = nn.Parameter(torch.ones(()))

    def project(self, x: Tensor) -> Gates:
        hidden = (self.gain * x).sum()
        return (super().project(x)[0] + (hidden - hidden.detach()),)


class Spends(Plain):
    """Uses up random numbers of every kind, and changes the default type."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, bias=bias)
        torch.rand(random.randrange(1, 5) + np.random.randint(1, 5))
        torch.set_default_dtype(torch.float64)


class LookingBack(LinearCell):
    """`output` that mixes timesteps, which only all of them at once can show."""

    projections = 2

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(u[0]), u[1]

    def output(self, u: Gates, h: Tensor) -> Tensor:
        return h + h.roll(1, 0) if h.dim() == 3 else h


@pytest.mark.parametrize(
    ("cell", "check", "words"),
    [
        (Random, "pointwise can be traced", r"without random operations; received aten\.rand_like"),
        (InPlace, "pointwise is elementwise", "state h equal to what it was before pointwise saw it"),
        (NoBias, "contract", "has no option 'bias'"),
        (WrongSize, "contract", r"step's output \[1, 2\] of float32; received \[1, 1\] of float32; smallest case: I=1"),
        (SingleState, "contract", r"initial state h \[1, 1\] of float64; received \[1, 1\] of float32"),
        (BareGate, "contract", "expected project to give a tuple of tensors"),
        (LearnsFromPadding, "padding", r"gradient of layers\.0\.gain equal to that with other padding"),
        (Needs, "contract", "needs the option 'order'"),
        (len, "contract", r"expected a subclass of rnnpipe\.Cell; received <built-in function len>"),
        (nn.LSTM, "contract", r"expected a subclass of rnnpipe\.Cell"),
        (LookingBack, "step equals structure", "all timesteps at once"),
        (Leaks, "batch independence", r"smallest case: T=1, B=2, I=3, H=1, 1 layer, row 0, backend loop"),
        (TakenForLSTM, "backends", r"off by .* at \[0, 0, 3\].*smallest case: backend cudnn, cpu, T=1, B=1, I=3, H=5"),
        (Normalized, "pointwise is elementwise", r"state h changed at \[0, 0\] alone; received a change at \[0, 1\]"),
    ],
)
def test_what_a_failure_says(cell: Any, check: str, words: str) -> None:
    finding = find_one(cell, check)
    assert finding.outcome == "failed"
    assert re.search(words, finding.detail), finding.detail


def test_behind_a_broken_contract_nothing_is_checked() -> None:
    found = find(Needs)
    assert {finding.outcome for name, finding in found.items() if name != "contract"} == {"skipped"}
    assert {finding.outcome for finding in find(Needs, order=2).values()} <= {"passed", "skipped"}


def test_the_error_names_every_failed_check() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_cell(Centred)
    first, *lines = str(caught.value).splitlines()
    assert first == "cell 'Centred' fails 3 of 17 checks:"
    assert [line.strip().partition(":")[0] for line in lines] == ["projection by timestep", "split sequence", "padding"]


def test_random_state_is_left_alone() -> None:
    def states() -> list[str]:
        return [str(torch.get_rng_state().tolist()), str(np.random.get_state()), str(random.getstate())]

    before = states()
    list(findings(checks_for("cell", Spends, {})))
    assert states() == before
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_refusal_of_one_hot_input_is_no_failure() -> None:
    assert find_one(Leaks, "one-hot input").outcome == "skipped"
