"""The trainers `ridge` and `hebbian`: what they claim, in windows too, and what a person does with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli import fail, succeed

from rnnpipe.config import config_from_table
from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.complete import complete
from rnnpipe.pipeline.runs import SequenceRun, open_sequence_run
from rnnpipe.pipeline.stages import run_stages
from rnnpipe.training.metrics import read_metrics

RESERVOIR = {"cell": {"name": "echo-state", "density": 0.5}, "hidden_size": 12}


def train(folder: Path, dataset: dict[str, Any], model: dict[str, Any], training: dict[str, Any]) -> SequenceRun:
    table = {"data": {"dataset": dataset}, "model": model, "training": training, "runtime": {"threads": 1}}
    run_stages(complete(config_from_table(table, "test")), folder, report=lambda line: None)
    return open_sequence_run(folder)


def ridge(**options: Any) -> dict[str, Any]:
    return {"trainer": {"name": "ridge", **options}, "batch_size": 3}


def weights(run: SequenceRun) -> np.ndarray:
    readout = run.model.readout
    assert readout is not None
    return np.concatenate((readout.weight.detach().numpy()[0], readout.bias.detach().numpy()))


def rows(run: SequenceRun, washout: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the features, 1 behind them, and targets of every timestep, one sequence after the other, in NumPy."""
    train = run.data.parts["train"]
    (cell,) = run.model.recurrent.cells()
    p = {name: buffer.numpy().astype(np.float64) for name, buffer in cell.named_buffers()}
    features, targets = [], []
    for xs, ts, length in zip(train.inputs, train.targets, train.lengths, strict=True):
        h = np.zeros(len(p["weight_hh"]))
        for t in range(length):
            h = np.tanh(p["weight_ih"] @ xs[t] + p["bias_ih"] + p["weight_hh"] @ h)
            wanted = t >= washout if run.data.sizes.target == "every" else t == length - 1
            if wanted:
                features.append([*h, 1.0])
                targets.append(ts[t] if run.data.sizes.target == "every" else ts)
    return np.array(features), np.array(targets, np.float64)


SINE = {"name": "sine", "train": 20, "valid": 5, "test": 5, "noise": 0.1}


@pytest.mark.parametrize(
    ("dataset", "washout"),
    [
        (SINE, 0),
        (SINE, 5),
        ({**SINE, "min_length": 3}, 2),
        ({**SINE, "min_length": 3, "target": "last"}, 0),
    ],
)
def test_ridge_is_the_least_squares_solution(tmp_path: Path, dataset: dict[str, Any], washout: int) -> None:
    """By the augmented system, which is another way to it than the normal equations; the bias has no penalty."""
    run = train(tmp_path / "run", dataset, RESERVOIR, ridge(penalty=0.3, washout=washout))
    features, targets = rows(run, washout)
    inner = np.zeros((12, 13))
    inner[:, :12] = math.sqrt(0.3) * np.eye(12)
    expected, *_ = np.linalg.lstsq(np.concatenate((features, inner)), np.concatenate((targets, np.zeros((12, 1)))))
    np.testing.assert_allclose(weights(run), expected[:, 0], rtol=1e-3, atol=1e-4)
    loss = float(np.mean((features @ expected - targets) ** 2))
    assert read_metrics(tmp_path / "run")[-1]["loss"] == pytest.approx(loss, rel=1e-3)


