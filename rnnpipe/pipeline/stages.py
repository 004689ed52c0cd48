"""All stages in order, each skipped if what it would write is there and up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnpipe.config import Config, dump_config, load_config
from rnnpipe.data.tokens import TokenFolder, load_tokens
from rnnpipe.durable import clear_leftovers, lock_directory, write_bytes, write_json
from rnnpipe.errors import InputError, Interrupted, UsageError, unknown_name
from rnnpipe.pipeline.clean import clean_dataset, load_text_dataset
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.pipeline.early import check_texts
from rnnpipe.pipeline.encode import encode
from rnnpipe.pipeline.folder import (
    CHECKPOINTS,
    CONFIG,
    CORPUS,
    DICTIONARY,
    EVALUATION,
    RECORD,
    TOKENS,
    check_may_replace,
    check_may_run,
    is_trained,
    same_settings,
)
from rnnpipe.pipeline.kind import task_kind
from rnnpipe.text.corpus import CorpusFolder, load_corpus
from rnnpipe.text.vocabulary import load_vocabulary

if TYPE_CHECKING:
    from rnnpipe.pipeline.evaluate import Evaluation
    from rnnpipe.pipeline.evaluate_pairs import PairEvaluation
    from rnnpipe.pipeline.evaluate_sequences import SequenceEvaluation
    from rnnpipe.pipeline.material import Material
    from rnnpipe.pipeline.train import Trained
    from rnnpipe.training.callbacks import Callback

STAGES = ("clean", "build-dict", "encode", "train", "eval")


@dataclass(frozen=True)
class Plan:
    """Which stages to run: from `first` (run in any case, with all behind it) to `last`."""

    first: str | None = None
    last: str = "eval"

    def __post_init__(self) -> None:
        for stage in (self.first, self.last):
            if stage is not None and stage not in STAGES:
                raise unknown_name("stage", stage, STAGES)
        if self.first and STAGES.index(self.first) > STAGES.index(self.last):
            raise UsageError(f"--from {self.first} comes after --to {self.last}.")

    def reaches(self, stage: str) -> bool:
        """Say whether the stage is at or before the last one."""
        return STAGES.index(stage) <= STAGES.index(self.last)

    def forced(self, stage: str) -> bool:
        """Say whether the stage is to run although it is up to date."""
        return self.first is not None and STAGES.index(stage) >= STAGES.index(self.first)


@dataclass(frozen=True)
class Outcome:
    """What came of the stages that ran or were up to date."""

    trained: Trained | None = None
    evaluation: Evaluation | SequenceEvaluation | PairEvaluation | None = None
    up_to_date: bool = False


def run_stages(
    config: Config,
    folder: Path,
    plan: Plan = Plan(),
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    report: Report = no_report,
    overwrite: bool = False,
    resume: bool = False,
    resume_step: int | None = None,
) -> Outcome:
    """Run the stages of a resolved configuration into the run folder `folder`; `report` hears what each one did.

    With `resume`, a training that was interrupted there goes on from its newest checkpoint, or from that of
    `resume_step`. The folder is locked meanwhile; InputError if another process writes there. Without `overwrite`
    nothing is replaced that a trained run rests on.
    """
    with _writing(config, folder, report, overwrite=overwrite, resume=resume):
        if resume_step is not None and not overwrite:
            _check_nothing_newer(folder, resume_step)
        kind = task_kind(config)
        if kind == "pairs":
            prepared = _prepare_pairs(config, folder, plan, report)
        elif kind == "sequences":
            prepared = _prepare_sequences(config, folder, plan, report)
        else:
            prepared = _prepare_text(config, folder, plan, report, overwrite=overwrite)
        if prepared is None:
            return Outcome()
        from rnnpipe.pipeline.runs import read_record
        from rnnpipe.pipeline.train import train

        outcome = Outcome()
        record = read_record(folder)
        finished = (
            record is not None
            and is_trained(folder)
            and record.get("made_from") == prepared.made_from
            and same_settings(config, load_config(folder / CONFIG))
        )
        if finished and not plan.forced("train") and resume_step is None:
            report(f"train: up to date ({folder})")
            outcome = replace(outcome, up_to_date=True)
        else:
            if record is not None and not overwrite:
                check_may_replace(folder, folder / CHECKPOINTS)
            trained = train(
                config,
                prepared.material(),
                folder,
                callbacks=callbacks,
                should_stop=should_stop,
                report=report,
                resume=resume,
                resume_step=resume_step,
            )
            outcome = replace(outcome, trained=trained)
            if should_stop():
                raise Interrupted(f"training had ended and is saved in {folder}. Go on with `rnnpipe eval {folder}`.")
        if plan.reaches("eval") and prepared.evaluate is not None:
            outcome = replace(outcome, evaluation=prepared.evaluate())
            assert outcome.evaluation is not None
            write_json(folder / EVALUATION, outcome.evaluation.to_json())
        return outcome


@dataclass(frozen=True)
class _Prepared:
    """What training is ready to begin with: its digests, itself when it is needed, and how its run is evaluated."""

    made_from: Mapping[str, Any]
    material: Callable[[], Material]
    evaluate: Callable[[], Evaluation | SequenceEvaluation | PairEvaluation] | None


def _prepare_text(config: Config, folder: Path, plan: Plan, report: Report, *, overwrite: bool) -> _Prepared | None:
    """Run the stages before training; return None if the plan ends before it."""
    if plan.reaches("train"):
        check_texts(config)  # before torch is loaded
        from rnnpipe.pipeline.build import check_names

        check_names(config)  # before minutes are spent on the text
    tokens = prepare_tokens(config, folder, plan, report, overwrite=overwrite)
    if tokens is None or not plan.reaches("train"):
        return None
    from rnnpipe.pipeline.evaluate import evaluate_run, has_evaluation_text
    from rnnpipe.pipeline.pretrained import vectors_digest
    from rnnpipe.pipeline.runs import open_run
    from rnnpipe.pipeline.text_material import made_from, text_material

    def evaluate() -> Evaluation:
        return evaluate_run(open_run(folder, report=report), window=config.training.evaluation_window)

    return _Prepared(
        {**made_from(tokens), **vectors_digest(config)},
        lambda: text_material(config, tokens, report),
        evaluate if has_evaluation_text(config, tokens) else None,
    )


def _prepare_sequences(config: Config, folder: Path, plan: Plan, report: Report) -> _Prepared | None:
    """Read the dataset, which is all that there is before training; return None if the plan ends before it."""
    if not plan.reaches("train"):
        report(f"nothing to do: dataset '{config.data.dataset.name}' gives sequences, which are not cleaned or encoded")
        return None
    from rnnpipe.pipeline.build import check_names
    from rnnpipe.pipeline.evaluate_sequences import evaluate_sequences, evaluation_part
    from rnnpipe.pipeline.runs import open_sequence_run
    from rnnpipe.pipeline.sequence_material import load_data, sequence_material

    data = load_data(config)
    check_names(config, data.sizes)
    return _Prepared(
        {"sequences": data.digests()},
        lambda: sequence_material(config, data, report),
        (lambda: evaluate_sequences(open_sequence_run(folder, report=report))) if evaluation_part(data) else None,
    )


def _prepare_pairs(config: Config, folder: Path, plan: Plan, report: Report) -> _Prepared | None:
    """Read and encode the pairs, in memory; return None if the plan ends before training."""
    if not plan.reaches("train"):
        report(f"nothing to do: the pairs of dataset '{config.data.dataset.name}' are encoded in memory by `train`")
        return None
    from rnnpipe.pipeline.build import check_pair_names
    from rnnpipe.pipeline.evaluate_pairs import evaluate_pairs, evaluation_part
    from rnnpipe.pipeline.pair_material import load_pairs, pair_material
    from rnnpipe.pipeline.runs import open_pair_run

    data = load_pairs(config)
    check_pair_names(config, data.sizes, data.source.ids)
    material = pair_material(config, data, report)
    part = evaluation_part(data)
    return _Prepared(
        material.made_from,
        lambda: material,
        (lambda: evaluate_pairs(open_pair_run(folder, report=report), part)) if part else None,
    )


@contextmanager
def _writing(config: Config, folder: Path, report: Report, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """Hold the run folder, made if it is not there and cleared of what killed writers left, for the length of a block.

    Raises InputError if running the configuration there would destroy something, or if another process writes there.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with lock_directory(folder) as locked:
            check_may_run(config, folder, overwrite=overwrite and not resume, resume=resume)
            if locked:
                clear_leftovers(folder, locked=True)
                clear_leftovers(folder / CHECKPOINTS, locked=True)
            else:
                report(f"warning: {folder} cannot be locked on this file system; see that nothing else writes there")
            yield
    finally:
        for path in absent:  # leave no empty folder behind
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _check_nothing_newer(folder: Path, step: int) -> None:
    """Raise InputError if going on from a step would remove a later checkpoint or the record of a finished run."""
    from rnnpipe.training.checkpoints import list_steps

    newest = list_steps(folder / CHECKPOINTS)[-1:]
    if newest > [step] or (folder / RECORD).is_file():
        what = f"the newer step-{newest[0]}" if newest > [step] else f"the finished run in {folder}"
        raise InputError(
            f"{folder / CHECKPOINTS / f'step-{step}'}: going on from here would replace {what}. Pass --overwrite to do "
            f"so, or go on from the newest one with `rnnpipe train --resume {folder}`."
        )


