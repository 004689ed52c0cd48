"""`rnnpipe score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, device_option, open_lines, quantize_option, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.models.quantize import Form


@click.command("score")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--file", "source", type=PATH, metavar="F", help="Read texts from a file, one a line; - is standard input."
)
@click.option("--end", is_flag=True, help="That the document ends behind it counts as well.")
@click.option("--tokens", "each", is_flag=True, help="With --json also each token's log-probability.")
@quantize_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text.")
def command(
    run: Path,
    texts: tuple[str, ...],
    source: Path | None,
    end: bool,
    each: bool,
    quantize: Form | None,
    device: str,
    as_json: bool,
) -> None:
    """Print the log-probability in nats, the number of tokens and the perplexity of each text, in input order.

    A text is read as a document of its own. Columns: log-probability, tokens, perplexity, text.
    """
    from rnnpipe.durable import finite
    from rnnpipe.generation.read import score
    from rnnpipe.pipeline.reading import open_for_reading

    if bool(texts) == (source is not None):
        raise click.UsageError("give texts as arguments or with --file.")
    if each and not as_json:
        raise click.UsageError("--tokens goes with --json.")
    lines = open_lines(source) if source else [check_text(text, f"text {k}") for k, text in enumerate(texts, 1)]
    opened = open_for_reading(run, device=device, quantize=quantize, report=say)
    report_quarantined(opened.registry)
    unknown = 0
    for scored in score(opened.reader, lines, end=end):
        unknown += bool(scored.unknown)
        if not as_json:
            perplexity = "-" if scored.perplexity is None else f"{scored.perplexity:.4g}"
            click.echo(f"{scored.log_probability:.4f}\t{len(scored.log_probabilities)}\t{perplexity}\t{scored.text}")
            continue
        record = {
            "text": scored.text,
            "log_probability": scored.log_probability,
            "tokens": len(scored.log_probabilities),
            "perplexity": scored.perplexity,
            "unknown": list(scored.unknown),
        }
        if each:
            told = [*scored.tokens, *(["<doc>"] if end else [])]
            record["scores"] = list(zip(told, scored.log_probabilities, strict=True))
        click.echo(json.dumps(finite(record), ensure_ascii=False, allow_nan=False))
    if unknown and not as_json:
        say(f"{unknown:,} texts have words that are unknown to this run and score as <unk>; --json names them")
