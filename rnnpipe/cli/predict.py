"""`rnnpipe predict`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, device_option, json_option, print_json, print_table, report_quarantined


@click.command("predict")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("text", metavar="TEXT")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many tokens.")
@device_option
@json_option
def command(run: Path, text: str, top: int, device: str, as_json: bool) -> None:
    """Show the most likely tokens behind TEXT, which is cleaned and tokenized by the run's own rules."""
    from rnnpipe.pipeline.runs import open_run
    from rnnpipe.plugins import full_registry

    check_text(text, "TEXT")
    report_quarantined(full_registry())
    likely, tokens, unknown = open_run(run, device=device, report=say).reader().next_tokens(text, top)
    if as_json:
        print_json(
            {
                "text": text,
                "tokens": tokens,
                "unknown": unknown,
                "next": [{"token": token, "probability": share} for token, share in likely],
            }
        )
        return
    if unknown:
        say(f"unknown to this run: {', '.join(map(repr, dict.fromkeys(unknown)))}")
    if not tokens:
        say("nothing is left of the text under the run's rules: this is how a document begins")
    print_table([(f"{share:.4f}", repr(token)) for token, share in likely], right=(0,))
