"""`rnnpipe plot`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, print_table


@click.command("plot")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("-o", "--output", type=PATH, metavar="PNG", help="Write the curves, or the attention, to a PNG file.")
@click.option("--attention", metavar="TEXT", help="Pairs: where the translation of TEXT looks in it.")
def command(run: Path, output: Path | None, attention: str | None) -> None:
    """Draw the loss curves of RUN: a small chart in the terminal, and a PNG with -o (extra `plot`)."""
    from rnnpipe.plots import draw_png, draw_text
    from rnnpipe.training.metrics import read_metrics

    if attention is not None:
        _attention(run, check_text(attention, "--attention"), output)
        return
    rows = read_metrics(run)
    if output is not None:
        draw_png(rows, output, title=run.name)
        say(f"written: {output}")
    click.echo(draw_text(rows))


def _attention(run: Path, text: str, output: Path | None) -> None:
    """Print which source token each token of a translation looks at most, and draw all weights into a PNG."""
    from rnnpipe.errors import InputError
    from rnnpipe.generation.translate import Search
    from rnnpipe.pipeline.runs import open_pair_run
    from rnnpipe.text.vocabulary import DOC

    translator = open_pair_run(run, report=say).translator()
    translation = next(translator.translate([text], Search()))
    if not translation.tokens:
        raise InputError("--attention: the text has no token; give a sentence.")
    source = [*translation.tokens, DOC]
    target = [*translation.candidates[0].tokens, DOC]
    weights = translator.align(translation.tokens, target[:-1])
    if output is not None:
        from rnnpipe.plots import draw_attention

        missing = draw_attention(weights, source, target, output, title=run.name)
        if missing:
            say(f"warning: no font here has {missing}; install one that does, as Noto Sans CJK for Japanese.")
        say(f"written: {output}")
    else:
        say("all weights as a picture: -o attention.png")
    most = weights.argmax(1).tolist()
    rows = [(token, source[at], f"{row[at]:.2f}") for token, at, row in zip(target, most, weights, strict=True)]
    print_table([("translation", "looks at", "weight"), *rows], right=(2,))
