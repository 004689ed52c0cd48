"""Figures: the loss curves of a run, as PNG (matplotlib) and as characters."""

from __future__ import annotations

import math
import warnings
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
    loss = "loss_nats" if _is_text(rows) else "loss"
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
    return "\n".join([*lines, f"{_unit(rows)}, last: {', '.join(finals)}"])


def draw_png(rows: Rows, path: Path, title: str) -> None:
    """Write the loss curves of a run to a PNG file: of text loss and perplexity, of sequences on both kinds of axis."""
    points, text = curves(rows), _is_text(rows)
    figure = _figure(10)
    axes = figure.subplots(1, 2)
    right = "perplexity" if text else "loss, logarithmic"
    for axis, label, exponential in zip(axes, (_unit(rows), right), (False, text), strict=True):
        for name, _, mark in _CURVES:
            if points[name]:
                steps, losses = zip(*points[name], strict=True)
                marker = "o" if mark == "o" else None
                values = [math.exp(min(loss, 50.0)) if exponential else loss for loss in losses]
                axis.plot(steps, values, label=name, marker=marker, markersize=4)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[1].set_yscale("log")
    _save(figure, path, title)


def draw_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str, x: str, y: str, log_y: bool = False
) -> None:
    """Write lines through points, by name, to a PNG file; `x` and `y` are what the axes are called."""
    figure = _figure(8)
    axis = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        if points:
            width = max(1.0, 3.2 - 1.1 * number)  # a line that runs over another one leaves its rim to be seen
            axis.plot(*zip(*points, strict=True), label=name, linewidth=width, marker="." if len(points) < 60 else None)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.legend()
    if log_y:
        axis.set_yscale("log")
    _save(figure, path, title)


def draw_bars(bars: Mapping[str, Mapping[str, float]], path: Path, *, title: str, x: str) -> None:
    """Write horizontal bars to a PNG file, by series and, within, by row; a line stands at 1."""
    rows = list(dict.fromkeys(row for series in bars.values() for row in series))
    figure = _figure(8, 1 + 0.25 * sum(map(len, bars.values())))
    axis = figure.subplots()
    for number, (name, series) in enumerate(bars.items()):
        at = [rows.index(row) + (number - (len(bars) - 1) / 2) * 0.8 / len(bars) for row in series]
        axis.barh(at, list(series.values()), height=0.8 / len(bars), label=name)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.set_xlabel(x)
    axis.legend()
    _save(figure, path, title)


def draw_surface(
    x: Any, y: Any, cost: Any, paths: Mapping[str, Any], path: Path, *, title: str, names: tuple[str, str]
) -> None:
    """Write a cost over two weights as a map of its logarithm, with paths over it, to a PNG file.

    x, y: values of the weights, [X] and [Y]. cost: [Y, X], above 0. paths: by name, the weights step by step, [S, 2].
    """
    figure = _figure(8)
    axis = figure.subplots()
    shown = axis.pcolormesh(x, y, cost, norm="log", cmap="Greys_r", shading="gouraud")
    figure.colorbar(shown, label="cost")
    for name, points in paths.items():
        axis.plot(points[:, 0], points[:, 1], label=name, marker=".", markersize=3, linewidth=1)
        axis.plot(points[-1:, 0], points[-1:, 1], marker="x", color="black")
    axis.set(xlabel=names[0], ylabel=names[1], xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.legend(loc="upper left")
    _save(figure, path, title)


def draw_attention(weights: Any, source: Sequence[str], target: Sequence[str], path: Path, title: str) -> str | None:
    """Write a PNG of attention [T, S]: a row a target token, dark where it looks; return what no font here can draw."""
    figure = _figure(1 + 0.55 * len(source), 1 + 0.4 * len(target))
    axis = figure.add_subplot()
    axis.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    fonts, missing = _fonts_for("".join((*source, *target)))
    axis.set_xticks(range(len(source)), source, rotation=60, ha="right", rotation_mode="anchor", fontfamily=fonts)
    axis.set_yticks(range(len(target)), target, fontfamily=fonts)
    axis.set(xlabel="source", ylabel="translation")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        _save(figure, path, title)
    return missing or None


def _fonts_for(text: str) -> tuple[list[str], str]:
    """Return the default font and those installed that have what it lacks of a text, and what none of them has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    default = findfont(FontProperties())
    names = [str(FontProperties().get_name())]
    missing = {ord(character) for character in text if not character.isspace()} - get_font(default).get_charmap().keys()
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name):
        if not missing:
            break
        if "last resort" in entry.name.lower():  # it has a box for everything
            continue
        found = missing & get_font(entry.fname).get_charmap().keys()
        if found:
            names.append(str(entry.name))
            missing -= found
    return names, "".join(map(chr, sorted(missing)))


def _figure(width: float, height: float = 4) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "a PNG needs matplotlib: pip install 'rnnpipe[plot]'. Without it figures are printed."
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title)
    data = BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_bytes(path, data.getvalue())


def _is_text(rows: Rows) -> bool:
    return any("loss_nats" in row for row in rows)


def _unit(rows: Rows) -> str:
    return "loss (nats a token)" if _is_text(rows) else "loss"
