"""`rnnpipe dict export|import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, json_option, named

if TYPE_CHECKING:
    from rnnpipe.text.rules import Level


@click.command("export")
@click.argument("dictionary", type=PATH, metavar="DICT")
@click.option(
    "--format",
    "form",
    type=click.Choice(["fairseq", "tokenizers", "text"]),
    required=True,
    help="fairseq's dict.txt; tokenizer.json of Hugging Face tokenizers; lines of token TAB count.",
)
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The file to write.")
@click.option(
    "--padding-factor",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="fairseq: fill up to a multiple of this, as its own preprocessing does.",
)
@click.option("--cleaned", is_flag=True, help="tokenizers: for text that `rnnpipe clean` has cleaned.")
def export(dictionary: Path, form: str, output: Path, padding_factor: int, cleaned: bool) -> None:
    """Write the tokens that have an id in another program's format.

    A tokenizer.json gives the same ids for the same text. fairseq's has the ids of its own four specials in front.
    """
    from rnnpipe.durable import write_bytes
    from rnnpipe.text.exchange import to_fairseq, to_text
    from rnnpipe.text.exchange_tokenizers import to_tokenizers
    from rnnpipe.text.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(dictionary)
    if form == "fairseq":
        data = to_fairseq(vocabulary, str(dictionary), padding_factor)
    elif form == "tokenizers":
        data = to_tokenizers(vocabulary, str(dictionary), cleaned=cleaned)
    else:
        data = to_text(vocabulary)
    if output.exists() and output.samefile(dictionary):
        raise click.UsageError(f"{output}: is the dictionary itself; name another file.")
    write_bytes(output, data)
    click.echo(f"{output}: {vocabulary.kept:,} tokens")


@click.command("import")
@click.argument("file", type=PATH, metavar="FILE")
@click.option(
    "--format", "form", type=click.Choice(["fairseq", "text"]), required=True, help="dict.txt, or token TAB count."
)
@click.option("-o", "--output", type=PATH, required=True, metavar="DICT", help="The dictionary file to write.")
@click.option(
    "--level", type=click.Choice(["word", "char"]), default="word", show_default=True, help="What a token is."
)
@click.option("--cleaner", default="none", show_default=True, help="How text is cleaned for it.")
@click.option("--tokenizer", help="How text is split for it; by level: whitespace, characters.")
@click.option(
    "--unknown-threshold", type=click.IntRange(min=0), default=0, show_default=True, help="At most so often is unknown."
)
@json_option
def import_(
    file: Path,
    form: str,
    output: Path,
    level: Level,
    cleaner: str,
    tokenizer: str | None,
    unknown_threshold: int,
    as_json: bool,
) -> None:
    """Make a dictionary of tokens and counts that another program has written.

    Ids go by count, then token, as always here; where the file has another order, that is said.
    """
    from rnnpipe.cli.dictionary_merge import write
    from rnnpipe.config import DEFAULTS
    from rnnpipe.pipeline.common import load_rules
    from rnnpipe.text.exchange import read_fairseq, read_text
    from rnnpipe.text.rules import TextRules
    from rnnpipe.text.vocabulary import build_vocabulary

    rules = TextRules(named(cleaner), named(tokenizer or DEFAULTS[level][1]))
    load_rules(rules.cleaner, rules.tokenizer)
    imported = (read_fairseq if form == "fairseq" else read_text)(file)
    if imported.fillers:
        say(f"{file}: {imported.fillers} fillers of fairseq (madeupword0000 and so on) left out")
    vocabulary = build_vocabulary(
        {token.encode(): count for token, count in imported.counts.items()},
        rules,
        unknown_threshold=unknown_threshold,
        counted=[imported.record],
    )
    if list(vocabulary.tokens) != list(imported.counts):
        say(f"warning: {file} is not in the order of count, then token; ids will not be its line numbers")
    write(vocabulary, output, as_json)