def prepare_tokens(
    config: Config, folder: Path, plan: Plan, report: Report, *, overwrite: bool = False
) -> TokenFolder | None:
    """Run the stages before training; return the token folder, or None if the plan ends before it.

    Without `overwrite`, InputError is raised before anything is replaced that a trained run in `folder` rests on.
    """

    def guard(path: Path) -> Callable[[], None]:
        return (lambda: None) if overwrite else partial(check_may_replace, folder, path)

    text = config.text
    assert text.tokenizer is not None and text.unknown_threshold is not None, "the configuration is resolved"
    if config.data.tokens is not None:
        tokens = load_tokens(Path(config.data.tokens))
        report(f"tokens: {_describe(tokens)}")
        return tokens
    dictionary = load_vocabulary(Path(config.data.dictionary)) if config.data.dictionary else None
    if config.data.corpus is not None:
        corpus = load_corpus(Path(config.data.corpus))
        report(f"clean: not needed, {corpus.path} was cleaned by {corpus.cleaner.name}")
    else:
        corpus = _clean(config, folder, plan, report, guard(folder / CORPUS))
    if "train" not in corpus.parts:
        raise InputError(f"{corpus.path}: is not divided into parts; clean the text again with --split 8:1:1.")
    if not (folder / CONFIG).is_file():  # from now on the folder is known as a run
        write_bytes(folder / CONFIG, dump_config(config))
    if not plan.reaches("build-dict"):
        return None
    path = folder / DICTIONARY
    if dictionary is not None:
        from rnnpipe.pipeline.text_material import warn_about_dictionary

        warn_about_dictionary(dictionary, corpus.meta["parts"]["train"]["sha256"], report)
        if not path.is_file() or path.read_bytes() != dictionary.to_bytes():
            guard(path)()
            write_bytes(path, dictionary.to_bytes())
        report(f"dictionary: {config.data.dictionary}, {dictionary.size:,} ids")
    else:
        built = build_dict(
            [str(corpus.path)],
            path,
            tokenizer=text.tokenizer,
            unknown_threshold=text.unknown_threshold,
            max_size=text.max_size,
            workers=text.workers,
            skip=not plan.forced("build-dict"),
            before_writing=guard(path),
        )
        dictionary = built.vocabulary
        report(
            f"build-dict: {'up to date' if built.skipped else 'done'}, {dictionary.size:,} ids for "
            f"{len(dictionary.tokens):,} types, coverage {dictionary.coverage:.2%} of the training text"
        )
    if not plan.reaches("encode"):
        return None
    encoded = encode(
        [str(corpus.path)],
        path,
        folder / TOKENS,
        workers=text.workers,
        skip=not plan.forced("encode"),
        before_writing=guard(folder / TOKENS),
    )
    report(f"encode: {'up to date' if encoded.skipped else 'done'}, {_describe(encoded.folder)}")
    return encoded.folder


