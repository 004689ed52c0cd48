"""The stage `train`: from data and a configuration to a trained run."""

from __future__ import annotations

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
from rnnpipe.durable import remove_directory, sha256_file, write_bytes, write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.build import build_optimizer, describe, resolve_capture, with_numerics
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.folder import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    EVALUATION,
    RECORD,
    RUN_FORMAT,
    RUN_VERSION,
)
from rnnpipe.pipeline.kind import MODELS
from rnnpipe.pipeline.material import Material
from rnnpipe.plugins import full_registry
from rnnpipe.runtime import Numerics, seed_everything
from rnnpipe.training.callbacks import Callback, TrainState
from rnnpipe.training.captured import Capture, CudaGraphs
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
    material: Material,
    folder: Path,
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    report: Report = no_report,
    resume: bool = False,
    resume_step: int | None = None,
) -> Trained:
    """Train the configured model on text or sequences; write configuration, dictionary, metrics and checkpoints.

    Whatever an earlier training left in `folder` is removed first. With `resume`, training goes on from the newest
    checkpoint there, or from that of `resume_step`, and then newer ones are removed; in either case under the numerics
    that it was recorded with.
    """
    checkpoint = _checkpoint_to_resume(folder / CHECKPOINTS, resume_step, report) if resume else None
    if checkpoint is not None:
        config = replace(config, numerics=load_config(folder / CONFIG).numerics)
    registry = full_registry()
    trainer: Trainer = registry.bind("trainer", config.training.trainer.name, config.training.trainer.options, given=3)
    seed_everything(config.runtime.seed)
    model = material.build(config)
    numerics, refusals = material.resolve(config, model)
    varying = material.objective.varying or model.varying
    captured, why_not = resolve_capture(config, numerics.device, varying)
    numerics = replace(numerics, capture=captured)
    if why_not is not None:
        refusals = {**refusals, "capture": why_not}
    for stack in model.recurrents():
        stack.backend = numerics.backend
    parameters = sum(parameter.numel() for parameter in model.parameters())
    why = "".join(f"; {name} refuses: {reason}" for name, reason in refusals.items())
    report(
        f"model: {_network(config)}, {parameters:,} parameters; "
        f"{numerics.device}, {numerics.precision}, {numerics.threads} threads, backend {describe(numerics)}{why}"
    )
    record = {
        **material.record,
        "rnnpipe": rnnpipe.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if checkpoint is not None:
        _check_resumable(checkpoint, material, record, numerics, config.numerics, report)
        _go_back(folder, checkpoint)
    else:
        material.begin(model)
        _clear(folder)
    config = with_numerics(config, numerics)
    for name, data in {**material.files, CONFIG: dump_config(config)}.items():
        write_bytes(folder / name, data)
    built = [registry.build("callback", named.name, named.options, folder) for named in config.training.callbacks]
    task = Task(
        model=model,
        objective=material.objective,
        config=config.training,
        make_optimizer=partial(build_optimizer, config.training.optimizer),
        device=torch.device(numerics.device),
        precision=numerics.precision,
        seed=config.runtime.seed,
        folder=folder,
        record=record,
        capture=Capture(CudaGraphs(), config.runtime.capture == "on", report) if captured == "on" else None,
        resume=checkpoint,
    )
    state = trainer(task, [*built, *callbacks], should_stop)
    write_bytes(folder / CARD, _model_card(config, material, state, parameters).encode())
    units = material.objective.units
    write_record(
        folder / RECORD,
        {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "config": sha256_file(folder / CONFIG),
            "made_from": material.made_from,
            "steps": state.step,
            "skipped_steps": state.skipped_steps,
            units.items: state.items,
            "seconds": round(state.seconds, 3),
            units.loss: state.loss,
            f"best_valid_{units.loss}": state.best_loss,
            "best_step": state.best_step,
            "parameters": parameters,
        },
    )
    return Trained(state, config)


def _checkpoint_to_resume(folder: Path, step: int | None, report: Report) -> Checkpoint | None:
    return newest_checkpoint(folder, report) if step is None else load_checkpoint(checkpoint_path(folder, step))


def _check_resumable(
    checkpoint: Checkpoint,
    material: Material,
    record: dict[str, Any],
    numerics: Numerics,
    recorded: dict[str, Any],
    report: Report,
) -> None:
    """Raise InputError if a checkpoint belongs to other data; report what may change the bits."""
    state = checkpoint.state
    for key, value in material.record.items():
        if state.get(key) != value:
            raise InputError(f"{checkpoint.path}: {material.differs[key]}")
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
    name = config.model.name
    if name is not None and name.name not in MODELS.values():
        return f"{name.name} {config.model.num_layers} x {config.model.hidden_size}"
    return f"{config.model.cell.name} {config.model.num_layers} x {config.model.hidden_size}"


def _model_card(config: Config, material: Material, state: TrainState, parameters: int) -> str:
    units = state.units
    best = "none" if state.best_loss is None else f"{state.best_loss:.6g} {units.of_loss} at step {state.best_step}"
    rows = [
        ("network", f"{_network(config)}, {parameters:,} parameters"),
        *material.described,
        ("training", f"{state.step} steps, {state.items:,} {units.items}, {state.seconds:.1f} s"),
        ("last training loss", f"{state.loss:.6g} {units.of_loss}"),
        ("best validation loss", f"{best}, {material.evaluated}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""# {material.title}

Trained by rnnpipe {rnnpipe.__version__}; `config.toml` beside this file repeats the training.

| | |
|---|---|
{table}
"""
