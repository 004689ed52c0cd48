"""`rnnpipe replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, json_option, print_json, report_quarantined


@click.command("replay")
@click.argument("answer", metavar="FILE:LINE")
@click.option("--run", type=PATH, metavar="RUN", help="The run, if it lies elsewhere now.")
@json_option
def command(answer: str, run: Path | None, as_json: bool) -> None:
    """Generate the text of line LINE of an answers file again, and say whether it is the same.

    The run must have the weights that the answer was made with; if its device, threads or versions differ, that is
    said, since bits may then differ.
    """
    from rnnpipe.errors import InputError, RnnpipeError
    from rnnpipe.pipeline.replaying import read_answer, replay
    from rnnpipe.plugins import full_registry

    name, _, number = answer.rpartition(":")
    if not name or not number.isascii() or not number.isdecimal() or int(number) < 1:
        raise click.UsageError(f"'{answer}': expected FILE:LINE, as in out.jsonl:17; the first line is 1.")
    report_quarantined(full_registry())
    found = read_answer(Path(name), int(number))
    told = replay(found, answer, run, report=say)
    if told.numerics:
        say(f"warning: here {told.numerics}: bits may differ")
    result: dict[str, Any] = {"same": told.difference is None, "difference": told.difference, "text": told.text}
    if as_json:
        print_json(result)
    else:
        click.echo(told.text)
    if told.difference is not None:
        raise (InputError if told.numerics else RnnpipeError)(f"{answer}: not the same: {told.difference}.")
    say("the same text, tokens and log-probability")
