"""A task that trains in a moment, for the checks of callbacks and trainers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnpipe.config import TrainingConfig, config_from_table
from rnnpipe.data.base import Loss, Part, SequenceDataset, Sequences, Target
from rnnpipe.data.sequences import load_sequences
from rnnpipe.data.synthetic.patterns import Patterns
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.build import build_optimizer, build_sequence_model
from rnnpipe.testing.report import Failure
from rnnpipe.testing.things import seeded
from rnnpipe.training.checkpoints import Checkpoint, list_steps, load_checkpoint
from rnnpipe.training.sequence_objective import SequenceObjective
from rnnpipe.training.text_objective import TextObjective
from rnnpipe.training.trainers import Task

V = 7
STEPS = 6
CASE = f"{STEPS} steps of 2 x 5 tokens, vocabulary {V}, an evaluation every 3 steps"


def tiny_task(folder: Path, *, seed: int = 0, resume: Checkpoint | None = None) -> Task:
    """Return a task on random ids: a small language model with dropout, so that a random number more or less shows."""
    with seeded(seed):
        recurrent = Recurrent("gru", 4, 5, 2, dropout=0.2)
        model = LanguageModel(Embedding(V, size=4), recurrent, V, dropout=0.2)
    config = TrainingConfig(batch_size=2, bptt=5, epochs=0, max_steps=STEPS, evaluate_every=3, log_every=2)
    ids = np.random.default_rng(0).integers(0, V, 240).astype(np.uint8)
    return Task(
        model=model,
        objective=TextObjective(ids[:200], ids[200:], config, seed=0),
        config=config,
        make_optimizer=partial(build_optimizer, config.optimizer),
        device=torch.device("cpu"),
        precision="float32",
        seed=0,
        folder=folder,
        record={"dictionary": "none"},
        resume=resume,
    )


def tiny_sequence_task(folder: Path, *, seed: int = 0, resume: Checkpoint | None = None) -> Task:
    """Return a task of sequences: an echo state network that is to give the input of two timesteps before."""
    return _sequence_task(_Delay(), {"cell": "echo-state", "hidden_size": 8}, folder, seed, resume)


def tiny_pattern_task(folder: Path, *, seed: int = 0, resume: Checkpoint | None = None) -> Task:
    """Return a task of patterns of -1 and 1, for a network of Hopfield's to store."""
    model = {"cell": "hopfield", "hidden_size": 5, "name": {"name": "sequence-model", "readout": False}}
    dataset = Patterns(patterns=4 * STEPS, units=5, valid=4, test=0, timesteps=2)
    return _sequence_task(dataset, model, folder, seed, resume)


def _sequence_task(
    dataset: SequenceDataset, model: dict[str, Any], folder: Path, seed: int, resume: Checkpoint | None
) -> Task:
    training = {"batch_size": 4, "epochs": 0, "max_steps": STEPS, "evaluate_every": 3, "log_every": 2}
    config = config_from_table({"model": model, "training": training}, "the tiny task")
    data = load_sequences("tiny", dataset)
    with seeded(seed):
        built = build_sequence_model(config, data.sizes)
    return Task(
        model=built,
        objective=SequenceObjective(data.parts["train"], data.parts["valid"], data.sizes, config.training, seed=0),
        config=config.training,
        make_optimizer=partial(build_optimizer, config.training.optimizer),
        device=torch.device("cpu"),
        precision="float32",
        seed=0,
        folder=folder,
        record={"sequences": data.digests()},
        resume=resume,
    )


class _Delay:
    """Noise; the target at each timestep is the input of two timesteps before."""

    loss: Loss = "mse"
    target: Target = "every"

    def sequences(self, split: Part) -> Sequences:
        count = {"train": 4 * STEPS, "valid": 6}.get(split, 0)
        values = np.random.default_rng(count).uniform(-1, 1, (count, 9, 1)).astype(np.float32)
        return Sequences(values[:, 2:], values[:, :-2], np.full(count, 7))


def newest(folder: Path) -> Checkpoint:
    """Return the newest checkpoint of a task's folder; raise Failure if there is none, InputError if it is damaged."""
    steps = list_steps(folder / "checkpoints")
    if not steps:
        raise Failure("a checkpoint in the folder `checkpoints` of the task's", "none", CASE)
    return load_checkpoint(folder / "checkpoints" / f"step-{steps[-1]}")
