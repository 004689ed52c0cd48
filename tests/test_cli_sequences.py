"""Sequences of numbers from the shell: training, evaluation, forecasts, gradients, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import KITCHEN, damage, fail, losses, settings, start, succeed

from rnnpipe.config import load_config
from rnnpipe.pipeline.verify import verify
from rnnpipe.text.rules import Named
from rnnpipe.training.checkpoints import list_steps

ONES = "counting-ones:train=200,valid=50,test=50"
SINE = "sine:train=200,valid=40,test=40"


def small(**changes: object) -> list[str]:
    """Return the words that make a network and its training small."""
    every = {
        "model__hidden_size": 8,
        "training__epochs": 0,
        "training__max_steps": 40,
        "training__optimizer__lr": 0.02,
        "training__log_every": 10,
        "runtime__threads": 1,
        **changes,
    }
    return [word for key, value in every.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of trained runs: `ones`, `sine`, `windows` and a text run, `text`."""
    folder = tmp_path_factory.mktemp("runs")
    succeed("train", "--dataset", ONES, "-o", folder / "ones", *small(training__max_steps=400))
    succeed("train", "--dataset", SINE, "-o", folder / "sine", *small(training__max_steps=300))
    windows = "sine-windows:points=200,window=3"
    succeed("train", "--dataset", windows, "-o", folder / "windows", "--cell", "elman", *small(training__max_steps=300))
    succeed("train", KITCHEN, "-o", folder / "text", *settings())
    return folder


@pytest.fixture
def ones(runs: Path) -> Path:
    return runs / "ones"


@pytest.fixture
def sine(runs: Path) -> Path:
    return runs / "sine"


# --- train and run ---


def test_a_run_of_sequences(ones: Path) -> None:
    config = load_config(ones / "config.toml")
    assert config.model.name.name == "sequence-model"
    assert config.text.level is None
    assert config.numerics["precision"] == "float32"
    record = json.loads((ones / "run.json").read_text())
    assert {"loss", "best_valid_loss", "timesteps", "made_from", "parameters"} <= set(record)
    assert set(record["made_from"]["sequences"]) == {"train", "valid", "test"}
    assert "| dataset | counting-ones |" in (ones / "README.md").read_text()
    found = verify(ones)
    assert found.problems == []
    assert found.newest_step == 400
    assert succeed("verify", ones).code == 0


def test_damage_to_a_run_of_sequences_is_found(ones: Path) -> None:
    for name in ("run.json", "config.toml", "metrics.csv"):
        shutil.copytree(ones, "copy")
        damage(Path("copy") / name)
        assert any(name in problem for problem in verify(Path("copy")).problems), name
        shutil.rmtree("copy")


def test_training_by_command_and_by_configuration_is_the_same() -> None:
    succeed("train", "--dataset", ONES, "-o", "first", "--cell", "gru", *small())
    succeed("train", "first/config.toml", "-o", "second")
    assert losses_of("first") == losses_of("second")
    Path("mine.toml").write_text(
        '[data]\ndataset = {name = "counting-ones", train = 200, valid = 50, test = 50}\n'
        '[model]\ncell = "gru"\nhidden_size = 8\n[training]\nepochs = 0\nmax_steps = 40\nlog_every = 10\n'
        '[training.optimizer]\nname = "adamw"\nlr = 0.02\n[runtime]\nthreads = 1\n'
    )
    assert "clean: not needed" in succeed("run", "mine.toml", "--dry-run").err
    assert not Path("runs").exists()
    succeed("run", "mine.toml")
    assert losses_of("runs/mine") == losses_of("first")
    assert "train: up to date" in succeed("run", "mine.toml").err
    assert "sequences, which are not cleaned" in succeed("run", "mine.toml", "--to", "encode").err


def losses_of(run: str | Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "timesteps_per_second"} for row in losses(Path(run))]


def test_an_option_of_the_model_needs_no_name() -> None:
    words = small(model__hidden_size=1, model__name__readout="false", training__max_steps=2)
    succeed("train", "--dataset", ONES, "-o", "run", "--cell", "linear-recurrent", *words)
    assert load_config(Path("run/config.toml")).model.name == Named("sequence-model", {"readout": False})
    odd = ("--set", "model.name.reedout=false")
    assert "Did you mean 'readout'?" in fail("train", "--dataset", ONES, "-o", "other", *odd, code=2)


