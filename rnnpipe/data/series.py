"""The datasets `csv` and `npy`: a person's own series of numbers, as windows with the values that follow.

Shapes: P points, C columns.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rnnpipe.data.base import Loss, Part, Sequences, Target
from rnnpipe.data.windowing import check_shape, share_points, windows
from rnnpipe.errors import InputError, UsageError, did_you_mean

Floats: TypeAlias = npt.NDArray[np.float64]
Scaling: TypeAlias = Literal["standard", "minmax", "none"]

_MOST_BYTES = 1 << 30
_MOST_COLUMNS = 10_000


class Series:
    """Windows of a series [P, C] that lies in memory; `CsvSeries` and `NpySeries` read one.

    Parts follow one another in time and share no point. Scaling is fitted on the training part alone: to mean 0 and
    deviation 1, to the range from 0 to 1, or none; a constant column is only shifted. Targets are scaled as well;
    `unscale` returns to the series' own numbers.
    """

    loss: Loss = "mse"
    overlap = "a series may repeat itself; windows of different parts share no point"

    def __init__(
        self,
        owner: str,
        values: Floats,
        names: Sequence[str],
        *,
        targets: Sequence[str | int] | None,
        window: int,
        horizon: int,
        stride: int,
        target: Target,
        scaling: Scaling,
        split: str,
    ) -> None:
        check_shape(owner, window, horizon, stride)
        self.window, self.horizon, self.stride = window, horizon, stride
        self.target: Target = target
        self.columns = list(names)
        self.wanted = None if targets is None else [find_column(owner, names, column) for column in targets]
        self.continues = horizon == 1 and self.wanted is None
        self.places = share_points(owner, split, len(values), window + horizon, apart=True)
        self.shift, self.width = _fit(values[self.places["train"]], scaling)
        self.values = self.scale(values)
        if not np.isfinite(self.values).all():
            raise InputError(f"{owner}: scaled by its training part, the series holds numbers too large for float32.")

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        place = self.places.get(split, slice(0, 0))
        return windows(self.values[place], self.window, self.horizon, self.stride, self.target, self.wanted)

    def scale(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return values [..., C] as the network sees them."""
        with np.errstate(over="ignore"):
            scaled: npt.NDArray[np.float32] = ((np.asarray(values, np.float64) - self.shift) / self.width).astype(
                np.float32
            )
        return scaled

    def unscale(self, values: npt.ArrayLike) -> Floats:
        """Return values [..., C] of the network in the series' own numbers."""
        found: Floats = np.asarray(values, np.float64) * self.width + self.shift
        return found


class CsvSeries(Series):
    """A CSV file, a row a point in time: windows of rows, and the row that follows.

    path: the file, UTF-8. columns: by name from the first line, or by number from 0; all if not given. targets: the
    columns that are predicted; all if not given. window: timesteps of an input. horizon: how many rows later the target
    is. stride: rows between windows. target: for every timestep or for the last. scaling: fitted on the training part.
    split: shares of train, valid and test, in the order of time. delimiter: one character. The first line is a header
    if one of its cells is no number.
    """

    def __init__(
        self,
        *,
        path: str,
        columns: Sequence[str | int] | None = None,
        targets: Sequence[str | int] | None = None,
        window: int = 32,
        horizon: int = 1,
        stride: int = 1,
        target: Target = "every",
        scaling: Scaling = "standard",
        split: str = "8:1:1",
        delimiter: str = ",",
    ) -> None:
        names, values = read_csv(Path(path), columns, delimiter)
        super().__init__(
            "dataset 'csv'",
            values,
            names,
            targets=targets,
            window=window,
            horizon=horizon,
            stride=stride,
            target=target,
            scaling=scaling,
            split=split,
        )


class NpySeries(Series):
    """A NumPy array [P] or [P, C] in a `.npy` file: windows of points, and the point that follows.

    path: the file; pickled objects are refused. columns, targets: by number from 0. The others are those of `csv`.
    """

    def __init__(
        self,
        *,
        path: str,
        columns: Sequence[int] | None = None,
        targets: Sequence[int] | None = None,
        window: int = 32,
        horizon: int = 1,
        stride: int = 1,
        target: Target = "every",
        scaling: Scaling = "standard",
        split: str = "8:1:1",
    ) -> None:
        values = read_npy(Path(path))
        names = [str(number) for number in range(values.shape[1])]
        if columns is not None:
            values = values[:, [find_column("dataset 'npy'", names, column) for column in columns]]
            names = [str(column) for column in columns]
        super().__init__(
            "dataset 'npy'",
            values,
            names,
            targets=None if targets is None else [str(column) for column in targets],
            window=window,
            horizon=horizon,
            stride=stride,
            target=target,
            scaling=scaling,
            split=split,
        )


