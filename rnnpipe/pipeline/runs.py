"""Run folders: how a trained run, of text or of sequences, is opened again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rnnpipe import durable
from rnnpipe.config import Config, apply_settings, load_config
from rnnpipe.data.pairs import PairSizes
from rnnpipe.data.sequences import SequenceData
from rnnpipe.data.tokens import TokenFolder, check_dictionary, load_tokens
from rnnpipe.errors import InputError, UsageError
from rnnpipe.generation.generate import Reader
from rnnpipe.generation.translate import Lexicon, Translator
from rnnpipe.models.base import Model
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.pair_model import PairModel
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.pipeline.build import (
    build_model,
    build_pair_model,
    build_sequence_model,
    resolve_numerics,
    resolve_pair_numerics,
)
from rnnpipe.pipeline.common import Report, load_rules, no_report
from rnnpipe.pipeline.folder import (
    CHECKPOINTS,
    CONFIG,
    DICTIONARY,
    RECORD,
    RUN_FORMAT,
    RUN_VERSION,
    TARGET_DICTIONARY,
    TOKENS,
    check_is_run,
)
from rnnpipe.pipeline.kind import task_kind
from rnnpipe.pipeline.sequence_material import load_data, tolerance
from rnnpipe.runtime import Numerics
from rnnpipe.text.vocabulary import Vocabulary, load_vocabulary
from rnnpipe.training.checkpoints import Checkpoint, pick_checkpoint


@dataclass(frozen=True)
class Run:
    """A trained run of text, opened for reading: its configuration, dictionary, model with a checkpoint's weights."""

    folder: Path
    config: Config
    vocabulary: Vocabulary
    model: LanguageModel
    numerics: Numerics
    checkpoint: Checkpoint

    def reader(self) -> Reader:
        """Return the model with the rules that its text passes through."""
        rules = self.vocabulary.rules
        device = torch.device(self.numerics.device)
        loaded = load_rules(rules.cleaner, rules.tokenizer)
        precision, tile = self.numerics.precision, self.numerics.row_tile
        return Reader(self.model, self.vocabulary, loaded, device, precision, row_tile=tile)


@dataclass(frozen=True)
class SequenceRun:
    """A trained run of sequences, opened for reading: its configuration, data, model with a checkpoint's weights."""

    folder: Path
    config: Config
    data: SequenceData
    model: SequenceModel
    numerics: Numerics
    checkpoint: Checkpoint

    @property
    def tolerance(self) -> float | None:
        """Return below which error a number is a hit, or None where hits are not counted."""
        return tolerance(self.config, self.data)


@dataclass(frozen=True)
class PairRun:
    """A trained run of pairs, opened for reading: its configuration, dictionaries, model with a checkpoint's weights.

    The pairs themselves are not read.
    """

    folder: Path
    config: Config
    source: Vocabulary
    target: Vocabulary
    model: PairModel
    numerics: Numerics
    checkpoint: Checkpoint

    def translator(self) -> Translator:
        """Return a model of these weights with the rules and dictionaries of both sides; the run keeps its own."""
        source, target = (
            Lexicon(each, load_rules(each.rules.cleaner, each.rules.tokenizer)) for each in (self.source, self.target)
        )
        model = build_pair_model(self.config, _pair_sizes(self.source, self.target), self.source.ids)
        model.load_state_dict(self.model.state_dict())
        for stack in model.recurrents():
            stack.backend = self.numerics.backend
        return Translator(model, source, target, torch.device(self.numerics.device))


def open_run(folder: Path, *, device: str = "auto", which: str = "best", report: Report = no_report) -> Run:
    """Open a trained run of text; raise InputError if it is one of sequences, or something is missing or damaged.

    It has its best or last weights. A damaged checkpoint is reported, and the newest whole one used.
    """
    run = open_any_run(folder, device=device, which=which, report=report)
    if not isinstance(run, Run):
        raise wrong_kind(run, "text")
    return run


def open_sequence_run(
    folder: Path, *, device: str = "auto", which: str = "best", report: Report = no_report
) -> SequenceRun:
    """Open a trained run of sequences, as `open_run` opens one of text."""
    run = open_any_run(folder, device=device, which=which, report=report)
    if not isinstance(run, SequenceRun):
        raise wrong_kind(run, "sequences of numbers")
    return run


def open_pair_run(folder: Path, *, device: str = "auto", which: str = "best", report: Report = no_report) -> PairRun:
    """Open a trained run of pairs, as `open_run` opens one of text."""
    run = open_any_run(folder, device=device, which=which, report=report)
    if not isinstance(run, PairRun):
        raise wrong_kind(run, "pairs")
    return run


