"""Figures: the loss curves of a run, as PNG (matplotlib) and as characters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from rnnpipe.durable import write_bytes
from rnnpipe.errors import InputError, UsageError

Rows = Sequence[Mapping[str, Any]]
_CURVES = (("training", "", "*"), ("validation", "valid_", "o"))


def curves(rows: Rows) -> dict[str, list[tuple[int, float]]]:
    """Return the points (step, loss) of training and validation; raise InputError if there are none."""
    found = {}
    loss = "loss_nats" if any("loss_nats" in row for row in rows) else "loss"
    for name, prefix, _ in _CURVES:
        values = [(row["step"], row.get(prefix + loss)) for row in rows]
        found[name] = [(step, float(v)) for step, v in values if isinstance(v, int | float) and math.isfinite(v)]
    if not any(found.values()):
        raise InputError("this run has no losses to draw yet; train it for a few more steps.")
    return found


def draw_text(rows: Rows, width: int = 72, height: int = 16) -> str:
    """Return a chart of the losses in characters: `*` training, `o` validation."""
    points = curves(rows)
    every = [point for series in points.values() for point in series]
    low, high = min(y for _, y in every), max(y for _, y in every)
    last = max(x for x, _ in every)
    grid = [[" "] * width for _ in range(height)]
    for name, _, mark in _CURVES:
        for step, loss in points[name]:
            column = round((width - 1) * step / max(1, last))
            row = round((height - 1) * (high - loss) / max(1e-12, high - low))
            grid[row][column] = mark
    lines = []
    for number, line in enumerate(grid):
        loss = high - (high - low) * number / (height - 1)
        label = f"{loss:8.3f}" if number % 5 == 0 or number == height - 1 else " " * 8
        lines.append(f"{label} |{''.join(line).rstrip()}")
    lines.append(" " * 9 + "+" + "-" * width)
    lines.append(" " * 10 + "0" + f"{last} steps".rjust(width - 1))
    finals = [f"{mark} {name} {points[name][-1][1]:.4f}" for name, _, mark in _CURVES if points[name]]
    return "\n".join([*lines, f"loss in nats a token, last: {', '.join(finals)}"])


def draw_png(rows: Rows, path: Path, title: str) -> None:
    """Write loss and perplexity curves side by side to a PNG file."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "a PNG needs matplotlib: pip install 'rnnpipe[plot]'. Without -o a chart is printed."
        ) from None
    points = curves(rows)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for axis, label, transform in ((axes[0], "loss (nats a token)", lambda y: y), (axes[1], "perplexity", math.exp)):
        for name, _, mark in _CURVES:
            if points[name]:
                steps, losses = zip(*points[name], strict=True)
                marker = "o" if mark == "o" else None
                axis.plot(
                    steps, [transform(min(loss, 50.0)) for loss in losses], label=name, marker=marker, markersize=4
                )
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[1].set_yscale("log")
    figure.suptitle(title)
    data = BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_bytes(path, data.getvalue())
