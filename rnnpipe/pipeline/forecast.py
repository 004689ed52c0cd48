"""Forecasts: a network of sequences whose targets continue its inputs, fed with its own outputs.

Shapes: P timesteps of a prefix, S of a forecast, I numbers of a timestep.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnnpipe.data.base import Sequences
from rnnpipe.errors import InputError, UsageError, unknown_name
from rnnpipe.pipeline.evaluate_sequences import continues
from rnnpipe.pipeline.runs import SequenceRun
from rnnpipe.runtime import autocast
from rnnpipe.training.evaluate import evaluating

Values = npt.NDArray[np.float32]
SOURCES = ("train", "valid", "test", "new")


@dataclass(frozen=True)
class Forecast:
    """A continued series in its own units: prefix [P, I], outputs [S, I], and what is known of the truth, [0 to S, I].

    source says where the prefix came from.
    """

    source: str
    prefix: Values
    outputs: Values
    truth: Values

    @property
    def largest_error(self) -> float | None:
        """Return the largest absolute error where the truth is known, None if it is not."""
        known = len(self.truth)
        return float(np.abs(self.outputs[:known] - self.truth).max()) if known else None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a timestep, counted from 1 behind the prefix: step, output and truth of each number."""
        rows = []
        for step, output in enumerate(self.outputs):
            row: dict[str, Any] = {"step": step + 1}
            for number, value in enumerate(output):
                suffix = "" if output.size == 1 else f"_{number + 1}"
                row[f"output{suffix}"] = _short(value)
                if len(self.truth):
                    row[f"truth{suffix}"] = _short(self.truth[step, number]) if step < len(self.truth) else None
            rows.append(row)
        return rows


def _short(value: np.float32) -> float:
    """Return the shortest decimal number that is this one in single precision."""
    return float(str(value))


def forecast_series(
    run: SequenceRun,
    steps: int,
    *,
    source: str = "test",
    number: int = 0,
    prefix: Values | None = None,
    prefix_length: int | None = None,
    seed: int = 0,
) -> Forecast:
    """Continue a series by `steps` timesteps, each output being the next input.

    The prefix is given, [P, I] in the dataset's own units, or taken from a sequence: the one called `number` of a part
    (`source`), or a "new" one of the dataset's, whose continuation is then known. Of a part's sequence the first half
    is the prefix, unless `prefix_length` says otherwise; of one with a target behind it alone, all of it.

    Raises UsageError where outputs cannot be fed back, and InputError for a prefix that does not fit.
    """
    _check_loop(run)
    if prefix is not None:
        begun = prefix if prefix_length is None else prefix[:prefix_length]
        scaled, truth, said = _scaled(run, begun), _scaled(run, prefix[len(begun) :][:steps]), "given"
    elif source == "new":
        scaled, truth = _new_sequence(run, steps, prefix_length, seed)
        said = f"new sequence, seed {seed}"
    else:
        scaled, truth = _sequence_of_part(run, source, number, prefix_length, steps)
        said = f"sequence {number} of the part '{source}'"
    outputs = _closed_loop(run, scaled, steps)
    return Forecast(said, *(_unscaled(run, values) for values in (scaled, outputs, truth)))


def _check_loop(run: SequenceRun) -> None:
    """Raise UsageError, saying why, where outputs are no next inputs."""
    sizes, name = run.data.sizes, run.data.name
    if sizes.loss != "mse":
        raise UsageError(f"{run.folder}: its outputs are {sizes.loss} predictions, not numbers to go on from.")
    if sizes.input_size != sizes.target_size:
        raise UsageError(
            f"{run.folder}: an input has {sizes.input_size} numbers and an output {sizes.target_size}, so that outputs "
            "cannot be fed back."
        )
    if not continues(run.data):
        raise UsageError(
            f"{run.folder}: the targets of dataset '{name}' are not the next inputs: there is no series to continue. "
            f"`rnnpipe eval {run.folder} --show 5` shows its predictions."
        )
    if sizes.target == "every" and run.model.recurrent.bidirectional:
        raise UsageError(f"{run.folder}: a bidirectional network reads a series from its end, which is not there yet.")


