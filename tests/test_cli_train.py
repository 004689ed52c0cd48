"""The commands `train`, `run`, `eval`, `predict`, `generate` and `plot`: what they promise, and what bad input gets."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import shutil
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli import (
    HARBOUR,
    JAPANESE,
    KITCHEN,
    Result,
    assert_no_leftovers,
    call,
    damage,
    entries,
    fail,
    file_size_limit,
    files,
    losses,
    settings,
    strict_json,
    succeed,
)
from safetensors.torch import load_file

from rnnpipe.plugins import full_registry
from rnnpipe.text.vocabulary import load_vocabulary

ONE = ("--workers", 1)
OPTIMIZERS = [name for name in full_registry().names("optimizer") if name != "sparseadam"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def train(source: object, output: object, *words: object, **changes: object) -> Result:
    """Train a small network; it must succeed."""
    return succeed("train", source, "-o", output, *settings(**changes), *words)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs `words` and `chars`, a divided corpus, its dictionary and its tokens: to read."""
    folder = tmp_path_factory.mktemp("shared")
    train(KITCHEN, folder / "words")
    train(KITCHEN, folder / "chars", "--level", "char")
    succeed("clean", KITCHEN, "-o", folder / "corpus", "--split", "8:1:1", "--cleaner", "ascii-words")
    succeed("build-dict", folder / "corpus", "-o", folder / "kitchen.dict", *ONE)
    succeed("encode", folder / "corpus", "--dict", folder / "kitchen.dict", "-o", folder / "tokens", *ONE)
    return folder


@pytest.fixture
def words_run(shared: Path) -> Path:
    return shared / "words"


@pytest.fixture
def chars_run(shared: Path) -> Path:
    return shared / "chars"