def find_column(owner: str, names: Sequence[str], column: str | int) -> int:
    """Return the number of a column, given by name, or by number from 0; raise UsageError if there is none."""
    if isinstance(column, str) and column in names:
        return names.index(column)
    if isinstance(column, int) and 0 <= column < len(names):
        return column
    raise UsageError(
        f"{owner}: there is no column {column!r}.{did_you_mean(str(column), names)} "
        f"There are {len(names)}: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}."
    )


def read_csv(path: Path, columns: Sequence[str | int] | None = None, delimiter: str = ",") -> tuple[list[str], Floats]:
    """Return the names and the values [P, C] of the chosen columns; without a header, names are numbers from 0.

    Raises InputError naming the line and column of a cell that is missing or not a finite number.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UsageError(f"dataset 'csv': delimiter={delimiter!r} is not accepted; it is one character.")
    _check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file in that encoding.") from None
    except csv.Error as error:
        raise InputError(f"{path}: is no CSV: {error}.") from None
    if not rows:
        raise InputError(f"{path}: is empty; a series has a row for each point in time.")
    first = rows[0][1]
    header = any(_number(cell) is None for cell in first)
    names = [cell.strip() for cell in first] if header else [str(number) for number in range(len(first))]
    if len(names) > _MOST_COLUMNS:
        raise InputError(f"{path}: has {len(names):,} columns; at most {_MOST_COLUMNS:,} are read.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: line 1: two columns are called '{twice}'; every column needs a name of its own.")
    chosen = list(range(len(names)))
    if columns is not None:
        chosen = [find_column(f"dataset 'csv', {path}", names, column) for column in columns]
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"dataset 'csv': columns={list(columns or ())} is not accepted; name each column once.")
    body = rows[header:]
    values = np.empty((len(body), len(chosen)))
    for place, (line, row) in enumerate(body):
        if len(row) != len(names):
            raise InputError(f"{path}: line {line}: {len(row)} cells; line {rows[0][0]} has {len(names)}.")
        for column, number in enumerate(chosen):
            value = _number(row[number])
            if value is None or not math.isfinite(value):
                raise InputError(
                    f"{path}: line {line}, column '{names[number]}': {row[number][:40]!r} is not a finite number; "
                    "leave the column out with columns=[...], or the row."
                )
            values[place, column] = value
    return [names[number] for number in chosen], values


def read_npy(path: Path) -> Floats:
    """Return the array [P] or [P, C] of a `.npy` file as [P, C]; raise InputError for any other."""
    _check_file(path)
    try:
        array: Any = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: is no .npy file that can be read: {error}.") from None
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        what = f"{array.dtype} of shape {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
        raise InputError(f"{path}: holds {what}; a series is an array of numbers, [points] or [points, columns].")
    values: Floats = np.array(array, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if not 1 <= values.shape[1] <= _MOST_COLUMNS:
        raise InputError(f"{path}: has {values.shape[1]:,} columns; from 1 to {_MOST_COLUMNS:,} are read.")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        point, column = wrong[0]
        raise InputError(f"{path}: point {point}, column {column}: {values[point, column]} is not a finite number.")
    return values


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes; a series of up to {_MOST_BYTES:,} is read.")


def _number(cell: str) -> float | None:
    # Python's own spelling of numbers allows underscores and digits of other scripts, which no other program writes.
    text = cell.strip()
    if not text.isascii() or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _fit(values: Floats, scaling: Scaling) -> tuple[Floats, Floats]:
    """Return what is taken from every column and what the rest is divided by."""
    if scaling == "none":
        return np.zeros(values.shape[1]), np.ones(values.shape[1])
    if scaling == "standard":
        shift, width = values.mean(0), values.std(0)
    else:
        shift, width = values.min(0), np.ptp(values, axis=0)
    return shift, np.where(width > 0, width, 1.0)
