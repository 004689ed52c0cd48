"""Run folders: what lies in one, and how a trained run is opened again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rnnpipe import durable
from rnnpipe.config import Config, apply_settings, load_config
from rnnpipe.data.tokens import TokenFolder, check_dictionary, load_tokens
from rnnpipe.errors import InputError
from rnnpipe.generation.generate import Reader
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.pipeline.build import build_model, resolve_numerics
from rnnpipe.pipeline.common import Report, load_rules, no_report
from rnnpipe.pipeline.folder import (
    CHECKPOINTS,
    CONFIG,
    DICTIONARY,
    RECORD,
    RUN_FORMAT,
    RUN_VERSION,
    TOKENS,
    check_is_run,
)
from rnnpipe.runtime import Numerics
from rnnpipe.text.vocabulary import Vocabulary, load_vocabulary
from rnnpipe.training.checkpoints import Checkpoint, pick_checkpoint


@dataclass(frozen=True)
class Run:
    """A trained run, opened for reading: its configuration, dictionary, model with the weights of a checkpoint."""

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
        return Reader(self.model, self.vocabulary, loaded, device, self.numerics.precision)


def open_run(folder: Path, *, device: str = "auto", which: str = "best", report: Report = no_report) -> Run:
    """Open a trained run with its best or last weights; raise InputError if what it needs is missing or damaged.

    A damaged checkpoint is reported, and the newest whole one used.
    """
    check_is_run(folder)
    config = load_config(folder / CONFIG)
    if device != "auto":
        config = replace(apply_settings(config, [f"runtime.device={device}"]), numerics={})
    vocabulary = load_vocabulary(folder / DICTIONARY)
    checkpoint = pick_checkpoint(folder / CHECKPOINTS, which, report)
    expected = checkpoint.state.get("dictionary")
    if expected != vocabulary.digest:
        raise InputError(
            f"{folder / DICTIONARY}: is the dictionary {vocabulary.digest[:16]}..., the checkpoint "
            f"{checkpoint.path.name} was trained with {str(expected)[:16]}...; put the run's own one back."
        )
    model = build_model(config, vocabulary.size)
    try:
        model.load_state_dict(checkpoint.weights())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{checkpoint.path}: its weights do not fit {folder / CONFIG}: {reason}") from None
    numerics, _ = resolve_numerics(config, model)
    return Run(folder, config, vocabulary, model, numerics, checkpoint)


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
