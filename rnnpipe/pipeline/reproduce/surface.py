"""The cost of a network of two weights over a grid of them, and the paths that trainings took on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnnpipe.errors import InputError
from rnnpipe.pipeline.evaluate_sequences import measure
from rnnpipe.pipeline.runs import open_sequence_run
from rnnpipe.training.trajectory import FILE, read_trajectory

Floats = npt.NDArray[np.float64]
_POINTS = 61  # of the grid, in each direction
_SMALLEST = 1e-10  # of a cost, so that it has a logarithm


@dataclass(frozen=True)
class Surface:
    """names: of the weights. x, y: their values on the grid. cost: [Y, X]. paths: [S, 2], by name."""

    names: tuple[str, str]
    x: Floats
    y: Floats
    cost: Floats
    paths: Mapping[str, Floats]


def cost_surface(runs: Mapping[str, Path], part: str) -> Surface:
    """Return the cost of a part over the two weights of the first run's network, and the paths of all runs.

    Raises InputError if the network has other than two weights, or a run has no trajectory.
    """
    folder = next(iter(runs.values()))
    run = open_sequence_run(folder)
    weights = dict(run.model.named_parameters())
    if [parameter.numel() for parameter in weights.values()] != [1, 1]:
        raise InputError(f"{folder}: its network has not two weights, so that there is no surface to draw.")
    first, second = weights.values()
    paths = {name: _path(place) for name, place in runs.items()}
    every = np.concatenate(list(paths.values()))
    margin = 0.15 * np.ptp(every, axis=0).max()
    (low_x, low_y), (high_x, high_y) = every.min(0) - margin, every.max(0) + margin
    x, y = np.linspace(low_x, high_x, _POINTS), np.linspace(low_y, high_y, _POINTS)
    cost = np.empty((_POINTS, _POINTS))
    with torch.no_grad():
        for row, b in enumerate(y.tolist()):
            for column, a in enumerate(x.tolist()):
                first.fill_(a)
                second.fill_(b)
                reduced = measure(run, run.data.parts[part]).reduced(run.config.training.reduction)
                cost[row, column] = max(reduced, _SMALLEST)
    names: Any = tuple(name.rpartition(".")[2] for name in weights)
    return Surface(names, x, y, cost, paths)


def _path(folder: Path) -> Floats:
    rows = read_trajectory(folder / FILE)
    if not rows:
        raise InputError(f"{folder / FILE}: no such file; train with the callback 'trajectory'.")
    return np.array([list(map(float, row[1:])) for row in rows[1:]])
