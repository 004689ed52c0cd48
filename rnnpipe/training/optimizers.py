"""Optimizers that torch's own constructors do not serve as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnnpipe.errors import UsageError


class Combined(torch.optim.Optimizer):
    """Two optimizers that share out the parameters and act as one."""

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        super().__init__([group for member in self.members for group in member.param_groups], {})
        # The same dictionaries, so that a schedule that sets `lr` here reaches the members.
        self.param_groups = [group for member in self.members for group in member.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Evaluate the closure once, then take a step with every member."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for member in self.members:
            member.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the members' states."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the members' states."""
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load_state_dict(state)
        self.param_groups = [group for member in self.members for group in member.param_groups]


def muon(
    params: Iterable[nn.Parameter],
    *,
    lr: float = 0.02,
    weight_decay: float = 0.0,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    adamw_lr: float = 0.003,
    adamw_weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Muon for every matrix, AdamW for the vectors, which Muon cannot take (Jordan et al. 2024)."""
    params = list(params)
    matrices = [parameter for parameter in params if parameter.dim() == 2]
    vectors = [parameter for parameter in params if parameter.dim() != 2]
    members: list[torch.optim.Optimizer] = []
    if matrices:
        members.append(
            torch.optim.Muon(
                matrices, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps
            )
        )
    if vectors:
        members.append(torch.optim.AdamW(vectors, lr=adamw_lr, weight_decay=adamw_weight_decay))
    return Combined(members)


def momentum(
    params: Iterable[nn.Parameter], *, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Gradient descent with momentum: v' = m v + g, w' = w - lr v' (Polyak 1964, with the learning rate outside)."""
    return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


def nesterov(
    params: Iterable[nn.Parameter], *, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Nesterov's accelerated gradient: v' = m v + g, w' = w - lr (g + m v') (as Sutskever et al. 2013 rewrote it)."""
    return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=True)


def rmsprop_keras(
    params: Iterable[nn.Parameter], *, lr: float = 0.001, rho: float = 0.9, epsilon: float = 1e-7
) -> torch.optim.Optimizer:
    """RMSProp as Keras 2 defaults and computes it: v' = rho v + (1 - rho) g^2, w' = w - lr g / (sqrt(v') + epsilon).

    Source: `keras/optimizers.py` of Keras 2.3, class `RMSprop`. Torch's own has rho = 0.99 and epsilon = 1e-8.
    """
    return torch.optim.RMSprop(params, lr=lr, alpha=rho, eps=epsilon)


class RMSPropTensorFlow(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 defaults and computes it.

        v' = decay v + (1 - decay) g^2, v = 1 at first; m' = momentum m + lr g / sqrt(v' + epsilon); w' = w - m'

    Source: `tensorflow/python/training/rmsprop.py` (defaults; v is filled with ones) and its kernel `ApplyRMSProp`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 0.001,
        decay: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
    ) -> None:
        ranges = {"lr": lr >= 0, "decay": 0 <= decay <= 1, "momentum": momentum >= 0, "epsilon": epsilon >= 0}
        for name, good in ranges.items():
            if not good:
                raise ValueError(f"{name} is out of its range")
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Evaluate the closure once, then take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["square"] = torch.ones_like(parameter)
            state["moved"] = torch.zeros_like(parameter)
        state["square"].mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        moved = gradient / (state["square"] + group["epsilon"]).sqrt()
        state["moved"].mul_(group["momentum"]).add_(moved, alpha=group["lr"])
        parameter.sub_(state["moved"])


def sparseadam(params: Iterable[nn.Parameter], *, lr: float = 0.001) -> torch.optim.Optimizer:
    """Refuse: torch's SparseAdam takes sparse gradients only, and a recurrent network's are dense."""
    raise UsageError("optimizer 'sparseadam' takes sparse gradients only and these are dense; use adam or adamw.")


def with_fused(factory: Callable[..., Any], params: list[nn.Parameter], options: dict[str, Any]) -> dict[str, Any]:
    """Return `options` with torch's one-kernel update switched on where it exists and was not decided by a person.

    It computes the same update; on a CPU it saves several passes over the weights a step.
    """
    kinds = {parameter.device.type for parameter in params}
    if "fused" not in inspect.signature(factory).parameters or options.keys() & {"fused", "foreach", "differentiable"}:
        return options
    return {**options, "fused": True} if kinds <= {"cpu", "cuda"} else options
