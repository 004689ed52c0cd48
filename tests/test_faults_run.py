"""Signals, locks, closed streams and losses that are no numbers: what a training does when its surroundings fail."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli import KITCHEN, call, entries, fail, settings, spawn, start, succeed
from test_training import after, config, never, task

from rnnpipe.durable import lock_directory
from rnnpipe.errors import DivergedError, InputError, Interrupted
from rnnpipe.pipeline.verify import verify
from rnnpipe.training import loop, text_objective
from rnnpipe.training.callbacks import TrainState
from rnnpipe.training.checkpoints import list_steps, load_checkpoint, newest_checkpoint
from rnnpipe.training.loop import fit

ENDLESS = {"training__max_steps": 0, "training__epochs": 1_000_000_000, "training__log_every": 1}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def endless(*words: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a training without end, for the length of a block."""
    with start("train", KITCHEN, "-o", "run", *words, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    """Read a process's standard error up to a line."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    pytest.fail(f"it ended without a line '{beginning}'")


# --- two writers ---


def test_a_run_has_one_writer_and_its_lock_dies_with_it() -> None:
    with endless(*settings(**ENDLESS, training__save_every_seconds=1e-9)) as process:
        wait_for(process, "step ")
        for more in ((), ("--overwrite",), ("--resume", "auto")):
            error = fail("train", KITCHEN, "-o", "run", *settings(), *more, code=1)
            assert "run: another process is writing there" in error
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=300)
    assert verify(Path("run")).problems == []
    succeed("train", KITCHEN, "-o", "run", *settings(), "--overwrite")
    assert not [name for name in entries(Path("run")) if "lock" in name]


def test_a_lock_is_held_for_a_block_and_no_longer(tmp_path: Path) -> None:
    with lock_directory(tmp_path / "new" / "run") as locked:
        assert locked
        with pytest.raises(InputError, match="another process"), lock_directory(tmp_path / "new" / "run"):
            pass
        with lock_directory(tmp_path / "other"):
            pass
    with lock_directory(tmp_path / "new" / "run"):
        pass
    assert entries(tmp_path / "new" / "run") == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: is a file"), lock_directory(tmp_path / "file"):
        pass


def test_a_refused_run_leaves_no_folder() -> None:
    fail("train", KITCHEN, "-o", "deep/run", *settings(), "--cell", "lstmm", code=2)
    assert not Path("deep").exists()


# --- signals ---


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", *(pytest.param(n, marks=pytest.mark.slow) for n in ("SIGTERM", "SIGHUP"))])
def test_a_second_signal_ends_it_at_once(name: str) -> None:
    slow = {"model__hidden_size": 512, "training__batch_size": 64, "training__bptt": 128}
    words = settings(**ENDLESS, **slow, training__save_every_seconds=1e-9)
    with endless("--level", "char", *words) as process:
        wait_for(process, "step 2")
        process.send_signal(getattr(signal, name))
        wait_for(process, "stopping after this step")
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=300)
    assert process.returncode == -getattr(signal, name)  # which a shell reports as 128 + its number
    assert (out, err) == ("", "")
    found = verify(Path("run"))
    assert found.problems == []
    assert found.newest_step is not None and found.newest_step >= 1


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")
def test_a_signal_that_is_ignored_stays_ignored() -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with endless(*settings(**ENDLESS), preexec_fn=nohup) as process:
        wait_for(process, "step 1/")
        process.send_signal(signal.SIGHUP)
        for _ in range(20):
            wait_for(process, "step ")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "saved in run/checkpoints" in err


def test_a_signal_in_the_last_evaluation_leaves_a_finished_run(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = text_objective.loss_in_windows

    def interrupted(*values: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*values)

    with monkeypatch.context() as patch:
        patch.setattr(text_objective, "loss_in_windows", interrupted)
        result = call("train", KITCHEN, "-o", "run", *settings())
    assert result.code == 130
    assert "training had ended and is saved in run" in result.error
    assert "train: up to date" in succeed("train", "--resume", "run").err


# --- closed and full streams ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams") / "run"
    succeed("train", KITCHEN, "-o", folder, *settings())
    return folder


def shell(command: str) -> list[int]:
    """Run a pipeline in bash; return the exit codes of its parts."""
    script = f'{command}; echo "${{PIPESTATUS[*]}}" > codes'
    subprocess.run(["bash", "-c", script], check=True, capture_output=True, timeout=120)
    return [int(code) for code in Path("codes").read_text().split()]


RNNPIPE = shlex.join([sys.executable, "-m", "rnnpipe"])


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("pipe", [pytest.param("| head -1", marks=pytest.mark.slow), "2>&1 | head -1", ">&- 2>&-"])
def test_train_without_a_listener_finishes_and_saves(pipe: str) -> None:
    words = shlex.join(["train", KITCHEN, "-o", "run", *settings(training__log_every=1)])
    assert shell(f"{RNNPIPE} {words} {pipe}")[0] == 0
    assert verify(Path("run")).newest_step == 20
    assert Path("run/run.json").is_file()


def test_generate_ends_when_its_reader_has_gone(trained: Path) -> None:
    """Long before it has made all that it was asked for: it would take minutes."""
    words = shlex.join(["generate", str(trained), "the", "-n", "20000", "--max-tokens", "200"])
    assert shell(f"{RNNPIPE} {words} 2> err | head -1 > out") == [0, 0]
    assert Path("err").read_bytes() == b""
    assert Path("out").read_text().startswith("the ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("generate", "the"), ("verify",)], ids=" ".join)
def test_a_full_device_is_exit_code_1(words: tuple[str, ...], trained: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = spawn(words[0], trained, *words[1:], stdout=full)
    assert result.code == 1
    assert result.err.splitlines()[-1] == "Error: No space left on device."


# --- losses and gradients that are no numbers ---

WRONG = ["nan", "inf", "-inf"]


def spoil(job: Any, what: str, value: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the loss or a gradient of a step of a task be no finite number."""
    steps = iter(range(1, 10**6))
    if what == "gradient":
        parameter = next(job.model.parameters())
        parameter.register_hook(lambda g: torch.full_like(g, float(value)) if next(steps) == step else g)
        return
    cross_entropy = text_objective.F.cross_entropy

    def spoilt(*values: Any, **options: Any) -> torch.Tensor:
        loss = cross_entropy(*values, **options)
        return loss * float(value) if torch.is_grad_enabled() and next(steps) == step else loss

    monkeypatch.setattr(text_objective.F, "cross_entropy", spoilt)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_step_stops_and_the_last_finite_state_is_kept(
    what: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = task(tmp_path / "a", config())
    spoil(job, what, value, 14, monkeypatch)
    with pytest.raises(DivergedError, match=rf"the {what}.* at step 14 .*state before that step is in .*/step-13"):
        fit(job, [], never)
    monkeypatch.undo()
    assert list_steps(tmp_path / "a" / "checkpoints") == [10, 13]
    with pytest.raises(Interrupted):
        fit(task(tmp_path / "b", config()), [], after(13))
    ours, theirs = (load_checkpoint(tmp_path / name / "checkpoints" / "step-13").weights() for name in "ab")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Heard:
    """A callback that keeps the counts of skipped steps."""

    def __init__(self) -> None:
        self.skipped: list[int] = []

    def on_step(self, state: TrainState) -> None:
        self.skipped.append(state.skipped_steps)

    on_start = on_evaluate = on_end = on_step


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_is_skipped_and_counted_when_asked(
    what: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    job = task(tmp_path, config(nonfinite="skip"))
    spoil(job, what, value, 14, monkeypatch)
    end = fit(job, [heard], never)
    assert (end.step, end.skipped_steps, end.items) == (30, 1, 29 * 4 * 8)
    assert [heard.skipped[0], heard.skipped[-1]] == [0, 1]
    assert all(torch.isfinite(parameter).all() for parameter in job.model.parameters())
    newest = newest_checkpoint(tmp_path / "checkpoints", pytest.fail)
    assert newest is not None
    assert newest.state["skipped_steps"] == 1


def test_a_skipped_step_changes_neither_weights_nor_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = task(tmp_path, config(nonfinite="skip", save_every_seconds=1e-9))
    spoil(job, "gradient", "nan", 7, monkeypatch)
    with pytest.raises(Interrupted):
        fit(job, [], after(7))
    before, behind = (load_checkpoint(tmp_path / "checkpoints" / f"step-{step}") for step in (6, 7))
    assert all(torch.equal(value, behind.weights()[name]) for name, value in before.weights().items())
    moments = [checkpoint.training()["optimizer"]["state"][0]["exp_avg"] for checkpoint in (before, behind)]
    assert torch.equal(*moments)


def test_resuming_behind_a_skipped_step_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stop in (("a", None), ("b", 9)):
        job = task(tmp_path / name, config(nonfinite="skip", max_steps=20))
        spoil(job, "gradient", "inf", 7, monkeypatch)
        if stop is None:
            fit(job, [], never)
        else:
            with pytest.raises(Interrupted):
                fit(job, [], after(stop))
            newest = newest_checkpoint(tmp_path / "b" / "checkpoints", pytest.fail)
            end = fit(task(tmp_path / "b", config(nonfinite="skip", max_steps=20), resume=newest), [], never)
            assert end.skipped_steps == 1
    ours, theirs = (tmp_path / name / "checkpoints" / "step-20" / "training.safetensors" for name in "ab")
    assert ours.read_bytes() == theirs.read_bytes()


def test_an_interval_of_skipped_steps_has_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = task(tmp_path, config(nonfinite="skip", log_every=1, max_steps=3))
    spoil(job, "loss", "nan", 2, monkeypatch)
    losses: list[float] = []
    heard = Heard()
    heard.on_step = lambda state: losses.append(state.loss)  # type: ignore[method-assign]
    fit(job, [heard], never)
    assert [math.isfinite(loss) for loss in losses] == [True, False, True]


@pytest.mark.parametrize(("lr", "said"), [("inf", "at step 2"), ("1e38", "at step 11")])
def test_what_skipping_cannot_mend_stops_all_the_same(lr: str, said: str) -> None:
    """Weights that have overflowed, and weights so large that every loss does."""
    words = settings(training__clip_norm=0, training__nonfinite="skip", training__schedule="constant")
    optimizer = ("--optimizer", "sgd", "--set", f"training.optimizer.lr={lr}")
    assert said in fail("train", KITCHEN, "-o", "run", *words, *optimizer, code=1)


def test_an_optimizer_that_has_moved_within_its_step_cannot_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LBFGS takes the loss many times a step: behind the first time its weights are no state of before the step."""
    job = task(tmp_path, config(nonfinite="skip", optimizer={"name": "lbfgs", "lr": 0.1, "max_iter": 5}))
    spoil(job, "loss", "nan", 3, monkeypatch)
    with pytest.raises(DivergedError, match="The optimizer had moved the weights before it, and nothing had been"):
        fit(job, [], never)
    assert not (tmp_path / "checkpoints").exists()


def test_skipped_steps_are_warned_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = loop.fit

    def spoilt(job: Any, *more: Any) -> Any:
        spoil(job, "gradient", "nan", 5, monkeypatch)
        return real(dataclasses.replace(job), *more)

    monkeypatch.setattr(loop, "fit", spoilt)
    result = succeed("train", KITCHEN, "-o", "run", *settings(training__log_every=5, training__nonfinite="skip"))
    warning = "warning: steps skipped so far, as their loss or gradient was not finite: 1"
    assert result.err.count(warning) == 1
    assert succeed("verify", "run")
