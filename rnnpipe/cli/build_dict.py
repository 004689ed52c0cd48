"""`rnnpipe build-dict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli.common import (
    PATH,
    byte_progress,
    hint,
    json_option,
    named,
    print_json,
    report_mended,
    report_quarantined,
    text_options,
    workers_option,
)

if TYPE_CHECKING:
    from rnnpipe.text.files import Errors
    from rnnpipe.text.vocabulary import Vocabulary


@click.command("build-dict")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=PATH, required=True, metavar="DICT", help="The dictionary file to write.")
@click.option(
    "--level", type=click.Choice(["word", "char"]), default="word", show_default=True, help="What is counted."
)
@click.option("--cleaner", help="NAME or NAME:option=value,...; unicode-words for words, none for characters.")
@click.option("--tokenizer", help="NAME or NAME:option=value,...; whitespace for words, characters for characters.")
@click.option(
    "--unknown-threshold", type=click.IntRange(min=0), help="Seen at most so often is unknown. [3; characters: 0]"
)
@click.option("--max-size", type=click.IntRange(min=1), help="Keep at most so many tokens, the most frequent ones.")
@workers_option
@text_options
@json_option
def command(
    inputs: tuple[str, ...],
    output: Path,
    level: str,
    cleaner: str | None,
    tokenizer: str | None,
    unknown_threshold: int | None,
    max_size: int | None,
    workers: int | None,
    encoding: str,
    errors: Errors,
    as_json: bool,
) -> None:
    """Count the words (or characters) of texts exactly and write the dictionary DICT.

    INPUT is a file, a folder (its *.txt, recursively, sorted), a glob, - for standard input, or a folder that
    `rnnpipe clean` wrote, whose training part is counted. The file is the same to the byte for any number of workers
    and any order of inputs.
    """
    from rnnpipe.pipeline.dictionary import build_dict
    from rnnpipe.plugins import text_registry
    from rnnpipe.text.rules import Named

    report_quarantined(text_registry())
    character = level == "char"
    with byte_progress("count") as progress:
        built = build_dict(
            inputs,
            output,
            cleaner=named(cleaner) if cleaner else Named("none") if character else None,
            tokenizer=named(tokenizer) if tokenizer else Named("characters" if character else "whitespace"),
            unknown_threshold=unknown_threshold if unknown_threshold is not None else 0 if character else 3,
            max_size=max_size,
            encoding=encoding,
            errors=errors,
            workers=workers,
            progress=progress,
        )
    report_mended(built.mended_bytes, errors)
    summary = summarize(built.vocabulary)
    if as_json:
        print_json({"dictionary": str(output), **summary})
        return
    print_summary(built.vocabulary)
    print_borderline(built.vocabulary)
    hint("encode", *inputs, "--dict", output, "-o", f"{output.with_suffix('')}-tokens")


def summarize(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the figures of a dictionary by name."""
    return {
        "size": vocabulary.size,
        "types": len(vocabulary.tokens),
        "tokens": vocabulary.total,
        "coverage": vocabulary.coverage,
        "unknown_rate": 1 - vocabulary.coverage,
        "unknown_threshold": vocabulary.unknown_threshold,
        "max_size": vocabulary.max_size,
        "characters": vocabulary.characters,
        "characters_in_tokens": sum(len(t) * c for t, c in zip(vocabulary.tokens, vocabulary.counts, strict=True)),
        "digest": vocabulary.digest,
        **vocabulary.rules.to_json(),
    }


def print_summary(vocabulary: Vocabulary) -> None:
    """Print the figures of a dictionary."""
    figures = summarize(vocabulary)
    click.echo(f"{vocabulary.size:,} ids: {vocabulary.kept:,} of {len(vocabulary.tokens):,} types, <doc> and <unk>")
    click.echo(
        f"{vocabulary.total:,} tokens, coverage {vocabulary.coverage:.3%}, unknown {1 - vocabulary.coverage:.3%} "
        f"(seen at most {vocabulary.unknown_threshold} times)"
    )
    click.echo(f"{figures['characters']:,} characters read, {figures['characters_in_tokens']:,} of them in tokens")


def print_borderline(vocabulary: Vocabulary, shown: int = 6) -> None:
    """Print the tokens nearest to the threshold, on either side."""
    for label, first, last in (
        ("last kept", max(0, vocabulary.kept - shown), vocabulary.kept),
        ("first unknown", vocabulary.kept, min(len(vocabulary.tokens), vocabulary.kept + shown)),
    ):
        words = [f"{vocabulary.tokens[k]!r} {vocabulary.counts[k]}" for k in range(first, last)]
        click.echo(f"{label}: {', '.join(words) or 'none'}")
