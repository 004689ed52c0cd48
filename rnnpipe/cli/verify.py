"""`rnnpipe verify`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli.common import PATH, json_option, print_json


@click.command("verify")
@click.argument("path", type=PATH)
@json_option
def command(path: Path, as_json: bool) -> None:
    """Check a run, a checkpoint, a dictionary, tokens or a cleaned corpus against its digests and format.

    Every file that is not as it was written is named, and the exit code is 1.
    """
    from rnnpipe.errors import InputError
    from rnnpipe.pipeline.verify import verify

    found = verify(path)
    if as_json:
        print_json(found.to_json())
    elif not found.problems:
        newest = f", newest step {found.newest_step}" if found.newest_step is not None else ""
        click.echo(f"{path}: {found.kind}, whole{newest}")
    if found.problems:
        first, *more = found.problems
        raise InputError(f"{first} And {len(more)} more: --json lists them." if more else first)
