"""`rnnpipe reproduce`."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, hint, json_option, print_json, print_table, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.pipeline.reproduce.experiment import Row
    from rnnpipe.pipeline.reproduce.run import Result, VariantResult


@click.command("reproduce")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All experiments.")
@click.option("--improved", is_flag=True, help="Our recipes as well.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings of each.")
@click.option("--full", type=PATH, metavar="FOLDER", help="Texts for next-word, or the pairs of en-ja.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change every training, as in training.*.")
@click.option(
    "-o", "--output", type=PATH, default=Path("runs/reproduce"), show_default=True, help="Folder of the runs."
)
@click.option("--markdown", is_flag=True, help="Print one Markdown table.")
@json_option
def command(
    names: tuple[str, ...],
    everything: bool,
    improved: bool,
    seeds: int,
    full: Path | None,
    settings: tuple[str, ...],
    output: Path,
    markdown: bool,
    as_json: bool,
) -> None:
    """Run published experiments with their published settings, and print the published figures beside ours.

    Without a name, the experiments are listed. Each training is a run folder for eval, forecast and plot; one that is
    finished is not trained again. Figures are drawn beside them if matplotlib is there (extra `plot`).
    """
    from rnnpipe.cli.progress import stop_on_signals
    from rnnpipe.config import apply_settings
    from rnnpipe.pipeline.complete import complete
    from rnnpipe.pipeline.reproduce.experiment import experiment_names, load_experiment
    from rnnpipe.pipeline.reproduce.run import reproduce
    from rnnpipe.plugins import full_registry

    if names and everything:
        raise click.UsageError("give names or --all, not both.")
    if not names and not everything:
        _list(as_json)
        return
    experiments = [load_experiment(name) for name in names or experiment_names()]
    if full is not None and [experiment.takes_texts for experiment in experiments].count(True) != 1:
        raise click.UsageError("--full is for one experiment on text or pairs: next-word, or en-ja.")
    if everything:
        experiments = [each for each in experiments if full is not None or not each.needs_texts]
    report_quarantined(full_registry())
    results = []
    with stop_on_signals() as stop:
        for experiment in experiments:
            try:
                result = reproduce(
                    experiment,
                    output / experiment.name,
                    seeds=seeds,
                    improved=improved,
                    texts=str(full) if full is not None and experiment.takes_texts else None,
                    change=lambda config: complete(apply_settings(config, settings)) if settings else config,
                    callbacks=[stop],
                    should_stop=stop.asked,
                    report=say,
                )
            except BaseException as error:
                stop.set_exit_code(error)
                raise
            results.append(result)
            _draw(result, output / experiment.name)
            if not (as_json or markdown):
                _print(result)
    if as_json:
        print_json(
            [
                {**each.to_json(), "predictions": _predictions(each), "translations": _translations(each)}
                for each in results
            ]
        )
    elif markdown:
        _print_markdown(results)
    else:
        hint("eval", results[0].variants[0].seeds[0].folder)


def _list(as_json: bool) -> None:
    from rnnpipe.pipeline.reproduce.experiment import experiment_names, load_experiment

    found = [load_experiment(name) for name in experiment_names()]
    if as_json:
        print_json([{"experiment": each.name, "task": each.task, "published": each.published} for each in found])
        return
    print_table([(each.name, each.task) for each in found])
    hint("reproduce", found[0].name, "--improved")


def _print(result: Result) -> None:
    from rnnpipe.pipeline.reproduce.run import medians

    experiment = result.experiment
    click.echo(f"\n{experiment.name}: {experiment.task}\npublished: {experiment.published}")
    for found in result.variants:
        variant, beside = found.variant, medians(found)
        seeds = f"{len(found.seeds)} seeds, " if len(found.seeds) > 1 else ""
        click.echo(
            f"\n  {variant.name}: {variant.settings}\n"
            f"  {found.seeds[0].parameters:,} parameters; {seeds}{beside.pop('seconds'):.1f} s a training"
        )
        rows = [("", "published", "measured", "to be", "")]
        print_table([*rows, *((f"    {row.label}", *_cells(found, row)) for row in variant.rows)])
        for metric, signature in _signatures(found).items():
            click.echo(f"    {metric}: {signature}")
        if beside:
            click.echo(f"    {_beside(beside)}")
    for line in _predictions(result):
        click.echo(f'\n  {line["variant"]}, behind "{line["text"]}":')
        if line["unknown"]:
            click.echo(f"    unknown to it: {', '.join(line['unknown'])}")
        print_table([(f"    {each['probability']:.4f}", each["token"]) for each in line["next"]])
    if experiment.translate is not None:
        sentence = experiment.translate
        click.echo(f"\n  {sentence.text}")
        lines = [("reference", sentence.reference), ("as published", sentence.published)]
        lines += [(line["variant"], line["translation"]) for line in _translations(result)]
        print_table([(f"    {name}", text) for name, text in lines])
    if experiment.notes:
        click.echo(f"\n  {experiment.notes.strip()}")


def _cells(found: VariantResult, row: Row) -> tuple[str, str, str, str]:
    verdict = {None: "", True: "met", False: "missed"}[found.met(row)]
    return row.published or "", _measured(found, row), row.target.text if row.target else "", verdict


def _measured(found: VariantResult, row: Row) -> str:
    """Return the median, and of several seeds the range."""
    values = found.values(row)
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.5g}"  # as many digits as the published figures have


def _beside(beside: dict[str, float]) -> str:
    overlap = beside.pop("overlap")
    losses = ", ".join(f"{name} {_number(value)}" for name, value in beside.items())
    return f"{overlap:.0%} of what it is tested on stands in the training part; {losses}"


def _signatures(found: VariantResult) -> dict[str, str]:
    """Return sacrebleu's signature of each metric: it is that of every search and seed."""
    return {score.metric: score.signature for each in found.seeds[0].translated for score in each.scores}


