"""`rnnpipe clean`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli.byte_progress import byte_progress
from rnnpipe.cli.common import (
    PATH,
    hint,
    json_option,
    named,
    print_json,
    report_mended,
    report_quarantined,
    text_options,
)

if TYPE_CHECKING:
    from rnnpipe.text.files import Errors


@click.command("clean")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder for the cleaned corpus.")
@click.option("--cleaner", default="unicode-words", show_default=True, help="NAME or NAME:option=value,...")
@click.option("--split", metavar="8:1:1", help="Divide each text into train, valid and test in this proportion.")
@text_options
@json_option
def command(
    inputs: tuple[str, ...], output: Path, cleaner: str, split: str | None, encoding: str, errors: Errors, as_json: bool
) -> None:
    """Clean texts into the folder DIR: UTF-8, one file for each part, and a record of the rules.

    INPUT is a file, a folder (its *.txt, recursively, sorted), a glob, or - for standard input. What each rule
    dropped or replaced is counted, character by character.
    """
    from rnnpipe.pipeline.clean import clean
    from rnnpipe.plugins import text_registry

    report_quarantined(text_registry())
    with byte_progress("clean") as progress:
        result = clean(
            inputs,
            output,
            cleaner=named(cleaner),
            split=split,
            encoding=encoding,
            errors=errors,
            progress=progress,
            expect=progress.expect,
        )
    totals = result.totals
    rules = {
        rule: {"replaced": count.replaced, "dropped": dict(count.dropped.most_common())}
        for rule, count in totals.report.rules.items()
    }
    if as_json:
        parts = {part: {"bytes": r["size"], "documents": len(r["documents"])} for part, r in result.parts.items()}
        print_json(
            {
                "folder": str(output),
                "characters_in": totals.characters_in,
                "characters_out": totals.characters_out,
                "mended_bytes": totals.mended_bytes,
                "parts": parts,
                "rules": rules,
            }
        )
        return
    click.echo(f"{totals.characters_in:,} characters in, {totals.characters_out:,} out")
    for rule, count in totals.report.rules.items():
        dropped = sum(count.dropped.values())
        shown = "  ".join(f"{_visible(character)} {number:,}" for character, number in count.dropped.most_common(12))
        more = len(count.dropped) - 12
        rest = f"  and {more} more" if more > 0 else ""
        click.echo(
            f"  {rule}: {count.replaced:,} replaced, {dropped:,} dropped" + (f": {shown}{rest}" if dropped else "")
        )
    for part, record in result.parts.items():
        click.echo(f"  {part}: {record['size']:,} bytes, {len(record['documents'])} documents")
    report_mended(totals.mended_bytes, errors)
    hint("build-dict", output, "-o", f"{output}.dict")


def _visible(character: str) -> str:
    if len(character) > 1:
        return character
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"
