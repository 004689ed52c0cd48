"""Sequences of numbers: batches, losses against their definitions, training against a bare loop, resuming."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sequence_datasets import Classes, Ones, Parity, Wave
from test_training import after, never
from torch import nn

from rnnpipe.config import Config, config_from_table
from rnnpipe.data.base import Sequences
from rnnpipe.data.sequences import SequenceData, batches_per_epoch, load_sequences, sequence_batches
from rnnpipe.data.windows import Cursor
from rnnpipe.errors import DivergedError, InputError, Interrupted, UsageError
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.pipeline.build import build_model, build_optimizer, build_sequence_model, resolve_numerics
from rnnpipe.pipeline.evaluate_sequences import baselines, continues, in_train
from rnnpipe.pipeline.sequence_material import sequence_material
from rnnpipe.plugins import full_registry
from rnnpipe.plugins.registry import Entry
from rnnpipe.testing import ConformanceError, check_dataset, check_model
from rnnpipe.training.checkpoints import pick_checkpoint
from rnnpipe.training.loop import fit
from rnnpipe.training.metrics import read_metrics
from rnnpipe.training.sequence_objective import losses, measure_outputs, predictions, run_sequences
from rnnpipe.training.trainers import Task

DATASETS = {"ones": Ones, "wave": Wave, "parity": Parity, "classes": Classes}


def config(**settings: Any) -> Config:
    table: dict[str, dict[str, Any]] = {
        "model": {"cell": "gru", "hidden_size": 6},
        "training": {"batch_size": 16, "epochs": 0, "max_steps": 12, "evaluate_every": 5, "log_every": 4},
    }
    for key, value in settings.items():
        section, _, name = key.partition("__")
        table[section][name] = value
    return config_from_table(table, "test")


def data(name: str = "ones", **options: Any) -> SequenceData:
    return load_sequences(name, DATASETS[name](**options))


def task(folder: Path, settings: Config, loaded: SequenceData, *, seed: int = 0, **more: Any) -> Task:
    torch.manual_seed(seed)
    return Task(
        model=build_sequence_model(settings, loaded.sizes),
        objective=sequence_material(settings, loaded).objective,
        config=settings.training,
        make_optimizer=partial(build_optimizer, settings.training.optimizer),
        device=torch.device("cpu"),
        precision="float32",
        seed=0,
        folder=folder,
        record={"sequences": loaded.digests()},
        **more,
    )


@pytest.mark.parametrize("name", DATASETS)
def test_the_datasets_of_these_tests_keep_the_contract(name: str) -> None:
    check_dataset(DATASETS[name], ragged=True)


# --- batches ---


def rows_of(batches: Any, steps: int) -> list[Any]:
    return list(itertools.islice(batches, steps))


@given(
    count=st.integers(1, 20),
    batch_size=st.integers(0, 25),
    bptt=st.none() | st.integers(1, 9),
    draw=st.sampled_from(["shuffled", "with-replacement", "in-order"]),
    ragged=st.booleans(),
    every=st.booleans(),
)
def test_batches(count: int, batch_size: int, bptt: int | None, draw: Any, ragged: bool, every: bool) -> None:
    """Windows put together again are the sequences; an epoch has each once; any cursor goes on where it was taken."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 8, count) if ragged else np.full(count, 7)
    inputs = rng.normal(size=(count, 7, 2)).astype(np.float32)
    inputs[..., 0] = np.arange(count)[:, None]  # which sequence it is
    targets = rng.normal(size=(count, 7, 1) if every else (count, 1)).astype(np.float32)
    sequences = Sequences(inputs, targets, lengths)
    options: dict[str, Any] = {
        "every": every, "ragged": ragged, "batch_size": batch_size, "draw": draw, "bptt": bptt, "seed": 3,
    }  # fmt: skip
    per_epoch = batches_per_epoch(sequences, batch_size, bptt, draw)
    epoch: list[Any] = []
    for batch in sequence_batches(sequences, **options):
        epoch.append(batch)
        if batch.cursor.position == 0:
            break
    assert per_epoch in (None, len(epoch))
    assert epoch[-1].cursor == Cursor(1, 0)
    seen: list[int] = []
    for first, batch in enumerate(epoch):
        if not batch.resets:
            continue
        whole = [batch]
        for more in epoch[first + 1 :]:
            if more.resets:
                break
            whole.append(more)
        joined = torch.cat([piece.inputs for piece in whole])
        numbers = joined[0, :, 0].long().tolist()
        seen += numbers
        assert len(joined) == lengths[numbers].max()
        assert torch.equal(joined, torch.from_numpy(inputs[numbers, : len(joined)]).transpose(0, 1))
        if every:
            found = torch.cat([piece.targets for piece in whole])
            assert torch.equal(found, torch.from_numpy(targets[numbers, : len(joined)]).transpose(0, 1))
        else:
            assert torch.equal(batch.targets, torch.from_numpy(targets[numbers]))
        if ragged:
            assert sum(piece.lengths for piece in whole).tolist() == lengths[numbers].tolist()
        assert sum(piece.items for piece in whole) == lengths[numbers].sum()
    if draw == "in-order":
        assert seen == list(range(count))
    elif draw == "shuffled":
        assert sorted(seen) == list(range(count))
    else:
        assert len(seen) == math.ceil(count / (batch_size or count)) * (batch_size or count)
    for number, batch in enumerate(epoch[:-1]):
        following = next(sequence_batches(sequences, **options, cursor=batch.cursor))
        assert torch.equal(following.inputs, epoch[number + 1].inputs)
        assert following.cursor == epoch[number + 1].cursor


