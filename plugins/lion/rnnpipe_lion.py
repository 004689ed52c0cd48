"""The optimizer Lion, as a plugin for rnnpipe."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from rnnpipe import hookimpl


class Lion(torch.optim.Optimizer):
    """w' = w - lr (sign(b1 m + (1 - b1) g) + weight_decay w); m' = b2 m + (1 - b2) g.

    Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2 (arXiv:2302.06675). Every weight
    moves by lr at each step, whatever its gradient: the paper advises a learning rate 3 to 10 times smaller than
    AdamW's, with a weight decay larger by as much. State: one momentum m for each weight.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if not lr >= 0:  # so written, NaN is refused too
            raise ValueError(f"Invalid learning rate: {lr}")
        for index, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
        if not weight_decay >= 0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; return the closure's loss if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2), weight_decay = group["lr"], group["betas"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                update = momentum.lerp(weight.grad, 1 - beta1).sign_()
                weight.mul_(1 - lr * weight_decay).add_(update, alpha=-lr)
                momentum.lerp_(weight.grad, 1 - beta2)
        return loss


@hookimpl
def register_optimizers():
    return {"lion": Lion}
