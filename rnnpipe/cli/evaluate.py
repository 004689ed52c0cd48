"""`rnnpipe eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, device_option, hint, json_option, print_json, report_quarantined, text_options

if TYPE_CHECKING:
    from rnnpipe.pipeline.evaluate import Evaluation
    from rnnpipe.text.files import Errors
    from rnnpipe.training.evaluate import Loss


@click.command("eval")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("inputs", nargs=-1, metavar="[TEXT]...")
@click.option("--window", type=click.IntRange(min=1), default=256, show_default=True, help="Tokens a reset window.")
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which checkpoint."
)
@device_option
@text_options
@json_option
def command(
    run: Path,
    inputs: tuple[str, ...],
    window: int,
    weights: str,
    device: str,
    encoding: str,
    errors: Errors,
    as_json: bool,
) -> None:
    """Measure the loss of RUN on its own test text, or on TEXT, under the run's own rules and dictionary."""
    from rnnpipe.pipeline.evaluate import evaluate_run
    from rnnpipe.pipeline.runs import open_run
    from rnnpipe.plugins import full_registry

    report_quarantined(full_registry())
    opened = open_run(run, device=device, which=weights, report=say)
    evaluation = evaluate_run(opened, inputs, window=window, encoding=encoding, errors=errors, report=say)
    if as_json:
        print_json(evaluation.to_json())
        return
    print_evaluation(evaluation)
    hint("plot", run)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation for people."""

    def figures(loss: Loss) -> str:
        bits = f", {loss.bits:.3f} bits per character" if evaluation.level == "char" else ""
        return f"loss {loss.nats:.4f} nats, perplexity {loss.perplexity:,.2f}{bits}"

    click.echo(f"{evaluation.text}, {evaluation.windows.tokens:,} tokens, {evaluation.unknown_rate:.3%} unknown:")
    click.echo(f"  windows reset every {evaluation.window}: {figures(evaluation.windows)}")
    click.echo(f"  one pass, state carried: {figures(evaluation.carried)}")
