"""Optimizers that torch's own constructors do not serve as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

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
