"""Running an experiment's variants, seed by seed, and what came of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rnnpipe.config import Config, config_from_table
from rnnpipe.errors import Interrupted, UsageError
from rnnpipe.options import list_options
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.complete import complete
from rnnpipe.pipeline.evaluate_pairs import Translated
from rnnpipe.pipeline.reproduce.experiment import Experiment, Row, Variant
from rnnpipe.pipeline.reproduce.measures import Trained, take
from rnnpipe.pipeline.stages import run_stages
from rnnpipe.plugins import text_registry
from rnnpipe.text.rules import Named


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave: a number for each row, the run's own figures, and the searches that translated its part."""

    seed: int
    folder: Path
    values: Mapping[str, float]
    seconds: float
    steps: int
    parameters: int
    evaluation: Mapping[str, Any]
    translated: Sequence[Translated] = ()


@dataclass(frozen=True)
class VariantResult:
    """What all seeds of a variant gave."""

    variant: Variant
    seeds: Sequence[SeedResult]

    def values(self, row: Row) -> list[float]:
        """Return a row's number for each seed."""
        return [result.values[row.label] for result in self.seeds]

    def met(self, row: Row) -> bool | None:
        """Say whether the median of a row is as it is to be; None if nothing is said."""
        return None if row.target is None else row.target.met(statistics.median(self.values(row)))

    def to_json(self) -> dict[str, Any]:
        """Return everything by name."""
        rows = [
            {
                "label": row.label,
                "published": row.published,
                "target": None if row.target is None else row.target.text,
                "median": statistics.median(self.values(row)),
                "values": self.values(row),
                "met": self.met(row),
            }
            for row in self.variant.rows
        ]
        seeds = [
            {
                "seed": result.seed,
                "run": str(result.folder),
                "seconds": result.seconds,
                "steps": result.steps,
                "evaluation": result.evaluation,
                "translated": [each.to_json() for each in result.translated],
            }
            for result in self.seeds
        ]
        return {
            "variant": self.variant.name,
            "settings": self.variant.settings,
            "parameters": self.seeds[0].parameters,
            "rows": rows,
            "seeds": seeds,
        }


@dataclass(frozen=True)
class Result:
    """What came of an experiment."""

    experiment: Experiment
    variants: Sequence[VariantResult]

    def to_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return {
            "experiment": self.experiment.name,
            "task": self.experiment.task,
            "published": self.experiment.published,
            "notes": self.experiment.notes,
            "variants": [found.to_json() for found in self.variants],
        }


def reproduce(
    experiment: Experiment,
    folder: Path,
    *,
    seeds: int = 1,
    improved: bool = False,
    texts: str | None = None,
    change: Callable[[Config], Config] = lambda config: config,
    callbacks: Sequence[Any] = (),
    should_stop: Callable[[], bool] = lambda: False,
    report: Report = no_report,
) -> Result:
    """Train an experiment's published variants, and with `improved` ours, and measure their rows.

    Each run is a run folder below `folder`, VARIANT-SEED; one that is there and finished is not trained again. texts: a
    folder of texts that takes the place of an experiment's own text, or of files of pairs. change: made to every
    configuration. Raises UsageError for an experiment that needs such a folder and is given none.
    """
    if texts is None and experiment.needs_texts:
        raise UsageError(f"experiment '{experiment.name}' needs its data, with --full FOLDER.{_one_line(experiment)}")
    found = []
    for variant in experiment.variants:
        if (variant.improved and not improved) or variant.texts == ("built-in" if texts else "given"):
            continue
        results = []
        for seed in range(seeds if variant.seeded else 1):
            config = change(variant_config(experiment, variant, seed, texts))
            place = folder / f"{variant.name}-{seed}"
            report(f"{experiment.name}, {variant.name}, seed {seed}: {place}")
            run_stages(config, place, callbacks=callbacks, should_stop=should_stop, report=report, resume=True)
            results.append(_measure(experiment, variant, seed, place))
            if should_stop():
                raise Interrupted(f"interrupted behind {place}. The same command goes on from there.")
        found.append(VariantResult(variant, results))
    return Result(experiment, found)


def _one_line(experiment: Experiment) -> str:
    """Return the first sentence of an experiment's notes, with a blank in front."""
    return f" {experiment.notes.strip().partition('. ')[0]}." if experiment.notes else ""


def variant_config(experiment: Experiment, variant: Variant, seed: int, texts: str | None = None) -> Config:
    """Return a variant's configuration for a seed: that of training, and of its data where they state none."""
    config = config_from_table(variant.config, f"experiment '{experiment.name}', variant '{variant.name}'")
    named = config.data.dataset
    if texts is not None and "folder" in named.options:
        named = Named(named.name, {**named.options, "folder": str(Path(texts).absolute())})
    elif texts is not None:
        split = named.options.get("split", "8:1:1")
        named = Named("text-files", {"inputs": [str(Path(texts).absolute())], "split": split})
    factory = text_registry().get("dataset", named.name)
    if "seed" not in named.options and "seed" in {option.name for option in list_options(factory)}:
        named = Named(named.name, {**named.options, "seed": seed})
    data, runtime = replace(config.data, dataset=named), replace(config.runtime, seed=seed)
    return complete(replace(config, data=data, runtime=runtime))


def _measure(experiment: Experiment, variant: Variant, seed: int, folder: Path) -> SeedResult:
    trained = Trained(folder, variant.part)
    place = f"experiment '{experiment.name}', variant '{variant.name}'"
    return SeedResult(
        seed=seed,
        folder=folder,
        values={row.label: take(trained, row.measure, f"{place}, row '{row.label}'") for row in variant.rows},
        seconds=float(trained.record["seconds"]),
        steps=int(trained.record["steps"]),
        parameters=int(trained.record["parameters"]),
        evaluation=trained.evaluated.to_json(),
        translated=tuple(trained.translated.values()),
    )


def medians(found: VariantResult) -> dict[str, float]:
    """Return what is said beside the rows: median seconds, overlap, loss on all and on unseen sequences, baselines."""
    columns: dict[str, list[float]] = {"seconds": [result.seconds for result in found.seeds]}
    for result in found.seeds:
        evaluation = result.evaluation
        if "baselines" not in evaluation:  # it is one of text or of pairs
            continue
        columns.setdefault("overlap", []).append(evaluation["overlap"]["share"])
        columns.setdefault("loss", []).append(evaluation["loss"])
        if evaluation["unseen"] is not None:
            columns.setdefault("unseen loss", []).append(evaluation["unseen"]["loss"])
        for name, figures in evaluation["baselines"].items():
            columns.setdefault(f"{name} loss", []).append(figures["loss"])
    return {name: statistics.median(values) for name, values in columns.items()}
