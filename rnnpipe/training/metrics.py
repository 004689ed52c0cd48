"""The metrics of a run: one row an interval or evaluation, as CSV and as JSON lines, flushed row by row.

A checkpoint keeps the length and digest that each file had; what stands behind that length is cut off on resuming.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rnnpipe.durable import finite, fsync_path, parse_json, read_lines, sha256_file
from rnnpipe.errors import InputError
from rnnpipe.training.callbacks import TrainState
from rnnpipe.training.objective import Objective

FILES = ("metrics.csv", "metrics.jsonl")


def columns(objective: Objective) -> tuple[str, ...]:
    """Return the names of the columns: those of a language model are loss_nats, perplexity, valid_loss_nats, ..."""
    units = objective.units
    figures = (
        *objective.step_figures,
        f"valid_{units.loss}",
        *(f"valid_{name}" for name in objective.evaluation_figures),
    )
    rates = ("lr", "gradient_norm", f"{units.items}_per_second")
    return ("step", "epoch", units.items, "seconds", units.loss, *figures, *rates)


class _File:
    """One file that rows are appended to, with its length and digest."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self.size = length
        self._digest = hashlib.sha256()
        self._file = path.open("r+b" if length else "wb", buffering=0)
        if length:
            self._digest.update(self._file.read(length))
            self._file.truncate(length)

    def append(self, text: str) -> None:
        data = text.encode()
        self._digest.update(data)
        self.size += len(data)
        while data:  # a disk that is nearly full takes a part and fails at the rest
            data = data[self._file.write(data) :]

    def record(self) -> dict[str, Any]:
        os.fsync(self._file.fileno())
        return {"size": self.size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        self._file.close()


class MetricsWriter:
    """Writes `metrics.csv` and `metrics.jsonl` in a run's folder, with these columns.

    `kept`: size and SHA-256 of the beginning of each file that is to stay, as `record` gave them; what stands behind is
    cut off. Without it the files are written anew. Raises InputError if such a beginning is not there.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], kept: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        if kept is None or not any((folder / name).is_file() for name in FILES):  # new, or somebody moved them away
            kept = {}
        for problem in check_metrics(folder, kept):
            raise InputError(
                f"{problem} Put the file back, or move {' and '.join(FILES)} away to go on without the earlier rows."
            )
        self._columns = columns
        self._files = {name: _File(folder / name, kept[name]["size"] if kept else 0) for name in FILES}
        fsync_path(folder)
        if self._files["metrics.csv"].size == 0:
            self._write_csv(dict(zip(columns, columns, strict=True)))

    def record(self) -> dict[str, dict[str, Any]]:
        """Force both files to the disk; return their sizes and SHA-256, for a checkpoint to keep."""
        return {name: file.record() for name, file in self._files.items()}

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def write(self, state: TrainState, *, evaluated: bool) -> None:
        """Write one row; validation columns are filled on an evaluation."""
        units = state.units
        found = {
            "step": state.step,
            "epoch": state.epoch,
            units.items: state.items,
            "seconds": round(state.seconds, 3),
            units.loss: state.loss,
            **state.figures,
            "lr": state.lr,
            "gradient_norm": state.gradient_norm,
            f"{units.items}_per_second": round(state.items_per_second, 1),
        }
        if evaluated:
            found[f"valid_{units.loss}"] = state.valid_loss
            found |= {f"valid_{name}": value for name, value in state.valid_figures.items()}
        row = {name: found.get(name) for name in self._columns}
        self._write_csv(row)
        self._files["metrics.jsonl"].append(json.dumps(finite(row), allow_nan=False) + "\n")

    def _write_csv(self, row: Mapping[str, Any]) -> None:
        line = io.StringIO()
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(row)
        self._files["metrics.csv"].append(line.getvalue())


def check_metrics(folder: Path, kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with the beginnings of the metrics files that a checkpoint recorded, file by file."""
    return [f"{folder / name}: {reason}" for name, file in kept.items() if (reason := _damage(folder / name, file))]


def _damage(path: Path, kept: Mapping[str, Any]) -> str | None:
    size = path.stat().st_size if path.is_file() else 0
    if size < kept["size"]:
        return f"has {size} bytes of the {kept['size']} that the checkpoint recorded: it was cut."
    if sha256_file(path, 0, kept["size"]) != kept["sha256"]:
        return f"its first {kept['size']} bytes are not those that the checkpoint recorded: damaged."
    return None


def read_metrics(folder: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a run's metrics; raise InputError if there are none."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no metrics; name the folder of a run that `rnnpipe train` wrote.")
    rows: list[Mapping[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(read_lines(file, str(path)), 1):
            if not line.endswith(b"\n"):
                break  # a row that a full disk or a kill has cut
            try:
                row = parse_json(line, str(path))
            except InputError:
                raise InputError(f"{path}, line {number}: not JSON: {line[:60]!r}.") from None
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise InputError(f"{path}, line {number}: not a row of metrics: {line[:60]!r}.")
            rows.append(row)
    return rows
