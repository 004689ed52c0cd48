"""`rnnpipe encode`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.byte_progress import byte_progress
from rnnpipe.cli.common import (
    PATH,
    engine_options,
    hint,
    json_option,
    print_json,
    report_mended,
    report_quarantined,
    text_options,
    workers_option,
)

if TYPE_CHECKING:
    from rnnpipe.pipeline.engines import EngineName
    from rnnpipe.text.files import Errors


@click.command("encode")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--dict", "dictionary", type=PATH, required=True, metavar="DICT", help="The dictionary.")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="The token folder to write.")
@workers_option
@engine_options
@text_options
@json_option
def command(
    inputs: tuple[str, ...],
    dictionary: Path,
    output: Path,
    workers: int | None,
    engine: EngineName,
    scheduler: str | None,
    encoding: str,
    errors: Errors,
    as_json: bool,
) -> None:
    """Turn texts, or a folder that `rnnpipe clean` wrote, into ids by the rules of a dictionary."""
    from rnnpipe.pipeline.encode import encode
    from rnnpipe.pipeline.engines import open_engine
    from rnnpipe.plugins import text_registry

    report_quarantined(text_registry())
    with byte_progress("encode") as progress:
        encoded = encode(
            inputs,
            dictionary,
            output,
            encoding=encoding,
            errors=errors,
            workers=workers,
            engine=open_engine(engine, scheduler, say),
            progress=progress,
            expect=progress.expect,
        )
    if encoded.bytes_before:
        say(f"went on behind the {encoded.bytes_before / 1e6:,.0f} MB that an interrupted run had done")
    report_mended(encoded.mended_bytes, errors)
    meta = encoded.folder.meta
    if as_json:
        print_json({"folder": str(output), **meta})
        return
    for part, record in meta["parts"].items():
        tokens = record["tokens"] - record["documents"]
        rate = record["unknown"] / tokens if tokens else 0.0
        click.echo(f"{part}: {tokens:,} tokens in {record['documents']} documents, {rate:.3%} unknown")
    hint("train", output)
