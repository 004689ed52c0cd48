"""How far back a network sees: the gradient of its last output with respect to each earlier input, by lag.

Shapes: T timesteps, B sequences, E numbers of an encoded input, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.data.base import Sequences
from rnnpipe.data.sequences import to_batch
from rnnpipe.data.tokens import Ids
from rnnpipe.errors import InputError
from rnnpipe.models.base import Model, last_outputs
from rnnpipe.pipeline.evaluate_sequences import evaluation_part
from rnnpipe.pipeline.runs import Run, SequenceRun, check_tokens, run_tokens
from rnnpipe.training.evaluate import evaluating

_MOST_OUTPUTS = 64  # a backward pass each


@dataclass(frozen=True)
class Probe:
    """The mean norm of the gradient at each lag, 0 being the last input, over so many sequences; of what, in words."""

    norms: Sequence[float]
    sequences: int
    what: str

    @property
    def factor(self) -> float | None:
        """Return by what the norm changes a timestep into the past: the least-squares line of its logarithm.

        None for fewer than two lags with a gradient.
        """
        points = [(lag, math.log(norm)) for lag, norm in enumerate(self.norms) if norm > 0]
        if len(points) < 2:
            return None
        lags, logs = np.array(points).T
        return math.exp(float(np.polyfit(lags, logs, 1)[0]))

    def to_json(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {"what": self.what, "sequences": self.sequences, "factor": self.factor, "norms": list(self.norms)}


def probe_run(run: Run | SequenceRun, *, count: int = 64, length: int | None = None, seed: int = 0) -> Probe:
    """Probe a run on sequences of its test part (or validation part), or on windows of its test text.

    sequences: the Frobenius norm of the Jacobian of the last output with respect to the input at each lag, averaged
    over sequences; new ones of `length` timesteps if that is given. text: the norm of the gradient of the
    log-probability of the token behind `length` tokens with respect to each encoded token.
    """
    if isinstance(run, SequenceRun):
        return _probe_sequences(run, count, length, seed)
    return _probe_text(run, count, length or 64)


def _probe_sequences(run: SequenceRun, count: int, length: int | None, seed: int) -> Probe:
    data, sizes, every = run.data, run.data.sizes, run.data.sizes.target == "every"
    if length is not None:
        at_length = getattr(data.dataset, "at_length", None)
        if at_length is None:
            raise InputError(f"dataset '{data.name}' makes no sequences of a given length; leave out --length.")
        chosen: Sequences = at_length(length, count, seed)
    else:
        chosen = data.parts[evaluation_part(data) or "train"]
    rows = slice(0, count)
    inputs, _, lengths = to_batch(chosen, rows, every, ragged=True)
    assert lengths is not None, "it was asked for"
    outputs = min(sizes.output_size, _MOST_OUTPUTS)

    def last(x: Tensor) -> Tensor:
        y, _ = run.model(x, lengths=lengths)
        return (last_outputs(y, lengths, run.model.recurrent) if every else y)[:, :outputs]

    norms = _norms(run.model, inputs, last, lengths)
    return Probe(norms, len(lengths), "the last output with respect to the input")


def _probe_text(run: Run, count: int, length: int) -> Probe:
    tokens = run_tokens(run.folder, run.config)
    check_tokens(tokens, run)
    part = next(part for part in ("test", "valid", "train", "all") if part in tokens.parts)
    ids: Ids = tokens.part(part).tokens
    if run.model.window is not None:
        length = run.model.window
    windows = min(count, (len(ids) - 1) // length)
    if windows < 1:
        raise InputError(f"{run.folder}: its {part} text has {len(ids)} tokens, too few for a window of {length}.")
    starts = np.linspace(0, len(ids) - 1 - length, windows).astype(np.int64)
    read = torch.from_numpy(ids[starts + np.arange(length)[:, None]].astype(np.int64))
    behind = torch.from_numpy(ids[starts + length].astype(np.int64))
    model = run.model
    encoded = model.encoder(read)
    if not encoded.is_floating_point():  # one-hot input, gathered by the cell: here its rows are wanted themselves
        encoded = F.one_hot(encoded, model.vocab_size).float()

    def log_probability(x: Tensor) -> Tensor:
        y, _ = model.recurrent(x)
        logits = model.read_out(last_outputs(y, None, model.recurrent))
        return logits.log_softmax(-1).gather(-1, behind[:, None])

    lengths = torch.full((windows,), length)
    norms = _norms(model, encoded.detach(), log_probability, lengths)
    return Probe(norms, windows, "the log-probability of the next token with respect to the encoded token")


def _norms(model: Model, x: Tensor, last: Callable[[Tensor], Tensor], lengths: Tensor) -> list[float]:
    """Return, by lag, the mean over sequences of the Frobenius norm of d last(x) [B, K] / d x[t] [T, B, E]."""
    model = model.cpu()
    backend, model.recurrent.backend = model.recurrent.backend, "loop"  # the definition itself; and its gradient exists
    x = x.requires_grad_()
    try:
        with evaluating(model):
            y = last(x)
            squares = torch.zeros(x.shape[:2], dtype=torch.float64)
            for output in range(y.shape[1]):
                (gradient,) = torch.autograd.grad(y[:, output].sum(), x, retain_graph=True)
                squares += gradient.double().square().sum(-1)
    finally:
        model.recurrent.backend = backend
    norms, steps = squares.sqrt(), torch.arange(len(x))[:, None]
    lags = lengths - 1 - steps
    return [float(norms[lags == lag].mean()) for lag in range(int(lengths.max()))]
