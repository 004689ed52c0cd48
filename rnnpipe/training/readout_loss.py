"""The loss of a readout over many classes, its gradient made beside it.

Shapes: N rows, F features, V classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CHUNK = 1 << 19  # numbers of the table [N, V] that are turned into probabilities at once: they fit a processor's cache


def readout_loss(readout: nn.Linear, features: Tensor, wanted: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of readout(features) [N, V] against classes [N], in float32 at least.

    It is `F.cross_entropy(readout(features), wanted, label_smoothing=smoothing)`, whose tables of probabilities and of
    their gradient would be larger than all else of a training step. Here they exist a few rows at a time, and only the
    gradient of the logits, in the precision of the product (autocast's, where it is on), is kept.
    """
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
    weight, bias = readout.weight.to(dtype), readout.bias.to(dtype)
    loss: Tensor = _ReadoutLoss.apply(features.to(dtype), weight, bias, wanted, smoothing)  # type: ignore[no-untyped-call]
    return loss


class _ReadoutLoss(torch.autograd.Function):
    """The loss of logits z_n and classes w_n, and its gradient, e being the smoothing.

    mean over n of logsumexp(z_n) - (1 - e) z_n[w_n] - e mean(z_n);  (softmax(z_n) - (1 - e) 1[w_n] - e / V) / N
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits = torch.addmm(bias, features, weight.T)
            count, classes = logits.shape
            total = logits.new_zeros((), dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
            rows = max(1, _CHUNK // classes)
            for chunk, right in zip(torch.split(logits, rows), torch.split(wanted, rows), strict=True):
                total += _differentiate(chunk, right, smoothing, count)
            ctx.save_for_backward(features, weight, logits)
        return total / count

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, weight, gradient = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            scale = grad.to(features.dtype)
            return (
                (gradient @ weight) * scale,
                (gradient.T @ features) * scale,
                gradient.sum(0) * scale,
                None,
                None,
            )


def _differentiate(logits: Tensor, wanted: Tensor, smoothing: float, count: int) -> Tensor:
    """Return the summed loss of some rows, and put the gradient of the mean in the place of their logits."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    at = wanted[:, None]
    chosen = wide.gather(1, at)
    loss = wide.logsumexp(1).sum() - (1 - smoothing) * chosen.sum()
    if smoothing:
        loss = loss - smoothing * wide.mean(1).sum()
    gradient = wide.softmax(1).sub_(smoothing / wide.shape[1])
    gradient.scatter_add_(1, at, gradient.new_full((1, 1), smoothing - 1).expand_as(at))
    logits.copy_(gradient.div_(count))
    return loss
