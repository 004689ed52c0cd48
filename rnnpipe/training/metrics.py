"""The metrics of a run: one row an interval or evaluation, as CSV and as JSON lines, flushed row by row."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rnnpipe.durable import finite
from rnnpipe.errors import InputError
from rnnpipe.training.callbacks import TrainState

COLUMNS = (
    "step",
    "epoch",
    "tokens",
    "seconds",
    "loss_nats",
    "perplexity",
    "valid_loss_nats",
    "valid_perplexity",
    "lr",
    "gradient_norm",
    "tokens_per_second",
)


class MetricsWriter:
    """Writes `metrics.csv` and `metrics.jsonl` in a run's folder.

    `kept`: the lengths in bytes to which files that are there already are cut before more is written, as `lengths` gave
    them; without it they are written anew.
    """

    def __init__(self, folder: Path, kept: Mapping[str, int] | None = None) -> None:
        self._paths = {name: folder / name for name in ("metrics.csv", "metrics.jsonl")}
        for name, path in self._paths.items():
            if kept is not None and path.is_file():
                os.truncate(path, kept[name])
        mode = "w" if kept is None else "a"
        self._csv = self._paths["metrics.csv"].open(mode, encoding="utf-8", newline="")
        self._jsonl = self._paths["metrics.jsonl"].open(mode, encoding="utf-8")
        self._writer = csv.DictWriter(self._csv, COLUMNS, lineterminator="\n")
        if self._csv.tell() == 0:
            self._writer.writeheader()
            self._csv.flush()

    def lengths(self) -> dict[str, int]:
        """Return the length of each file in bytes, for a checkpoint to keep."""
        return {name: path.stat().st_size for name, path in self._paths.items()}

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._csv.close()
        self._jsonl.close()

    def write(self, state: TrainState, *, evaluated: bool) -> None:
        """Write one row; validation columns are filled on an evaluation."""
        valid = state.valid_loss_nats if evaluated else None
        row = {
            "step": state.step,
            "epoch": state.epoch,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "loss_nats": state.loss_nats,
            "perplexity": _perplexity(state.loss_nats),
            "valid_loss_nats": valid,
            "valid_perplexity": None if valid is None else _perplexity(valid),
            "lr": state.lr,
            "gradient_norm": state.gradient_norm,
            "tokens_per_second": round(state.tokens_per_second, 1),
        }
        self._writer.writerow(row)
        self._csv.flush()
        self._jsonl.write(json.dumps(finite(row), allow_nan=False) + "\n")
        self._jsonl.flush()


def read_metrics(folder: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a run's metrics; raise InputError if there are none."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no metrics; name the folder of a run that `rnnpipe train` wrote.")
    rows: list[Mapping[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                raise InputError(f"{path}, line {number}: not JSON: {line[:60]!r}.") from None
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise InputError(f"{path}, line {number}: not a row of metrics: {line[:60]!r}.")
            rows.append(row)
    return rows


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
