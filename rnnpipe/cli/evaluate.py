"""`rnnpipe eval`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import (
    PATH,
    device_option,
    hint,
    json_option,
    print_json,
    print_table,
    quantize_option,
    report_quarantined,
    text_options,
)

if TYPE_CHECKING:
    from rnnpipe.models.quantize import Form
    from rnnpipe.pipeline.evaluate import Evaluation
    from rnnpipe.pipeline.runs import Run, SequenceRun
    from rnnpipe.text.files import Errors
    from rnnpipe.training.evaluate import Loss


@click.command("eval")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("inputs", nargs=-1, metavar="[TEXT]...")
@click.option("--window", type=click.IntRange(min=1), help="Text: tokens of a reset window. [256]")
@click.option("--ngram", type=click.IntRange(min=1, max=9), metavar="N", help="Text: a Kneser-Ney baseline beside it.")
@click.option("--part", type=click.Choice(["train", "valid", "test"]), help="Sequences, pairs: which part. [test]")
@click.option("--show", type=click.IntRange(min=0), help="Sequences: print so many with output and target.")
@click.option("--lengths", metavar="A:B", help="Sequences: score new ones of these lengths. A:B:STEP and A,B,C too.")
@click.option("--count", type=click.IntRange(min=1), help="Sequences: how many new ones of each length. [100]")
@click.option("--plot", type=PATH, metavar="PNG", help="Sequences: draw the loss by length (extra `plot`).")
@click.option("--metric", metavar="bleu,chrf", help="Pairs: translate and score (extra `translation`).")
@click.option("--beam", type=click.IntRange(min=1), help="Pairs: beams of the translations scored. [5]")
@click.option("--tokenize", metavar="NAME", help="Pairs: sacrebleu's tokenizer. [none]")
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which checkpoint."
)
@quantize_option
@device_option
@text_options
@json_option
def command(
    run: Path,
    inputs: tuple[str, ...],
    window: int | None,
    ngram: int | None,
    part: str | None,
    show: int | None,
    lengths: str | None,
    count: int | None,
    plot: Path | None,
    metric: str | None,
    beam: int | None,
    tokenize: str | None,
    weights: str,
    quantize: Form | None,
    device: str,
    encoding: str,
    errors: Errors,
    as_json: bool,
) -> None:
    """Measure the loss of RUN on its own test part, or on TEXT, under the run's own rules and dictionary."""
    from rnnpipe.pipeline.evaluate import evaluate_run
    from rnnpipe.pipeline.runs import PairRun, SequenceRun, open_any_run
    from rnnpipe.plugins import full_registry

    report_quarantined(full_registry())
    opened = open_any_run(run, device=device, which=weights, report=say)
    kind = "pairs" if isinstance(opened, PairRun) else "sequences" if isinstance(opened, SequenceRun) else "text"
    _check_flags(
        run,
        kind,
        {
            "TEXT": ("text", inputs or None),
            "--window": ("text", window),
            "--ngram": ("text", ngram),
            "--quantize": ("text", quantize),
            "--part": ("sequences or pairs", part),
            "--show": ("sequences", show),
            "--lengths": ("sequences", lengths),
            "--count": ("sequences", count),
            "--plot": ("sequences", plot),
            "--metric": ("pairs", metric),
            "--beam": ("pairs", beam),
            "--tokenize": ("pairs", tokenize),
        },
    )
    if isinstance(opened, PairRun):
        from rnnpipe.cli.evaluate_pairs import evaluate

        evaluate(opened, part, metric, beam, tokenize, as_json)
        return
    if isinstance(opened, SequenceRun):
        if lengths is not None:
            _lengths(opened, lengths, count or 100, plot, as_json)
        elif count is not None or plot is not None:
            raise click.UsageError("--count and --plot go with --lengths A:B.")
        else:
            _sequences(opened, part, show, as_json)
        return
    options: dict[str, Any] = {"window": window or 256, "ngram": ngram, "encoding": encoding, "errors": errors}
    if quantize is not None:
        _quantized(opened, quantize, inputs, options, as_json)
        return
    evaluation = evaluate_run(opened, inputs, **options, report=say)
    if as_json:
        print_json(evaluation.to_json())
        return
    print_evaluation(evaluation)
    hint("plot", run)