def _predictions(result: Result) -> list[dict[str, Any]]:
    """Return the most likely words behind the experiment's text, by the first seed of every variant."""
    from rnnpipe.generation.read import predict
    from rnnpipe.pipeline.runs import open_run

    text = result.experiment.predict
    if text is None:
        return []
    lines = []
    for found in result.variants:
        (told,) = predict(open_run(found.seeds[0].folder).reader(), [text], 10)
        nexts = [{"token": token, "probability": share} for token, share in told.likely]
        lines.append({"variant": found.variant.name, "text": text, "unknown": list(told.unknown), "next": nexts})
    return lines


def _translations(result: Result) -> list[dict[str, str]]:
    """Return the greedy translation of the experiment's text by the first seed of every variant, with the others."""
    from rnnpipe.generation.translate import Search
    from rnnpipe.pipeline.runs import open_pair_run

    sentence = result.experiment.translate
    if sentence is None:
        return []
    lines = []
    for found in result.variants:
        translator = open_pair_run(found.seeds[0].folder).translator()
        best = next(translator.translate([sentence.text], Search(width=1))).candidates[0].text
        lines.append({"variant": found.variant.name, "translation": best, **asdict(sentence)})
    return lines


def _print_markdown(results: list[Result]) -> None:
    click.echo("| experiment | settings | what | published | measured | to be | |")
    click.echo("|---|---|---|---|---|---|---|")
    for result in results:
        for found in result.variants:
            head = (result.experiment.name, f"{found.variant.name}: {found.variant.settings}")
            for row in found.variant.rows:
                click.echo(f"| {' | '.join((*head, row.label, *_cells(found, row)))} |")
                head = ("", "")


# --- figures ---


def _draw(result: Result, folder: Path) -> None:
    """Draw the loss curves of each variant's first seed, and the experiment's own figures."""
    from rnnpipe.errors import UsageError
    from rnnpipe.plots import draw_png
    from rnnpipe.training.metrics import read_metrics

    try:
        for found in result.variants:
            name = f"{result.experiment.name}, {found.variant.name}"
            draw_png(read_metrics(found.seeds[0].folder), folder / f"{found.variant.name}-loss.png", title=name)
            if "wave" in result.experiment.figures:
                _draw_wave(found, folder / f"{found.variant.name}-wave.png", name)
        if "surface" in result.experiment.figures:
            _draw_surface(result, folder / "surface.png")
    except UsageError as error:  # without matplotlib the numbers are worth as much
        say(f"no figures: {error}")
        return
    say(f"figures: {folder}/*.png")


def _draw_wave(found: VariantResult, path: Path, title: str) -> None:
    from rnnpipe.cli.forecast import draw_forecast
    from rnnpipe.pipeline.forecast import forecast_series
    from rnnpipe.pipeline.runs import open_sequence_run

    run = open_sequence_run(found.seeds[0].folder)
    draw_forecast(forecast_series(run, 200, source="new", prefix_length=3), path, title)


def _draw_surface(result: Result, path: Path) -> None:
    from rnnpipe.pipeline.reproduce.surface import cost_surface
    from rnnpipe.plots import draw_surface

    runs = {found.variant.settings.partition(",")[0]: found.seeds[0].folder for found in result.variants}
    part = result.variants[0].variant.part or "train"
    found = cost_surface(runs, part)
    draw_surface(found.x, found.y, found.cost, found.paths, path, title=result.experiment.name, names=found.names)