@pytest.fixture
def own_run(words_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may spoil."""
    return Path(shutil.copytree(words_run, tmp_path / "own"))


def write_config(path: str = "experiment.toml", text: str = KITCHEN, more: str = "") -> str:
    Path(path).write_text(
        f"""
[data.dataset]
name = "text-files"
inputs = [{json.dumps(text)}]
[model]
hidden_size = 16
encoder = {{ name = "embedding", size = 8 }}
[training]
max_steps = 20
batch_size = 4
bptt = 8
[runtime]
precision = "float32"
threads = 1
{more}
""",
        encoding="utf-8",
    )
    return path


# --- train ---


def test_train_on_a_text_writes_a_whole_run(words_run: Path):
    assert {"config.toml", "dictionary.txt", "metrics.csv", "metrics.jsonl", "checkpoints", "README.md"} <= set(
        entries(words_run)
    )
    assert entries(words_run / "checkpoints") == ["step-20"]
    assert_no_leftovers(words_run)
    with (words_run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(row["step"]) for row in losses(words_run)]
    assert float(rows[-1]["valid_loss_nats"]) == losses(words_run)[-1]["valid_loss_nats"]
    assert math.exp(float(rows[0]["loss_nats"])) == pytest.approx(float(rows[0]["perplexity"]))


def test_train_tells_results_on_stdout_and_progress_on_stderr():
    result = train(KITCHEN, "run")
    assert "test text" in result.out
    assert "perplexity" in result.out
    assert "sample:" in result.out
    lines = result.err.splitlines()
    assert lines[0] == "run folder: run"
    assert any(line.startswith("step 1/20  epoch 1  loss ") and "tokens/s  ETA" in line for line in lines)
    assert any(line.startswith("step 20  validation loss ") for line in lines)
    assert lines[-1] == "next: rnnpipe generate run '' -n 3"
    assert succeed(*shlex.split(lines[-1].removeprefix("next: rnnpipe "))).out


def test_train_json_is_all_of_stdout():
    report = train(KITCHEN, "run", "--json").json()
    assert report["run"] == "run"
    assert report["steps"] == 20
    assert report["up_to_date"] is False
    assert report["evaluation"]["windows"]["tokens"] > 100
    assert report["best_valid_loss_nats"] == losses(Path("run"))[-1]["valid_loss_nats"]
    again = train(KITCHEN, "run", "--json").json()
    assert again["up_to_date"] is True
    assert again["evaluation"] == report["evaluation"]


def test_the_same_command_again_skips_all_and_changes_nothing():
    first = train(KITCHEN, "run")
    before = files(Path("run"))
    second = train(KITCHEN, "run")
    assert files(Path("run")) == before
    assert second.out == first.out
    for stage in ("clean", "build-dict", "encode", "train"):
        assert f"{stage}: up to date" in second.err
    assert "step 1" not in second.err


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_text_is_trained_on_when_the_run_may_be_replaced(finished: bool):
    Path("a.txt").write_text(Path(KITCHEN).read_text(encoding="utf-8"), encoding="utf-8")
    train("a.txt", "run")
    if not finished:
        Path("run/run.json").unlink()  # as training leaves it when it is interrupted
    before = files(Path("run"))
    Path("a.txt").write_text(Path(HARBOUR).read_text(encoding="utf-8"), encoding="utf-8")
    assert "--overwrite" in fail("train", "a.txt", "-o", "run", *settings(), "--resume", "auto", code=1)
    assert files(Path("run")) == before
    result = train("a.txt", "run", "--overwrite")
    assert "up to date" not in result.err
    assert losses(Path("run")) != losses_of(before)


def test_without_a_name_a_run_goes_to_a_folder_of_its_own():
    Path("book.txt").write_text(Path(KITCHEN).read_text(encoding="utf-8"), encoding="utf-8")
    for _ in range(2):
        succeed("train", "book.txt", *settings())
    succeed("train", "book.txt", *settings(), "--seed", 1)
    succeed("train", "book.txt", *settings(), "--level", "char", "--cell", "gru")
    assert entries(Path("runs")) == ["book-char-gru", "book-word-lstm", "book-word-lstm-2"]


def test_train_on_a_cleaned_corpus_and_on_its_tokens_is_the_same(shared: Path):
    train(shared / "corpus", "from-corpus")
    result = train(shared / "tokens", "from-tokens")
    assert "tokens: train " in result.err
    assert losses(Path("from-corpus")) == losses(Path("from-tokens"))
    assert Path("from-tokens/dictionary.txt").read_bytes() == (shared / "kitchen.dict").read_bytes()
    assert succeed("eval", "from-tokens", "--json").json() == succeed("eval", "from-corpus", "--json").json()


def test_train_on_a_configuration():
    report = succeed("train", write_config(), "--json").json()
    assert report["run"] == "runs/experiment-word-lstm"
    train(KITCHEN, "flags")
    assert losses(Path(report["run"])) == losses(Path("flags"))


def test_flags_and_settings_override_the_configuration():
    succeed("train", write_config(), "-o", "run", "--cell", "gru", "--set", "model.hidden_size=5", "--seed", 7)
    config = tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))
    assert config["model"]["cell"] == "gru"
    assert config["model"]["hidden_size"] == 5
    assert config["runtime"]["seed"] == 7


def test_a_fast_backend_or_none():
    """`--require-fast` and `--backend` refuse with the reason before anything is trained."""
    slow = fail("train", KITCHEN, "-o", "run", *settings(model__cell="cifg"), "--require-fast", code=1)
    assert "only the plain loop over time is left" in slow
    assert "hoisted: in plain torch it is no faster than the loop on so little at once (windows too small" in slow
    refused = fail("train", KITCHEN, "-o", "run", *settings(model__cell="mgu"), "--backend", "hoisted", code=2)
    assert "backend 'hoisted' refuses: MGU is no GatedCell" in refused
    assert not Path("run/checkpoints").exists()
    said = succeed("train", KITCHEN, "-o", "run", *settings(model__cell="lstm"), "--require-fast").err
    assert "backend cudnn" in said


def test_how_a_backend_ran_is_recorded_and_obeyed():
    words = ("train", KITCHEN, "-o", "run", *settings(model__cell="cifg"), "--backend", "hoisted")
    assert "backend hoisted (plain)" in succeed(*words).err
    numerics = tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))["numerics"]
    assert (numerics["backend"], numerics["elementwise"]) == ("hoisted", "plain")
    Path("run/run.json").unlink()  # as if it had been interrupted
    assert "backend hoisted (plain)" in succeed("train", "--resume", "run").err
    succeed("eval", "run")


@pytest.mark.parametrize("level", ["word", "char"])
def test_the_config_of_a_run_repeats_it_exactly(level: str, shared: Path):
    run = shared / f"{level}s"
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert config["numerics"]["precision"] == "float32"
    assert "auto" not in config["numerics"].values()
    succeed("train", run / "config.toml", "-o", "again")
    assert losses(Path("again")) == losses(run)
    weights = "checkpoints/step-20/weights.safetensors"
    assert Path("again", weights).read_bytes() == (run / weights).read_bytes()
    assert Path("again/config.toml").read_bytes() == (run / "config.toml").read_bytes()
    assert Path("again/evaluation.json").read_bytes() == (run / "evaluation.json").read_bytes()


def test_the_seed_decides_the_numbers(words_run: Path):
    train(KITCHEN, "same", "--seed", 0)
    train(KITCHEN, "other", "--seed", 1)
    assert losses(Path("same")) == losses(words_run)
    assert losses(Path("other")) != losses(words_run)


def test_dry_run_prints_the_configuration_and_writes_nothing():
    result = succeed("train", KITCHEN, *settings(), "--dry-run", "--cell", "gru")
    assert tomllib.loads(result.out)["model"]["cell"] == "gru"
    assert "train: would run" in result.err
    assert entries(Path()) == []


def test_a_given_dictionary_is_used(shared: Path):
    result = train(KITCHEN, "run", "--dict", shared / "kitchen.dict")
    assert Path("run/dictionary.txt").read_bytes() == (shared / "kitchen.dict").read_bytes()
    assert "kitchen.dict" in result.err


def test_a_dictionary_that_saw_the_test_text_is_warned_about():
    succeed("build-dict", KITCHEN, "-o", "all.dict", *ONE)
    result = train(KITCHEN, "run", "--dict", "all.dict")
    assert "warning: the dictionary counted kitchen-notes.txt" in result.err


def test_tokens_that_are_not_divided_are_warned_about():
    succeed("build-dict", KITCHEN, "-o", "all.dict", *ONE)
    succeed("encode", KITCHEN, "--dict", "all.dict", "-o", "tokens", *ONE)
    result = train("tokens", "run")
    assert "warning: " in result.err
    assert "not divided" in result.err
    assert any(row["valid_loss_nats"] for row in losses(Path("run")))


def test_a_run_on_undivided_tokens_can_be_evaluated():
    succeed("build-dict", KITCHEN, "-o", "all.dict", *ONE)
    succeed("encode", KITCHEN, "--dict", "all.dict", "-o", "tokens", *ONE)
    train("tokens", "run")
    succeed("eval", "run")


@pytest.mark.parametrize(
    "words",
    [
        ("--cell", "gru"),
        ("--cell", "elman"),
        ("--cell", "elman", "--set", "model.cell.nonlinearity=relu"),
        ("--set", "model.cell.forget_bias=1.0"),
        ("--set", "model.num_layers=3"),
        ("--set", "model.num_layers=2", "--set", "model.dropout=0.5"),
        ("--set", "model.encoder=one-hot"),
        ("--set", 'model.encoder={name="one-hot", size=8}'),
        ("--set", "model.tied=true"),
        ("--set", "model.tied=true", "--set", "model.hidden_size=8"),
        ("--set", "model.bias=false"),
        ("--set", "training.window=4"),
        ("--set", "training.window=4", "--set", "model.bidirectional=true"),
        ("--set", "training.window=4", "--set", "model.bidirectional=true", "--set", "model.num_layers=2"),
        ("--set", "runtime.backend=loop"),
        ("--set", "runtime.backend=cudnn"),
        ("--precision", "bfloat16"),
        ("--level", "char", "--cell", "gru", "--set", "training.window=4"),
        ("--level", "char", "--set", "model.encoder=one-hot"),
        ("--set", "text.cleaner=ascii-words", "--set", "text.unknown_threshold=0"),
        ("--set", "text.max_size=20"),
        ("--set", "text.cleaner.name=unicode-words", "--set", "text.cleaner.lowercase=false"),
        ("--set", "data.dataset.split=9:1"),
        ("--set", "training.epochs=1", "--set", "training.max_steps=0", "--set", "training.bptt=64"),
        ("--set", "training.max_steps=0", "--set", "training.max_seconds=0.1"),
    ],
    ids=" ".join,
)
def test_a_network_trains_evaluates_predicts_and_generates(words: tuple[str, ...]):
    report = train(KITCHEN, "run", *words, "--json").json()
    assert math.isfinite(report["evaluation"]["windows"]["loss_nats"])
    assert math.isfinite(succeed("eval", "run", "--json").json()["carried"]["loss_nats"])
    shares = [item["probability"] for item in succeed("predict", "run", "the salt", "--json").json()["next"]]
    assert shares == sorted(shares, reverse=True)
    assert succeed("generate", "run", "the salt", "--max-tokens", 3).out.startswith("the salt")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains(name: str):
    train(KITCHEN, "run", "--optimizer", name, training__max_steps=3)
    config = tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))
    chosen = config["training"]["optimizer"]
    assert (chosen["name"] if isinstance(chosen, dict) else chosen) == name
    assert math.isfinite(succeed("eval", "run", "--json").json()["windows"]["loss_nats"])


def test_the_optimizers_of_the_list_are_those_that_were_tried():
    listed = succeed("plugins", "list", "--kind", "optimizer", "--json").json()["plugins"]
    assert sorted(item["name"] for item in listed) == sorted([*OPTIMIZERS, "sparseadam"])


def test_sparseadam_says_why_it_refuses():
    error = fail("train", KITCHEN, "-o", "run", *settings(), "--optimizer", "sparseadam", code=2)
    assert "sparse gradients" in error
    assert "adamw" in error


@pytest.mark.parametrize("kind", ["input", "recurrent", "embedding", "readout"])
@pytest.mark.parametrize(
    "name", ["uniform", "normal", "truncated-normal", "orthogonal", "xavier-uniform", "xavier-normal", "constant"]
)
def test_every_initializer_of_every_matrix(kind: str, name: str):
    train(KITCHEN, "run", "--set", f"model.initializers.{kind}={name}", training__max_steps=1)


def test_an_initializer_takes_options():
    words = ("--set", "model.initializers.bias.name=constant", "--set", "model.initializers.bias.value=0.25")
    train(KITCHEN, "run", *words, "--optimizer", "sgd", "--set", "training.optimizer.lr=0.0", training__max_steps=1)
    weights = load_file("run/checkpoints/step-1/weights.safetensors")
    assert all((tensor == 0.25).all() for name, tensor in weights.items() if "bias" in name.rsplit(".")[-1])


def test_early_stopping_ends_training():
    words = ("--set", "training.patience=1", "--set", "training.evaluate_every=2")
    report = train(KITCHEN, "run", *words, "--set", "training.optimizer.lr=10.0", "--json").json()
    assert report["steps"] < 20
    assert succeed("eval", "run", "--weights", "last", "--json").json()["step"] == report["steps"]


def test_best_and_last_are_kept():
    words = ("--set", "training.evaluate_every=2", "--set", "training.optimizer.lr=10.0")
    report = train(KITCHEN, "run", *words, "--json").json()
    best = min((row for row in losses(Path("run")) if row["valid_loss_nats"]), key=lambda row: row["valid_loss_nats"])
    assert report["best_valid_loss_nats"] == best["valid_loss_nats"]
    assert succeed("eval", "run", "--json").json()["step"] == best["step"]
    assert succeed("eval", "run", "--weights", "last", "--json").json()["step"] == 20
    assert f"step-{best['step']}" in entries(Path("run/checkpoints"))
    assert len(entries(Path("run/checkpoints"))) <= 3


def test_the_plateau_schedule_lowers_the_rate():
    words = ["training.schedule=plateau", "training.evaluate_every=1", "training.plateau_patience=0"]
    words += ["training.optimizer.lr=1e-12", "training.log_every=1"]
    train(KITCHEN, "run", *(word for key in words for word in ("--set", key)))
    rates = [row["lr"] for row in losses(Path("run"))]
    assert rates[0] == 1e-12
    assert rates[-1] < 1e-15
    assert rates == sorted(rates, reverse=True)


def test_warm_up_raises_the_rate():
    words = ["training.schedule=constant", "training.warmup_steps=10", "training.log_every=1"]
    train(KITCHEN, "run", *(word for key in words for word in ("--set", key)))
    rates = [row["lr"] for row in losses(Path("run")) if row["valid_loss_nats"] is None]
    assert rates == pytest.approx([0.0003 * min(step, 10) for step in range(1, 21)])


def test_tensorboard_is_written_when_asked():
    pytest.importorskip("tensorboard")
    train(KITCHEN, "run", "--set", 'training.callbacks=["tensorboard"]')
    assert any(name.startswith("tensorboard/events") for name in files(Path("run")))


def test_japanese_trains_by_character():
    report = train(JAPANESE, "run", "--level", "char", "--json").json()
    assert "bits_per_character" in report["evaluation"]["windows"]


def test_real_text_trains(data_dir: Path):
    text = data_dir / "ja" / "1318_ruby_1898.txt"
    if not text.is_file():
        pytest.skip(f"no {text}")
    assert "byte 0 (0x90)" in fail("train", text, "-o", "failed", *settings(), code=1)
    train(text, "run", "--level", "char", "--set", "data.dataset.encoding=cp932")


def test_the_demo_dry_run_needs_no_text():
    result = succeed("train", "--demo", "--dry-run")
    assert tomllib.loads(result.out)["data"]["dataset"] == "python-docs"
    assert entries(Path()) == []


# --- run ---


def test_run_runs_all_stages_and_skips_what_is_up_to_date():
    config = write_config()
    first = succeed("run", config)
    for stage in ("clean", "build-dict", "encode"):
        assert f"{stage}: done" in first.err
    before = files(Path("runs/experiment"))
    second = succeed("run", config)
    assert "done" not in second.err
    assert "train: up to date" in second.err
    assert second.out == first.out
    assert files(Path("runs/experiment")) == before


def test_run_to_a_stage_and_on_from_there():
    config = write_config()
    succeed("run", config, "--to", "clean")
    assert set(entries(Path("runs/experiment"))) == {"config.toml", "corpus"}
    succeed("run", config, "--to", "build-dict")
    assert set(entries(Path("runs/experiment"))) == {"config.toml", "corpus", "dictionary.txt"}
    result = succeed("run", config, "--to", "encode")
    assert "clean: up to date" in result.err
    assert "encode: done" in result.err
    assert "run.json" in entries(Path("runs/experiment")) or succeed("run", config, "--to", "train")
    assert "train: up to date" in succeed("run", config).err


def test_run_from_a_stage_repeats_it_and_all_behind_it():
    config = write_config()
    succeed("run", config)
    before = losses(Path("runs/experiment"))
    for stage in ("clean", "build-dict", "encode", "train"):
        content = files(Path("runs/experiment"))
        assert "--overwrite" in fail("run", config, "--from", stage, code=1)
        assert files(Path("runs/experiment")) == content
    result = succeed("run", config, "--from", "encode", "--overwrite")
    assert "build-dict: up to date" in result.err
    assert "encode: done" in result.err
    assert "step 1/20" in result.err
    assert losses(Path("runs/experiment")) == before


def test_run_equals_train():
    succeed("run", write_config(), "-o", "by-run")
    train(KITCHEN, "by-train")
    for name in ("dictionary.txt", "tokens/train/tokens.npy", "checkpoints/step-20/weights.safetensors"):
        assert Path("by-run", name).read_bytes() == Path("by-train", name).read_bytes()


def test_each_stage_by_hand_gives_the_bytes_of_run():
    succeed("run", write_config(), "-o", "run", "--to", "encode")
    succeed("clean", KITCHEN, "-o", "corpus", "--split", "8:1:1")
    succeed("build-dict", "corpus", "-o", "by-hand.dict", *ONE)
    succeed("encode", "corpus", "--dict", "by-hand.dict", "-o", "tokens", *ONE)
    assert files(Path("corpus")) == files(Path("run/corpus"))
    assert Path("by-hand.dict").read_bytes() == Path("run/dictionary.txt").read_bytes()
    assert files(Path("tokens")) == files(Path("run/tokens"))


def test_run_on_the_config_of_a_run_means_that_run(own_run: Path):
    before = files(own_run)
    assert "train: up to date" in succeed("run", own_run / "config.toml").err
    assert files(own_run) == before


def test_run_dry_run_tells_the_stages():
    config = write_config()
    result = succeed("run", config, "--dry-run", "--to", "encode")
    assert "encode: would run" in result.err
    assert "train: left out" in result.err
    assert entries(Path()) == [config]


@pytest.mark.parametrize("words", [("--dry-run",), ("--to", "encode")])
def test_json_output_is_json_whatever_runs(words: tuple[str, ...]):
    succeed("run", write_config(), *words, "--json").json()


# --- eval ---


def test_eval_on_the_run_and_on_a_text(words_run: Path):
    own = succeed("eval", words_run, "--json").json()
    assert own == strict_json((words_run / "evaluation.json").read_text(encoding="utf-8"))
    report = succeed("eval", words_run, HARBOUR, "--window", 16, "--json").json()
    assert report["windows"]["window"] == 16
    assert report["text"] == HARBOUR
    assert report["windows"]["tokens"] == report["carried"]["tokens"] > 5000
    assert report["windows"]["perplexity"] == pytest.approx(math.exp(report["windows"]["loss_nats"]))
    assert 0 < report["unknown_rate"] < 1
    text = succeed("eval", words_run, HARBOUR, "--window", 16).out
    assert "windows reset every 16: loss" in text
    assert "one pass, state carried: loss" in text
    assert "bits per character" not in text


def test_eval_of_characters_has_bits(chars_run: Path):
    report = succeed("eval", chars_run, KITCHEN, "--json").json()
    assert report["windows"]["bits_per_character"] == pytest.approx(report["windows"]["loss_nats"] / math.log(2))
    assert "bits per character" in succeed("eval", chars_run).out


def test_eval_beside_ngrams(words_run: Path):
    text = succeed("eval", words_run, "--ngram", 3).out
    assert "3-grams of the training text (Kneser-Ney): loss " in text
    own = succeed("eval", words_run, "--ngram", 3, "--json").json()
    assert own["ngrams"]["3"]["tokens"] == own["carried"]["tokens"]
    # On what it has counted itself it does better than on the test text.
    seen = succeed("eval", words_run, KITCHEN, "--ngram", 3, "--json").json()
    assert seen["ngrams"]["3"]["loss_nats"] < own["ngrams"]["3"]["loss_nats"]
    assert "--ngram" in fail("eval", words_run, "--ngram", 0, code=2)


def test_eval_reads_several_texts_standard_input_and_a_corpus(words_run: Path, shared: Path):
    one = succeed("eval", words_run, KITCHEN, "--json").json()
    piped = succeed("eval", words_run, "-", "--json", stdin=Path(KITCHEN).read_bytes()).json()
    assert piped["windows"] == one["windows"]
    both = succeed("eval", words_run, KITCHEN, HARBOUR, "--json").json()
    assert both["windows"]["tokens"] > one["windows"]["tokens"]
    succeed("clean", KITCHEN, "-o", "corpus")
    assert succeed("eval", words_run, "corpus", "--json").json()["windows"] == one["windows"]
    assert "ascii-words" in fail("eval", words_run, shared / "corpus", code=1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b" \n \n", "no token is left"),
        (b"salt\n", "at least 2"),
        (b"fine\nca\xe9\n", "line 2, byte 7 (0xe9)"),
        (b"no\0t\n", "NUL"),
    ],
)
def test_eval_on_a_bad_text(data: bytes | None, said: str, words_run: Path):
    if data is not None:
        Path("bad.txt").write_bytes(data)
    error = fail("eval", words_run, "bad.txt", code=1)
    assert said in error
    assert "bad.txt" in error


def test_eval_on_a_folder_without_text(words_run: Path):
    Path("folder").mkdir()
    assert "folder" in fail("eval", words_run, "folder", code=1)


def test_eval_with_mended_bytes(words_run: Path):
    Path("bad.txt").write_bytes(b"the salt and the \xff\n")
    assert "1 bytes were not valid" in succeed("eval", words_run, "bad.txt", "--errors", "replace").err


# --- predict ---


def test_predict_shows_a_distribution(words_run: Path):
    size = load_vocabulary(words_run / "dictionary.txt").size
    report = succeed("predict", words_run, "The SALT, please xyzzy", "--top", size, "--json").json()
    assert report["tokens"] == ["the", "salt", "please", "xyzzy"]
    assert "xyzzy" in report["unknown"]
    assert len(report["next"]) == size
    assert sum(item["probability"] for item in report["next"]) == pytest.approx(1)


def test_predict_prints_a_table_and_names_what_it_does_not_know(words_run: Path):
    result = succeed("predict", words_run, "the xyzzy", "--top", 3)
    assert len(result.out.splitlines()) == 3
    assert "unknown to this run: 'xyzzy'" in result.err


def test_predict_of_nothing_is_the_start_of_a_document(words_run: Path):
    empty = succeed("predict", words_run, "", "--json").json()
    assert succeed("predict", words_run, " ... ", "--json").json()["next"] == empty["next"]
    assert "how a document begins" in succeed("predict", words_run, "").err


# --- generate ---


def test_generate_continues_its_prompts_in_order(words_run: Path):
    result = succeed("generate", words_run, "the salt", "a pan", "--max-tokens", 4)
    first, second = result.out.splitlines()
    assert first.startswith("the salt ")
    assert second.startswith("a pan ")
    assert len(first.split()) == 6


def test_generate_reads_a_file_and_standard_input(words_run: Path):
    Path("prompts.txt").write_text("the salt\n\na pan\n", encoding="utf-8")
    from_file = succeed("generate", words_run, "--file", "prompts.txt", "--max-tokens", 4)
    piped = succeed("generate", words_run, "--file", "-", "--max-tokens", 4, stdin=b"the salt\r\n\r\na pan\r\n")
    assert from_file.out == piped.out
    assert len(from_file.out.splitlines()) == 3
    assert from_file.out == succeed("generate", words_run, "the salt", "", "a pan", "--max-tokens", 4).out


def test_generate_jsonl_in_and_out(words_run: Path):
    lines = ['{"prompt": "the xyzzy"}', "", '{"prompt": "a", "id": "x", "seed": 5}', '{"prompt": ""}']
    source = "\n".join(lines).encode()
    rows = succeed("generate", words_run, "--file", "-", "--jsonl", "--max-tokens", 4, stdin=source).jsonl()
    assert [row["prompt"] for row in rows] == ["the xyzzy", "a", ""]
    assert [row["id"] for row in rows][1] == "x"
    assert [row["seed"] for row in rows] == [0, 5, 0]
    assert rows[0]["unknown"] == ["xyzzy"]
    for row in rows:
        assert row["finish"] in ("length", "document")
        assert row["text"] == " ".join(row["tokens"])
        assert row["log_probability"] < 0


def test_generate_several_texts_for_each_prompt(words_run: Path):
    rows = succeed("generate", words_run, "the", "a", "-n", 3, "--jsonl", "--max-tokens", 8).jsonl()
    assert [row["id"] for row in rows] == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    assert len({row["text"] for row in rows}) > 1


def test_generate_is_decided_by_its_seed(words_run: Path):
    words = ("generate", words_run, "the", "-n", 3, "--max-tokens", 20)
    assert succeed(*words, "--seed", 3).out == succeed(*words, "--seed", 3).out
    assert succeed(*words, "--seed", 3).out != succeed(*words, "--seed", 4).out


def test_a_prompt_gives_the_same_text_alone_and_among_others(words_run: Path):
    alone = succeed("generate", words_run, "the salt", "--max-tokens", 10, "--jsonl").jsonl()
    many = succeed("generate", words_run, "the salt", *["a pan of water"] * 70, "--max-tokens", 10, "--jsonl").jsonl()
    assert len(many) == 71
    assert many[0]["tokens"] == alone[0]["tokens"]


def test_temperature_0_and_top_k_1_are_greedy(words_run: Path):
    words = ("generate", words_run, "the", "-n", 2, "--max-tokens", 10)
    greedy = succeed(*words, "--temperature", 0).out
    assert len(set(greedy.splitlines())) == 1
    assert succeed(*words, "--top-k", 1).out == greedy
    assert succeed(*words, "--top-p", 1e-9).out == greedy
    assert succeed(*words, "--top-k", 3, "--top-p", 0.5, "--temperature", 0.7).out


def test_unknown_is_drawn_only_when_allowed(words_run: Path):
    words = ("generate", words_run, "-n", 20, "--max-tokens", 50)
    assert "<unk>" not in succeed(*words).out
    assert "<unk>" in succeed(*words, "--allow-unknown").out


def test_generate_with_characters_goes_on_within_the_word(chars_run: Path):
    result = succeed("generate", chars_run, "the sal", "--max-tokens", 1, "--temperature", 0)
    assert len(result.out.rstrip("\n")) <= len("the sal") + 1


def test_generate_warns_of_unknown_words(words_run: Path):
    assert "unknown to this run: 'xyzzy'" in succeed("generate", words_run, "xyzzy", "--max-tokens", 2).err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b'{"prompt": "a"}\nnonsense\n', "standard input, line 2: not JSON"),
        (b'{"prompt": "a"}\n\n[1]\n', "standard input, line 3"),
        (b'{"prompt": 3}\n', "line 1"),
        (b'{"text": "a"}\n', '"prompt"'),
        (b'{"prompt": "a", "seed": -1}\n', '"seed" is -1'),
        (b'{"prompt": "a", "seed": 1.5}\n', '"seed" is 1.5'),
        (b'{"prompt": "a"\n', "line 1: not JSON"),
        (b'{"prompt": "a"}\n\xff\n', "line 2, byte 0: not UTF-8"),
        pytest.param(b"[" * 100_000, "nested", id="nested"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(source: bytes, said: str, words_run: Path):
    result = call("generate", words_run, "--file", "-", "--jsonl", "--max-tokens", 2, stdin=source)
    assert result.code == 1
    assert said in result.error
    assert [row["prompt"] for row in result.jsonl()] == ["a"] * source.count(b'{"prompt": "a"}\n'), (
        "what came before is answered"
    )


def test_prompts_that_cannot_be_read(words_run: Path):
    assert "nofile" in fail("generate", words_run, "--file", "nofile", code=1)
    assert "." in fail("generate", words_run, "--file", ".", code=1)
    assert "line 1, byte 1" in fail("generate", words_run, "--file", "-", code=1, stdin=b"a\xff\n")


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "the \udcff", "--max-tokens", 2),
        ("generate", "the \udcff", "--max-tokens", 2, "--jsonl"),
        ("predict", "the \udcff", "--json"),
    ],
)
def test_a_prompt_that_is_not_text_is_an_error_of_its_own(words: tuple[object, ...], chars_run: Path):
    assert call(words[0], chars_run, *words[1:]).error


# --- plot ---


def test_plot_draws_in_the_terminal(words_run: Path):
    chart = succeed("plot", words_run).out
    assert "*" in chart
    assert "o" in chart
    assert "20 steps" in chart
    assert f"o validation {losses(words_run)[-1]['valid_loss_nats']:.4f}" in chart


def test_plot_writes_a_png(words_run: Path):
    pytest.importorskip("matplotlib")
    result = succeed("plot", words_run, "-o", "loss.png")
    assert Path("loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "written: loss.png" in result.err


def test_plot_of_what_is_no_run(words_run: Path, own_run: Path):
    assert "no metrics" in fail("plot", "nowhere", code=1)
    assert "is a directory" in fail("plot", words_run, "-o", ".", code=1)
    (own_run / "metrics.jsonl").write_text('{"step": 1, "loss_nats": 1.0}\nnonsense\n', encoding="utf-8")
    assert "metrics.jsonl, line 2" in fail("plot", own_run, code=1)
    (own_run / "metrics.jsonl").write_text("", encoding="utf-8")
    assert "no losses" in fail("plot", own_run, code=1)


def test_plot_on_a_full_disk_leaves_nothing(words_run: Path):
    pytest.importorskip("matplotlib")
    with file_size_limit(100):
        fail("plot", words_run, "-o", "loss.png", code=1)
    assert entries(Path()) == []


# --- bad texts ---

BAD_TEXTS = {
    "missing": (None, "no such file"),
    "empty": (b"", "is empty"),
    "blank": (b" \n\n \n", "nothing is left"),
    "one word": (b"word\n", "no token occurs more than 3 times"),
    "all rare": (b"a b c d e\nf g h i j\n", "no token occurs more than 3 times"),
    "shorter than a window": (b"a a a a a\n", "too few for a window of 8"),
    "not UTF-8": (b"fine\nca\xe9 there\n", "line 2, byte 7 (0xe9)"),
    "NUL": (b"fine\nno\0t\n", "line 2, byte 7: NUL"),
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_train_on_a_bad_text_says_what_is_wrong(kind: str):
    data, said = BAD_TEXTS[kind]
    if data is not None:
        Path("bad.txt").write_bytes(data)
    assert said in fail("train", "bad.txt", "-o", "run", *settings(), code=1)
    assert_no_leftovers(Path())
    assert not Path("run/run.json").exists()
    assert not Path("run/checkpoints").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "blank", "not UTF-8", "NUL"])
def test_train_on_a_text_that_cannot_be_read_leaves_no_folder(kind: str):
    data, _ = BAD_TEXTS[kind]
    if data is not None:
        Path("bad.txt").write_bytes(data)
    fail("train", "bad.txt", *settings(), code=1)
    assert entries(Path()) == ([] if data is None else ["bad.txt"])


def test_the_way_out_of_bad_bytes_is_one_that_train_has():
    Path("bad.txt").write_bytes(b"ca\xe9 there\n")
    error = fail("train", "bad.txt", "-o", "run", *settings(), code=1)
    assert "data.dataset.encoding" in error or "--encoding" in succeed("train", "--help").out


def test_the_way_out_of_rare_words_is_one_that_train_has():
    Path("bad.txt").write_text("a b c\n", encoding="utf-8")
    error = fail("train", "bad.txt", "-o", "run", *settings(), code=1)
    assert "text.unknown_threshold" in error or "--unknown-threshold" in succeed("train", "--help").out


def test_train_mends_bytes_when_asked_and_counts_them():
    Path("bad.txt").write_bytes(Path(KITCHEN).read_bytes() + b"\xff\n")
    result = train("bad.txt", "run", "--set", "data.dataset.errors=replace")
    assert "1 bytes" in result.err


def test_a_text_on_one_line_has_no_part_to_validate_on_and_train_says_so():
    Path("line.txt").write_text(" ".join(Path(KITCHEN).read_text(encoding="utf-8").split()), encoding="utf-8")
    assert "warning: " in train("line.txt", "run").err


def test_a_run_folder_is_not_taken_for_text(own_run: Path):
    error = fail("train", own_run, "-o", "run", *settings(), code=1)
    assert "config.toml" in error


def test_a_token_folder_among_texts_is_refused():
    succeed("build-dict", KITCHEN, "-o", "words.dict")
    succeed("encode", KITCHEN, "--dict", "words.dict", "-o", "tokens")
    assert "tokens: is a token folder; give it alone" in fail("train", KITCHEN, "tokens", "-o", "run", code=1)


def test_a_configuration_among_texts_is_refused():
    config = write_config()
    assert "experiment.toml" in fail("train", KITCHEN, config, "-o", "run", *settings(), code=2)


# --- bad names and values ---


BAD_SETTINGS = [
    (("--cell", "lstmm"), "Did you mean 'lstm'?"),
    (("--optimizer", "adamv"), "Did you mean 'adam"),
    (("--set", "model.encoder=embeding"), "Did you mean 'embedding'?"),
    (("--set", "model.name=langauge-model"), "Did you mean 'language-model'?"),
    (("--set", "model.initializers.recurrent=orthogona"), "Did you mean 'orthogonal'?"),
    (("--set", "model.initializers.recurent=orthogonal"), "Did you mean 'recurrent'?"),
    (("--set", "model.cell.forget_bia=1"), "Did you mean 'forget_bias'?"),
    (("--set", "model.cell.forget_bias=much"), "a number"),
    (("--set", "training.optimizer.weight_decy=1"), "Did you mean 'weight_decay'?"),
    (("--set", "training.optimizer.lr=-1.0"), "learning rate"),
    (("--set", "training.trainer=gradient-decent"), "Did you mean 'gradient-descent'?"),
    (("--set", 'training.callbacks=["tensorbord"]'), "Did you mean 'tensorboard'?"),
    (("--set", "text.cleaner=ascii-word"), "Did you mean 'ascii-words'?"),
    (("--set", "text.tokenizer=whitespaces"), "Did you mean 'whitespace'?"),
    (("--set", "data.dataset=text-file"), "Did you mean 'text-files'?"),
    (("--set", "data.dataset.split=8:1:x"), "8:1:1"),
    (("--set", "data.dataset.encoding=utf9"), "unknown encoding 'utf9'"),
    (("--set", "runtime.backend=cuda"), "cudnn"),
    (("--set", "model.bidirectional=true"), "training.window"),
    (("--set", "model.tied=true", "--set", "model.encoder=one-hot"), "'embedding'"),
]
WRONG_WORDS = [
    (("--celll", "gru"), "'--cell'"),
    (("--level", "words"), "'word'"),
    (("--seed", "-1"), "-1"),
    (("--seed", "one"), "one"),
    (("--precision", "float16"), "'bfloat16'"),
    (("--device", "gpu"), "'cuda'"),
    (("--set", "model.hiden_size=3"), "Did you mean 'hidden_size'?"),
    (("--set", "hidden_size=3"), "Did you mean 'model.hidden_size'?"),
    (("--set", "modle.hidden_size=3"), "Did you mean 'model'?"),
    (("--set", "model.hidden_size"), "KEY=VALUE"),
    (("--set", ""), "KEY=VALUE"),
    (("--set", "=3"), "unknown key"),
    (("--set", "model.hidden_size=many"), "a whole number"),
    (("--set", "model.hidden_size=0"), "1 or more"),
    (("--set", "model.hidden_size=1.5"), "a whole number"),
    (("--set", "model.hidden_size.x=1"), "a value, not a table"),
    (("--set", "model.num_layers=true"), "a whole number"),
    (("--set", "model.dropout=1"), "below 1"),
    (("--set", "model.cell=3"), "a name"),
    (("--set", "training=3"), "a table"),
    (("--set", "training.schedule=linear"), "'plateau'"),
    (("--set", "training.callbacks=tensorboard"), "a list"),
    (("--set", "training.clip_norm=nan"), "0 (no clipping) or more"),
    (("--set", "training.max_seconds=-1"), "0 or more"),
    (("--set", "training.epochs=0", "--set", "training.max_steps=0"), "nothing would end training"),
    (("--set", "runtime.seed=99999999999999999999"), "2^63"),
]


def title(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else ""


@pytest.mark.parametrize(("words", "said"), WRONG_WORDS, ids=title)
def test_a_wrong_option_or_key_is_a_usage_error(words: tuple[str, ...], said: str):
    error = fail("train", KITCHEN, "-o", "run", *settings(), *words, code=2)
    assert said in error
    assert entries(Path()) == []


@pytest.mark.parametrize(("words", "said"), BAD_SETTINGS, ids=title)
def test_a_wrong_name_or_option_of_a_part_is_a_usage_error(words: tuple[str, ...], said: str):
    assert said in fail("train", KITCHEN, "-o", "run", *settings(), *words, code=2)
    assert not Path("run/checkpoints").exists()
    assert_no_leftovers(Path())


@pytest.mark.parametrize(("words", "said"), BAD_SETTINGS, ids=title)
def test_a_wrong_name_is_found_before_anything_is_written(words: tuple[str, ...], said: str):
    fail("train", KITCHEN, "-o", "run", *settings(), *words, code=2)
    assert entries(Path()) == []


# What a dry run does not build.
NOT_TRIED = ("training.trainer=gradient-decent", 'training.callbacks=["tensorbord"]', "data.dataset.encoding=utf9")


@pytest.mark.parametrize(("words", "said"), [case for case in BAD_SETTINGS if case[0][-1] not in NOT_TRIED], ids=title)
def test_a_wrong_name_is_found_by_a_dry_run(words: tuple[str, ...], said: str):
    assert said in fail("train", KITCHEN, *settings(), *words, "--dry-run", code=2)


@pytest.mark.parametrize(("words", "said"), [case for case in BAD_SETTINGS if case[0][-1] in NOT_TRIED], ids=title)
def test_a_dry_run_tries_every_name(words: tuple[str, ...], said: str):
    assert said in fail("train", KITCHEN, *settings(), *words, "--dry-run", code=2)


def test_a_device_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    error = fail("train", KITCHEN, "-o", "run", *settings(), "--device", "cuda", code=2)
    assert "cpu" in error


@pytest.mark.parametrize("name", ["orthogonal", "xavier-uniform", "xavier-normal"])
def test_an_initializer_for_matrices_refuses_biases(name: str):
    words = ("--set", f"model.initializers.bias={name}")
    assert "model.initializers.bias" in fail("train", KITCHEN, "-o", "run", *settings(), *words, code=2)


@pytest.mark.parametrize("setting", ["numerics.device=gpu", "numerics.threads=many"])
def test_the_record_of_numerics_cannot_be_set_to_nonsense(setting: str):
    assert "numerics" in fail("train", KITCHEN, "-o", "run", *settings(), "--set", setting, code=2)


def test_more_memory_than_there_is():
    words = (*settings(), "--set", "model.hidden_size=10000000")
    assert "out of memory" in fail("train", KITCHEN, "-o", "run", *words, code=1)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ((), "--demo", 2),
        (("--demo", KITCHEN), "--demo", 2),
        (("nofile.toml",), "no such configuration file", 1),
        ((KITCHEN, "--dict", "nowhere.dict"), "no such dictionary", 1),
        ((KITCHEN, "--dict", "."), "is a directory", 1),
        ((KITCHEN, "--dict", HARBOUR), "not a dictionary", 1),
        ((KITCHEN, "--set", "training.bptt=100000"), "training.bptt=N", 1),
        ((KITCHEN, "--set", "training.window=100000"), "training.window=N", 1),
    ],
    ids=title,
)
def test_train_that_cannot_begin(words: tuple[str, ...], said: str, code: int):
    assert said in fail("train", *words, "-o", "run", code=code)
    assert_no_leftovers(Path())


@pytest.mark.parametrize("command", ["train", "run"])
@pytest.mark.parametrize(
    ("data", "said", "code"),
    [
        (b"model = [\n", "bad.toml: not valid TOML", 1),
        (b"a = '\xff'\n", "byte 5 is not UTF-8", 1),
        (b"[model]\nhiden_size = 3\n", "Did you mean 'hidden_size'?", 2),
        (b"[modell]\nhidden_size = 3\n", "Did you mean 'model'?", 2),
        (b"[model]\nhidden_size = 'x'\n", "model.hidden_size: 'x'", 2),
        (b"model = 3\n", "[model] is 3", 2),
        (b"", "inputs", 2),
    ],
)
def test_a_bad_configuration_is_named(data: bytes, said: str, code: int, command: str):
    Path("bad.toml").write_bytes(data)
    assert said in fail(command, "bad.toml", code=code)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("nofile.toml",), "no such configuration file", 1),
        ((".",), "no such configuration file", 1),
        (("experimant.toml",), "Did you mean 'experiment.toml'?", 1),
        (("experiment.toml", "--from", "trane"), "Did you mean 'train'?", 2),
        (("experiment.toml", "--to", "bild-dict"), "Did you mean 'build-dict'?", 2),
        (("experiment.toml", "--from", "eval", "--to", "clean"), "comes after", 2),
        (("experiment.toml", "--set", "model.hiden_size=3"), "Did you mean 'hidden_size'?", 2),
        (("experiment.toml", "--form", "train"), "'--from'", 2),
        ((), "CONFIG.toml", 2),
    ],
    ids=title,
)
def test_run_that_cannot_begin(words: tuple[str, ...], said: str, code: int):
    write_config()
    assert said in fail("run", *words, code=code)
    assert entries(Path()) == ["experiment.toml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--temperature", "-1"), "0 (greedy), or 1e-06 or more"),
        (("--temperature", "nan"), "nan"),
        (("--temperature", "hot"), "hot"),
        (("--top-k", "0"), "1 or more"),
        (("--top-p", "0"), "above 0"),
        (("--top-p", "1.5"), "up to 1"),
        (("--top-p", "nan"), "nan"),
        (("-n", "0"), "0"),
        (("--max-tokens", "0"), "0"),
        (("--seed", "-1"), "-1"),
        (("--temprature", "1"), "Did you mean '--temperature'?"),
        (("--file", "-"), "not both"),
    ],
    ids=title,
)
def test_a_wrong_option_of_generate(words: tuple[str, ...], said: str, words_run: Path):
    assert said in fail("generate", words_run, "the", *words, code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "--window", "0"), "0"),
        (("eval", "--weights", "first"), "'best'"),
        (("eval", "--encoding", "utf9", KITCHEN), "utf9"),
        (("predict", "the", "--top", "0"), "0"),
        (("predict",), "TEXT"),
        (("plot", "--outptu", "x"), "'--output'"),
    ],
    ids=title,
)
def test_a_wrong_option_of_the_others(words: tuple[str, ...], said: str, words_run: Path):
    assert said in fail(words[0], words_run, *words[1:], code=2)


# --- runs that are none, or damaged ---

READERS = {"eval": (), "predict": ("the",), "generate": ("the", "--max-tokens", 2)}


@pytest.mark.parametrize("command", READERS)
def test_what_is_no_run(command: str, shared: Path):
    Path("folder").mkdir()
    for name, said in (("nowhere", "no such run"), ("folder", "is no run"), (shared / "corpus", "is no run")):
        assert said in fail(command, name, *READERS[command], code=1)
    assert KITCHEN in fail(command, KITCHEN, *READERS[command], code=1)


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", ["weights.safetensors", "training.safetensors", "state.json", "MANIFEST.json"])
@pytest.mark.parametrize("kind", ["one bit", "cut", "gone"])
def test_a_damaged_checkpoint_is_named(kind: str, name: str, command: str, own_run: Path):
    path = own_run / "checkpoints" / "step-20" / name
    if kind == "one bit":
        damage(path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    assert name in fail(command, own_run, *READERS[command], code=1)


@pytest.mark.parametrize("command", READERS)
def test_the_dictionary_of_another_run_is_refused(command: str, own_run: Path):
    succeed("build-dict", HARBOUR, "-o", "other.dict", *ONE)
    shutil.copy("other.dict", own_run / "dictionary.txt")
    error = fail(command, own_run, *READERS[command], code=1)
    assert "dictionary.txt" in error
    assert load_vocabulary(Path("other.dict")).digest[:16] in error
    (own_run / "dictionary.txt").unlink()
    assert "dictionary.txt: no such dictionary" in fail(command, own_run, *READERS[command], code=1)


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("old", "new", "said", "code"),
    [
        ("hidden_size = 16", "hidden_size = 17", "do not fit", 1),
        ("hidden_size = 16", "hidden_sise = 16", "Did you mean 'hidden_size'?", 2),
        ('cell = "lstm"', 'cell = "lstn"', "Did you mean 'lstm'?", 2),
        ('cell = "lstm"', 'cell = "gru"', "do not fit", 1),
        ("[model]", "[model", "not valid TOML", 1),
    ],
)
def test_a_spoilt_configuration_of_a_run(old: str, new: str, said: str, code: int, command: str, own_run: Path):
    path = own_run / "config.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert said in fail(command, own_run, *READERS[command], code=code)


def test_a_spoilt_record_of_numerics(own_run: Path):
    path = own_run / "config.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('device = "cpu"', 'device = "gpu"'), encoding="utf-8")
    error = call("eval", own_run).error
    assert "config.toml" in error


def test_an_unfinished_checkpoint_is_not_used(own_run: Path):
    shutil.copytree(own_run / "checkpoints/step-20", own_run / "checkpoints/.step-21.1.tmp")
    assert succeed("eval", own_run, "--weights", "last", "--json").json()["step"] == 20


def test_a_run_without_checkpoints_says_so(own_run: Path):
    shutil.rmtree(own_run / "checkpoints")
    assert "no finished checkpoint" in fail("eval", own_run, code=1)


@pytest.mark.parametrize("name", ["meta.json", "test/tokens.npy", "test/offsets.npy"])
def test_cut_tokens_are_named(name: str, own_run: Path):
    path = own_run / "tokens" / name
    path.write_bytes(path.read_bytes()[:60])
    assert name in fail("eval", own_run, code=1)
    path.unlink()
    assert "tokens" in fail("eval", own_run, code=1)


@pytest.mark.parametrize("command", ["train", "eval"])
def test_tokens_with_one_bit_wrong_are_named(command: str, own_run: Path):
    if command == "train":
        damage(own_run / "tokens/train/tokens.npy")
        error = fail("train", own_run / "tokens", "-o", "run", *settings(), code=1)
    else:
        damage(own_run / "tokens/test/tokens.npy")
        error = fail("eval", own_run, code=1)
    assert "tokens.npy" in error


def test_ids_that_the_dictionary_does_not_have_are_named(own_run: Path):
    path = own_run / "tokens/test/tokens.npy"
    path.write_bytes(path.read_bytes()[:-100] + b"\xff" * 100)
    assert "tokens" in fail("eval", own_run, code=1)


def test_a_token_folder_that_lost_its_record_is_not_taken_for_text(shared: Path):
    tokens = Path(shutil.copytree(shared / "tokens", "tokens"))
    (tokens / "meta.json").unlink()
    assert "tokens" in fail("train", tokens, "-o", "run", *settings(), code=1)


def test_tokens_of_another_dictionary_are_refused_with_both_digests(shared: Path):
    succeed("build-dict", HARBOUR, "-o", "other.dict", *ONE)
    error = fail("train", shared / "tokens", "--dict", "other.dict", "-o", "run", *settings(), code=1)
    assert load_vocabulary(Path("other.dict")).digest[:16] in error
    assert load_vocabulary(shared / "kitchen.dict").digest[:16] in error
    assert not Path("run").exists()


def test_a_corpus_that_is_not_divided_is_refused():
    succeed("clean", KITCHEN, "-o", "corpus")
    assert "--split 8:1:1" in fail("train", "corpus", "-o", "run", *settings(), code=1)


@pytest.mark.parametrize("source", ["tokens", "text"])
def test_a_level_that_is_not_the_dictionarys_is_refused(source: str, shared: Path):
    given = (shared / "tokens",) if source == "tokens" else (KITCHEN, "--dict", shared / "kitchen.dict")
    result = call("train", *given, "-o", "run", *settings(), "--level", "char")
    assert result.code in (1, 2)
    assert "char" in result.error


def test_another_cleaner_than_the_corpus_went_through_is_refused(shared: Path):
    result = call("train", shared / "corpus", "-o", "run", *settings(), "--set", "text.cleaner=unicode-words")
    assert result.code in (1, 2)
    assert "ascii-words" in result.error


def test_the_config_of_a_run_on_a_corpus_tells_its_cleaner(shared: Path):
    train(shared / "corpus", "run")
    assert tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))["text"]["cleaner"] == "ascii-words"


# --- folders that hold something already ---


def test_other_files_are_refused_and_untouched():
    config = write_config()
    Path("mine").mkdir()
    Path("mine/notes.md").write_text("mine\n", encoding="utf-8")
    for words in (("train", KITCHEN, *settings()), ("train", KITCHEN, "--overwrite", *settings()), ("run", config)):
        assert "mine: holds other files" in fail(*words, "-o", "mine", code=1)
    assert files(Path("mine")) == {"notes.md": b"mine\n"}


def test_a_folder_with_a_config_of_another_program_is_no_run():
    Path("site").mkdir()
    Path("site/config.toml").write_text('baseURL = "https://example.org"\n', encoding="utf-8")
    Path("site/README.md").write_text("my site\n", encoding="utf-8")
    before = files(Path("site"))
    call("train", KITCHEN, "-o", "site", *settings())
    assert files(Path("site")) == before


def test_a_file_where_the_run_is_meant():
    Path("afile").write_text("mine\n", encoding="utf-8")
    assert "afile: is a file" in fail("train", KITCHEN, *settings(), "-o", "afile", code=1)
    assert "afile" in fail("train", KITCHEN, *settings(), "-o", "afile/run", code=1)
    assert Path("afile").read_text(encoding="utf-8") == "mine\n"


def test_a_finished_run_is_not_overwritten_by_other_settings(own_run: Path):
    before = files(own_run)
    assert "--overwrite" in fail("train", KITCHEN, "-o", own_run, *settings(), "--seed", 5, code=1)
    assert "--overwrite" in fail("train", HARBOUR, "-o", own_run, *settings(), code=1)
    assert files(own_run) == before
    train(KITCHEN, own_run, "--seed", 5, "--overwrite")
    assert losses(own_run) != losses_of(before)


def losses_of(content: dict[str, bytes]) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in content["metrics.jsonl"].splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows]


@pytest.mark.parametrize(
    "words",
    [
        ("--cell", "lstmm"),
        ("--set", "training.bptt=100000"),
        *(
            words
            for words in (
                ("--optimizer", "adamm"),
                ("--set", "training.optimizer.lr=-1.0"),
                ("--set", "training.trainer=none"),
                ("--set", 'training.callbacks=["none"]'),
            )
        ),
    ],
    ids=" ".join,
)
def test_overwrite_spoils_nothing_before_the_new_settings_are_known_to_work(words: tuple[str, ...], own_run: Path):
    before = files(own_run)
    assert call("train", KITCHEN, "-o", own_run, *settings(), *words, "--overwrite").code in (1, 2)
    assert files(own_run) == before


# --- training that goes wrong on the way ---

DIVERGES = ("--optimizer", "sgd", "--set", "training.optimizer.lr=1e38", "--cell", "elman", "--level", "char")


def test_a_loss_that_is_no_number_stops_training_at_that_step():
    error = fail("train", KITCHEN, "-o", "run", *settings(training__clip_norm=0), *DIVERGES, code=1)
    assert " at step " in error
    assert "training.optimizer.lr" in error
    assert saved_in(error).is_dir()
    assert not Path("run/run.json").exists()
    assert_no_leftovers(Path())
    call("eval", "run")
    assert succeed("generate", "run", "the", "--max-tokens", 2, "--temperature", 0).out


def saved_in(error: str) -> Path:
    """Return the folder that an error about a divergence names at its end."""
    return Path(error.removesuffix(".").split()[-1])


def test_a_diverged_run_names_where_its_state_is_after_an_evaluation_too():
    words = ("--set", "training.evaluate_every=1")
    error = fail("train", KITCHEN, "-o", "run", *settings(training__clip_norm=0), *DIVERGES, *words, code=1)
    assert saved_in(error).parts[:2] == ("run", "checkpoints")
    assert saved_in(error).is_dir()


def test_the_state_that_a_diverged_run_names_is_a_good_one():
    words = ("--set", "training.optimizer.lr=1e30", "--set", "training.evaluate_every=1")  # step 1 is finite, 2 is not
    error = fail("train", KITCHEN, "-o", "run", *settings(training__clip_norm=0), *words, code=1)
    assert "at step 2" in error
    state = Path("run/checkpoints") / saved_in(error).name
    assert all(torch.isfinite(tensor).all() for tensor in load_file(state / "weights.safetensors").values())


def test_an_infinite_rate_stops_at_the_second_step():
    words = ("--set", "training.optimizer.lr=inf")
    assert "at step 2" in fail("train", KITCHEN, "-o", "run", *settings(), *words, code=1)


def test_a_validation_loss_that_is_no_number_is_never_the_best():
    words = ("--set", "training.optimizer.lr=inf", "--set", "training.evaluate_every=1")
    error = fail("train", KITCHEN, "-o", "run", *settings(training__clip_norm=0), *words, code=1)
    assert "nothing had been saved yet" in error
    assert not Path("run/checkpoints").exists()


def test_figures_beyond_all_bounds_are_still_json():
    words = ("--optimizer", "sgd", "--set", "training.optimizer.lr=1e6")
    train(KITCHEN, "run", *words, training__clip_norm=0)
    report = succeed("eval", "run", "--json").json()
    assert report["windows"]["loss_nats"] > 1000
    for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines():
        strict_json(line)


@pytest.mark.parametrize("limit_bytes", [0, 100, 5000, 11_000, 15_000, 25_000])
def test_a_full_disk_ends_training_with_one_line(limit_bytes: int):
    with file_size_limit(limit_bytes):
        fail("train", KITCHEN, "-o", "run", *settings(), code=1)
    assert_no_leftovers(Path())
    assert not Path("run/run.json").exists()
    train(KITCHEN, "run", "--resume", "auto")  # and it goes on when there is room again
    succeed("eval", "run")


# --- interruptions ---


@pytest.mark.parametrize("stage", ["clean_dataset", "build_dict", "encode"])
def test_ctrl_c_before_training_ends_before_the_next_stage(stage: str, monkeypatch: pytest.MonkeyPatch):
    from rnnpipe.pipeline import stages

    original = getattr(stages, stage)

    def interrupted(*values: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*values, **options)

    monkeypatch.setattr(stages, stage, interrupted)
    result = call("train", KITCHEN, "-o", "run", *settings())
    assert result.code == 130
    assert result.error
    assert not Path("run/checkpoints").exists()


def test_an_interrupted_run_is_not_overwritten_by_other_settings(own_run: Path):
    (own_run / "run.json").unlink()  # as training leaves it when it is interrupted
    before = files(own_run / "checkpoints")
    call("train", KITCHEN, "-o", own_run, *settings(), "--seed", 5)
    assert files(own_run / "checkpoints") == before
