"""The checks of backends: every built-in passes, and for each check there is a wrong backend that it catches."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell, State
from rnnpipe.cells.elman import Elman
from rnnpipe.cells.gru import GRU
from rnnpipe.cells.lstm import LSTM
from rnnpipe.plugins import full_registry
from rnnpipe.testing import ConformanceError, backends, check_backend, checks_for, findings


class Right(LoopBackend):
    """The loop under another name, for the wrong ones to differ from in one thing each."""

    name = "right"


class Nameless(Right):
    """A name that means something else."""

    name = "auto"


class Speechless(Right):
    """A refusal without a reason."""

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        return None if x_TBI.is_floating_point() else "no"


class Adjusting(Right):
    """Changes what the loop gives, for single sequences of one layer that all are of one length."""

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        y, finals = super().run(cells, x_TBI, states, lengths)
        if lengths is None and len(cells) == 1 and x_TBI.shape[:2] == (1, 1) and torch.is_grad_enabled():
            return self.adjust(y, finals)
        return y, finals

    def adjust(self, y: Tensor, finals: list[State]) -> tuple[Tensor, list[State]]:
        raise NotImplementedError


class OffOutput(Adjusting):
    """Outputs with something added, which no gradient shows."""

    def adjust(self, y: Tensor, finals: list[State]) -> tuple[Tensor, list[State]]:
        return y + 1e-6, finals


class OffFinal(Adjusting):
    """Final states with something added."""

    def adjust(self, y: Tensor, finals: list[State]) -> tuple[Tensor, list[State]]:
        return y, [tuple(leaf + 1e-6 for leaf in state) for state in finals]


class OffGradient(Adjusting):
    """Half the gradient."""

    def adjust(self, y: Tensor, finals: list[State]) -> tuple[Tensor, list[State]]:
        return (y + y.detach()) / 2, finals


class RunsOn(Right):
    """Goes on past the end of a sequence."""

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        if lengths is None or len(cells) > 1 or int(lengths.min()) == 0:
            return super().run(cells, x_TBI, states, lengths)
        y, _ = super().run(cells, x_TBI, states, lengths)
        return y, super().run(cells, x_TBI, states, None)[1]


class UpsideDown(Right):
    """Gives the layers' states in the wrong order, after a single timestep."""

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        y, finals = super().run(cells, x_TBI, states, lengths)
        return y, finals[::-1] if len(x_TBI) == 1 else finals


class Careless(Right):
    """Accepts one-hot input that it cannot run."""

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        return super().run(cells, x_TBI + 0.0, states, lengths)


class ByInheritance(Right):
    """Runs a subclass as its parent."""

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        taken = []
        for cell in cells:
            if type(cell).__name__.startswith("Half"):
                cell = copy.copy(cell)
                cell.__class__ = type(cell).__mro__[1]
            taken.append(cell)
        return super().run(taken, x_TBI, states, lengths)


class Shortcut(Right):
    """Another result where no gradient is needed."""

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        y, finals = super().run(cells, x_TBI, states, lengths)
        return (y if torch.is_grad_enabled() else 1.001 * y), finals


WRONG: dict[str, type[Right]] = {
    "name and priority": Nameless,
    "refusal in words": Speechless,
    "equal to the loop": OffOutput,
    "lengths": RunsOn,
    "stacks": UpsideDown,
    "accepted inputs": Careless,
    "subclasses": ByInheritance,
    "without gradients": Shortcut,
}


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checks run over three cells, each once: what these backends do wrong they do to any."""
    few = {reference.cell: reference for reference in reversed(backends._references())}
    monkeypatch.setattr(backends, "_references", lambda: [few[cell] for cell in (Elman, GRU, LSTM)])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("hoisted", "loop")))
        for name in full_registry().names("backend")
    ],
)
def test_every_builtin_passes(name: str) -> None:
    # What needs a GPU refuses everything where there is none, and says so.
    outcomes = {"passed", "skipped"} if name == "fused" and not torch.cuda.is_available() else {"passed"}
    assert {finding.outcome for finding in check_backend(name)} == outcomes


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("name", ["hoisted", "loop"])
def test_it_passes_on_three_cells(name: str) -> None:
    assert {finding.outcome for finding in check_backend(name)} == {"passed"}


@pytest.mark.usefixtures("few_cells")
def test_there_is_a_wrong_backend_for_every_check() -> None:
    assert set(WRONG) == {check.name for check in checks_for("backend", Right, {})}
    check_backend(Right)


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("check", WRONG)
def test_a_wrong_backend_is_caught(check: str) -> None:
    found = {finding.check: finding for finding in findings(checks_for("backend", WRONG[check], {}))}
    assert {name for name, finding in found.items() if finding.outcome == "failed"} == {check}
    assert re.fullmatch("expected .*; received .*; smallest case: .*", found[check].detail)


class Takes(Right):
    """Refuses everything but one layer without lengths."""

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        return None if lengths is None and len(cells) == 1 else "more than one layer, or lengths"


@pytest.mark.usefixtures("few_cells")
def test_a_refusal_skips_what_it_is_about() -> None:
    found = {finding.check: finding for finding in check_backend(Takes)}
    assert {name for name, finding in found.items() if finding.outcome == "skipped"} == {"lengths", "stacks"}
    assert found["stacks"].detail == "it refuses all of them: more than one layer, or lengths"


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (
            OffOutput,
            r"expected output equal to the loop's; received off by 1e-06 at \[0, 0, \d\]: .* case: cifg, T=1, B=1",
        ),
        (OffFinal, "expected final layer 0 state h equal to the loop's; received off by 1e-06"),
        (OffGradient, "expected gradient of x equal to the loop's; received off by"),
    ],
)
def test_what_differs_from_the_loop_is_named(backend: type[Right], words: str) -> None:
    (check,) = (check for check in checks_for("backend", backend, {}) if check.name == "equal to the loop")
    assert re.search(words, next(findings([check])).detail)


class Sized(Right):
    """Has an option without a default."""

    def __init__(self, tile: int) -> None:
        self.tile = tile


@pytest.mark.usefixtures("few_cells")
def test_the_error_says_what_failed() -> None:
    words = "backend 'Sized' fails 1 of 8 checks:\n  name and priority: raised UsageError: .* needs the option 'tile'"
    with pytest.raises(ConformanceError, match=words):
        check_backend(Sized)
    check_backend(Sized, tile=3)