def test_epochs_are_drawn_anew() -> None:
    sequences = Ones(count=40).sequences("train")
    options: dict[str, Any] = {"every": False, "ragged": False, "batch_size": 40, "bptt": None, "seed": 0}
    first, second = rows_of(sequence_batches(sequences, draw="shuffled", **options), 2)
    assert not torch.equal(first.inputs, second.inputs)
    again = rows_of(sequence_batches(sequences, draw="shuffled", **{**options, "seed": 1}), 1)[0]
    assert not torch.equal(first.inputs, again.inputs)


# --- what is refused ---


class Broken(Ones):
    """A dataset one of whose arrays is changed."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def sequences(self, split: Any) -> Sequences:
        return self.change(super().sequences(split))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: dataclasses.replace(s, inputs=s.inputs.astype(float)),
            "inputs have 3 axes of float64; expected 3 of f",
        ),
        (lambda s: dataclasses.replace(s, targets=s.targets[:, 0]), "targets have 1 axes of float32; expected 2"),
        (lambda s: dataclasses.replace(s, lengths=s.lengths * 0), "lengths go from 0 to 0; from 1 to 8"),
        (lambda s: dataclasses.replace(s, lengths=s.lengths[:-1]), "do not fit together"),
        (lambda s: dataclasses.replace(s, targets=s.targets / 0 if len(s.targets) else s.targets), "sequence 0 hold"),
        (lambda s: Sequences(s.inputs[:0], s.targets[:0], s.lengths[:0]), "no sequences in its part 'train'"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_dataset_that_breaks_its_contract_is_refused(change: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"dataset 'broken'.*{words}"):
        load_sequences("broken", Broken(change))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ones", {"training__bptt": 3}, "only the last of 8 timesteps has a target"),
        ("wave", {"training__bptt": 3, "model__bidirectional": True}, "a window ends before the sequence does"),
        ("ones", {"model__name": {"name": "sequence-model", "readout": False}}, "the recurrent stack gives 6 numbers"),
        ("ones", {"model__initializers": {"reedout": "normal"}}, "Did you mean 'readout'"),
    ],
)
def test_what_cannot_be_trained_is_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_sequence_model(config(**settings), data(name).sizes)


# --- losses ---


@pytest.mark.parametrize("reduction", ["mean", "sequence-sum", "sum"])
@pytest.mark.parametrize("name", DATASETS)
def test_the_loss_is_its_definition(name: str, reduction: str, tmp_path: Path) -> None:
    """Against sums in plain Python over each sequence alone, within its length."""
    loaded = data(name, ragged=True)
    settings = config(training__reduction=reduction, training__batch_size=7)
    job = task(tmp_path, settings, loaded)
    batch = next(job.objective.batches(Cursor()))
    found = job.objective.loss(job.model, batch, None)[0].detach()
    total, numbers = 0.0, 0
    for row, length in enumerate(batch.lengths.tolist()):
        outputs = job.model(batch.inputs[:length, row : row + 1])[0].detach()
        outputs = outputs[:, 0] if loaded.sizes.target == "every" else outputs
        wanted = batch.targets[:length, row] if loaded.sizes.target == "every" else batch.targets[row : row + 1]
        for output, target in zip(outputs, wanted, strict=True):
            for number, value in enumerate(target.tolist()):
                numbers += 1
                if name in ("ones", "wave"):
                    total += (float(output[number]) - value) ** 2
                elif name == "parity":
                    share = 1 / (1 + math.exp(-float(output[number])))
                    total -= value * math.log(share) + (1 - value) * math.log(1 - share)
                else:
                    logits = [float(x) for x in output[3 * number : 3 * number + 3]]
                    total -= logits[int(value)] - math.log(sum(map(math.exp, logits)))
    divisor = {"mean": numbers, "sequence-sum": 7, "sum": 1}[reduction]
    assert float(found) == pytest.approx(total / divisor, rel=1e-5)
    assert job.objective.weight(batch) == divisor


def test_hits_and_variance() -> None:
    sequences = Ones(count=3, length=4).sequences("train")
    sequences = dataclasses.replace(sequences, targets=np.array([[1.0], [2.0], [3.0]], np.float32))
    sizes = data().sizes
    found = measure_outputs(torch.tensor([[1.4], [2.5], [3.6]]), sequences, sizes, 0.5)
    assert found.loss == pytest.approx((0.16 + 0.25 + 0.36) / 3)
    assert found.accuracy == pytest.approx(1 / 3)  # an error of just the tolerance is no hit
    assert found.share_of_variance == pytest.approx((0.16 + 0.25 + 0.36) / 2)
    assert measure_outputs(torch.zeros(3, 1), sequences, sizes, None).figures().keys() == {"share_of_variance"}
    same = dataclasses.replace(sequences, targets=np.ones((3, 1), np.float32))
    assert measure_outputs(torch.zeros(3, 1), same, sizes, None).share_of_variance is None


def test_bits_are_right_all_together_and_only_within_the_length() -> None:
    loaded = data("parity", count=30)
    sequences = loaded.parts["train"]
    outputs = torch.from_numpy(sequences.targets) * 20 - 10
    outputs[np.arange(8)[None] >= sequences.lengths[:, None]] = 10.0  # wrong, but padding
    assert measure_outputs(outputs, sequences, loaded.sizes, None).accuracy == 1.0
    outputs[0, 0, 0] *= -1
    assert measure_outputs(outputs, sequences, loaded.sizes, None).accuracy == pytest.approx(29 / 30)


def test_classes() -> None:
    loaded = data("classes", count=30)
    sequences = loaded.parts["train"]
    assert (loaded.sizes.classes, loaded.sizes.output_size) == (3, 6)
    outputs = F.one_hot(torch.from_numpy(sequences.targets), 3).flatten(1).float() * 9
    assert torch.equal(predictions(outputs, loaded.sizes), torch.from_numpy(sequences.targets))
    assert measure_outputs(outputs, sequences, loaded.sizes, None).accuracy == 1.0
    assert float(losses(outputs, torch.from_numpy(sequences.targets), loaded.sizes).max()) < 0.001


@pytest.mark.parametrize("name", DATASETS)
def test_outputs_in_batches_are_those_of_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnpipe.training import sequence_objective

    loaded = data(name, ragged=True, count=20)
    model = build_sequence_model(config(), loaded.sizes)
    monkeypatch.setattr(sequence_objective, "_BATCH_TIMESTEPS", 24)
    sequences = loaded.parts["train"]
    outputs = run_sequences(model, sequences, loaded.sizes, torch.device("cpu"), "float32")
    for number, length in enumerate(sequences.lengths.tolist()):
        with torch.no_grad():
            alone = model(torch.from_numpy(sequences.inputs[number, :length, None]))[0]
        ours = outputs[number, :length] if loaded.sizes.target == "every" else outputs[number]
        np.testing.assert_allclose(ours, alone[:, 0] if loaded.sizes.target == "every" else alone[0], atol=1e-6)
        assert not outputs[number, length:].any() or loaded.sizes.target == "last"


# --- training ---


def test_equals_a_bare_loop(tmp_path: Path) -> None:
    """The same weights as the loop that one would write by hand: single examples in order, summed squares."""
    settings = config(
        model__cell="elman", training__batch_size=1, training__draw="in-order", training__reduction="sum",
        training__optimizer={"name": "sgd", "lr": 0.01}, training__clip_norm=0.0, training__schedule="constant",
        training__max_steps=70,
    )  # fmt: skip
    loaded = data("wave")
    job = task(tmp_path, settings, loaded)
    rnn, readout = nn.RNN(1, 6), nn.Linear(6, 1)
    ours = job.model.state_dict()
    readout.load_state_dict({name: ours[f"readout.{name}"].clone() for name in ("weight", "bias")})
    rnn.load_state_dict({f"{n}_l0": ours[f"recurrent.layers.0.{n}"].clone() for n in vars_of(rnn)})
    fit(job, [], never)
    optimizer = torch.optim.SGD([*rnn.parameters(), *readout.parameters()], lr=0.01)
    train = loaded.parts["train"]
    for step in range(70):
        x, t = (torch.from_numpy(array[step % 60])[:, None] for array in (train.inputs, train.targets))
        optimizer.zero_grad()
        (readout(rnn(x)[0]) - t).square().sum().backward()
        optimizer.step()
    trained = job.model.state_dict()
    torch.testing.assert_close(trained["readout.weight"], readout.weight, rtol=0, atol=1e-6)
    for name in vars_of(rnn):
        torch.testing.assert_close(trained[f"recurrent.layers.0.{name}"], getattr(rnn, f"{name}_l0"), rtol=0, atol=1e-6)


def vars_of(rnn: nn.RNN) -> list[str]:
    return [name.removesuffix("_l0") for name, _ in rnn.named_parameters()]


def test_truncated_windows_carry_the_state_and_cut_the_gradient(tmp_path: Path) -> None:
    """One step of two windows equals two calls with the state detached between."""
    settings = config(training__bptt=5, training__batch_size=0, training__draw="in-order", model__cell="gru")
    loaded = data("wave", length=8)
    job = task(tmp_path, settings, loaded)
    assert job.objective.steps_per_epoch() == 2
    first, second = rows_of(job.objective.batches(Cursor()), 2)
    assert (len(first.inputs), len(second.inputs), first.resets, second.resets) == (5, 3, True, False)
    loss, state = job.objective.loss(job.model, first, None)
    whole, _ = job.model(torch.cat((first.inputs, second.inputs)))
    assert float(loss.detach()) == pytest.approx(float((whole[:5] - first.targets).square().mean().detach()), rel=1e-5)
    later, _ = job.objective.loss(job.model, second, state)
    assert float(later.detach()) == pytest.approx(
        float((whole[5:] - second.targets).square().mean().detach()), rel=1e-5
    )
    fit(job, [], never)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "shuffled": ("ones", {}, {}),
    "with replacement": ("ones", {"training__draw": "with-replacement"}, {}),
    "ragged windows": ("wave", {"training__bptt": 3}, {"ragged": True}),
    "bits, dropout": ("parity", {"model__dropout": 0.3, "model__num_layers": 2}, {}),
    "classes, both directions": ("classes", {"model__bidirectional": True}, {"ragged": True}),
    "single, momentum": ("ones", {"training__batch_size": 1, "training__optimizer": "momentum"}, {}),
    "tensorflow": ("ones", {"training__optimizer": "rmsprop-tensorflow"}, {}),
    "epochs": ("ones", {"training__epochs": 3, "training__max_steps": 0, "training__evaluate_every": 0}, {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop", [3, 5])
def test_resuming_gives_the_same_bits(tmp_path: Path, case: str, stop: int) -> None:
    name, changes, options = CASES[case]
    settings, loaded = config(**changes), data(name, **options)
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    fit(task(straight, settings, loaded), [], never)
    with pytest.raises(Interrupted):
        fit(task(parted, settings, loaded), [], after(stop))
    checkpoint = pick_checkpoint(parted / "checkpoints", "last")
    assert checkpoint.state["step"] == stop
    fit(task(parted, settings, loaded, seed=9, resume=checkpoint), [], never)
    ours, theirs = (pick_checkpoint(folder / "checkpoints", "last").path for folder in (parted, straight))
    for file in ("weights.safetensors", "training.safetensors"):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()
    timed = {"seconds", "timesteps_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in read_metrics(f)] for f in (parted, straight)]
    assert rows[0] == rows[1]


def test_metrics_of_sequences(tmp_path: Path) -> None:
    end = fit(task(tmp_path, config(), data()), [], never)
    rows = read_metrics(tmp_path)
    evaluated = [row for row in rows if row["valid_loss"] is not None]
    assert [row["step"] for row in evaluated] == [5, 10, 12]
    assert list(rows[0]) == [
        "step", "epoch", "timesteps", "seconds", "loss", "valid_loss", "valid_accuracy", "valid_share_of_variance",
        "lr", "gradient_norm", "timesteps_per_second",
    ]  # fmt: skip
    assert evaluated[-1]["timesteps"] == end.items == 12 * 15 * 8  # of 60, four batches: 16, 16, 16 and 12
    assert evaluated[-1]["valid_accuracy"] == end.valid_figures["accuracy"]
    assert (tmp_path / "metrics.csv").read_text().startswith("step,epoch,timesteps,seconds,loss,valid_loss,")


def test_patience_of_one_stops_at_the_first_evaluation_that_is_not_better(tmp_path: Path) -> None:
    """As Keras does with a patience of 0."""
    settings = config(training__patience=1, training__evaluate_every=1, training__max_steps=300,
                      training__optimizer={"name": "adamw", "lr": 0.3})  # fmt: skip
    end = fit(task(tmp_path, settings, data()), [], never)
    found = [row["valid_loss"] for row in read_metrics(tmp_path) if row["valid_loss"] is not None]
    assert end.stopped_early
    assert found[:-1] == sorted(found[:-1], reverse=True)
    assert found[-1] >= found[-2] == end.best_loss
    assert pick_checkpoint(tmp_path / "checkpoints").state["step"] == end.step - 1


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    settings = config(training__optimizer={"name": "sgd", "lr": 1e30}, training__clip_norm=0.0)
    with pytest.raises(DivergedError, match=r"at step \d+ .*The state before that step is in"):
        fit(task(tmp_path, settings, data()), [], never)


@pytest.mark.parametrize(
    ("name", "changes", "below"),
    [
        ("ones", {}, 0.05),
        ("wave", {"training__bptt": 4}, 0.018),  # the first of 8 values leaves the sign of the slope open: 0.125 / 8
        ("parity", {}, 0.1),
        ("classes", {}, 0.1),
    ],
)
def test_it_learns(tmp_path: Path, name: str, changes: dict[str, Any], below: float) -> None:
    settings = config(model__hidden_size=16, training__max_steps=400, training__evaluate_every=400,
                      training__optimizer={"name": "adamw", "lr": 0.03}, **changes)  # fmt: skip
    loaded = data(name, count=300, ragged=True) if name != "wave" else data(name)
    end = fit(task(tmp_path, settings, loaded), [], never)
    assert end.valid_loss is not None
    assert end.valid_loss < below


def test_an_input_layer_and_published_initializers(tmp_path: Path) -> None:
    """The network of `counting-ones`: linear layers truncated normal, biases too, forget bias 0.8 on zero biases."""
    settings = config(
        model__cell={"name": "lstm", "forget_bias": 0.8}, model__hidden_size=80, model__input_layer=80,
        model__initializers={
            "input_layer": {"name": "truncated-normal", "std": 0.1},
            "readout": {"name": "truncated-normal", "std": 0.1},
            "input_layer_bias": {"name": "truncated-normal", "std": 0.1},
            "readout_bias": "constant", "bias": "constant", "input": {"name": "uniform", "bound": 0.1},
        },
    )  # fmt: skip
    model = build_sequence_model(settings, data().sizes)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert weights["input_layer.weight"].shape == (80, 1)
    for name in ("input_layer.weight", "input_layer.bias", "readout.weight"):
        assert 0.05 < float(weights[name].std()) < 0.12
        assert float(weights[name].abs().max()) <= 0.2
    assert not weights["readout.bias"].any()
    bias = weights["recurrent.layers.0.bias_ih"] + weights["recurrent.layers.0.bias_hh"]
    assert torch.equal(bias, torch.cat((torch.zeros(80), torch.full((80,), 0.8), torch.zeros(160))))
    assert float(weights["recurrent.layers.0.weight_ih"].abs().max()) <= 0.1


def test_without_a_readout_the_state_is_the_output() -> None:
    settings = config(
        model__cell={"name": "elman", "nonlinearity": "identity"}, model__hidden_size=1, model__bias=False,
        model__name={"name": "sequence-model", "readout": False},
    )  # fmt: skip
    loaded = data()
    model = build_sequence_model(settings, loaded.sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    train = loaded.parts["train"]
    outputs = run_sequences(model, train, loaded.sizes, torch.device("cpu"), "float32")
    np.testing.assert_allclose(outputs, train.targets)


def test_numerics_of_sequences() -> None:
    """Single precision unless asked otherwise; a backend that takes the lengths that will come."""
    for name, options, changes, backend in (
        ("wave", {}, {}, "cudnn"),
        ("wave", {"ragged": True}, {}, "cudnn"),
        ("wave", {"ragged": True}, {"training__bptt": 3}, "cudnn"),
    ):
        settings, loaded = config(**changes), data(name, **options)
        model = build_sequence_model(settings, loaded.sizes)
        numerics, _ = resolve_numerics(settings, model, loaded.sizes)
        assert (numerics.precision, numerics.backend) == ("float32", backend)


# --- what is trivial, and what was seen ---


def test_overlap_counts_inputs_and_length() -> None:
    inputs = np.zeros((3, 4, 1), np.float32)
    inputs[0, 0] = 1
    train = Sequences(inputs, np.zeros((3, 1), np.float32), np.array([4, 3, 2]))
    test = Sequences(inputs, np.ones((3, 1), np.float32), np.array([4, 4, 2]))
    assert in_train(test, train).tolist() == [True, False, True]


def test_baselines() -> None:
    ones, wave, parity, classes = (data(name) for name in DATASETS)
    assert [continues(each) for each in (ones, wave, parity, classes)] == [False, True, False, False]
    for loaded in (ones, wave, parity, classes):
        train = loaded.parts["train"]
        found = baselines(train, train, loaded)
        scores = {n: measure_outputs(torch.from_numpy(y), train, loaded.sizes, None) for n, y in found.items()}
        assert set(scores) == ({"mean", "copy-last"} if loaded is wave else {"mean"})
        if loaded.sizes.loss == "mse":
            assert scores["mean"].share_of_variance == pytest.approx(1.0, rel=1e-5)
    wave_scores = measure_outputs(torch.from_numpy(found_copy(wave)), wave.parts["train"], wave.sizes, None)
    expected = (wave.parts["train"].inputs - wave.parts["train"].targets) ** 2
    assert wave_scores.loss == pytest.approx(float(expected.mean()), rel=1e-5)
    targets = classes.parts["train"].targets
    shares = [np.bincount(column, minlength=3) / len(targets) for column in targets.T]
    entropy = -sum(float((share * np.log(share)).sum()) for share in shares) / 2
    logits = torch.from_numpy(baselines(classes.parts["train"], classes.parts["train"], classes)["mean"])
    assert measure_outputs(logits, classes.parts["train"], classes.sizes, None).loss == pytest.approx(entropy, rel=1e-5)


def found_copy(loaded: SequenceData) -> Any:
    train = loaded.parts["train"]
    return baselines(train, train, loaded)["copy-last"]


# --- the kit ---


def test_a_model_of_sequences_keeps_its_contract() -> None:
    check_model("sequence-model")
    check_model("sequence-model", readout=False)
    check_model("sequence-model", readout_bias=False)


class Slow(SequenceModel):
    """A model as plugins write it: an option of its own, and the rest passed on."""

    def __init__(self, input_layer: Any, recurrent: Any, output_size: int, *, share: float = 0.5, **given: Any) -> None:
        super().__init__(input_layer, recurrent, output_size, **given)
        self.share = share

    def read_out(self, y: Any) -> Any:
        return self.share * super().read_out(y)


def test_a_model_of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    check_model(Slow, share=0.1)
    registry = full_registry()
    entries = {**registry._entries["model"], "slow": [Entry("model", "slow", Slow, "tests", "1")]}
    monkeypatch.setitem(registry._entries, "model", entries)
    settings = config(model__name={"name": "slow", "share": 0.25})
    built = build_sequence_model(settings, data().sizes)
    assert isinstance(built, Slow)
    assert built.share == 0.25
    with pytest.raises(UsageError, match=r"model\.name=slow reads sequences, and this is a task of text"):
        build_model(settings, 9)


def test_the_kit_finds_a_model_that_looks_behind_the_length() -> None:
    class Careless(SequenceModel):
        """Takes the padding for timesteps."""

        def forward(self, x: Any, state: Any = None, *, lengths: Any = None) -> Any:
            return super().forward(x, state)

    with pytest.raises(ConformanceError, match=r"lengths: expected outputs of row \d equal to those of that row alone"):
        check_model(Careless)
