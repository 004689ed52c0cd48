"""The checks of optimizers: built-ins pass, and for each check there is a wrong optimizer that it catches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnpipe.plugins import full_registry
from rnnpipe.testing import ConformanceError, Finding, checks_for, findings
from rnnpipe.testing.optimizers import check_optimizer

BUILT_IN = [entry.name for entry in full_registry().entries("optimizer") if entry.distribution == "rnnpipe"]
Params = Iterable[nn.Parameter]


def outcomes(thing: Any, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(checks_for("optimizer", thing, options))}


def failed(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.outcome == "failed"}


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"sparseadam"}))
def test_built_ins_pass(name: str) -> None:
    assert {finding.outcome for finding in check_optimizer(name)} == {"passed"}


def test_sparseadam_fails_with_its_reason() -> None:
    found = outcomes(full_registry().get("optimizer", "sparseadam"))
    assert failed(found) == {"builds"}
    assert "takes sparse gradients only" in found["builds"].detail
    assert {finding.outcome for finding in found.values()} == {"failed", "skipped"}


def test_which_built_ins_do_not_hear_of_a_schedule_at_once() -> None:
    late = set()
    for name in set(BUILT_IN) - {"sparseadam"}:
        every = checks_for("optimizer", full_registry().get("optimizer", name), {})
        (found,) = findings(check for check in every if check.name == "learning rate")
        if float(found.detail.split()[-1]) > 0.5:
            late.add(name)
    assert late == {"asgd", "lbfgs", "rprop"}


class Momentum(torch.optim.Optimizer):
    """A right optimizer, for the wrong ones to differ from in one thing each: b = 0.9 b + g; p = p - lr b."""

    def __init__(self, params: Params, *, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group["lr"])
        return loss

    def update(self, parameter: nn.Parameter, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if "buffer" not in state:
            state["buffer"] = torch.zeros_like(parameter)
        parameter.sub_(state["buffer"].mul_(0.9).add_(gradient), alpha=lr)


class Named(Momentum):
    def __init__(self, params: Params, *, lr: float = 0.01, name: str = "x") -> None:
        super().__init__(params, lr=lr)


class NoLearningRate(Momentum):
    def __init__(self, params: Params, *, lr: float = 0.01) -> None:
        super().__init__(params)
        for group in self.param_groups:
            del group["lr"]


class ReturnsNothing(Momentum):
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        super().step(closure)
        return 0.0


class Ascends(Momentum):
    def update(self, parameter: nn.Parameter, gradient: Tensor, lr: float) -> None:
        super().update(parameter, -gradient, lr)


class HardlyMoves(Momentum):
    def __init__(self, params: Params, *, lr: float = 1e-5) -> None:
        super().__init__(params, lr=lr)


class DecaysAll(Momentum):
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - 1e-5)
        return loss


class KnowsItsLearningRate(Momentum):
    def __init__(self, params: Params, *, lr: float = 0.01) -> None:
        super().__init__(params, lr=lr)
        self.lr = lr

    def update(self, parameter: nn.Parameter, gradient: Tensor, lr: float) -> None:
        super().update(parameter, gradient, self.lr)


class Forgets(Momentum):
    """Its momentum is no part of its state."""

    def __init__(self, params: Params, *, lr: float = 0.01) -> None:
        super().__init__(params, lr=lr)
        self.buffers: dict[nn.Parameter, Tensor] = {}

    def update(self, parameter: nn.Parameter, gradient: Tensor, lr: float) -> None:
        buffer = self.buffers.setdefault(parameter, torch.zeros_like(parameter))
        parameter.sub_(buffer.mul_(0.9).add_(gradient), alpha=lr)


class RoundsItsState(Momentum):
    """Its state is saved in half precision."""

    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        state = {n: {"buffer": s["buffer"].bfloat16().float()} for n, s in saved["state"].items()}
        return {**saved, "state": state}


class Noisy(Momentum):
    def update(self, parameter: nn.Parameter, gradient: Tensor, lr: float) -> None:
        super().update(parameter, gradient + 1e-6 * torch.randn_like(gradient), lr)


WRONG: dict[str, list[tuple[type[Momentum], set[str]]]] = {
    "builds": [(Named, set()), (NoLearningRate, set())],
    "closure": [(ReturnsNothing, set())],
    "converges on a quadratic": [(Ascends, set()), (HardlyMoves, set())],
    "parameters without gradients": [(DecaysAll, set())],
    "learning rate": [(KnowsItsLearningRate, set())],
    "save and load": [(Forgets, set()), (RoundsItsState, set())],
    "random state": [(Noisy, {"save and load"})],
}


@pytest.mark.parametrize(
    ("check", "wrong", "others"),
    [(check, thing, others) for check, things in WRONG.items() for thing, others in things],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_optimizers_are_caught(check: str, wrong: type[Momentum], others: set[str]) -> None:
    found = outcomes(wrong)
    assert check in failed(found), found[check]
    assert failed(found) <= {check} | others, found
    assert re.fullmatch(r"expected .+; received .+; smallest case: .+", found[check].detail)


def test_each_check_has_a_wrong_optimizer() -> None:
    assert {check.name for check in checks_for("optimizer", Momentum, {})} == set(WRONG)


def test_a_right_optimizer_passes() -> None:
    assert {finding.outcome for finding in check_optimizer(Momentum)} == {"passed"}


def test_an_optimizer_that_turns_gradients_off_for_its_closure_is_caught() -> None:
    class WithoutGradients(Momentum):
        @torch.no_grad()
        def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
            return closure() if closure else None

    assert "does not require grad" in outcomes(WithoutGradients)["closure"].detail


def test_options_reach_the_optimizer_and_are_checked() -> None:
    assert failed(outcomes(Momentum, lr=1e-6)) == {"converges on a quadratic"}
    assert "has no option 'momentum'" in outcomes(Momentum, momentum=0.9)["builds"].detail


def test_the_error_shows_the_failure() -> None:
    with pytest.raises(ConformanceError) as error:
        check_optimizer(Forgets)
    first, second = str(error.value).splitlines()
    assert first == "optimizer 'Forgets' fails 1 of 7 checks:"
    assert re.fullmatch(
        r"  save and load: expected the same bits from a checkpoint as without one; received a largest difference of "
        r"\S+; smallest case: step 1 after a checkpoint at step 5, 'matrix' \[4, 3\]",
        second,
    )
