"""What `rnnpipe eval` says of a run of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import hint, print_json

if TYPE_CHECKING:
    from rnnpipe.pipeline.evaluate_pairs import PairEvaluation
    from rnnpipe.pipeline.runs import PairRun


def evaluate(
    run: PairRun, part: str | None, metric: str | None, beam: int | None, tokenize: str | None, as_json: bool
) -> None:
    """Evaluate a run of pairs and print what came of it."""
    from rnnpipe.generation.translate import Search
    from rnnpipe.pipeline.evaluate_pairs import evaluate_pairs
    from rnnpipe.pipeline.scores import parse_metrics

    if metric is None and (beam is not None or tokenize is not None):
        raise click.UsageError("--beam and --tokenize go with --metric bleu,chrf.")
    metrics = parse_metrics(metric) if metric is not None else ()
    search = Search(width=beam or 5)
    evaluation = evaluate_pairs(run, part, metrics=metrics, search=search, tokenize=tokenize or "none")
    if as_json:
        print_json(evaluation.to_json())
        return
    print_pair_evaluation(evaluation)
    if metrics:
        hint("translate", run.folder, "TEXT")
    else:
        hint("eval", run.folder, "--metric", "bleu,chrf")


def print_pair_evaluation(evaluation: PairEvaluation) -> None:
    """Print loss, perplexity, unknown rates and scores of a part."""
    loss = evaluation.loss
    source, target = evaluation.unknown_rate
    click.echo(f"{evaluation.part} part, {evaluation.pairs:,} pairs, step {evaluation.step}:")
    bound = "" if loss.divergence is None else "at most "
    click.echo(
        f"  loss {bound}{loss.nats:.4f} nats a target token, perplexity {bound}{loss.perplexity:,.2f} "
        f"({loss.tokens:,} tokens)"
    )
    if loss.divergence is not None:
        click.echo(
            f"    of these {loss.reconstruction:.4f} for the target once the latent variable is drawn, "
            f"{loss.divergence:.4f} for the variable (KL divergence)"
        )
    click.echo(f"  unknown: {source:.3%} of the source, {target:.3%} of the target")
    share = evaluation.in_train / evaluation.pairs
    click.echo(
        f"  overlap: {evaluation.in_train:,} of {evaluation.pairs:,} sources ({share:.1%}) also stand in training"
    )
    found = evaluation.translated
    if found is None:
        return
    for score in found.scores:
        click.echo(f"  {score.metric} {score.value:.2f}  {score.signature}")
    say(f"translated with beam {found.search.width} in {found.seconds:.1f} s")