def wrong_kind(run: Run | SequenceRun | PairRun, wanted: str) -> UsageError:
    """Return the error for a run of another kind than was asked for, which says what to do with it."""
    folder = run.folder
    if isinstance(run, SequenceRun):
        kind = "sequences of numbers"
        use = f"`rnnpipe eval {folder} --show 5` shows its predictions, `rnnpipe forecast {folder}` continues a series."
    elif isinstance(run, PairRun):
        kind, use = "pairs", f"`rnnpipe translate {folder} TEXT` translates."
    else:
        kind = "text"
        use = (
            f"`rnnpipe generate {folder}` continues a text, `rnnpipe predict {folder} TEXT` shows the likely next "
            "tokens."
        )
    return UsageError(f"{folder}: is a run of {kind}, not of {wanted}. {use}")


def open_any_run(
    folder: Path, *, device: str = "auto", which: str = "best", report: Report = no_report
) -> Run | SequenceRun | PairRun:
    """Open a trained run of any kind, as `open_run` does."""
    check_is_run(folder)
    config = load_config(folder / CONFIG)
    if device != "auto":
        config = replace(apply_settings(config, [f"runtime.device={device}"]), numerics={})
    kind = task_kind(config)
    checkpoint = pick_checkpoint(folder / CHECKPOINTS, which, report)
    if kind == "sequences":
        return _open_sequence_run(folder, config, checkpoint)
    if kind == "pairs":
        return _open_pair_run(folder, config, checkpoint)
    vocabulary = _dictionary(folder / DICTIONARY, checkpoint, "dictionary")
    model = build_model(config, vocabulary.size)
    _load_weights(folder, model, checkpoint)
    numerics, _ = resolve_numerics(config, model)
    return Run(folder, config, vocabulary, model, numerics, checkpoint)


def _open_sequence_run(folder: Path, config: Config, checkpoint: Checkpoint) -> SequenceRun:
    data = load_data(config)
    if checkpoint.state.get("sequences") != data.digests():
        raise InputError(
            f"{folder}: was trained on other sequences than dataset '{data.name}' gives now; put that data back, or "
            "train again."
        )
    model = build_sequence_model(config, data.sizes)
    _load_weights(folder, model, checkpoint)
    numerics, _ = resolve_numerics(config, model, data.sizes)
    return SequenceRun(folder, config, data, model, numerics, checkpoint)


def _open_pair_run(folder: Path, config: Config, checkpoint: Checkpoint) -> PairRun:
    source = _dictionary(folder / DICTIONARY, checkpoint, "dictionary")
    target = _dictionary(folder / TARGET_DICTIONARY, checkpoint, "target_dictionary")
    model = build_pair_model(config, _pair_sizes(source, target), source.ids)
    _load_weights(folder, model, checkpoint)
    numerics, _ = resolve_pair_numerics(config, model, 1)
    return PairRun(folder, config, source, target, model, numerics, checkpoint)


def _pair_sizes(source: Vocabulary, target: Vocabulary) -> PairSizes:
    return PairSizes(source.size, target.size, source == target)


def _dictionary(path: Path, checkpoint: Checkpoint, key: str) -> Vocabulary:
    """Return a run's dictionary; raise InputError if it is not that of which a checkpoint has the digest at `key`."""
    vocabulary = load_vocabulary(path)
    expected = checkpoint.state.get(key)
    if expected != vocabulary.digest:
        raise InputError(
            f"{path}: is the dictionary {vocabulary.digest[:16]}..., the checkpoint {checkpoint.path.name} was trained "
            f"with {str(expected)[:16]}...; put the run's own one back."
        )
    return vocabulary


def _load_weights(folder: Path, model: Model, checkpoint: Checkpoint) -> None:
    try:
        model.load_state_dict(checkpoint.weights())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{checkpoint.path}: its weights do not fit {folder / CONFIG}: {reason}") from None


def run_tokens(folder: Path, config: Config) -> TokenFolder:
    """Return the token folder that a run was trained on."""
    return load_tokens(Path(config.data.tokens) if config.data.tokens else folder / TOKENS)


def check_tokens(tokens: TokenFolder, run: Run) -> None:
    """Raise InputError unless the tokens were made with the run's dictionary."""
    check_dictionary(tokens, run.vocabulary, run.folder / DICTIONARY)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what a finished run recorded about itself, or None if it has not finished."""
    path = folder / RECORD
    return durable.read_record(path, RUN_FORMAT, RUN_VERSION) if path.is_file() else None
