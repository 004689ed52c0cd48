"""A training that is killed, interrupted or gone on with ends in the same bits as one that is left alone."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli import HARBOUR, KITCHEN, call, damage, entries, fail, files, installed, losses, settings, start, succeed
from cli import write_plugin as install
from test_training import after, config, never, task, text

from rnnpipe.errors import InputError, Interrupted
from rnnpipe.pipeline.verify import verify
from rnnpipe.training.checkpoints import list_steps, newest_checkpoint
from rnnpipe.training.loop import fit

MINGRU = Path(__file__).resolve().parent.parent / "plugins" / "mingru" / "rnnpipe_mingru.py"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_same_bits(ours: Path, theirs: Path) -> None:
    """Check that two runs have ended alike: weights, optimizer, recurrent state, random generators, metrics."""
    assert list_steps(ours / "checkpoints")[-1] == list_steps(theirs / "checkpoints")[-1]
    step = f"checkpoints/step-{list_steps(theirs / 'checkpoints')[-1]}"
    for name in ("weights.safetensors", "training.safetensors"):
        assert (ours / step / name).read_bytes() == (theirs / step / name).read_bytes(), name
    assert losses(ours) == losses(theirs)
    assert csv_rows(ours) == csv_rows(theirs)


def csv_rows(run: Path) -> list[dict[str, str]]:
    """Return a run's metrics.csv without the columns that are times."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows]


# --- killed ---

ALL_ON = {
    "model__dropout": 0.3,
    "model__num_layers": 2,
    "training__log_every": 1,
    "training__evaluate_every": 10,
    "training__save_every_seconds": 1e-9,  # each step
}


