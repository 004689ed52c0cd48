"""`rnnpipe probe`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, json_option, number, print_json, print_table, report_quarantined

_MOST_ROWS = 24


@click.command("probe")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("--count", type=click.IntRange(min=1), default=64, show_default=True, help="How many sequences.")
@click.option("--length", type=click.IntRange(min=1), help="Timesteps: of new sequences, or of windows of text. [64]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of new sequences.")
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which checkpoint."
)
@click.option("--plot", type=PATH, metavar="PNG", help="Draw the norms by lag (extra `plot`).")
@json_option
def command(
    run: Path, count: int, length: int | None, seed: int, weights: str, plot: Path | None, as_json: bool
) -> None:
    """Show how far back RUN sees: the norm of the gradient of its last output with respect to each earlier input."""
    from rnnpipe.pipeline.probe import probe_run
    from rnnpipe.pipeline.runs import PairRun, open_any_run, wrong_kind
    from rnnpipe.plugins import full_registry

    report_quarantined(full_registry())
    opened = open_any_run(run, device="cpu", which=weights, report=say)
    if isinstance(opened, PairRun):
        raise wrong_kind(opened, "text or sequences of numbers")
    found = probe_run(opened, count=count, length=length, seed=seed)
    if plot is not None:
        from rnnpipe.plots import draw_lines

        points = [(lag, norm) for lag, norm in enumerate(found.norms) if norm > 0]
        draw_lines({"gradient": points}, plot, title=run.name, x="lag (timesteps)", y="norm", log_y=True)
        say(f"written: {plot}")
    if as_json:
        print_json(found.to_json())
        return
    click.echo(f"norm of the gradient of {found.what}, mean over {found.sequences} sequences:")
    first = found.norms[0]
    rows = [("lag", "norm", "of lag 0")]
    rows += [
        (str(lag), number(found.norms[lag]), f"{found.norms[lag] / first:.2e}" if first else "")
        for lag in chosen(len(found.norms))
    ]
    print_table(rows, right=(0, 1, 2))
    if found.factor is not None:
        click.echo(f"a timestep further back the gradient is {found.factor:.3f} times as large, on the whole")


def chosen(count: int) -> list[int]:
    """Return the lags to print: all of a few; of many the first ones, and then ever fewer."""
    if count <= _MOST_ROWS:
        return list(range(count))
    ratio = (count - 1) ** (1 / (_MOST_ROWS - 1))
    return sorted({0, *(min(count - 1, round(ratio**step)) for step in range(_MOST_ROWS))})
