"""`rnnpipe forecast`."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, device_option, number, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.pipeline.forecast import Forecast


@click.command("forecast")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("--prefix", type=PATH, metavar="FILE", help="The series to continue: CSV or JSON lines; - for stdin.")
@click.option(
    "--from",
    "source",
    type=click.Choice(["test", "valid", "train", "new"]),
    help="Or a sequence of RUN's dataset. [test]",
)
@click.option("--number", "sequence", type=click.IntRange(min=0), default=0, help="Which one, counted from 0. [0]")
@click.option("--prefix-length", type=click.IntRange(min=1), help="Timesteps to read before going on alone.")
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Timesteps to go on for.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of a new sequence. [0]")
@click.option("--jsonl", is_flag=True, help="Write JSON lines instead of CSV.")
@click.option("--plot", type=PATH, metavar="PNG", help="Draw prefix, forecast and truth (extra `plot`).")
@device_option
def command(
    run: Path,
    prefix: Path | None,
    source: str | None,
    sequence: int,
    prefix_length: int | None,
    steps: int,
    seed: int,
    jsonl: bool,
    plot: Path | None,
    device: str,
) -> None:
    """Continue a series with RUN, fed with its own outputs; print CSV: step, output and, where it is known, truth."""
    from rnnpipe.pipeline.forecast import forecast_series, load_prefix, read_prefix
    from rnnpipe.pipeline.runs import open_sequence_run
    from rnnpipe.plugins import full_registry

    if prefix is not None and source is not None:
        raise click.UsageError("--prefix and --from are two places to begin at; give one.")
    report_quarantined(full_registry())
    opened = open_sequence_run(run, device=device, report=say)
    given = None
    if prefix is not None:
        size = opened.data.sizes.input_size
        piped = str(prefix) == "-"
        given = read_prefix(sys.stdin.buffer.read(), "standard input", size) if piped else load_prefix(prefix, size)
    found = forecast_series(
        opened,
        steps,
        source=source or "test",
        number=sequence,
        prefix=given,
        prefix_length=prefix_length,
        seed=seed,
    )
    _write(found, jsonl)
    if plot is not None:
        draw_forecast(found, plot, run.name)
    error = found.largest_error
    known = "" if error is None else f"; largest error over {len(found.truth):,} of them {number(error)}"
    say(f"{found.source}: {len(found.prefix):,} timesteps read, {steps:,} forecast{known}")


def _write(found: Forecast, jsonl: bool) -> None:
    from rnnpipe.durable import finite

    rows = found.rows()
    if jsonl:
        for row in rows:  # outputs that grow without bound end in numbers that JSON does not have
            click.echo(json.dumps(finite(row), allow_nan=False))
        return
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    click.echo(table.getvalue(), nl=False)


def draw_forecast(found: Forecast, path: Path, title: str) -> None:
    """Draw prefix, forecast and truth to a PNG file."""
    from rnnpipe.plots import draw_lines

    begun = len(found.prefix)
    curves: dict[str, list[tuple[float, float]]] = {}
    for column in range(found.outputs.shape[1]):
        which = "" if found.outputs.shape[1] == 1 else f" {column + 1}"
        curves[f"prefix{which}"] = list(enumerate(found.prefix[:, column].tolist(), 1 - begun))
        if len(found.truth):
            curves[f"truth{which}"] = list(enumerate(found.truth[:, column].tolist(), 1))
        curves[f"forecast{which}"] = list(enumerate(found.outputs[:, column].tolist(), 1))
    draw_lines(curves, path, title=title, x="timestep", y="value")
    say(f"written: {path}")
