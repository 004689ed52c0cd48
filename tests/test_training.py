"""The training loop against a bare PyTorch loop, checkpoints, resuming, stopping, schedules, metrics."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnpipe.config import Config, TrainingConfig, apply_settings, config_from_table
from rnnpipe.data.tokens import Ids
from rnnpipe.errors import DivergedError, InputError, Interrupted
from rnnpipe.pipeline.build import build_model, build_optimizer
from rnnpipe.plugins import full_registry
from rnnpipe.training.callbacks import TrainState
from rnnpipe.training.checkpoints import (
    list_steps,
    load_checkpoint,
    newest_checkpoint,
    pack,
    pick_checkpoint,
    save_checkpoint,
    unpack,
)
from rnnpipe.training.loop import fit
from rnnpipe.training.metrics import read_metrics
from rnnpipe.training.schedules import Schedule
from rnnpipe.training.text_objective import TextObjective
from rnnpipe.training.trainers import Task

V = 13


def text(length: int = 2000) -> Ids:
    """Return a text that can be learnt: a noisy cycle."""
    noise = np.random.default_rng(0).integers(0, 2, size=length)
    return ((np.arange(length) + noise) % V).astype(np.uint8)


def config(**training: Any) -> Config:
    table = {
        "model": {"hidden_size": 16, "encoder": {"name": "embedding", "size": 8}},
        "training": {"batch_size": 4, "bptt": 8, "max_steps": 30, "evaluate_every": 10, "log_every": 4, **training},
    }
    return config_from_table(table, "test")


def task(folder: Path, settings: Config, *, valid: Ids | None = None, seed: int = 0, **more: Any) -> Task:
    torch.manual_seed(seed)
    model = build_model(settings, V)
    return Task(
        model=model,
        objective=TextObjective(text(), text(300) if valid is None else valid, settings.training, seed),
        config=settings.training,
        make_optimizer=functools.partial(build_optimizer, settings.training.optimizer),
        device=torch.device("cpu"),
        precision="float32",
        seed=seed,
        folder=folder,
        record={"dictionary": "none"},
        **more,
    )


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    """Return a `should_stop` that becomes true when it has been asked so many times."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= steps


def test_equals_a_bare_loop(tmp_path: Path) -> None:
    """The same weights, to the bit, as the loop that one would write by hand."""
    settings = config(schedule="constant", max_steps=12, batch_size=4, bptt=8)
    job = task(tmp_path, settings)
    bare = build_model(settings, V)
    bare.load_state_dict(job.model.state_dict())
    fit(job, [], never)

    class Bare(nn.Module):
        """nn.LSTM and nothing of ours."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Embedding(V, 8)
            self.rnn = nn.LSTM(8, 16)
            self.readout = nn.Linear(16, V)

    loop = Bare()
    names = {"encoder.weight": "encoder.weight", "readout.weight": "readout.weight", "readout.bias": "readout.bias"}
    names |= {f"rnn.{n}_l0": f"recurrent.layers.0.{n}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    loop.load_state_dict({theirs: bare.state_dict()[ours] for theirs, ours in names.items()})
    optimizer = torch.optim.AdamW(loop.parameters(), lr=0.003, fused=True)
    data = torch.from_numpy(text().astype(np.int64))
    rows, state = 4, None
    targets = len(data) - 1
    starts = [row * targets // rows for row in range(rows)]
    for step in range(12):
        inputs = torch.stack([data[s + 8 * step : s + 8 * step + 8] for s in starts], 1)
        wanted = torch.stack([data[s + 8 * step + 1 : s + 8 * step + 9] for s in starts], 1)
        optimizer.zero_grad()
        y, state = loop.rnn(loop.encoder(inputs), state)
        F.cross_entropy(loop.readout(y).flatten(0, 1), wanted.flatten()).backward()
        state = tuple(leaf.detach() for leaf in state)
        nn.utils.clip_grad_norm_(loop.parameters(), 1.0)
        optimizer.step()
    trained = job.model.state_dict()
    for theirs, ours in names.items():
        torch.testing.assert_close(trained[ours], loop.state_dict()[theirs], rtol=0, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"window": 4}], ids=["stream", "window"])
def test_it_learns(tmp_path: Path, settings: dict[str, Any]) -> None:
    end = fit(task(tmp_path, config(max_steps=400, optimizer={"name": "adamw", "lr": 0.02}, **settings)), [], never)
    assert end.valid_loss is not None
    assert end.valid_loss < 1.1 < 0.5 * math.log(V)


CASES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "dropout": {"model.dropout": 0.3},
    "gru": {"model.cell": "gru"},
    "elman": {"model.cell": "elman"},
    "two layers": {"model.num_layers": 2, "model.dropout": 0.2},
    "window": {"training.window": 5},
    "plateau": {"training.schedule": "plateau", "training.plateau_patience": 0},
    "epochs": {"training.max_steps": 0, "training.epochs": 1, "training.evaluate_every": 0},
    **{f"optimizer {n}": {"training.optimizer": n} for n in ("sgd", "muon", "adagrad", "rprop", "asgd", "radam")},
    "optimizer lbfgs": {"training.optimizer": "lbfgs", "training.optimizer.max_iter": 4},
}


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Config, Path]]:
    """Return a function that gives a case's settings and the folder of a training that nothing interrupted."""

    @functools.cache
    def trained(case: str) -> tuple[Config, Path]:
        settings = apply_settings(config(max_steps=26), [f"{k}={json.dumps(v)}" for k, v in CASES[case].items()])
        folder = tmp_path_factory.mktemp("straight")
        fit(task(folder, settings), [], never)
        return settings, folder

    return trained