def test_the_default_folder_and_json() -> None:
    report = succeed("train", "--dataset", ONES, *small(), "--json").json()
    assert report["run"] == "runs/counting-ones-lstm"
    assert report["steps"] == 40
    assert report["best_valid_loss"] == losses_of("runs/counting-ones-lstm")[-1]["valid_loss"]
    assert report["evaluation"]["part"] == "test"


def test_what_a_person_sees_of_a_training() -> None:
    result = succeed("train", "--dataset", ONES, "-o", "run", *small())
    assert "sequences: train 200, valid 50, test 50; of 10 timesteps, 1 numbers each" in result.err
    assert "validation loss " in result.err
    assert "accuracy " in result.err
    assert "timesteps/s" in result.err
    assert "next: rnnpipe eval run --show 20" in result.err
    assert "test part, 50 sequences" in result.out
    assert "predict the training mean" in result.out
    assert result.out.count("\n") == 3 + 2 + 1 + 5


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_goes_on_to_the_same_bits(stop: int) -> None:
    words = ["train", "--dataset", ONES, "--cell", "lstm"]
    options = small(
        training__max_steps=100, model__dropout=0.2, training__save_every_seconds=0.05, training__log_every=1
    )
    succeed(*words, "-o", "straight", *options)
    with start(*words, "-o", "parted", *options, environment={"OMP_NUM_THREADS": "1"}) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 10/"):
                break
        process.send_signal(stop)
        process.stderr.read()
    assert process.returncode in (130, -signal.SIGKILL)
    assert 1 <= list_steps(Path("parted/checkpoints"))[-1] < 100
    assert verify(Path("parted")).problems == []
    assert "resuming at step" in succeed("train", "--resume", "parted").err
    for name in ("weights.safetensors", "training.safetensors"):
        step = f"checkpoints/step-100/{name}"
        assert (Path("parted") / step).read_bytes() == (Path("straight") / step).read_bytes()
    assert losses_of("parted") == losses_of("straight")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dataset", "counting-one"), "Did you mean 'counting-ones'?"),
        (("--dataset", "counting-ones:trian=9"), "Did you mean 'train'?"),
        (("--dataset", ONES, "--level", "char"), "text.level is of no use with dataset 'counting-ones'"),
        (("--dataset", ONES, "--set", "model.tied=true"), "model.tied is of no use"),
        (("--dataset", ONES, "--set", "training.window=3"), "training.window is of no use"),
        (("--dataset", ONES, "--set", "model.name=language-model"), "does not fit dataset 'counting-ones'"),
        (("--dataset", ONES, "--set", "training.reduction=total"), "'mean' or 'sequence-sum' or 'sum'"),
        (("--dataset", ONES, "--set", "training.tolerance=0"), "it takes above 0"),
        (("--dataset", ONES, KITCHEN), "name texts, one folder or one CONFIG.toml"),
        (("--dataset", ONES, "--resume", "x"), "--resume PATH says all by itself"),
        ((KITCHEN, "--set", "training.draw=in-order"), "training.draw is of no use with text"),
        ((KITCHEN, "--set", "training.batch_size=0"), "is for sequences; for text it takes 1 or more"),
        ((KITCHEN, "--set", "model.name=sequence-model"), "does not fit text; use language-model"),
    ],
)
def test_what_train_refuses(words: tuple[str, ...], said: str) -> None:
    assert said in fail("train", *words, code=2)
    assert not Path("runs").exists()


def test_other_data_under_a_run_is_refused(ones: Path) -> None:
    shutil.copytree(ones, "copy")
    path = Path("copy/config.toml")
    path.write_text(path.read_text().replace("train = 200", "train = 201"))
    assert "was trained on other sequences than dataset 'counting-ones' gives now" in fail("eval", "copy", code=1)


# --- eval ---


def test_eval(ones: Path) -> None:
    report = succeed("eval", ones, "--json", "--show", "3").json()
    assert report == {**report, "part": "test", "sequences": 50, "loss_kind": "mse"}
    shown = report["shown"]
    assert [each["number"] for each in shown] == [0, 1, 2]
    assert all(sum(map(sum, each["inputs"])) == each["target"][0] for each in shown)
    text = succeed("eval", ones, "--show", "3").out
    assert f"{shown[0]['output'][0]:.4g}" in text
    assert f"overlap: {report['overlap']['in_train']} of 50" in text
    train = succeed("eval", ones, "--part", "train", "--json").json()
    assert train["overlap"]["share"] == 1.0
    assert train["unseen"] is None
    mean = report["baselines"]["mean"]
    assert mean["share_of_variance"] > 0.95 > report["share_of_variance"]


