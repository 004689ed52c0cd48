"""What `rnnpipe eval` says of a run of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli.common import number, print_table

if TYPE_CHECKING:
    from rnnpipe.pipeline.evaluate_sequences import SequenceEvaluation, Shown
    from rnnpipe.training.sequence_objective import Measured


def print_sequence_evaluation(evaluation: SequenceEvaluation) -> None:
    """Print the scores of a part: of all of it, of what training has not seen, and of predictors that learn nothing."""
    from rnnpipe.pipeline.evaluate_sequences import loss_name

    whole = evaluation.whole
    click.echo(f"{evaluation.part} part, {whole.sequences:,} sequences, step {evaluation.step}:")
    rows = [("", loss_name(evaluation.sizes), *_headings(whole))]
    rows.append(("all", *_figures(whole)))
    if evaluation.in_train and evaluation.unseen is not None:
        rows.append((f"not in training ({evaluation.unseen.sequences:,})", *_figures(evaluation.unseen)))
    rows += [(_BASELINES[name], *_figures(measured)) for name, measured in evaluation.baselines.items()]
    print_table(
        [tuple(f"  {cell}" if not at else cell for at, cell in enumerate(row)) for row in rows], right=(1, 2, 3)
    )
    if evaluation.reduction != "mean":
        click.echo(f"  reduced as in training ({evaluation.reduction}): {number(whole.reduced(evaluation.reduction))}")
    share = evaluation.in_train / whole.sequences
    click.echo(
        f"  overlap: {evaluation.in_train:,} of {whole.sequences:,} sequences ({share:.1%}) also stand in training"
    )


_BASELINES = {"mean": "predict the training mean", "copy-last": "repeat the last input"}


def _headings(measured: Measured) -> list[str]:
    return [name.replace("_", " ") for name in measured.figures()]


def _figures(measured: Measured) -> list[str]:
    shown = {"accuracy": "{:.2%}", "share_of_variance": "{:.2%}"}
    return [number(measured.loss), *(shown[name].format(value) for name, value in measured.figures().items())]


def print_shown(sequences: Sequence[Shown]) -> None:
    """Print sequences with the run's output and the truth: one a line, or below each other for every timestep."""
    rows = [("sequence", "output", "target", "")]
    for shown in sequences:
        note = "in training" if shown.in_train else ""
        if shown.target.ndim == 1:
            values = (
                " ".join(_steps(shown.inputs)),
                ",".join(map(_short, shown.output)),
                ",".join(map(_short, shown.target)),
            )
            rows.append((*values, note))
            continue
        click.echo(f"sequence {shown.number}{note and f', {note}'}:")
        lines = {"input": shown.inputs, "output": shown.output, "target": shown.target}
        table = [(f"  {name}", *_steps(values)) for name, values in lines.items()]
        print_table(table, right=range(1, len(table[0])))
    if len(rows) > 1:
        print_table(rows)


def _steps(values: Any) -> list[str]:
    """Return the timesteps of [T, ...] in short: the numbers of one parted by commas, the middle of many left out."""
    steps = [",".join(map(_short, step)) for step in values]
    return steps if len(steps) <= _MOST else [*steps[: _MOST // 2], "...", *steps[-_MOST // 2 :]]


_MOST = 16  # timesteps of a sequence that are printed


def _short(value: Any) -> str:
    return f"{value:.4g}"


def length_table(found: Mapping[int, Measured]) -> list[tuple[str, ...]]:
    """Return the rows of a table of scores by length."""
    first = next(iter(found.values()))
    head = ("length", "loss", *_headings(first))
    return [head, *((str(length), *_figures(measured)) for length, measured in found.items())]


_MOST_LENGTHS = 25


def parse_lengths(text: str) -> list[int]:
    """Return the lengths in A:B (of many, 25 at equal ratios), A:B:STEP, or A,B,C; raise click.UsageError otherwise."""
    try:
        if ":" not in text:
            lengths = [int(each) for each in text.split(",")]
        else:
            first, last, *step = (int(each) for each in text.split(":"))
            if len(step) > 1 or not 1 <= first <= last or step[:1] == [0]:
                raise ValueError(text)
            lengths = list(range(first, last + 1, *step))
            if not step and len(lengths) > _MOST_LENGTHS:
                ratio = (last / first) ** (1 / (_MOST_LENGTHS - 1))
                lengths = sorted({round(first * ratio**number) for number in range(_MOST_LENGTHS)})
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise click.UsageError(f"--lengths {text}: expected A:B, A:B:STEP or A,B,C, of whole numbers above 0.")
    return lengths