@pytest.mark.parametrize("stop", [7, 10, 20])
@pytest.mark.parametrize("case", CASES)
def test_resuming_gives_the_same_bits(
    tmp_path: Path, case: str, stop: int, straight_run: Callable[[str], tuple[Config, Path]]
) -> None:
    """Interrupted in the middle of an epoch, on a step with an evaluation and on one without, and gone on with."""
    (settings, straight), parted = straight_run(case), tmp_path
    with pytest.raises(Interrupted, match=f"at step {stop};"):
        fit(task(parted, settings), [], after(stop))
    checkpoint = pick_checkpoint(parted / "checkpoints", "last")
    assert checkpoint.state["step"] == stop
    fit(
        task(parted, settings, seed=99, resume=checkpoint)
        if case != "window"
        else task(parted, settings, resume=checkpoint),
        [],
        never,
    )
    ours, theirs = (pick_checkpoint(folder / "checkpoints", "last") for folder in (parted, straight))
    assert (ours.path / "weights.safetensors").read_bytes() == (theirs.path / "weights.safetensors").read_bytes()
    assert (ours.path / "training.safetensors").read_bytes() == (theirs.path / "training.safetensors").read_bytes()
    timed = {"seconds", "tokens_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in read_metrics(f)] for f in (parted, straight)]
    assert rows[0] == rows[1]
    assert len((parted / "metrics.csv").read_text().splitlines()) == len(rows[1]) + 1


def test_diverging_stops_at_that_step(tmp_path: Path) -> None:
    settings = config(optimizer={"name": "sgd", "lr": 1e38}, clip_norm=0.0, schedule="constant")
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ .*The state before that step is in"):
        fit(task(tmp_path, settings), [], never)
    (step,) = list_steps(tmp_path / "checkpoints")
    assert step >= 1
    assert load_checkpoint(tmp_path / "checkpoints" / f"step-{step}").state["step"] == step


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    settings = config(max_steps=400, patience=2, evaluate_every=5, optimizer={"name": "adamw", "lr": 0.3})
    end = fit(task(tmp_path, settings), [], never)
    losses = [row["valid_loss_nats"] for row in read_metrics(tmp_path) if row["valid_loss_nats"] is not None]
    assert end.step < 400
    assert end.best_loss == min(losses)
    assert losses.index(min(losses)) == len(losses) - 3
    assert pick_checkpoint(tmp_path / "checkpoints").state["step"] == end.best_step
    assert pick_checkpoint(tmp_path / "checkpoints", "last").state["step"] == end.step
    assert set(list_steps(tmp_path / "checkpoints")) == {end.best_step, end.step, end.step - 5}


def test_without_validation_text(tmp_path: Path) -> None:
    job = task(tmp_path, config(max_steps=5))
    job = dataclasses.replace(job, objective=dataclasses.replace(job.objective, valid=None))
    end = fit(job, [], never)
    assert end.valid_loss is None
    assert pick_checkpoint(tmp_path / "checkpoints").state["step"] == 5


def test_max_seconds_ends_training(tmp_path: Path) -> None:
    end = fit(task(tmp_path, config(max_steps=0, epochs=0, max_seconds=0.3)), [], never)
    assert end.step >= 1
    assert end.seconds >= 0.3
    assert end.progress == 1.0


def test_metrics_files(tmp_path: Path) -> None:
    end = fit(task(tmp_path, config()), [], never)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows if row["valid_loss_nats"] is None] == [1, 4, 8, 12, 16, 20, 24, 28]
    assert [row["step"] for row in rows if row["valid_loss_nats"] is not None] == [10, 20, 30]
    assert rows[-1]["tokens"] == end.items == 30 * 4 * 8
    assert all(row["perplexity"] == pytest.approx(math.exp(row["loss_nats"])) for row in rows)
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header.split(",")[:3] == ["step", "epoch", "tokens"]
    assert len(lines) == len(rows)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(InputError, match="line 2: not JSON"):
        read_metrics(tmp_path)