def test_eval_of_targets_at_every_timestep(sine: Path) -> None:
    report = succeed("eval", sine, "--json").json()
    assert report["baselines"]["copy-last"]["loss"] > report["loss"]
    out = succeed("eval", sine, "--show", "1").out
    assert "sequence 0:\n" in out
    lines = {line.split()[0]: line.split()[1:] for line in out.split("sequence 0:\n")[1].splitlines()}
    assert lines["input"][1:] == lines["target"][:-1]


def test_eval_by_length(ones: Path) -> None:
    found = succeed("eval", ones, "--lengths", "2:20", "--count", "20", "--json").json()["lengths"]
    assert [row["length"] for row in found] == list(range(2, 21))
    assert all(row["sequences"] == 20 for row in found)
    assert found[-1]["loss"] > found[8]["loss"]  # it has seen sequences of 10
    table = succeed("eval", ones, "--lengths", "5,10", "--plot", "lengths.png").out.splitlines()
    assert [line.split()[0] for line in table] == ["length", "5", "10"]
    assert Path("lengths.png").read_bytes().startswith(b"\x89PNG")
    assert [row["length"] for row in succeed("eval", ones, "--lengths", "2:100:49", "--json").json()["lengths"]] == [
        2, 51, 100,
    ]  # fmt: skip
    many = succeed("eval", ones, "--lengths", "1:300", "--count", "1", "--json").json()["lengths"]
    assert (many[0]["length"], many[-1]["length"], len(many) <= 25) == (1, 300, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lengths", "0:4"), "expected A:B, A:B:STEP or A,B,C"),
        (("--lengths", "5:4"), "expected A:B"),
        (("--lengths", "1:9:0"), "expected A:B"),
        (("--lengths", "many"), "expected A:B"),
        (("--count", "4"), "go with --lengths"),
        (("--window", "4"), "for runs of text"),
        (("x.txt",), "for runs of text"),
    ],
)
def test_what_eval_refuses(words: tuple[str, ...], said: str, ones: Path) -> None:
    assert said in fail("eval", ones, *words, code=2)


@pytest.mark.parametrize("flag", [("--part", "test"), ("--show", "1"), ("--lengths", "1:2"), ("--plot", "x.png")])
def test_flags_of_sequences_are_refused_for_text(flag: tuple[str, str], runs: Path) -> None:
    assert f"is a run of text; {flag[0]} is for runs of sequences" in fail("eval", runs / "text", *flag, code=2)


def test_commands_of_the_other_kind_name_the_right_one(runs: Path) -> None:
    said = fail("generate", runs / "ones", "x", code=2)
    assert "is a run of sequences of numbers, not of text" in said
    assert "rnnpipe eval" in fail("predict", runs / "ones", "x", code=2)
    assert "rnnpipe generate" in fail("forecast", runs / "text", code=2)


def test_plot(sine: Path) -> None:
    chart = succeed("plot", sine, "-o", "curves.png").out
    assert f"o validation {losses_of(sine)[-1]['valid_loss']:.4f}" in chart
    assert "nats" not in chart
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


# --- forecast ---


def rows_of(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out)))


def test_forecast_from_a_part(sine: Path) -> None:
    rows = rows_of(succeed("forecast", sine, "--steps", "9", "--prefix-length", "8").out)
    assert [int(row["step"]) for row in rows] == list(range(1, 10))
    shown = succeed("eval", sine, "--json", "--show", "1").json()["shown"][0]
    values = [step[0] for step in (*shown["inputs"], shown["target"][-1])]
    known = [float(row["truth"]) for row in rows if row["truth"]]
    assert known == pytest.approx(values[8:17], rel=1e-6)
    assert float(rows[0]["output"]) == pytest.approx(shown["output"][7][0], abs=1e-6)  # before any output is fed back


def test_a_forecast_feeds_its_outputs_back(sine: Path) -> None:
    """Its outputs are those of the network over prefix and outputs, as one series."""
    rows = rows_of(succeed("forecast", sine, "--steps", "6", "--prefix-length", "5").out)
    shown = succeed("eval", sine, "--json", "--show", "1").json()["shown"][0]
    series = [step[0] for step in shown["inputs"][:5]] + [float(row["output"]) for row in rows[:-1]]
    Path("series.csv").write_text("value\n" + "\n".join(map(repr, series)) + "\n")
    again = rows_of(succeed("forecast", sine, "--prefix", "series.csv", "--steps", "1").out)
    assert float(again[0]["output"]) == pytest.approx(float(rows[-1]["output"]), abs=1e-5)


