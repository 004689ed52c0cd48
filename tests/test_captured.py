"""Steps that are recorded and replayed, against the same training as it is: the same bits, files and all.

On the CPU a tape of operations stands in the place of CUDA graphs; with `pytest -m gpu`, the graphs themselves.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli import KITCHEN, fail, settings, succeed
from tape import Tape
from test_training import after, config, never, task

from rnnpipe.config import Config, apply_settings, load_config
from rnnpipe.errors import DivergedError, Interrupted, UsageError
from rnnpipe.pipeline.build import resolve_capture
from rnnpipe.training.captured import Capture, CudaGraphs
from rnnpipe.training.checkpoints import pick_checkpoint
from rnnpipe.training.loop import fit
from rnnpipe.training.metrics import read_metrics
from rnnpipe.training.text_objective import TextObjective
from rnnpipe.training.trainers import Task

CASES: dict[str, dict[str, Any]] = {
    "dropout, two layers, cosine": {"model.dropout": 0.3, "model.num_layers": 2, "training.warmup_steps": 5},
    "single windows": {"training.window": 5},
    "epochs, whose last windows are short": {
        "training.max_steps": 0,
        "training.epochs": 5,
        "training.bptt": 40,
        "training.batch_size": 8,
    },
    "no clipping, plateau": {"training.clip_norm": 0.0, "training.schedule": "plateau"},
    "an average of the weights": {"model.cell": "cifg", "training.average": 0.9},
    "minlstm": {"model.cell": "minlstm"},
    "slstm": {"model.cell": "slstm", "runtime.precision": "bfloat16"},
    "optimizer sgd": {"training.optimizer": "sgd", "training.optimizer.lr": 0.1, "training.optimizer.momentum": 0.9},
    **{f"optimizer {name}": {"training.optimizer": name} for name in ("rprop", "muon")},
    "optimizer lbfgs": {"training.optimizer": "lbfgs", "training.optimizer.max_iter": 3},
}
UPDATED_OUTSIDE = {"optimizer rprop", "optimizer muon", "optimizer lbfgs"}


def settings_of(case: str) -> Config:
    return apply_settings(config(max_steps=16), [f"{key}={json.dumps(value)}" for key, value in CASES[case].items()])


def job(folder: Path, chosen: Config, tape: Any = None, **more: Any) -> Task:
    said: list[str] = []
    capture = None if tape is None else Capture(tape, True, said.append)
    return dataclasses.replace(task(folder, chosen, **more), capture=capture, precision=chosen.runtime.precision)


def assert_same(ours: Path, theirs: Path) -> None:
    a, b = (pick_checkpoint(folder / "checkpoints", "last") for folder in (ours, theirs))
    for name in ("weights.safetensors", "training.safetensors"):
        assert (a.path / name).read_bytes() == (b.path / name).read_bytes(), name
    timed = {"seconds", "tokens_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in read_metrics(f)] for f in (ours, theirs)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("case", CASES)
def test_a_replayed_training_gives_the_same_bits(case: str, tmp_path: Path) -> None:
    chosen = settings_of(case)
    tape = Tape()
    plain = fit(job(tmp_path / "plain", chosen), [], never)
    fit(job(tmp_path / "replayed", chosen, tape), [], never)
    assert_same(tmp_path / "replayed", tmp_path / "plain")
    halves = 1 if case in UPDATED_OUTSIDE else 2
    assert tape.recorded >= halves
    assert tape.replayed >= halves * (plain.step // 2)


def test_an_interrupted_one_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    chosen = settings_of("dropout, two layers, cosine")
    fit(job(tmp_path / "plain", chosen), [], never)
    with pytest.raises(Interrupted):
        fit(job(tmp_path / "parted", chosen, Tape()), [], after(9))
    checkpoint = pick_checkpoint(tmp_path / "parted" / "checkpoints", "last")
    fit(job(tmp_path / "parted", chosen, Tape(), seed=99, resume=checkpoint), [], never)
    assert_same(tmp_path / "parted", tmp_path / "plain")


@dataclasses.dataclass(frozen=True)
class _Hole(TextObjective):
    """A loss that is infinite where the first row begins with a certain token."""

    def loss(self, model: Any, batch: Any, state: Any) -> Any:
        loss, state = super().loss(model, batch, state)
        return loss + torch.where(batch.inputs[0, 0] == 5, torch.inf, 0.0), state


def _with_holes(given: Task) -> Task:
    old = given.objective
    assert isinstance(old, TextObjective)
    return dataclasses.replace(given, objective=_Hole(old.train, old.valid, old.config, old.seed))


@pytest.mark.parametrize("nonfinite", ["skip", "stop"])
def test_a_step_that_is_not_finite(nonfinite: str, tmp_path: Path) -> None:
    """It is left out, or ends the training, in a replay as in any step; the state before it is kept."""
    chosen = config(max_steps=40, nonfinite=nonfinite)
    for name, tape in (("plain", None), ("replayed", Tape())):
        given = _with_holes(job(tmp_path / name, chosen, tape))
        if nonfinite == "skip":
            assert fit(given, [], never).skipped_steps > 1
        else:
            with pytest.raises(DivergedError, match="the loss is inf"):
                fit(given, [], never)
        assert tape is None or tape.replayed > 0
    assert_same(tmp_path / "replayed", tmp_path / "plain")


@dataclasses.dataclass(frozen=True)
class _Looking(TextObjective):
    """A loss that looks at a value on the way."""

    def loss(self, model: Any, batch: Any, state: Any) -> Any:
        loss, state = super().loss(model, batch, state)
        return loss * (1.0 if float(loss.detach()) > 0 else 2.0), state


def _looking(given: Task) -> Task:
    old = given.objective
    assert isinstance(old, TextObjective)
    return dataclasses.replace(given, objective=_Looking(old.train, old.valid, old.config, old.seed))


def test_what_cannot_be_recorded_runs_as_it_is_and_says_why(tmp_path: Path) -> None:
    chosen = config(max_steps=12)
    fit(_looking(job(tmp_path / "plain", chosen)), [], never)
    said: list[str] = []
    given = dataclasses.replace(_looking(job(tmp_path / "auto", chosen)), capture=Capture(Tape(), False, said.append))
    fit(given, [], never)
    assert_same(tmp_path / "auto", tmp_path / "plain")
    assert len(said) == 1
    assert "looks at a tensor's value" in said[0]
    with pytest.raises(UsageError, match=r"runtime\.capture=on: .* looks at a tensor's value"):
        fit(_looking(job(tmp_path / "on", chosen, Tape())), [], never)


class _Once(Tape):
    """Records once, so that the update of what it has recorded cannot be."""

    def record(self, work: Any) -> Any:
        if self.recorded:
            raise RuntimeError("no room")
        return super().record(work)


def test_where_only_the_gradients_can_be_recorded_nothing_is(tmp_path: Path) -> None:
    chosen = settings_of("dropout, two layers, cosine")
    fit(job(tmp_path / "plain", chosen), [], never)
    said: list[str] = []
    tape = _Once()
    given = dataclasses.replace(job(tmp_path / "auto", chosen), capture=Capture(tape, False, said.append))
    fit(given, [], never)
    assert_same(tmp_path / "auto", tmp_path / "plain")
    assert said == ["warning: training goes on without capture: the step cannot be recorded (RuntimeError: no room)."]
    assert (tape.recorded, tape.replayed) == (1, 1)


def test_the_command_says_why_it_does_not_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", KITCHEN, "-o", "run", "--device", "cpu", *settings(training__max_steps=2)]
    for more in ([], ["--dry-run"]):
        refused = fail(*words, "--capture", "on", *more, code=2)
        assert "runtime.capture=on: CUDA graphs need a CUDA device" in refused
    said = succeed(*words).err
    assert "capture refuses: CUDA graphs need a CUDA device" in said
    assert load_config(Path("run/config.toml")).numerics["capture"] == "off"
    quiet = succeed(*words, "--capture", "off", "--overwrite").err
    assert "capture" not in quiet


@pytest.mark.parametrize(
    ("changes", "device", "varying", "answer"),
    [
        ({}, "cuda", None, ("on", None)),
        ({"runtime.capture": "off"}, "cuda", None, ("off", None)),
        ({}, "cuda", "pairs differ in their lengths", ("off", "pairs differ in their lengths")),
        (
            {"training.trainer": "ridge"},
            "cuda",
            None,
            ("off", "the trainer 'ridge' takes no steps that could be recorded"),
        ),
    ],
)
def test_what_auto_decides(changes: dict[str, Any], device: str, varying: str | None, answer: Any) -> None:
    chosen = apply_settings(config(), [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    assert resolve_capture(chosen, device, varying) == answer
    assert resolve_capture(dataclasses.replace(chosen, numerics={"capture": "off"}), device, varying)[0] == "off"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_graphs_give_the_same_bits(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        for name in ("plain", "replayed"):
            capture = Capture(CudaGraphs(), True, print) if name == "replayed" else None
            given = job(tmp_path / name, settings_of(case))
            fit(dataclasses.replace(given, device=torch.device("cuda"), capture=capture), [], never)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(tmp_path / "replayed", tmp_path / "plain")
