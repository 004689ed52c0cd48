"""`rnnpipe build-dict`."""

from __future__ import annotations

import re
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
    named,
    print_json,
    print_table,
    report_mended,
    report_quarantined,
    text_options,
    workers_option,
)

if TYPE_CHECKING:
    from rnnpipe.pipeline.engines import EngineName
    from rnnpipe.text.files import Errors
    from rnnpipe.text.rules import Level
    from rnnpipe.text.vocabulary import Summary, Vocabulary


_LEAST_MEMORY = 128 << 20


@click.command("build-dict")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=PATH, metavar="DICT", help="The dictionary file to write.")
@click.option(
    "--level",
    type=click.Choice(["word", "char", "subword"]),
    default="word",
    show_default=True,
    help="What a token is.",
)
@click.option("--cleaner", help="NAME or NAME:option=value,...; unicode-words for words, none for the other levels.")
@click.option("--tokenizer", help="NAME or NAME:option=value,...; by level: whitespace, characters, bpe.")
@click.option("--size", type=click.IntRange(min=1), help="How many subwords to learn. [8000]")
@click.option(
    "--unknown-threshold",
    type=click.IntRange(min=0),
    help="Seen at most so often is unknown. [3; characters: 0; subwords: none is unknown]",
)
@click.option("--max-size", type=click.IntRange(min=1), help="Keep at most so many tokens, the most frequent ones.")
@click.option(
    "--preview",
    metavar="FIRST:LAST",
    help="Print what each unknown threshold from FIRST to LAST gives; without -o, write nothing.",
)
@click.option(
    "--max-memory",
    default="1G",
    show_default=True,
    metavar="SIZE",
    help="Of counts that need more, such as 512M, the rest goes to the disk meanwhile; the result is the same.",
)
@workers_option
@engine_options
@text_options
@json_option
def command(
    inputs: tuple[str, ...],
    output: Path | None,
    level: Level,
    cleaner: str | None,
    tokenizer: str | None,
    size: int | None,
    unknown_threshold: int | None,
    max_size: int | None,
    preview: str | None,
    max_memory: str,
    workers: int | None,
    engine: EngineName,
    scheduler: str | None,
    encoding: str,
    errors: Errors,
    as_json: bool,
) -> None:
    """Count the words (characters, subwords) of texts exactly and write the dictionary DICT.

    INPUT is a file, a folder (its *.txt, recursively, sorted), a glob, - for standard input, or a folder that
    `rnnpipe clean` wrote, whose training part is counted. The file is the same to the byte for any number of workers
    and any order of inputs.
    """
    from rnnpipe.config import DEFAULTS
    from rnnpipe.pipeline.dictionary import build_dict
    from rnnpipe.pipeline.engines import open_engine
    from rnnpipe.plugins import text_registry
    from rnnpipe.text.corpus import is_corpus
    from rnnpipe.text.rules import Named

    if output is None and preview is None:
        raise click.UsageError("say where the dictionary goes with -o DICT, or ask for a --preview FIRST:LAST.")
    thresholds = None if preview is None else threshold_range(preview)
    report_quarantined(text_registry())
    _, usual_tokenizer, usual_threshold = DEFAULTS[level]
    split = named(tokenizer or usual_tokenizer)
    if size is not None:
        if level != "subword":
            raise click.UsageError("--size is how many subwords to learn; it goes with --level subword.")
        split = Named(split.name, {**split.options, "size": size})
    chosen = named(cleaner) if cleaner else None
    if chosen is None and level != "word" and not any(map(is_corpus, inputs)):
        chosen = Named("none")
    with byte_progress("count") as progress:
        built = build_dict(
            inputs,
            output,
            cleaner=chosen,
            tokenizer=split,
            unknown_threshold=usual_threshold if unknown_threshold is None else unknown_threshold,
            max_size=max_size,
            max_memory=memory_size(max_memory),
            encoding=encoding,
            errors=errors,
            workers=workers,
            engine=open_engine(engine, scheduler, say),
            progress=progress,
            expect=progress.expect,
        )
    report_mended(built.mended_bytes, errors)
    if thresholds is not None:
        print_preview(built.vocabulary, thresholds, as_json)
        if output is not None:
            say(f"{output}: written with the unknown threshold {built.summary.unknown_threshold}")
        return
    assert output is not None
    if as_json:
        print_json({"dictionary": str(output), **built.summary.to_json()})
        return
    print_summary(built.summary)
    print_borderline(built.summary)
    hint("encode", *inputs, "--dict", output, "-o", f"{output.with_suffix('')}-tokens")


def memory_size(text: str) -> int:
    """Return the bytes of a size such as 512M or 2G (powers of 1024)."""
    found = re.fullmatch(r"([0-9]{1,12})([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ") if found else 0
    if size < _LEAST_MEMORY:
        raise click.UsageError(f"--max-memory {text}: expected a size of at least 128M, such as 512M or 2G.")
    return size


def threshold_range(text: str) -> range:
    """Return the thresholds of FIRST:LAST, both included, or of a single number."""
    first, colon, last = text.partition(":")
    if not (first.isdecimal() and (last.isdecimal() or not colon) and len(text) < 40):
        raise click.UsageError(f"--preview {text}: expected FIRST:LAST, two whole numbers, as in --preview 0:10.")
    thresholds = range(int(first), int(last or first) + 1)
    if not 1 <= len(thresholds) <= 1000:
        raise click.UsageError(f"--preview {text}: LAST is below FIRST, or more than 999 above it.")
    return thresholds


def print_preview(vocabulary: Vocabulary, thresholds: range, as_json: bool) -> None:
    """Print size, coverage and unknown rate by threshold."""
    from rnnpipe.text.merging import preview_thresholds

    rows = preview_thresholds(vocabulary, thresholds)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    table = [("threshold", "ids", "coverage", "unknown")]
    table += [
        (str(row.unknown_threshold), f"{row.size:,}", f"{row.coverage:.3%}", f"{row.unknown_rate:.3%}") for row in rows
    ]
    print_table(table, right=(0, 1, 2, 3))


def print_summary(summary: Summary) -> None:
    """Print the figures of a dictionary."""
    click.echo(f"{summary.size:,} ids: {summary.kept:,} of {summary.types:,} types, <doc> and <unk>")
    seldom = summary.unknown_threshold
    click.echo(
        f"{summary.total:,} tokens, coverage {summary.coverage:.3%}, unknown {1 - summary.coverage:.3%} "
        f"({f'seen at most {seldom} times' if seldom >= 0 else 'never seen'})"
    )
    click.echo(f"{summary.characters:,} characters read, {summary.characters_in_tokens:,} of them in tokens")


def print_borderline(summary: Summary) -> None:
    """Print the tokens nearest to the threshold, on either side."""
    for label, pairs in (("last kept", summary.last_kept), ("first unknown", summary.first_unknown)):
        click.echo(f"{label}: {', '.join(f'{token!r} {count}' for token, count in pairs) or 'none'}")
