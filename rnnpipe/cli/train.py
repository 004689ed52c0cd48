"""`rnnpipe train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, hint, json_option, named, print_json, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.config import Config
    from rnnpipe.models.base import Model
    from rnnpipe.pipeline.stages import Outcome, Plan

DEMO = "demo"


@click.command("train")
@click.argument("inputs", nargs=-1, metavar="TEXT...|DIR|CONFIG.toml")
@click.option("--demo", is_flag=True, help="Train a minute on the reference text that ships inside every Python.")
@click.option("--dataset", metavar="NAME", help="Train on this dataset, of texts or sequences. NAME:key=value,... too.")
@click.option("-o", "--output", type=PATH, metavar="RUN", help="Folder of the run. [runs/NAME-LEVEL-CELL]")
@click.option("--level", type=click.Choice(["word", "char", "subword"]), help="What a token is. [word]")
@click.option("--cell", metavar="NAME", help="The recurrent cell. [lstm]")
@click.option("--optimizer", metavar="NAME", help="The optimizer. [adamw]")
@click.option("--dict", "dictionary", type=PATH, metavar="DICT", help="Use this dictionary instead of building one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="[auto]")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="[auto]")
@click.option("--backend", metavar="NAME", help="Train with this backend or not at all. [auto]")
@click.option("--require-fast", is_flag=True, help="Fail, with the reasons, where only the plain loop would be left.")
@click.option("--capture", type=click.Choice(["auto", "on", "off"]), help="Replay steps as CUDA graphs. [auto]")
@click.option("--seed", type=click.IntRange(min=0), help="[0]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key, as in model.hidden_size=512.")
@click.option(
    "--resume",
    metavar="auto|PATH",
    help="Go on with an interrupted run: PATH, or one of its checkpoints, or the run this command names.",
)
@click.option("--dry-run", is_flag=True, help="Check and print the configuration and the stages; run nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there.")
@json_option
def command(
    inputs: tuple[str, ...],
    demo: bool,
    dataset: str | None,
    output: Path | None,
    level: str | None,
    cell: str | None,
    optimizer: str | None,
    dictionary: Path | None,
    device: str | None,
    precision: str | None,
    backend: str | None,
    require_fast: bool,
    capture: str | None,
    seed: int | None,
    settings: tuple[str, ...],
    resume: str | None,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a network on texts, on a folder of clean or encode, on a dataset, or by a configuration.

    On texts, cleaning, dictionary and encoding are done first, into the run's folder, and skipped where they are up to
    date. Ctrl-C saves and ends.
    """
    from rnnpipe.config import apply_settings
    from rnnpipe.pipeline.complete import complete
    from rnnpipe.pipeline.kind import check_has_cell
    from rnnpipe.pipeline.stages import Plan

    resume_step = None
    if resume not in (None, "auto"):
        inputs, output, resume_step = _resumed(Path(str(resume)), inputs, output, demo or dataset is not None)
    if demo + (dataset is not None) + bool(inputs) != 1:
        raise click.UsageError(
            "name texts, one folder or one CONFIG.toml to train on, or pass --dataset NAME or --demo."
        )
    config = _base(inputs, dataset)
    flags = {
        "text.level": level,
        "model.cell": cell,
        "training.optimizer": optimizer,
        "data.dictionary": dictionary and str(dictionary.resolve()),
        "runtime.device": device,
        "runtime.precision": precision,
        "runtime.backend": backend,
        "runtime.require_fast": True if require_fast else None,
        "runtime.capture": capture,
        "runtime.seed": seed,
    }
    given = [f"{key}={_toml(value)}" for key, value in flags.items() if value is not None]
    config = complete(apply_settings(config, [*given, *settings]))
    if cell is not None:
        check_has_cell(config)
    folder = output or default_folder(config, inputs, DEMO if demo else config.data.dataset.name)
    execute(config, folder, Plan(), dry_run, overwrite, as_json, resume=resume is not None, resume_step=resume_step)


def _resumed(
    path: Path, inputs: tuple[str, ...], output: Path | None, other: bool
) -> tuple[tuple[str, ...], Path, int | None]:
    """Return the configuration and the folder of the run to go on with, and the step if `path` is a checkpoint."""
    from rnnpipe.pipeline.folder import CHECKPOINTS, CONFIG, check_is_run

    if inputs or output or other:
        raise click.UsageError("--resume PATH says all by itself; leave out texts, --dataset, --demo and -o.")
    place, step = path.absolute(), None
    number = place.name.removeprefix("step-")
    if place.parent.name == CHECKPOINTS and number.isascii() and number.isdigit():
        path, step = place.parent.parent, int(number)
    check_is_run(path)
    return (str(path / CONFIG),), path, step


