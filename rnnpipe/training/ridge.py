"""Ridge regression of the readout: the trainer `ridge`.

Shapes: T timesteps, B sequences, N valid timesteps in all, F features (outputs of the stack, and 1 for the bias), O
numbers of a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rnnpipe.data.sequences import SequenceBatch
from rnnpipe.errors import InputError, UsageError
from rnnpipe.models.base import last_outputs
from rnnpipe.models.recurrent import States
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.one_pass import fit_in_one_pass
from rnnpipe.training.sequence_objective import SequenceObjective, valid_steps
from rnnpipe.training.trainers import Task, fits


@fits("sequences")
def fit(
    task: Task,
    callbacks: Sequence[Callback],
    should_stop: Callable[[], bool],
    *,
    penalty: float = 1e-6,
    washout: int = 0,
) -> TrainState:
    """Fit the readout alone, in closed form: the weights that minimize sum |W f + b - t|² + penalty |W|².

    The normal equations are gathered in float64, batch by batch and with `training.bptt` window by window with the
    state carried, so that a sequence may be of any length. penalty: 0 or more; the bias has none. washout: so many
    timesteps at the start of each sequence are left out, until the stack has forgotten where it started.

    For echo state networks (cell `echo-state`), and for any other stack as it was drawn. Lukoševičius & Jaeger 2009,
    "Reservoir computing approaches to recurrent neural network training", section 8.1. Raises UsageError for another
    loss than squared errors, or a model without a readout.
    """
    return fit_in_one_pass(task, _Ridge(task, penalty, washout), callbacks, should_stop)


class _Ridge:
    """sums: gram [F, F], moments [F, O], squares and count [1] of the targets; offset [1], timesteps before a batch."""

    def __init__(self, task: Task, penalty: float, washout: int) -> None:
        objective, model = task.objective, task.model
        if not isinstance(objective, SequenceObjective) or objective.sizes.loss != "mse":
            raise UsageError("trainer 'ridge' is for sequences of numbers under squared errors; use gradient-descent.")
        if not isinstance(model, SequenceModel) or model.readout is None:
            raise UsageError("trainer 'ridge' fits a readout, and the model has none; leave readout=false out.")
        if penalty < 0 or washout < 0:
            raise UsageError(f"trainer 'ridge': penalty={penalty}, washout={washout}: each is 0 or more.")
        self.every = objective.sizes.target == "every"
        if washout and not self.every:
            raise UsageError("trainer 'ridge': washout is for targets at every timestep; these are at the last.")
        self.model, self.readout = model, model.readout
        self.penalty, self.washout = penalty, washout
        self.divisor = objective.config.reduction
        self.sequences = len(objective.train.lengths)
        features = self.readout.in_features + (self.readout.bias is not None)
        one = dict.fromkeys(("squares", "count", "offset"), (1,))
        shapes = {"gram": (features, features), "moments": (features, objective.sizes.target_size), **one}
        self.sums = {
            name: torch.zeros(shape, dtype=torch.float64, device=task.device) for name, shape in shapes.items()
        }

    def gather(self, batch: SequenceBatch, state: States | None) -> States | None:
        y, state = self.model.recurrent(self.model.encode(batch.inputs), state, lengths=batch.lengths)
        sums = self.sums
        if batch.resets:
            sums["offset"].zero_()
        if self.every:
            steps = torch.arange(len(y), device=y.device)[:, None] + sums["offset"]
            wanted = (steps >= self.washout).expand(y.shape[:2])
            if batch.lengths is not None:
                wanted = wanted & (valid_steps(batch.lengths, y)[..., 0] > 0)
            features, targets = y[wanted], batch.targets[wanted]
            sums["offset"] += len(y)
        else:
            features, targets = last_outputs(y, batch.lengths, self.model.recurrent), batch.targets
        f, t = features.double(), targets.double()
        if self.readout.bias is not None:
            f = torch.cat((f, torch.ones_like(f[:, :1])), 1)
        sums["gram"] += f.t() @ f
        sums["moments"] += f.t() @ t
        sums["squares"] += t.square().sum()
        sums["count"] += t.numel()
        return state

    def solve(self) -> float:
        gram, moments = self.sums["gram"], self.sums["moments"]
        if not self.sums["count"]:
            raise InputError(f"trainer 'ridge': washout={self.washout} leaves nothing of the sequences to fit to.")
        penalties = torch.full((len(gram),), self.penalty, dtype=gram.dtype, device=gram.device)
        if self.readout.bias is not None:
            penalties[-1] = 0.0
        weights = _solve(gram + torch.diag(penalties), moments)
        _set(self.readout, weights)
        squares = self.sums["squares"] - 2 * (weights * moments).sum() + (weights * (gram @ weights)).sum()
        # A difference of large numbers: what is below their rounding is 0.
        total = max(0.0, squares.item())
        return total / {"mean": self.sums["count"].item(), "sequence-sum": self.sequences, "sum": 1}[self.divisor]


def _solve(gram: Tensor, moments: Tensor) -> Tensor:
    """Return the solution of least norm of the normal equations: features may well depend on each other."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > values.max() * len(gram) * torch.finfo(gram.dtype).eps
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    weights: Tensor = vectors @ (inverse[:, None] * (vectors.t() @ moments))
    return weights


def _set(readout: nn.Linear, weights: Tensor) -> None:
    inputs = readout.in_features
    readout.weight.copy_(weights[:inputs].t())
    if readout.bias is not None:
        readout.bias.copy_(weights[inputs])