@torch.no_grad()
def _closed_loop(run: SequenceRun, prefix: Values, steps: int) -> Values:
    """Return the outputs [S, I]: the state is carried, or each one is read off the last window of inputs alone."""
    device = torch.device(run.numerics.device)
    model = run.model.to(device)
    series = [*torch.from_numpy(prefix).to(device)]
    found: list[torch.Tensor] = []
    with evaluating(model), autocast(device, run.numerics.precision):
        if run.data.sizes.target == "every":
            y, state = model(torch.stack(series)[:, None])
            while len(found) < steps:
                found.append(y[-1, 0].float())
                y, state = model(found[-1][None, None], state)
        else:
            window = run.data.sizes.timesteps
            while len(found) < steps:
                y, _ = model(torch.stack(series[-window:])[:, None])
                found.append(y[0].float())
                series.append(found[-1])
    outputs: Values = torch.stack(found).cpu().numpy()
    return outputs


def _new_sequence(run: SequenceRun, steps: int, prefix_length: int | None, seed: int) -> tuple[Values, Values]:
    at_length = getattr(run.data.dataset, "at_length", None)
    if at_length is None:
        raise UsageError(
            f"dataset '{run.data.name}' makes no new sequences (it has no `at_length`); use --from "
            f"{' or '.join(run.data.parts)}, or --prefix FILE."
        )
    length = prefix_length or run.data.sizes.timesteps
    drawn: Sequences = at_length(length + steps, 1, seed)
    series = drawn.inputs[0]
    return series[:length], series[length:]


def _sequence_of_part(
    run: SequenceRun, part: str, number: int, prefix_length: int | None, steps: int
) -> tuple[Values, Values]:
    """Return the beginning of a sequence and what follows it, as far as the part holds it."""
    if part not in run.data.parts:
        raise unknown_name("part", part, [*run.data.parts, "new"])
    sequences = run.data.parts[part]
    count = len(sequences.lengths)
    if not 0 <= number < count:
        raise InputError(f"sequence {number} of the part '{part}': there are {count}, counted from 0.")
    length = int(sequences.lengths[number])
    series = sequences.inputs[number, :length]
    if run.data.sizes.target == "every":
        begun = prefix_length or max(1, length // 2)
        series = np.concatenate((series, sequences.targets[number, length - 1 : length]))
    else:
        begun = prefix_length or length
        series = np.concatenate((series, _following(sequences, number, steps)))
    if begun > length:
        raise InputError(f"sequence {number} of the part '{part}' has {length} timesteps, not {begun}.")
    return series[:begun], series[begun : begun + steps]


def _following(sequences: Sequences, number: int, steps: int) -> Values:
    """Return the values behind a window, as far as the windows after it go on by one timestep each."""
    found = [sequences.targets[number]]
    for row in range(number + 1, min(number + steps, len(sequences.lengths))):
        moved = np.concatenate((sequences.inputs[row - 1][1:], sequences.targets[row - 1][None]))
        if not np.array_equal(sequences.inputs[row], moved):
            break
        found.append(sequences.targets[row])
    return np.stack(found).astype(np.float32)


def _scaled(run: SequenceRun, values: Values) -> Values:
    scale = getattr(run.data.dataset, "scale", None)
    return values if scale is None else np.asarray(scale(values), np.float32)


def _unscaled(run: SequenceRun, values: Values) -> Values:
    unscale = getattr(run.data.dataset, "unscale", None)
    return values if unscale is None else np.asarray(unscale(values), np.float32)


def read_prefix(data: bytes, name: str, input_size: int) -> Values:
    """Return a series [P, I] from CSV (with or without a line of names) or JSON lines (numbers, or lists of them).

    Raises InputError naming the line.
    """
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{name}, byte {error.start}: not UTF-8; a prefix is CSV or JSON lines.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        row = _numbers(line)
        if row is None and number == 1 and len(lines) > 1:
            continue  # names of columns
        if row is None or len(row) != input_size or not np.isfinite(np.array(row, np.float32)).all():
            raise InputError(f"{name}, line {number}: {line[:60]!r}; each line is {input_size} finite numbers.")
        rows.append(row)
    if not rows:
        raise InputError(f"{name}: holds no numbers; give at least one timestep of {input_size}.")
    return np.array(rows, np.float32)


def _numbers(line: str) -> list[float] | None:
    """Return the numbers of a line, or None if it holds anything else."""
    try:
        if line.lstrip().startswith("["):
            return [float(value) for value in json.loads(line)]
        return [float(value) for value in next(csv.reader(io.StringIO(line)))]
    except (ValueError, TypeError, RecursionError, csv.Error):
        return None


def load_prefix(path: Path, input_size: int) -> Values:
    """Return the series in a file, as `read_prefix` does."""
    return read_prefix(path.read_bytes(), str(path), input_size)
