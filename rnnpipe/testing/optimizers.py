"""Checks of optimizers: on a quadratic that every step length of use comes down, built and called as in training."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnpipe.options import bind_options
from rnnpipe.testing.randomness import require_untouched, undisturbed
from rnnpipe.testing.report import Check, Failure, Finding, require
from rnnpipe.testing.things import in_order, require_reachable, resolve
from rnnpipe.training.checkpoints import load_checkpoint, save_checkpoint
from rnnpipe.training.optimizers import with_fused

STEPS = 500
FALL = 0.5  # what the loss must have fallen to by then
FEW_STEPS = 5

Make = Callable[[nn.Module], torch.optim.Optimizer]


class Quadratic(nn.Module):
    """A matrix W [4, 3] and a vector w [3]; loss = sum c (p - o)^2 / 2 over both, a tenth off the optimum o.

    The curvatures c go from 0.5 to 1.5, so that plain gradient descent comes down at any step length up to 1. Two more
    parameters get no gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(_optimum(4, 3) + 0.1 * torch.cos(torch.arange(12.0)).reshape(4, 3))
        self.vector = nn.Parameter(_optimum(3) + 0.1 * torch.cos(torch.arange(3.0) + 1))
        self.unused = nn.Parameter(torch.ones(2, 3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def loss(self) -> Tensor:
        """Return the loss."""
        terms = []
        for parameter in (self.matrix, self.vector):
            curvature = torch.linspace(0.5, 1.5, parameter.numel()).reshape(parameter.shape)
            terms.append((curvature * (parameter - _optimum(*parameter.shape)).square()).sum() / 2)
        return torch.stack(terms).sum()


def _optimum(*shape: int) -> Tensor:
    return 1 + 0.5 * torch.sin(torch.arange(float(math.prod(shape)))).reshape(shape)


def check_optimizer(thing: Any, **options: Any) -> list[Finding]:
    """Check an optimizer, a factory or a registered name; raise ConformanceError with every check that failed."""
    thing, name = resolve("optimizer", thing)
    return require(f"optimizer '{name}'", checks(thing, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of an optimizer."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())
        bound = bind_options(thing, options, f"optimizer '{resolve('optimizer', thing)[1]}'", reserved=1)
        optimizer: torch.optim.Optimizer = thing(parameters, **with_fused(thing, parameters, bound))
        return optimizer

    made = in_order(
        Check("builds", lambda: _builds(thing, make)),
        [
            Check("closure", lambda: _closure(make)),
            Check("converges on a quadratic", lambda: _converges(make)),
            Check("parameters without gradients", lambda: _parameters_without_gradients(make)),
            Check("learning rate", lambda: _learning_rate(make)),
            Check("save and load", lambda: _save_and_load(make)),
            Check("random state", lambda: _random_state(make)),
        ],
    )
    return undisturbed(made)


def _train(model: Quadratic, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Take steps as training does; return the loss that the optimizer returned at each."""

    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return [float(optimizer.step(closure)) for _ in range(steps)]


def _builds(thing: Any, make: Make) -> str:
    require_reachable(thing, reserved=1)
    optimizer = make(Quadratic())
    groups = optimizer.param_groups
    for number, group in enumerate(groups):
        if type(group.get("lr")) not in (int, float):
            raise Failure("a learning rate `lr`, a number, in every group", repr(group.get("lr")), f"group {number}")
    return f"learning rates {', '.join(format(group['lr'], 'g') for group in groups)}"


def _closure(make: Make) -> str:
    """Call step(closure) once, with a closure that counts its calls."""
    model = Quadratic()
    optimizer = make(model)
    losses = []

    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        return losses[-1]

    returned = optimizer.step(closure)
    if not losses:
        raise Failure("step(closure) evaluates the closure", "no evaluation", "the first step")
    if returned is None or float(returned) != losses[0]:
        raise Failure(f"step(closure) returns the loss, {losses[0]:g}", repr(returned), "the first step")
    return f"evaluated {len(losses)} times in a step, its loss returned"


def _converges(make: Make) -> str:
    model = Quadratic()
    first = float(model.loss().detach())
    _train(model, make(model), STEPS)
    last = float(model.loss().detach())
    if not last <= FALL * first:  # what is not a number is not below
        raise Failure(
            f"a loss of at most {FALL * first:.3g}", f"{last:.3g}", f"{STEPS} steps from the loss {first:.3g}"
        )
    return f"from the loss {first:.3g} to {last:.3g} in {STEPS} steps"


def _parameters_without_gradients(make: Make) -> str:
    model = Quadratic()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    _train(model, make(model), FEW_STEPS)
    for name in ("frozen", "unused"):
        if not torch.equal(model.get_parameter(name), before[name]):
            change = float((model.get_parameter(name) - before[name]).detach().abs().max())
            raise Failure(
                "a parameter without a gradient unchanged",
                f"a change of {change:.3g}",
                f"{FEW_STEPS} steps, the parameter '{name}' {list(before[name].shape)}",
            )
    return f"unchanged in {FEW_STEPS} steps, with requires_grad and without"


def _learning_rate(make: Make) -> str:
    """Set the learning rate as a schedule does, before the first step and before a later one."""
    first = _shrinkage(make, 0)
    if not first < 1:
        raise Failure(
            "a shorter step at a tenth of the learning rate", f"one {first:.3g} times as long", "the first step"
        )
    return f"a tenth of it makes the first step {first:.3g} times as long, the sixth {_shrinkage(make, FEW_STEPS):.3g}"


def _shrinkage(make: Make, steps: int) -> float:
    """Return how long the step behind `steps` others is at a tenth of the learning rate, relative to the whole."""
    lengths = []
    for factor in (1.0, 0.1):
        model = Quadratic()
        optimizer = make(model)
        _train(model, optimizer, steps)
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        for group in optimizer.param_groups:
            group["lr"] *= factor
        _train(model, optimizer, 1)
        lengths.append(float((nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm()))
    return lengths[1] / lengths[0] if lengths[0] else 1.0


def _save_and_load(make: Make) -> str:
    """Go on from a checkpoint, and without: to the same bits."""
    model = Quadratic()
    optimizer = make(model)
    _train(model, optimizer, FEW_STEPS)
    with tempfile.TemporaryDirectory(prefix="rnnpipe-") as folder:
        training = {"optimizer": optimizer.state_dict()}
        checkpoint = load_checkpoint(save_checkpoint(Path(folder), FEW_STEPS, model.state_dict(), training, {}))
        other = Quadratic()
        again = make(other)
        other.load_state_dict(checkpoint.weights())
        again.load_state_dict(checkpoint.training()["optimizer"])
    for step in range(FEW_STEPS):
        _train(model, optimizer, 1)
        _train(other, again, 1)
        for (name, expected), received in zip(model.named_parameters(), other.parameters(), strict=True):
            if not torch.equal(expected, received):
                difference = float((expected - received).detach().abs().max())
                raise Failure(
                    "the same bits from a checkpoint as without one",
                    f"a largest difference of {difference:.3g}",
                    f"step {step + 1} after a checkpoint at step {FEW_STEPS}, '{name}' {list(expected.shape)}",
                )
    return f"the same bits in {FEW_STEPS} steps after a checkpoint at step {FEW_STEPS}"


def _random_state(make: Make) -> str:
    def work() -> list[Any]:
        model = Quadratic()
        _train(model, make(model), FEW_STEPS)
        return [parameter.tolist() for parameter in model.parameters()]

    return require_untouched(work, f"{FEW_STEPS} steps")