def _clean(
    config: Config, folder: Path, plan: Plan, report: Report, before_writing: Callable[[], None]
) -> CorpusFolder:
    """Run the stage `clean` into the run's folder."""
    cleaner = config.text.cleaner
    assert cleaner is not None and config.data.split_at is not None, "the configuration is resolved"
    options = config.data.dataset.options
    cleaned = clean_dataset(
        load_text_dataset(config.data.dataset),
        folder / CORPUS,
        cleaner=cleaner,
        split_at=config.data.split_at,
        errors=options.get("errors", "strict"),
        inputs=options.get("inputs", ()),
        skip=not plan.forced("clean"),
        before_writing=before_writing,
    )
    sizes = ", ".join(f"{part} {record['size']:,} bytes" for part, record in cleaned.parts.items())
    report(f"clean: {'up to date' if cleaned.skipped else 'done'}, {cleaner.name}: {sizes}")
    if cleaned.totals.mended_bytes:
        report(f"warning: {cleaned.totals.mended_bytes:,} bytes were not valid and were mended")
    return load_corpus(folder / CORPUS)


def _describe(tokens: TokenFolder) -> str:
    parts = (f"{part} {record['tokens']:,} tokens" for part, record in tokens.meta["parts"].items())
    return ", ".join(parts)


def plan_lines(config: Config, folder: Path, plan: Plan) -> list[str]:
    """Return, stage by stage, what a run would do, as far as can be told without doing it."""
    there = {
        "clean": folder / CORPUS / "corpus.json",
        "build-dict": folder / DICTIONARY,
        "encode": folder / TOKENS / "meta.json",
        "train": folder / RECORD,
        "eval": folder / EVALUATION,
    }
    lines = []
    kind = task_kind(config)
    for stage in STAGES:
        if kind != "text" and stage in ("clean", "build-dict", "encode"):
            lines.append(f"{stage}: not needed, dataset '{config.data.dataset.name}' gives {kind}")
        elif config.data.tokens is not None and stage in ("clean", "build-dict", "encode"):
            lines.append(f"{stage}: not needed, tokens come from {config.data.tokens}")
        elif not plan.reaches(stage):
            lines.append(f"{stage}: left out")
        elif plan.forced(stage):
            lines.append(f"{stage}: would run")
        elif there[stage].is_file():
            lines.append(f"{stage}: would run unless {there[stage]} is up to date")
        else:
            lines.append(f"{stage}: would run")
    return lines