def _check_flags(run: Path, kind: str, flags: Mapping[str, tuple[str, object]]) -> None:
    """Raise UsageError if a flag is given that is for runs of other kinds; each is named with those it is for."""
    for flag, (kinds, value) in flags.items():
        if value is not None and kind not in kinds.split(" or "):
            raise click.UsageError(f"{run} is a run of {kind}; {flag} is for runs of {kinds}.")


def _quantized(run: Run, form: Form, inputs: tuple[str, ...], options: dict[str, Any], as_json: bool) -> None:
    from rnnpipe.pipeline.quantizing import evaluate_quantized

    found = evaluate_quantized(run, form, inputs, **options)
    if as_json:
        print_json(found.to_json())
        return
    click.echo("float32:")
    print_evaluation(found.before)
    click.echo(f"{form}:")
    print_evaluation(found.after)
    pairs = ((found.before.windows, found.after.windows), (found.before.carried, found.after.carried))
    windows, carried = (after.nats - before.nats for before, after in pairs)
    click.echo(f"  difference: {windows:+.4f} nats in windows, {carried:+.4f} with the state carried")
    click.echo(f"  weights: {found.size.after:,} bytes instead of {found.size.before:,}")
    milliseconds = [1000 * seconds for seconds in (found.seconds_after, found.seconds_before)]
    click.echo(f"  a step of {found.rows} rows: {milliseconds[0]:.2f} ms instead of {milliseconds[1]:.2f}")
    hint("generate", run.folder, "", "--quantize", form)


def _sequences(run: SequenceRun, part: str | None, show: int | None, as_json: bool) -> None:
    from rnnpipe.cli.evaluate_sequences import print_sequence_evaluation, print_shown
    from rnnpipe.pipeline.evaluate_sequences import evaluate_sequences, show_sequences

    evaluation = evaluate_sequences(run, part)
    shown = show_sequences(run, evaluation.part, show) if show else []
    if as_json:
        print_json({**evaluation.to_json(), "shown": [each.to_json() for each in shown]})
        return
    print_sequence_evaluation(evaluation)
    if shown:
        print_shown(shown)
    hint("plot", run.folder)


def _lengths(run: SequenceRun, text: str, count: int, plot: Path | None, as_json: bool) -> None:
    from rnnpipe.cli.evaluate_sequences import length_table, parse_lengths
    from rnnpipe.pipeline.evaluate_sequences import evaluate_lengths, figures

    found = evaluate_lengths(run, parse_lengths(text), count)
    if plot is not None:
        from rnnpipe.plots import draw_lines

        points = [(length, measured.loss) for length, measured in found.items()]
        draw_lines({"loss": points}, plot, title=run.folder.name, x="length (timesteps)", y="loss")
        say(f"written: {plot}")
    if as_json:
        print_json({"lengths": [{"length": length, **figures(measured)} for length, measured in found.items()]})
        return
    say(f"{count} new sequences of each length")
    print_table(length_table(found), right=(0, 1, 2, 3))


def print_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation for people."""

    def figures(loss: Loss) -> str:
        bits = f", {loss.bits:.3f} bits per character" if evaluation.level == "char" else ""
        return f"loss {loss.nats:.4f} nats, perplexity {loss.perplexity:,.2f}{bits}"

    click.echo(f"{evaluation.text}, {evaluation.windows.tokens:,} tokens, {evaluation.unknown_rate:.3%} unknown:")
    click.echo(f"  windows reset every {evaluation.window}: {figures(evaluation.windows)}")
    click.echo(f"  one pass, state carried: {figures(evaluation.carried)}")
    for n, loss in evaluation.ngrams.items():
        click.echo(f"  {n}-grams of the training text (Kneser-Ney): {figures(loss)}")
