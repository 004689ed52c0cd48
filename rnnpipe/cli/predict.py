"""`rnnpipe predict`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import (
    PATH,
    check_text,
    device_option,
    json_option,
    open_lines,
    print_json,
    print_table,
    quantize_option,
    report_quarantined,
)

if TYPE_CHECKING:
    from rnnpipe.generation.read import Predicted
    from rnnpipe.models.quantize import Form


@click.command("predict")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("text", metavar="[TEXT]", required=False)
@click.option(
    "--file", "source", type=PATH, metavar="F", help="Read texts from a file, one a line; - is standard input."
)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many tokens.")
@quantize_option
@device_option
@json_option
def command(
    run: Path, text: str | None, source: Path | None, top: int, quantize: Form | None, device: str, as_json: bool
) -> None:
    """Show the most likely tokens behind TEXT, or behind each line of a file, cleaned and tokenized by the run's own
    rules. With --file and --json one object a line."""
    from rnnpipe.generation.read import predict
    from rnnpipe.pipeline.reading import open_for_reading

    if (text is None) == (source is None):
        raise click.UsageError("give either TEXT or --file F.")
    texts: Iterable[str] = [check_text(text, "TEXT")] if text is not None else open_lines(source)
    opened = open_for_reading(run, device=device, quantize=quantize, report=say)
    report_quarantined(opened.registry)
    for number, told in enumerate(predict(opened.reader, texts, top), 1):
        if as_json:
            (_print_line if source else print_json)(_to_json(told))
        elif source:
            _print_brief(told, number)
        else:
            _print_one(told)


def _to_json(told: Predicted) -> dict[str, Any]:
    return {
        "text": told.text,
        "tokens": list(told.tokens),
        "unknown": list(told.unknown),
        "next": [{"token": token, "probability": share} for token, share in told.likely],
    }


def _print_line(record: dict[str, Any]) -> None:
    click.echo(json.dumps(record, ensure_ascii=False))


def _print_brief(told: Predicted, number: int) -> None:
    """Print a text and what may follow on one line each, as one reads them by the hundred."""
    if told.unknown:
        say(f"line {number}: unknown to this run: {', '.join(map(repr, told.unknown))}")
    click.echo(f"{told.text}\t" + "\t".join(f"{token!r} {share:.4f}" for token, share in told.likely))


def _print_one(told: Predicted) -> None:
    if told.unknown:
        say(f"unknown to this run: {', '.join(map(repr, told.unknown))}")
    if not told.tokens:
        say("nothing is left of the text under the run's rules: this is how a document begins")
    print_table([(f"{share:.4f}", repr(token)) for token, share in told.likely], right=(0,))
