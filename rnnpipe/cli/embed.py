"""`rnnpipe embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, hint, json_option, print_json


@click.command("embed")
@click.argument("dictionary", type=PATH, metavar="DICT")
@click.argument("tokens", type=PATH, metavar="TOKENS")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="The folder of vectors to write.")
@click.option(
    "--model",
    type=click.Choice(["skip-gram", "cbow"]),
    default="skip-gram",
    show_default=True,
    help="A token from each neighbour, or from the mean of all.",
)
@click.option("--size", type=click.IntRange(min=1), default=100, show_default=True, help="Numbers of a vector.")
@click.option("--window", type=click.IntRange(1, 1000), default=5, show_default=True, help="Neighbours on either side.")
@click.option("--negative", type=click.IntRange(min=1), default=5, show_default=True, help="Negatives of a pair.")
@click.option("--sample", type=float, default=1e-3, show_default=True, help="More frequent tokens are thinned out.")
@click.option("--epochs", type=click.IntRange(min=1), default=5, show_default=True, help="Passes over the text.")
@click.option("--lr", type=float, help="Learning rate to begin with. [0.025; cbow: 0.05]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="More pay on a machine that does nothing else.",
)
@json_option
def command(
    dictionary: Path,
    tokens: Path,
    output: Path,
    model: Literal["skip-gram", "cbow"],
    size: int,
    window: int,
    negative: int,
    sample: float,
    epochs: int,
    lr: float | None,
    seed: int,
    threads: int,
    as_json: bool,
) -> None:
    """Train word vectors (word2vec) on the training part of TOKENS, which DICT has encoded.

    `rnnpipe vectors near DIR WORD` prints neighbours; `rnnpipe train --set model.encoder.pretrained=DIR` begins with
    them. The same seed and number of threads give the same bits.
    """
    from rnnpipe.pipeline.embed import embed
    from rnnpipe.vectors.word2vec import Settings

    chosen = Settings(model, size, window, negative, sample, epochs, lr, seed=seed)
    trained = embed(dictionary, tokens, output, chosen, threads=threads, report=say)
    figures = {
        "vectors": str(output),
        "tokens": len(trained.vectors),
        "size": size,
        "tokens_read": trained.tokens,
        "seconds": round(trained.seconds, 3),
        "tokens_per_second": round(trained.tokens_per_second),
    }
    if as_json:
        print_json(figures)
        return
    click.echo(
        f"{output}: {len(trained.vectors):,} vectors of {size} numbers; {trained.tokens:,} tokens read in "
        f"{trained.seconds:.1f} s, {trained.tokens_per_second:,.0f} a second"
    )
    hint("vectors", "near", output, "WORD")