def test_forecast_of_windows(runs: Path) -> None:
    """The truth behind a window of a series is found in the windows after it."""
    rows = rows_of(succeed("forecast", runs / "windows", "--steps", "30").out)
    known = [row for row in rows if row["truth"]]
    assert 3 < len(known) <= 30
    assert float(known[0]["output"]) == pytest.approx(float(known[0]["truth"]), abs=0.2)
    begun = [float(row["truth"]) for row in known[:3]]
    Path("prefix.jsonl").write_text("".join(f"{json.dumps(value)}\n" for value in begun))
    following = rows_of(succeed("forecast", runs / "windows", "--prefix", "prefix.jsonl", "--steps", "1").out)
    assert math.isfinite(float(following[0]["output"]))


def test_forecast_of_a_new_sequence_with_plot(sine: Path) -> None:
    result = succeed("forecast", sine, "--from", "new", "--steps", "25", "--jsonl", "--plot", "wave.png")
    rows = result.jsonl()
    assert [set(row) for row in rows] == [{"step", "output", "truth"}] * 25
    worst = max(abs(row["output"] - row["truth"]) for row in rows)
    assert f"largest error over 25 of them {worst:.4g}" in result.err
    assert Path("wave.png").read_bytes().startswith(b"\x89PNG")
    series = [row["truth"] for row in rows]
    turned = 2 * math.cos(math.pi / 6)  # of a sine: x' = 2 cos(step) x - x before
    assert np.allclose(series[2:], turned * np.array(series[1:-1]) - np.array(series[:-2]), atol=1e-5)


def test_forecast_reads_standard_input(sine: Path) -> None:
    prefix = "".join(f"{math.sin(step * math.pi / 6)}\n" for step in range(12)).encode()
    rows = rows_of(succeed("forecast", sine, "--prefix", "-", "--steps", "3", stdin=prefix).out)
    assert [set(row) for row in rows] == [{"step", "output"}] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n2\nx\n", "line 3: 'x'; each line is 1 finite numbers"),
        ("1\n2,3\n", "line 2: '2,3'"),
        ("1\nnan\n", "line 2: 'nan'"),
        ("[1]\n[[2]]\n", "line 2"),
        ("value\n", "line 1: 'value'"),
        ("", "holds no numbers"),
    ],
)
def test_a_prefix_that_is_no_series_is_refused(text: str, said: str, sine: Path) -> None:
    Path("prefix").write_text(text)
    error = fail("forecast", sine, "--prefix", "prefix", code=1)
    assert "prefix" in error
    assert said in error


def test_what_forecast_refuses(runs: Path) -> None:
    assert "the targets of dataset 'counting-ones' are not the next inputs" in fail("forecast", runs / "ones", code=2)
    assert "has 12 timesteps, not 99" in fail("forecast", runs / "sine", "--prefix-length", "99", code=1)
    assert "there are 40, counted from 0" in fail("forecast", runs / "sine", "--number", "40", code=1)
    both = ("--prefix", "x", "--from", "new")
    assert "two places to begin at" in fail("forecast", runs / "sine", *both, code=2)
    addition = "binary-addition:train=64,valid=8,test=8"
    succeed("train", "--dataset", addition, "-o", "sum", *small(training__max_steps=2))
    assert "not numbers to go on from" in fail("forecast", "sum", code=2)


# --- probe ---


def test_probe(ones: Path) -> None:
    found = succeed("probe", ones, "--json").json()
    assert len(found["norms"]) == 10
    assert all(norm > 0 for norm in found["norms"])
    table = succeed("probe", ones, "--plot", "probe.png").out
    assert "mean over 50 sequences" in table
    assert f"{found['factor']:.3f} times as large" in table
    assert Path("probe.png").read_bytes().startswith(b"\x89PNG")
    assert len(succeed("probe", ones, "--length", "30", "--count", "4", "--json").json()["norms"]) == 30


def test_probe_of_a_text(runs: Path) -> None:
    found = succeed("probe", runs / "text", "--length", "12", "--count", "4", "--json").json()
    assert (len(found["norms"]), found["sequences"]) == (12, 4)
    assert found["norms"][0] > 0