def kill_after(words: list[object], steps: int, folder: Path) -> bool:
    """Train until so many lines of steps have been seen, then SIGKILL; return whether that was before the end."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    with start(*words, environment={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            steps -= line.startswith("step ") and "validation" not in line
            if steps <= 0:
                break
        process.kill()
        process.stderr.read()
    assert process.returncode in (-signal.SIGKILL, 0), "".join(said)
    return process.returncode != 0


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the minGRU plugin installed, here and for processes with the returned folder on their path."""
    install(
        tmp_path / "plugins", "rnnpipe-mingru", "rnnpipe_mingru", MINGRU.read_text(encoding="utf-8"), point="mingru"
    )
    with installed(tmp_path / "plugins", monkeypatch):
        yield tmp_path / "plugins"


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "mingru"])
def test_a_killed_training_goes_on_to_the_same_bits(cell: str, plugins: Path) -> None:
    words = [KITCHEN, *settings(**ALL_ON, training__max_steps=40), "--cell", cell]
    succeed("train", "-o", "straight", *words)
    assert kill_after(["train", "-o", "killed", *words], 10, plugins)
    assert verify(Path("killed")).problems == []
    assert 10 <= list_steps(Path("killed/checkpoints"))[-1] + 1 < 40
    assert "resuming at step" in succeed("train", "--resume", "killed").err
    assert_same_bits(Path("killed"), Path("straight"))


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "mingru"])
def test_a_training_killed_twenty_times_goes_on_to_the_same_bits(cell: str, plugins: Path) -> None:
    words = [KITCHEN, *settings(**ALL_ON, training__max_steps=200), "--cell", cell]
    succeed("train", "-o", "straight", *words)
    draw = random.Random(cell)
    kills = kill_after(["train", "-o", "killed", *words], draw.randint(1, 4), plugins)
    while kills < 20:
        assert verify(Path("killed")).problems == []
        assert kill_after(["train", "--resume", "killed"], draw.randint(1, 4), plugins), "it ended before 20 kills"
        kills += 1
    succeed("train", "--resume", "killed")
    assert_same_bits(Path("killed"), Path("straight"))


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "mingru"])
def test_two_hundred_steps_equal_a_hundred_a_kill_and_the_rest(cell: str, plugins: Path) -> None:
    words = [KITCHEN, *settings(**ALL_ON, training__max_steps=200), "--cell", cell]
    succeed("train", "-o", "straight", *words)
    assert kill_after(["train", "-o", "killed", *words], 100, plugins)
    succeed("train", "--resume", "auto", "-o", "killed", *words)
    assert_same_bits(Path("killed"), Path("straight"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_resuming_on_a_gpu_gives_the_same_bits(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        settings_ = config(max_steps=30)
        settings_ = dataclasses.replace(settings_, model=dataclasses.replace(settings_.model, dropout=0.3))
        gpu = {"device": torch.device("cuda")}
        fit(dataclasses.replace(task(tmp_path / "a", settings_), **gpu), [], never)
        with pytest.raises(Interrupted):
            fit(dataclasses.replace(task(tmp_path / "b", settings_), **gpu), [], after(13))
        newest = newest_checkpoint(tmp_path / "b" / "checkpoints", pytest.fail)
        fit(dataclasses.replace(task(tmp_path / "b", settings_, seed=9, resume=newest), **gpu), [], never)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_bits(tmp_path / "b", tmp_path / "a")


# --- what else a checkpoint must hold ---


def noisy(folder: Path, **more: Any) -> Any:
    """Return a task whose model draws from Python's and NumPy's generators, as a plugin's might."""
    job = task(folder, config(max_steps=26), **more)

    def add_noise(model: Any, inputs: Any, output: Any) -> Any:
        return (output[0] * (1 + random.gauss(0, 0.1) + np.random.randn()), output[1]) if model.training else output

    job.model.register_forward_hook(add_noise)
    return job


def test_every_random_generator_goes_on(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(1)
    fit(noisy(tmp_path / "a"), [], never)
    random.seed(1)
    np.random.seed(1)
    with pytest.raises(Interrupted):
        fit(noisy(tmp_path / "b"), [], after(13))
    random.seed(2)
    np.random.seed(2)
    newest = newest_checkpoint(tmp_path / "b" / "checkpoints", pytest.fail)
    fit(noisy(tmp_path / "b", seed=5, resume=newest), [], never)
    assert_same_bits(tmp_path / "b", tmp_path / "a")


def test_an_interruption_at_the_last_step_keeps_the_last_evaluation(tmp_path: Path) -> None:
    """The last step has an evaluation of its own, although `evaluate_every` does not hit it."""
    fit(task(tmp_path / "a", config(max_steps=26)), [], never)
    with pytest.raises(Interrupted):
        fit(task(tmp_path / "b", config(max_steps=26)), [], after(26))
    newest = newest_checkpoint(tmp_path / "b" / "checkpoints", pytest.fail)
    end = fit(task(tmp_path / "b", config(max_steps=26), resume=newest), [], never)
    assert end.valid_loss is not None
    assert_same_bits(tmp_path / "b", tmp_path / "a")


def test_a_training_that_has_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    """As after a kill between its last checkpoint and the record that it has ended."""
    job = config(max_steps=400, patience=2, evaluate_every=5, optimizer={"name": "adamw", "lr": 0.3})
    end = fit(task(tmp_path, job), [], never)
    assert end.stopped_early
    newest = newest_checkpoint(tmp_path / "checkpoints", pytest.fail)
    again = fit(task(tmp_path, job, resume=newest), [], never)
    assert (again.step, again.stopped_early) == (end.step, True)


def test_a_save_is_made_at_least_every_so_many_seconds(tmp_path: Path) -> None:
    fit(task(tmp_path / "never", config(max_steps=9, evaluate_every=9, save_every_seconds=0)), [], never)
    assert list_steps(tmp_path / "never" / "checkpoints") == [9]
    fit(task(tmp_path / "always", config(max_steps=9, evaluate_every=9, save_every_seconds=1e-9)), [], never)
    assert list_steps(tmp_path / "always" / "checkpoints") == [8, 9]
    assert_same_bits(tmp_path / "always", tmp_path / "never")


# --- what is found on resuming ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "run"
    succeed("train", KITCHEN, "-o", folder, *settings(training__evaluate_every=5))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a run that was interrupted at step 15 of 20 and has the checkpoints of steps 10 and 15."""
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    (copy / "run.json").unlink()
    shutil.rmtree(copy / "checkpoints")
    steps = itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnnpipe.cli.progress.Stop.asked", lambda self: next(steps) == 15)
        result = call("train", KITCHEN, "-o", copy, *settings(training__evaluate_every=5))
    assert result.code == 130
    assert "interrupted at step 15" in result.error
    assert list_steps(copy / "checkpoints") == [10, 15]
    return copy


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(run: Path, finished: Path) -> None:
    damage(run / "checkpoints" / "step-15" / "weights.safetensors")
    said = succeed("train", "--resume", run).err
    assert "step-15/weights.safetensors: its SHA-256" in said
    assert "resuming at step 10" in said
    assert_same_bits(run, finished)


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl"])
@pytest.mark.parametrize("spoil", [damage, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:50])])
def test_damaged_metrics_are_named(name: str, spoil: Any, run: Path, finished: Path) -> None:
    whole = (run / name).read_bytes()
    spoil(run / name)
    assert str(run / name) in fail("train", "--resume", run, code=1)
    (run / name).write_bytes(whole + b"a row behind the checkpoint")
    succeed("train", "--resume", run)
    assert_same_bits(run, finished)


def test_metrics_that_were_moved_away_are_begun_anew(run: Path, finished: Path) -> None:
    for name in ("metrics.csv", "metrics.jsonl"):
        (run / name).rename(run / f"old-{name}")
    succeed("train", "--resume", run)
    assert losses(run) == losses(finished)[-2:]  # the evaluations at steps 15 and 20
    assert csv_rows(run) == csv_rows(finished)[-2:]


def test_a_checkpoint_can_be_gone_on_from(run: Path, finished: Path) -> None:
    older = run / "checkpoints" / "step-10"
    before = files(run)
    assert "--overwrite" in fail("train", "--resume", older, code=1)
    assert files(run) == before
    assert "resuming at step 10" in succeed("train", "--resume", older, "--overwrite").err
    assert_same_bits(run, finished)
    finished_now = files(run)
    assert "finished run" in fail("train", "--resume", run / "checkpoints" / "step-20", code=1)
    assert files(run) == finished_now
    assert "up to date" in succeed("train", "--resume", run).err
    assert "step-3" in fail("train", "--resume", run / "checkpoints" / "step-3", "--overwrite", code=1)


def test_a_relative_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run / "checkpoints")
    assert "resuming at step 15" in succeed("train", "--resume", "step-15").err


def test_other_settings_are_refused_even_to_overwrite(run: Path) -> None:
    before = files(run)
    for more in ((), ("--overwrite",)):
        assert "other settings" in fail("train", "--resume", run, "--seed", 9, *more, code=1)
    assert files(run) == before


def test_a_changed_machine_or_version_is_said(run: Path) -> None:
    path = run / "config.toml"
    path.write_text(re.sub(r'torch = "[^"]*"', 'torch = "1.0"', path.read_text(encoding="utf-8")), encoding="utf-8")
    said = succeed("train", "--resume", run).err
    assert "warning: torch was 1.0 and is" in said
    assert "the same bits are not promised" in said


def test_the_recorded_numerics_are_obeyed(run: Path) -> None:
    path = run / "config.toml"
    table = path.read_text(encoding="utf-8").replace('backend = "cudnn"', 'backend = "loop"')
    path.write_text(table, encoding="utf-8")
    assert "backend loop" in succeed("train", "--resume", run).err


def test_tokens_of_another_text_are_refused(tmp_path: Path) -> None:
    succeed("clean", KITCHEN, "-o", "corpus", "--split", "8:1:1")
    succeed("build-dict", "corpus", "-o", "a.dict", "--workers", 1)
    succeed("encode", "corpus", "--dict", "a.dict", "-o", "tokens", "--workers", 1)
    succeed("train", "tokens", "-o", "run", *settings())
    Path("run/run.json").unlink()
    succeed("clean", HARBOUR, "-o", "other", "--split", "8:1:1")
    succeed("encode", "other", "--dict", "a.dict", "-o", "tokens", "--workers", 1)
    assert "was trained on other text" in fail("train", "--resume", "run", code=1)


def test_leftovers_of_a_kill_are_cleared(run: Path) -> None:
    for leftover in (run / ".config.toml.1.tmp", run / "checkpoints" / ".step-9.1.tmp"):
        leftover.mkdir()  # number 1 is alive, but whoever holds the lock is the only writer
    succeed("train", "--resume", run)
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("left", ["half", "corpus"])
def test_a_run_that_was_killed_before_it_had_a_configuration_begins_again(left: str) -> None:
    succeed("train", KITCHEN, "-o", "other", *settings())
    if left == "half":
        Path("run/.corpus.1.tmp").mkdir(parents=True)
    else:
        shutil.copytree("other/corpus", "run/corpus")
    succeed("train", KITCHEN, "-o", "run", *settings())
    assert_same_bits(Path("run"), Path("other"))
    assert entries(Path("run")) == entries(Path("other"))


def test_a_row_that_a_full_disk_has_cut_is_passed_over(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 16})[:5])
    succeed("plot", run)


def test_metrics_that_do_not_fit_are_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(task(tmp_path, config()), [], after(7))
    newest = newest_checkpoint(tmp_path / "checkpoints", pytest.fail)
    (tmp_path / "metrics.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"metrics\.csv: has 0 bytes of the \d+ that the checkpoint recorded"):
        fit(task(tmp_path, config(), valid=text(300), resume=newest), [], never)


@pytest.mark.parametrize("spoilt", [{"epoch": "x"}, {"training": {"odd": 1}}, {"training": 3}, {"interval": None}, {}])
def test_a_state_that_does_not_fit_is_named(spoilt: dict[str, Any], tmp_path: Path) -> None:
    """Whole by its digests, but of another program: it lacks what a training needs, or has it in another form."""
    with pytest.raises(Interrupted):
        fit(task(tmp_path, config()), [], after(7))
    newest = newest_checkpoint(tmp_path / "checkpoints", pytest.fail)
    assert newest is not None
    state = {**newest.state, **spoilt} if spoilt else {"step": 7}
    other = dataclasses.replace(newest, state=state)
    with pytest.raises(InputError, match="step-7"):
        fit(task(tmp_path, config(), resume=other), [], never)