def test_ridge_in_windows_and_batches_is_the_same(tmp_path: Path) -> None:
    """However the sequences are cut: state carried, washout counted from their start."""
    found = {}
    for name, training in {"whole": {}, "windows": {"bptt": 5}, "all at once": {"batch_size": 0}}.items():
        run = train(tmp_path / name, SINE, RESERVOIR, {**ridge(washout=3), **training})
        found[name] = weights(run)
    np.testing.assert_allclose(found["windows"], found["whole"], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(found["all at once"], found["whole"], rtol=1e-2, atol=1e-3)


def test_ridge_finds_no_one_solution_of_many(tmp_path: Path) -> None:
    """More features than timesteps and no penalty: the solution of least norm, which fits exactly."""
    dataset = {"name": "sine", "train": 2, "valid": 2, "test": 2, "min_length": 4, "max_length": 4}
    run = train(tmp_path / "run", dataset, {**RESERVOIR, "hidden_size": 40}, ridge(penalty=0.0))
    assert np.isfinite(weights(run)).all()
    assert read_metrics(tmp_path / "run")[-1]["loss"] < 1e-6


@pytest.mark.parametrize(
    ("dataset", "model", "options", "message"),
    [
        ({"name": "binary-addition", "train": 9}, RESERVOIR, {}, "is for sequences of numbers under squared errors"),
        (
            SINE,
            {"cell": "elman", "hidden_size": 1, "name": {"name": "sequence-model", "readout": False}},
            {},
            "has none",
        ),
        (SINE, RESERVOIR, {"penalty": -1.0}, "penalty=-1.0"),
        ({**SINE, "target": "last"}, RESERVOIR, {"washout": 2}, "washout is for targets at every timestep"),
        (SINE, RESERVOIR, {"washout": 99}, "leaves nothing of the sequences"),
    ],
)
def test_ridge_refuses(
    tmp_path: Path, dataset: dict[str, Any], model: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((UsageError, InputError), match=message):
        train(tmp_path / "run", dataset, model, ridge(**options))


def mackey_glass(points: int) -> np.ndarray:
    """x' = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, by steps of 1/10, every tenth (Mackey & Glass 1977)."""
    x = [1.2] * 171
    for _ in range(10 * (points + 100)):
        x.append(x[-1] + 0.1 * (0.2 * x[-171] / (1 + x[-171] ** 10) - 0.1 * x[-1]))
    return np.array(x[::10])[-points:]


def test_an_echo_state_network_from_the_shell(tmp_path: Path) -> None:
    """A chaotic series in a file, one pass over it in windows, and 50 steps of its own behind it."""
    path = tmp_path / "series.npy"
    np.save(path, mackey_glass(4000))
    run = tmp_path / "run"
    succeed(
        "train", "--dataset", f"npy:path={path},window=399,stride=399", "-o", run, "--cell", "echo-state",
        "--set", "model.cell.input_scaling=0.3", "--set", "model.hidden_size=200", "--set", "training.bptt=100",
        "--set", 'training.trainer={name="ridge", penalty=1e-8, washout=100}', "--set", "runtime.threads=1",
    )  # fmt: skip
    whole = succeed("eval", run, "--json").json()
    assert whole["share_of_variance"] < 0.05  # the reservoir's first steps, from nothing, are in it
    lines = succeed("forecast", run, "--from", "test", "--prefix-length", 300, "--steps", 50, "--jsonl").jsonl()
    assert max(abs(line["output"] - line["truth"]) for line in lines) < 0.02


def test_a_network_of_hopfield_from_the_shell(tmp_path: Path) -> None:
    """Patterns below the capacity come back from noisy copies to the last unit; far above it they do not."""
    accuracy = {}
    for patterns in (8, 60):
        run = tmp_path / str(patterns)
        succeed(
            "train", "--dataset", f"patterns:patterns={patterns},test=60,valid=0", "-o", run, "--cell", "hopfield",
            "--set", "training.trainer=hebbian", "--set", "model.hidden_size=100",
            "--set", 'model.name={name="sequence-model", readout=false}', "--set", "runtime.threads=1",
        )  # fmt: skip
        accuracy[patterns] = succeed("eval", run, "--json").json()["accuracy"]
    assert accuracy[8] == 1
    assert accuracy[60] < 0.95


def test_hebb_stores_the_mean_of_products(tmp_path: Path) -> None:
    dataset = {"name": "patterns", "patterns": 7, "units": 20, "valid": 5, "test": 5}
    model = {"cell": "hopfield", "hidden_size": 20, "name": {"name": "sequence-model", "readout": False}}
    run = train(tmp_path / "run", dataset, model, {"trainer": "hebbian", "batch_size": 3})
    stored = run.data.parts["train"].targets
    (cell,) = run.model.recurrent.cells()
    expected = sum(np.outer(pattern, pattern) for pattern in stored) / 20
    np.fill_diagonal(expected, 0)
    with torch.no_grad():
        np.testing.assert_allclose(cell.connections().numpy(), expected, atol=1e-6)
        assert not cell.bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--cell", "elman"), "for one layer of a cell that stores patterns"),
        (("--set", "model.num_layers=2"), "for one layer"),
        (("--set", "model.name.readout=true"), "needs model.name.readout=false"),
    ],
)
def test_hebbian_refuses(tmp_path: Path, changes: tuple[str, ...], message: str) -> None:
    error = fail(
        "train", "--dataset", "patterns:units=9,noise=0.5", "-o", tmp_path / "run", "--cell", "hopfield",
        "--set", "training.trainer=hebbian", "--set", "model.hidden_size=9",
        "--set", 'model.name={name="sequence-model", readout=false}', *changes, code=2,
    )  # fmt: skip
    assert message in error


def test_hebbian_stores_patterns_alone(tmp_path: Path) -> None:
    error = fail(
        "train", "--dataset", "counting-ones", "-o", tmp_path / "run", "--cell", "hopfield", "--set",
        "training.trainer=hebbian", "--set", "model.hidden_size=1",
        "--set", 'model.name={name="sequence-model", readout=false}', code=1,
    )  # fmt: skip
    assert "patterns are made of -1 and 1" in error
