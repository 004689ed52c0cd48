"""The stage `train`: a token folder and a configuration to a trained run."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rnnpipe
from rnnpipe.config import Config, dump_config, load_config
from rnnpipe.data.tokens import Ids, TokenFolder
from rnnpipe.durable import remove_directory, sha256_file, write_bytes, write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.build import build_model, build_optimizer, resolve_numerics, with_numerics
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.folder import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    DICTIONARY,
    EVALUATION,
    RECORD,
    RUN_FORMAT,
    RUN_VERSION,
)
from rnnpipe.plugins import full_registry
from rnnpipe.runtime import Numerics, seed_everything
from rnnpipe.text.vocabulary import Vocabulary
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.checkpoints import (
    Checkpoint,
    checkpoint_path,
    list_steps,
    load_checkpoint,
    newest_checkpoint,
)
from rnnpipe.training.trainers import Task, Trainer


@dataclass(frozen=True)
class Trained:
    """Where training ended, and the configuration with its resolved numerics."""

    state: TrainState
    config: Config


def train(
    config: Config,
    tokens: TokenFolder,
    folder: Path,
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    report: Report = no_report,
    resume: bool = False,
    resume_step: int | None = None,
) -> Trained:
    """Train the configured model on a token folder; write configuration, dictionary, metrics and checkpoints.

    Whatever an earlier training left in `folder` is removed first. With `resume`, training goes on from the newest
    checkpoint there, or from that of `resume_step`, and then newer ones are removed; in either case under the numerics
    that it was recorded with.
    """
    checkpoint = _checkpoint_to_resume(folder / CHECKPOINTS, resume_step, report) if resume else None
    if checkpoint is not None:
        config = replace(config, numerics=load_config(folder / CONFIG).numerics)
    registry = full_registry()
    trainer: Trainer = registry.bind("trainer", config.training.trainer.name, config.training.trainer.options, given=3)
    vocabulary = tokens.vocabulary()
    train_ids, valid_ids = split_tokens(config, tokens, report)
    seed_everything(config.runtime.seed)
    model = build_model(config, vocabulary.size)
    numerics, refusals = resolve_numerics(config, model)
    model.recurrent.backend = numerics.backend
    parameters = sum(parameter.numel() for parameter in model.parameters())
    why = "".join(f"; {name} refuses: {reason}" for name, reason in refusals.items())
    report(
        f"model: {_network(config)}, {parameters:,} parameters; "
        f"{numerics.device}, {numerics.precision}, {numerics.threads} threads, backend {numerics.backend}{why}"
    )
    record = {
        "dictionary": vocabulary.digest,
        "texts": made_from(tokens),
        "rnnpipe": rnnpipe.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if checkpoint is not None:
        _check_resumable(checkpoint, record, numerics, config.numerics, report)
        _go_back(folder, checkpoint)
    else:
        _clear(folder)
    config = with_numerics(config, numerics)
    write_bytes(folder / DICTIONARY, vocabulary.to_bytes())
    write_bytes(folder / CONFIG, dump_config(config))
    built = [registry.build("callback", named.name, named.options, folder) for named in config.training.callbacks]
    task = Task(
        model=model,
        train=train_ids,
        valid=valid_ids,
        config=config.training,
        make_optimizer=partial(build_optimizer, config.training.optimizer),
        device=torch.device(numerics.device),
        precision=numerics.precision,
        seed=config.runtime.seed,
        folder=folder,
        record=record,
        resume=checkpoint,
    )
    state = trainer(task, [*built, *callbacks], should_stop)
    write_bytes(folder / CARD, _model_card(config, vocabulary, state, parameters).encode())
    write_record(
        folder / RECORD,
        {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "config": sha256_file(folder / CONFIG),
            "made_from": made_from(tokens),
            "steps": state.step,
            "skipped_steps": state.skipped_steps,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "loss_nats": state.loss_nats,
            "best_valid_loss_nats": state.best_loss_nats,
            "best_step": state.best_step,
            "parameters": parameters,
        },
    )
    return Trained(state, config)


def made_from(tokens: TokenFolder) -> dict[str, Any]:
    """Return what tells whether tokens are those that a run was trained on: digests of dictionary and parts."""
    parts = {part: record["sha256"] for part, record in tokens.meta["parts"].items()}
    return {"dictionary": tokens.meta["dictionary"], **parts}


def split_tokens(config: Config, tokens: TokenFolder, report: Report = no_report) -> tuple[Ids, Ids | None]:
    """Return the ids to train on and those to validate on, or None if there are none.

    A token folder that was not divided is divided here, contiguously, 9:1; its dictionary has then seen the
    validation text, which is reported.
    """
    window = config.training.window or config.training.bptt
    if "train" in tokens.parts:
        train_ids: Ids = tokens.part("train").tokens
        valid_ids: Ids | None = tokens.part("valid").tokens if "valid" in tokens.parts else None
        if valid_ids is None:
            report("warning: there is no validation text (parts end at line ends); the last weights are the best.")
    else:
        whole = tokens.part("all").tokens
        cut = len(whole) * 9 // 10
        train_ids, valid_ids = whole[:cut], whole[cut:]
        report(
            f"warning: {tokens.path} is not divided; its last tenth is for validation, and the dictionary has seen it."
        )
    if len(train_ids) <= window:
        key = "training.window" if config.training.window else "training.bptt"
        raise InputError(
            f"{tokens.path}: the training text has {len(train_ids)} tokens, too few for a window of {window} and one "
            f"to predict. Give more text or a smaller window with --set {key}=N."
        )
    if valid_ids is not None and len(valid_ids) < 3:
        report("warning: there is no validation text to speak of; the last weights will count as the best.")
        valid_ids = None
    return train_ids, valid_ids


def warn_about_dictionary(vocabulary: Vocabulary, train_digest: str, report: Report) -> None:
    """Report if a given dictionary has counted more than the training text."""
    others = [item["name"] for item in vocabulary.counted if item["sha256"] != train_digest]
    if others:
        report(
            f"warning: the dictionary counted {', '.join(others)}, which is not just this training text; if that "
            "includes validation or test text, their unknown words are fewer than they should be."
        )


def _checkpoint_to_resume(folder: Path, step: int | None, report: Report) -> Checkpoint | None:
    return newest_checkpoint(folder, report) if step is None else load_checkpoint(checkpoint_path(folder, step))


def _check_resumable(
    checkpoint: Checkpoint, record: dict[str, Any], numerics: Numerics, recorded: dict[str, Any], report: Report
) -> None:
    """Raise InputError if a checkpoint belongs to another text or dictionary; report what may change the bits."""
    state = checkpoint.state
    if state.get("dictionary") != record["dictionary"]:
        raise InputError(f"{checkpoint.path}: was trained with another dictionary; the text or its rules have changed.")
    if state.get("texts") != record["texts"]:
        raise InputError(f"{checkpoint.path}: was trained on other text than the tokens hold now; put that text back.")
    then = {**recorded, **{key: state.get(key) for key in ("rnnpipe", "numpy", "python")}}
    for key, now in {**record, **numerics.to_table()}.items():
        if key in then and then[key] != now:
            report(f"warning: {key} was {then[key]} and is {now} now; the same bits are not promised.")
    report(f"resuming at step {state['step']} from {checkpoint.path}")


def _go_back(folder: Path, checkpoint: Checkpoint) -> None:
    """Remove what is newer than the checkpoint that training goes on from."""
    (folder / RECORD).unlink(missing_ok=True)
    for step in list_steps(folder / CHECKPOINTS):
        if step > checkpoint.state["step"]:
            remove_directory(checkpoint_path(folder / CHECKPOINTS, step))


def _clear(folder: Path) -> None:
    """Remove an earlier training's record first, then what it recorded."""
    for name in (RECORD, EVALUATION, CARD):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, "tensorboard"):
        if (folder / name).is_dir():
            remove_directory(folder / name)


def _network(config: Config) -> str:
    return f"{config.model.cell.name} {config.model.num_layers} x {config.model.hidden_size}"


def _model_card(config: Config, vocabulary: Vocabulary, state: TrainState, parameters: int) -> str:
    best = (
        "none" if state.best_loss_nats is None else f"{state.best_loss_nats:.4f} nats a token at step {state.best_step}"
    )
    counted = ", ".join(f"{item['name']} ({item['bytes']} bytes)" for item in vocabulary.counted)
    return f"""# A recurrent language model

Trained by rnnpipe {rnnpipe.__version__}; `config.toml` beside this file repeats the training.

| | |
|---|---|
| network | {_network(config)}, {parameters:,} parameters |
| text | {counted} |
| rules | `{json.dumps(vocabulary.rules.to_json())}` |
| vocabulary | {vocabulary.size} ids, dictionary {vocabulary.digest[:16]} |
| training | {state.step} steps, {state.tokens:,} tokens, {state.seconds:.1f} s |
| last training loss | {state.loss_nats:.4f} nats a token |
| best validation loss | {best}, in windows reset every {config.training.evaluation_window} tokens |
"""