def _base(inputs: tuple[str, ...], dataset: str | None) -> Config:
    """Return the configuration that the inputs alone, or a dataset, stand for; with neither, that of the demo."""
    from dataclasses import replace
    from importlib.resources import as_file, files

    from rnnpipe.config import Config, DataConfig, load_config
    from rnnpipe.text.rules import Named

    if dataset is not None:
        return Config(data=DataConfig(dataset=named(dataset)))
    if not inputs:
        with as_file(files("rnnpipe.experiments") / f"{DEMO}.toml") as path:
            return load_config(path)
    if len(inputs) > 1 and (odd := next((item for item in inputs if item.endswith(".toml")), None)):
        raise click.UsageError(f"{odd} is a configuration; give it alone, without texts.")
    if len(inputs) == 1 and inputs[0].endswith(".toml"):
        return replace(load_config(existing(inputs[0])), numerics={})
    if len(inputs) == 1 and (Path(inputs[0]) / "meta.json").is_file():
        return Config(data=DataConfig(tokens=str(Path(inputs[0]).resolve())))
    if len(inputs) == 1 and (Path(inputs[0]) / "corpus.json").is_file():
        return Config(data=DataConfig(corpus=str(Path(inputs[0]).resolve())))
    for item in inputs:
        _refuse_lookalike(Path(item))
    # Absolute, so that the run's config.toml repeats the training from any folder.
    absolute = [item if item == "-" else str(Path(item).absolute()) for item in inputs]
    return Config(data=DataConfig(dataset=Named("text-files", {"inputs": absolute})))


def _refuse_lookalike(folder: Path) -> None:
    """Raise InputError for a folder whose *.txt are no texts: a run, or a token folder without its record."""
    from rnnpipe.errors import InputError
    from rnnpipe.pipeline.folder import CONFIG, DICTIONARY

    if (folder / CONFIG).is_file():
        raise InputError(
            f"{folder}: is a run, not a text. `rnnpipe train {folder / CONFIG} -o NEW` repeats its training, "
            f"`rnnpipe train --resume {folder}` goes on with it."
        )
    if (folder / DICTIONARY).is_file() and (folder / "meta.json").is_file():
        raise InputError(f"{folder}: is a token folder; give it alone, without texts.")
    if (folder / DICTIONARY).is_file():
        raise InputError(f"{folder}: looks like a token folder that has lost its meta.json; encode the text again.")


def existing(path: str) -> Path:
    """Return a configuration's path; raise InputError if there is no such file."""
    from rnnpipe.errors import InputError, did_you_mean

    file = Path(path)
    if not file.is_file():
        near = [str(p) for p in file.parent.glob("*.toml")] if file.parent.is_dir() else []
        raise InputError(f"{path}: no such configuration file.{did_you_mean(path, near)}")
    return file


def _toml(value: object) -> str:
    from json import dumps

    return dumps(value)


def default_folder(config: Config, inputs: tuple[str, ...], name: str) -> Path:
    """Return runs/NAME-LEVEL-CELL, the same for the same command, with a number if other settings have taken it.

    NAME is that of the first input, or else `name`; sequences have no level; a model without a cell gives its own name.
    """
    from rnnpipe.errors import InputError
    from rnnpipe.pipeline.folder import check_may_run
    from rnnpipe.pipeline.kind import has_cell

    source = Path(inputs[0]) if inputs else Path(name)
    stem = source.parent.name if source.name == "config.toml" else source.stem
    network = config.model.cell.name if has_cell(config) else config.model.name.name
    base = "-".join(filter(None, (stem.strip("-") or "text", config.text.level, network)))
    number = 1
    while True:
        folder = Path("runs") / (base if number == 1 else f"{base}-{number}")
        try:
            check_may_run(config, folder, resume=True)
        except InputError:
            number += 1
        else:
            return folder


def execute(
    config: Config,
    folder: Path,
    plan: Plan,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    *,
    resume: bool = False,
    resume_step: int | None = None,
) -> None:
    """Run the stages of a configuration and tell a person what came of it."""
    from rnnpipe.plugins import full_registry, text_registry

    if dry_run:
        _dry_run(config, folder, plan, overwrite, as_json)
        return
    report_quarantined(full_registry() if plan.reaches("train") else text_registry())
    from rnnpipe.cli.progress import TrainingProgress, stop_on_signals
    from rnnpipe.pipeline.kind import task_kind
    from rnnpipe.pipeline.stages import run_stages

    say(f"run folder: {folder}")
    with stop_on_signals() as stop:
        progress = TrainingProgress(config.text.level if task_kind(config) == "text" else None)
        try:
            outcome = run_stages(
                config,
                folder,
                plan,
                callbacks=[stop, progress],
                should_stop=stop.asked,
                report=say,
                overwrite=overwrite,
                resume=resume,
                resume_step=resume_step,
            )
        except BaseException as error:
            progress.close()
            stop.set_exit_code(error)
            raise
    _tell(outcome, config, folder, as_json)


