"""`rnnpipe plot`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH


@click.command("plot")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("-o", "--output", type=PATH, metavar="PNG", help="Write loss and perplexity curves to a PNG file.")
def command(run: Path, output: Path | None) -> None:
    """Draw the loss curves of RUN: a small chart in the terminal, and a PNG with -o (extra `plot`)."""
    from rnnpipe.plots import draw_png, draw_text
    from rnnpipe.training.metrics import read_metrics

    rows = read_metrics(run)
    if output is not None:
        draw_png(rows, output, title=run.name)
        say(f"written: {output}")
    click.echo(draw_text(rows))