class Recorder:
    """A callback that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def on_start(self, state: TrainState) -> None:
        self.heard.append(("start", state.step))

    def on_step(self, state: TrainState) -> None:
        assert math.isfinite(state.loss)
        self.heard.append(("step", state.step))

    def on_evaluate(self, state: TrainState) -> None:
        assert state.valid_loss is not None
        self.heard.append(("evaluate", state.step))

    def on_end(self, state: TrainState) -> None:
        self.heard.append(("end", state.step))


def test_callbacks_hear_everything_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(task(tmp_path, config(max_steps=10)), [recorder], never)
    assert recorder.heard == [
        ("start", 0), ("step", 1), ("step", 4), ("step", 8), ("evaluate", 10), ("end", 10),
    ]  # fmt: skip


def test_tensorboard_writes_scalars_and_histograms(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = full_registry().build("callback", "tensorboard", {}, tmp_path)
    fit(task(tmp_path, config(max_steps=10)), [callback], never)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss/train_nats", "loss/valid_nats", "learning_rate"} <= set(events.Tags()["scalars"])
    assert "recurrent.layers.0.weight_hh" in events.Tags()["histograms"]
    assert [e.step for e in events.Scalars("loss/valid_nats")] == [10]
    assert {"output/encoder", "output/recurrent", "output/readout"} <= set(events.Tags()["histograms"])
    (loss,) = (row["valid_perplexity"] for row in read_metrics(tmp_path) if row["valid_perplexity"])
    assert events.Scalars("valid/perplexity")[0].value == pytest.approx(loss)
    names = {node.name for node in events.Graph().node}
    assert any("readout" in name for name in names)
    assert any("recurrent" in name for name in names)


def test_a_model_that_cannot_be_traced_has_the_reason_in_place_of_its_graph(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = task(tmp_path, config(max_steps=2))
    forward = job.model.forward

    def only_in_training(*given: Any, **more: Any) -> Any:
        if torch.jit.is_tracing():
            raise RuntimeError("not this way")
        return forward(*given, **more)

    job.model.forward = only_in_training
    fit(job, [full_registry().build("callback", "tensorboard", {}, tmp_path)], never)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert not events.Tags()["graph"]
    assert "graph/text_summary" in events.Tags()["tensors"]


def test_schedules() -> None:
    cosine = Schedule(TrainingConfig(schedule="cosine", final_lr=0.1, warmup_steps=4))
    assert [cosine.factor(step, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine.factor(10, 0.5) == pytest.approx(0.55)
    assert cosine.factor(10, 1.0) == pytest.approx(0.1)
    assert cosine.factor(10, 1.5) == pytest.approx(0.1)
    assert Schedule(TrainingConfig(schedule="constant")).factor(5, 0.9) == 1.0
    plateau = Schedule(TrainingConfig(schedule="plateau", plateau_factor=0.5, plateau_patience=1))
    factors = []
    for improved in (True, False, False, False, True, False, False):
        plateau.on_evaluation(improved)
        factors.append(plateau.factor(0, 0.0))
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_pack_and_unpack() -> None:
    value = {"a": [1, (2.5, None)], 3: {"t": torch.arange(3), "empty": []}, "s": "x", "tuple": (torch.ones(2),)}
    tensors: dict[str, torch.Tensor] = {}
    packed = json.loads(json.dumps(pack(value, tensors)))
    back = unpack(packed, tensors)
    assert back["a"] == [1, (2.5, None)]
    assert torch.equal(back[3]["t"], torch.arange(3))
    assert back[3]["empty"] == []
    assert torch.equal(back["tuple"][0], torch.ones(2))


def save(folder: Path, step: int) -> Path:
    weights = {"w": torch.full((3,), float(step))}
    return save_checkpoint(folder, step, weights, {"x": torch.ones(1)}, {"best_step": 1})


def test_every_flipped_byte_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    load_checkpoint(path)
    for file in sorted(path.iterdir()):
        data = file.read_bytes()
        for position in range(0, len(data), 7):
            file.write_bytes(data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :])
            with pytest.raises(InputError, match=r"step-1"):
                load_checkpoint(path)
        with pytest.raises(InputError, match=r"step-1"):
            file.write_bytes(data[:-2])
            load_checkpoint(path)
        file.write_bytes(data)
    load_checkpoint(path)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    (newest / "weights.safetensors").write_bytes(b"")
    said: list[str] = []
    checkpoint = newest_checkpoint(tmp_path, said.append)
    assert checkpoint is not None
    assert checkpoint.path.name == "step-1"
    assert len(said) == 1
    assert "step-2/weights.safetensors" in said[0]
    assert pick_checkpoint(tmp_path, "last", said.append).path.name == "step-1"
    save(tmp_path, 3)
    (tmp_path / "step-1" / "state.json").unlink()
    assert pick_checkpoint(tmp_path, "best", said.append).path.name == "step-3"
    assert "step-1/state.json: is missing" in said[-1]
    (tmp_path / "step-3" / "state.json").unlink()
    with pytest.raises(InputError, match=r"step-3/state\.json: is missing"):
        pick_checkpoint(tmp_path)
    with pytest.raises(InputError, match="no finished checkpoint"):
        pick_checkpoint(tmp_path / "none")