def _dry_run(config: Config, folder: Path, plan: Plan, overwrite: bool, as_json: bool) -> None:
    """Check every name and option by building a small network, then print what would happen."""
    from rnnpipe.config import dump_config, to_table
    from rnnpipe.pipeline.build import (
        build_model,
        build_sequence_model,
        check_names,
        check_pair_names,
        describe,
        resolve_numerics,
    )
    from rnnpipe.pipeline.clean import load_text_dataset
    from rnnpipe.pipeline.folder import check_may_run
    from rnnpipe.pipeline.kind import task_kind
    from rnnpipe.pipeline.pair_material import load_pairs, pair_material
    from rnnpipe.pipeline.sequence_material import load_data
    from rnnpipe.pipeline.stages import plan_lines
    from rnnpipe.text.opening import find_paths

    check_may_run(config, folder, overwrite=overwrite, resume=True)
    sizes = None
    kind = task_kind(config)
    if kind == "pairs":
        pairs = load_pairs(config)
        check_pair_names(config, pairs.sizes, pairs.source.ids)
        material = pair_material(config, pairs)
        numerics, refusals = material.resolve(config, material.build(config))
    else:
        if kind == "sequences":
            sizes = load_data(config).sizes
        elif config.data.tokens is None and config.data.corpus is None:
            load_text_dataset(config.data.dataset)
            find_paths(config.data.dataset.options.get("inputs", ()))
        check_names(config, sizes)
        model: Model = build_sequence_model(config, sizes) if sizes else build_model(config, vocab_size=16)
        numerics, refusals = resolve_numerics(config, model, sizes)
    if as_json:
        print_json({"run": str(folder), "stages": plan_lines(config, folder, plan), "config": to_table(config)})
        return
    click.echo(dump_config(config).decode(), nl=False)
    say(f"run folder: {folder}")
    for line in plan_lines(config, folder, plan):
        say(line)
    say(f"device {numerics.device}, precision {numerics.precision}, backend {describe(numerics)}")
    for name, reason in refusals.items():
        say(f"backend {name} refuses: {reason}")


def _tell(outcome: Outcome, config: Config, folder: Path, as_json: bool) -> None:
    from rnnpipe.pipeline.kind import task_kind

    kind = task_kind(config)
    if as_json:
        state = outcome.trained.state if outcome.trained else None
        loss = "loss" if kind == "sequences" else "loss_nats"
        print_json(
            {
                "run": str(folder),
                "up_to_date": outcome.up_to_date,
                "steps": state.step if state else None,
                "seconds": state.seconds if state else None,
                loss: state.loss if state else None,
                f"best_valid_{loss}": state.best_loss if state else None,
                "evaluation": outcome.evaluation.to_json() if outcome.evaluation else None,
            }
        )
        return
    if outcome.trained is None and not outcome.up_to_date:
        return
    if kind != "text":
        (_tell_sequences if kind == "sequences" else _tell_pairs)(outcome, folder)
        return
    from rnnpipe.pipeline.evaluate import Evaluation

    if isinstance(outcome.evaluation, Evaluation):
        from rnnpipe.cli.evaluate import print_evaluation

        print_evaluation(outcome.evaluation)
    click.echo("sample:")
    click.echo(_sample(folder))
    say(f"saved in {folder}")
    hint("generate", folder, "", "-n", "3")


def _tell_sequences(outcome: Outcome, folder: Path) -> None:
    from rnnpipe.pipeline.evaluate_sequences import SequenceEvaluation, show_sequences
    from rnnpipe.pipeline.runs import open_sequence_run

    if isinstance(outcome.evaluation, SequenceEvaluation):
        from rnnpipe.cli.evaluate_sequences import print_sequence_evaluation, print_shown

        print_sequence_evaluation(outcome.evaluation)
        print_shown(show_sequences(open_sequence_run(folder), outcome.evaluation.part, 5))
    say(f"saved in {folder}")
    hint("eval", folder, "--show", "20")


def _tell_pairs(outcome: Outcome, folder: Path) -> None:
    from rnnpipe.pipeline.evaluate_pairs import PairEvaluation

    if isinstance(outcome.evaluation, PairEvaluation):
        from rnnpipe.cli.evaluate_pairs import print_pair_evaluation

        print_pair_evaluation(outcome.evaluation)
    say(f"saved in {folder}")
    hint("translate", folder, "TEXT")


def _sample(folder: Path) -> str:
    """Return a text of the run's own making, from an empty prompt."""
    from rnnpipe.generation.prompts import Prompt
    from rnnpipe.generation.samplers import Temperature
    from rnnpipe.pipeline.runs import open_run

    run = open_run(folder)
    tokens = 400 if run.vocabulary.rules.level == "char" else 80
    prompt = Prompt(id="1", text="", number=0, seed=run.config.runtime.seed)
    return next(run.reader().generate([prompt], [Temperature(0.7)], tokens)).text
