"""A run with its weights in fewer bits, and what that costs and buys."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.quantize import Form, Size, quantize
from rnnpipe.pipeline.evaluate import Evaluation, evaluate_run
from rnnpipe.pipeline.runs import Run

_ROWS = 64  # of the step that is timed
_ROUNDS = 7
_ROUND_SECONDS = 0.05


def quantize_run(run: Run, form: Form) -> tuple[Run, Size]:
    """Return a run whose model has its weights in `form`, all else in float32 on the CPU, and what that saves."""
    model = copy.deepcopy(run.model)
    size = quantize(model, form)
    return replace(run, model=model, numerics=replace(run.numerics, precision="float32", backend="loop")), size


@dataclass(frozen=True)
class Quantized:
    """What quantization costs and buys: the losses before and after, the bytes, and a step of so many rows in seconds.

    before: of the run in float32.
    """

    form: Form
    before: Evaluation
    after: Evaluation
    size: Size
    rows: int
    seconds_before: float
    seconds_after: float

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name, with their units."""
        return {
            "form": self.form,
            "float32": self.before.to_json(),
            "quantized": self.after.to_json(),
            "difference_nats": {
                "windows": self.after.windows.nats - self.before.windows.nats,
                "carried": self.after.carried.nats - self.before.carried.nats,
            },
            "bytes": {"float32": self.size.before, "quantized": self.size.after},
            "matrices": list(self.size.matrices),
            "step_seconds": {"rows": self.rows, "float32": self.seconds_before, "quantized": self.seconds_after},
        }


def evaluate_quantized(run: Run, form: Form, inputs: Sequence[str] = (), **options: Any) -> Quantized:
    """Evaluate a run in float32 and quantized, as `evaluate_run` does, and time a step of both."""
    plain = replace(run, model=run.model.float(), numerics=replace(run.numerics, precision="float32"))
    narrow, size = quantize_run(run, form)
    before, after = evaluate_run(plain, inputs, **options), evaluate_run(narrow, inputs, **options)
    seconds = _time_in_turns([_stepping(plain.model), _stepping(narrow.model)])
    return Quantized(form, before, after, size, _ROWS, *seconds)


def _stepping(model: LanguageModel) -> Callable[[], object]:
    ones = torch.ones(_ROWS, dtype=torch.int64)
    _, state = model.eval().prime(torch.zeros(1, _ROWS, dtype=torch.int64), ones)

    def step() -> object:
        with torch.inference_mode():
            return model.step(ones % model.vocab_size, state)

    return step


def _time_in_turns(steps: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median seconds of each step, taken in turns, so that what else the machine does meets all alike."""
    found: list[list[float]] = [[] for _ in steps]
    for _ in range(_ROUNDS):
        for step, seconds in zip(steps, found, strict=True):
            count, start = 0, time.perf_counter()
            while (passed := time.perf_counter() - start) < _ROUND_SECONDS or not count:
                step()
                count += 1
            seconds.append(passed / count)
    return [median(seconds) for seconds in found]
