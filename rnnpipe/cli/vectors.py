"""`rnnpipe vectors near|analogy|export|import`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from rnnpipe.cli.common import PATH, json_option, print_json, print_table

NUMBER = click.option("-n", "--number", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
FORMAT = click.option(
    "--format", "form", type=click.Choice(["text", "binary"]), required=True, help="word2vec's format, which has two."
)


@click.group("vectors")
def command() -> None:
    """Print neighbours and analogies of word vectors; write and read word2vec's formats."""


@command.command("near")
@click.argument("folder", type=PATH, metavar="VECTORS")
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@NUMBER
@json_option
def near(folder: Path, words: tuple[str, ...], number: int, as_json: bool) -> None:
    """Print the tokens nearest to each WORD, with the cosines."""
    from rnnpipe.vectors.folder import load_vectors
    from rnnpipe.vectors.search import nearest

    vectors = load_vectors(folder)
    found = {word: nearest(vectors, word, number) for word in words}
    if as_json:
        print_json({word: _as_json(rows) for word, rows in found.items()})
        return
    for word, rows in found.items():
        click.echo(f"{word}: {', '.join(f'{token} {cosine:.3f}' for token, cosine in rows)}")


@command.command("analogy")
@click.argument("folder", type=PATH, metavar="VECTORS")
@click.argument("a")
@click.argument("b")
@click.argument("c")
@NUMBER
@json_option
def analogy_(folder: Path, a: str, b: str, c: str, number: int, as_json: bool) -> None:
    """Print what is to C as B is to A: the tokens nearest to B - A + C."""
    from rnnpipe.vectors.folder import load_vectors
    from rnnpipe.vectors.search import analogy

    rows = analogy(load_vectors(folder), a, b, c, number)
    if as_json:
        print_json(_as_json(rows))
        return
    print_table([("token", "cosine"), *((token, f"{cosine:.3f}") for token, cosine in rows)], right=(1,))


def _as_json(rows: list[tuple[str, float]]) -> list[dict[str, str | float]]:
    return [{"token": token, "cosine": cosine} for token, cosine in rows]


@command.command("export")
@click.argument("folder", type=PATH, metavar="VECTORS")
@FORMAT
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The file to write.")
def export(folder: Path, form: Literal["text", "binary"], output: Path) -> None:
    """Write vectors in a format of word2vec."""
    from rnnpipe.vectors.exchange import write_word2vec
    from rnnpipe.vectors.folder import load_vectors

    vectors = load_vectors(folder)
    write_word2vec(output, vectors, binary=form == "binary")
    click.echo(f"{output}: {len(vectors.tokens):,} vectors of {vectors.size} numbers")


@command.command("import")
@click.argument("file", type=PATH, metavar="FILE")
@FORMAT
@click.option("-o", "--output", type=PATH, required=True, metavar="VECTORS", help="The folder to write.")
def import_(file: Path, form: Literal["text", "binary"], output: Path) -> None:
    """Read vectors in a format of word2vec."""
    from rnnpipe.pipeline.common import check_output_folder
    from rnnpipe.vectors import folder
    from rnnpipe.vectors.exchange import read_word2vec

    check_output_folder(output, folder.META, folder.FORMAT, folder.OWN_FILES)
    vectors = read_word2vec(file, binary=form == "binary")
    folder.save_vectors(output, vectors)
    click.echo(f"{output}: {len(vectors.tokens):,} vectors of {vectors.size} numbers")
