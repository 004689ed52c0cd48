"""`rnnpipe dict merge|prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.build_dict import print_summary
from rnnpipe.cli.common import PATH, json_option, print_json

if TYPE_CHECKING:
    from rnnpipe.text.vocabulary import Vocabulary


def threshold_options(function: Any) -> Any:
    """Add `--unknown-threshold` and `--max-size`, which move those of a dictionary."""
    size = click.option("--max-size", type=click.IntRange(min=1), help="Another largest number of tokens.")
    threshold = click.option("--unknown-threshold", type=click.IntRange(min=0), help="Another unknown threshold.")
    return threshold(size(function))


OUTPUT = click.option("-o", "--output", type=PATH, required=True, metavar="DICT", help="The dictionary file to write.")


@click.command("merge")
@click.argument("dictionaries", type=PATH, nargs=-1, required=True, metavar="DICT...")
@OUTPUT
@threshold_options
@json_option
def merge(
    dictionaries: tuple[Path, ...], output: Path, unknown_threshold: int | None, max_size: int | None, as_json: bool
) -> None:
    """Add the counts of dictionaries; the same to the byte as one build over all their texts.

    They must have the same rules, and the same threshold and size unless these are given.
    """
    from rnnpipe.text.merging import counted_twice, merge_vocabularies
    from rnnpipe.text.vocabulary import load_vocabulary

    named = [(str(path), load_vocabulary(path)) for path in dictionaries]
    merged = merge_vocabularies(named, unknown_threshold=unknown_threshold, max_size=max_size)
    for text, first, second in counted_twice(named):
        say(f"warning: {text} was counted by both {first} and {second}; its tokens count twice")
    write(merged, output, as_json)


@click.command("prune")
@click.argument("dictionary", type=PATH, metavar="DICT")
@OUTPUT
@threshold_options
@click.option("--keep-unknown", is_flag=True, help="Move threshold and size only; the file keeps all its tokens.")
@json_option
def prune(
    dictionary: Path,
    output: Path,
    unknown_threshold: int | None,
    max_size: int | None,
    keep_unknown: bool,
    as_json: bool,
) -> None:
    """Move the threshold or size of a dictionary and leave out the tokens without an id.

    Ids, coverage and unknown rate are those of the whole text. What is left out cannot come back: merge first, or keep
    the tokens with --keep-unknown.
    """
    from rnnpipe.text.merging import prune_vocabulary
    from rnnpipe.text.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(dictionary)
    pruned = prune_vocabulary(vocabulary, str(dictionary), unknown_threshold=unknown_threshold, max_size=max_size)
    if keep_unknown:
        pruned = vocabulary.with_threshold(pruned.unknown_threshold, pruned.max_size)
    write(pruned, output, as_json)


def write(vocabulary: Vocabulary, output: Path, as_json: bool) -> None:
    """Write a dictionary that was made of others, and print its figures; raise InputError if it has no token."""
    from rnnpipe.errors import InputError
    from rnnpipe.pipeline.common import check_output_file
    from rnnpipe.text.vocabulary import START

    check_output_file(output, (), START, "a dictionary")
    if vocabulary.kept == 0:
        raise InputError(f"{output}: no token would have an id; lower the unknown threshold.")
    vocabulary.save(output)
    if as_json:
        print_json({"dictionary": str(output), **vocabulary.summary().to_json()})
    else:
        print_summary(vocabulary.summary())
