"""Pairs from the shell: training, resuming, translating, scores, attention, and what is refused."""

from __future__ import annotations

import gzip
import json
import math
import os
import queue
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import CORPORA, KITCHEN, call, damage, fail, settings, succeed

import rnnpipe.cli
from rnnpipe.config import load_config
from rnnpipe.data.pairs import Pairs
from rnnpipe.pipeline.evaluate_pairs import evaluate_pairs
from rnnpipe.pipeline.pair_material import load_pairs
from rnnpipe.pipeline.runs import open_pair_run
from rnnpipe.pipeline.verify import verify
from rnnpipe.training.pair_objective import pair_loss

EN, DE = CORPORA / "harbour-phrases.en", CORPORA / "harbour-phrases.de"
PAIRS = f"parallel:source={EN},target={DE}"


def small(**changes: object) -> list[str]:
    """Return the words that make a network and its training small."""
    every = {
        "model__hidden_size": 48,
        "model__encoder__size": 32,
        "training__epochs": 12,
        "training__batch_size": 16,
        "training__optimizer__lr": 0.01,
        "runtime__precision": "float32",
        "runtime__threads": 1,
        **changes,
    }
    return [word for key, value in every.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of trained runs: `phrases`, which has learnt, and a text run, `text`."""
    folder = tmp_path_factory.mktemp("runs")
    succeed("train", "--dataset", PAIRS, "-o", folder / "phrases", *small())
    succeed("train", KITCHEN, "-o", folder / "text", *settings())
    return folder


@pytest.fixture
def phrases(runs: Path) -> Path:
    return runs / "phrases"


# --- train ---


def test_a_run_of_pairs(phrases: Path) -> None:
    config = load_config(phrases / "config.toml")
    assert config.model.name.name == "encoder-decoder"
    assert config.text.level == config.target_text.level == "word"
    record = json.loads((phrases / "run.json").read_text())
    assert {"loss_nats", "best_valid_loss_nats", "tokens", "parameters"} <= set(record)
    assert "| pairs | parallel: train 640, valid 80, test 80 |" in (phrases / "README.md").read_text()
    found = verify(phrases)
    assert found.problems == []
    assert str(phrases / "target-dictionary.txt") in found.checked
    assert "up to date" in succeed("train", "--dataset", PAIRS, "-o", phrases, *small()).err


def test_new_sentences_are_translated(phrases: Path) -> None:
    found = succeed("eval", phrases, "--metric", "bleu,chrf", "--json").json()
    assert found["overlap"]["sources_in_train"] == 0
    bleu, chrf = found["translation"]["scores"]
    assert bleu["metric"] == "bleu" and bleu["value"] > 60
    assert "tok:none" in bleu["signature"]
    assert chrf["metric"] == "chrf" and chrf["value"] > 60
    assert found["perplexity"] < 2 and found["bound"] is None


def test_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    more = small(training__epochs=0, training__save_every_seconds=0.000001, model__dropout=0.2)
    succeed("train", "--dataset", PAIRS, "-o", "whole", *more, "--set", "training.max_steps=50")
    shutil.copytree("whole", "cut")
    for step in Path("cut/checkpoints").glob("step-*"):
        if step.name != "step-49":
            shutil.rmtree(step)
    Path("cut/run.json").unlink()
    succeed("train", "--resume", "cut")
    weights = "checkpoints/step-50/weights.safetensors"
    assert Path("cut", weights).read_bytes() == Path("whole", weights).read_bytes()


def test_one_dictionary_for_both_sides_and_levels_of_each(tmp_path: Path) -> None:
    few = small(training__epochs=0, training__max_steps=2, model__tied="true")
    succeed("train", "--dataset", PAIRS, "-o", "joint", *few, "--set", "text.joint=true")
    joint = open_pair_run(Path("joint"))
    assert joint.source == joint.target
    assert joint.model.source_encoder is joint.model.target_encoder
    succeed("train", "--dataset", PAIRS, "-o", "mixed", *few, "--set", "target_text.level=char")
    mixed = open_pair_run(Path("mixed"))
    assert (mixed.source.rules.level, mixed.target.rules.level) == ("word", "char")
    assert max(map(len, mixed.target.tokens)) == 1
    error = fail(
        "train", "--dataset", PAIRS, *few, "--set", "text.joint=true", "--set", "target_text.level=char", code=2
    )
    assert "both sides need the same level" in error


def test_subwords(tmp_path: Path) -> None:
    few = small(training__epochs=0, training__max_steps=2)
    succeed("train", "--dataset", PAIRS, "--level", "subword", "-o", "subwords", *few)
    run = open_pair_run(Path("subwords"))
    assert run.source.rules.level == run.target.rules.level == "subword"
    assert succeed("translate", "subwords", "the cook").out.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "encoder-decoder"])
def test_other_models_learn(tmp_path: Path, name: str) -> None:
    options = {"transformer": {"model__name__heads": 2}, "encoder-decoder": {"model__name__input_feeding": "true"}}[
        name
    ]
    more = small(training__epochs=10, training__optimizer__lr=0.006, model__name=name, **options)
    succeed("train", "--dataset", PAIRS, "-o", "run", *more)
    evaluation = evaluate_pairs(open_pair_run(Path("run")), "valid")
    assert evaluation.loss.perplexity < 3, "an even guess among its words has 45"


DESK = f"parallel:source={CORPORA / 'ferry-desk.said'},target={CORPORA / 'ferry-desk.reply'}"
SAME = f"parallel:source={EN},target={EN}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dataset", "epochs", "options"),
    [
        ("hred", DESK, 30, {}),
        ("vhred", DESK, 30, {"anneal_steps": 400}),
        ("autoencoder", SAME, 12, {"code_size": 32}),
        ("variational-autoencoder", SAME, 12, {"code_size": 32, "word_dropout": 0.5, "anneal_steps": 3000}),
    ],
    ids=lambda value: value if isinstance(value, str) and ":" not in value else "",
)
def test_models_of_one_vector_learn_from_the_source(
    tmp_path: Path, name: str, dataset: str, epochs: int, options: dict[str, object]
) -> None:
    own = {f"model__name__{key}": value for key, value in options.items()}
    words = small(training__epochs=epochs, model__name=name, text__unknown_threshold=0, **own)
    succeed("train", "--dataset", dataset, "-o", "run", *words)
    run = open_pair_run(Path("run"))
    pairs = load_pairs(run.config, (run.source, run.target)).parts["train"]
    elsewhere = np.roll(np.arange(len(pairs)), 1)
    others = Pairs(pairs.select(elsewhere).source, pairs.target)
    ends = run.source.doc_id, run.target.doc_id, torch.device("cpu"), "float32"
    true, wrong = (pair_loss(run.model, each, *ends) for each in (pairs, others))
    assert true.reconstruction < math.log(3)
    assert wrong.reconstruction > 1.25 * true.reconstruction, "what is written depends on what was read"


def test_the_loss_of_a_variational_model_is_told_as_a_bound(tmp_path: Path) -> None:
    few = small(training__epochs=0, training__max_steps=2, model__name="variational-autoencoder")
    succeed("train", "--dataset", SAME, "-o", "run", *few)
    found = succeed("eval", "run", "--json").json()
    bound = found["bound"]
    assert bound["reconstruction_nats"] + bound["divergence_nats"] == pytest.approx(found["loss_nats"])
    assert bound["divergence_nats"] > 0
    told = succeed("eval", "run").out
    assert f"loss at most {found['loss_nats']:.4f} nats a target token, perplexity at most" in told
    assert f"{bound['divergence_nats']:.4f} for the variable (KL divergence)" in told
    assert "the true ones before it given; an upper bound |" in Path("run/README.md").read_text()


def test_a_separator_must_be_a_token(tmp_path: Path) -> None:
    error = fail("train", "--dataset", PAIRS, "-o", "run", *small(model__name="hred"), code=2)
    assert "model.name.separator='|' is no token of the source's dictionary" in error


def test_a_dry_run_says_what_would_happen(tmp_path: Path) -> None:
    result = succeed("train", "--dataset", PAIRS, "--dry-run", "--set", "model.hidden_size=32")
    assert "train: would run" in result.err and "gives pairs" in result.err
    assert "encoder-decoder" in result.out


# --- translate ---

SENTENCES = ["the cook buys the fish today .", "", "does the child see the boat ?"]


def test_translations_come_in_input_order_and_empty_lines_stay(phrases: Path) -> None:
    Path("lines").write_text("".join(f"{text}\n" for text in SENTENCES))
    by_file = succeed("translate", phrases, "--file", "lines").out.splitlines()
    assert by_file == succeed("translate", phrases, *SENTENCES).out.splitlines()
    assert by_file == succeed("translate", phrases, stdin=Path("lines").read_bytes()).out.splitlines()
    alone = [succeed("translate", phrases, text).out.rstrip("\n") for text in SENTENCES]
    assert by_file == alone and alone[1] == "" and len(set(alone)) == 3


def test_good_lines_are_answered_before_a_bad_one_is_named(phrases: Path) -> None:
    good = succeed("translate", phrases, *SENTENCES).out
    result = call("translate", phrases, stdin=b"".join(f"{text}\n".encode() for text in SENTENCES) + b"caf\xe9\nx\n")
    assert (result.code, result.out) == (1, good)
    assert "standard input, line 4, byte 3: not UTF-8" in result.error
    given = b'{"source": "the cook"}\n\n{"source": "the boat", "id": null}\n{"source": 3}\n'
    result = call("translate", phrases, "--jsonl", stdin=given)
    assert result.code == 1 and "line 4: expected an object" in result.error
    assert [record["id"] for record in result.jsonl()] == ["1", "3"], "of lines, the empty one counted"


def test_lines_are_answered_as_they_come(phrases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who types: each line is written once the one before it has its answer."""
    read_end, write_end = os.pipe()
    answers: queue.Queue[str] = queue.Queue()
    seen: list[str] = []

    def type_lines() -> None:
        try:
            for line in (f"{SENTENCES[0]}\n", f"{SENTENCES[2]}\nthe c"):
                os.write(write_end, line.encode())
                seen.append(answers.get(timeout=300))
            os.write(write_end, b"ook")
        finally:
            os.close(write_end)

    translated = succeed("translate", phrases, SENTENCES[0], SENTENCES[2]).out.splitlines()
    monkeypatch.setattr("click.echo", lambda text, err=False: None if err else answers.put(text))
    typist = threading.Thread(target=type_lines)
    with open(read_end, encoding="utf-8") as source:  # noqa: PTH123 - a pipe has no path
        monkeypatch.setattr("sys.stdin", source)
        typist.start()
        code = rnnpipe.cli._run(["translate", str(phrases)], debug=False)
        typist.join()
    assert code == 0
    assert seen == translated
    assert answers.qsize() == 1, "the end of the last line is the end of the input"


def test_the_best_of_each_text_by_its_number(phrases: Path) -> None:
    rows = [line.split("\t") for line in succeed("translate", phrases, *SENTENCES, "-n", "3").out.splitlines()]
    assert [row[0] for row in rows] == ["1", "1", "1", "2", "3", "3", "3"]
    assert rows[3][1:] == ["0.0000", ""], "an empty text has one translation"
    assert [rows[0][2], rows[4][2]] == succeed("translate", phrases, SENTENCES[0], SENTENCES[2]).out.splitlines()
    scores = [float(row[1]) for row in rows]
    assert scores[:3] == sorted(scores[:3], reverse=True)


def test_a_dash_is_standard_input_and_files_may_be_compressed(phrases: Path) -> None:
    lines = "".join(f"{text}\n" for text in SENTENCES).encode()
    Path("lines.gz").write_bytes(gzip.compress(lines))
    expected = succeed("translate", phrases, *SENTENCES).out
    assert succeed("translate", phrases, "-", stdin=lines).out == expected
    assert succeed("translate", phrases, "--file", "lines.gz").out == expected


def test_the_batch_size_changes_nothing(phrases: Path) -> None:
    lines = EN.read_text().splitlines()[:66]
    Path("lines").write_text("".join(json.dumps({"source": line}) + "\n" for line in lines))
    words = ("translate", phrases, "--file", "lines", "--jsonl", "-n", "3", "--batch-size")
    found = {size: succeed(*words, size).out for size in (1, 8, 64)}
    assert found[1] == found[8] == found[64]
    assert found[1].count("\n") == 66


def test_json_lines_have_the_best_of_each_text(phrases: Path) -> None:
    given = '{"source": "the cook buys the zebra .", "id": "z"}\n\n{"source": ""}\n'
    first, second = succeed("translate", phrases, "--jsonl", "-n", "2", stdin=given.encode()).jsonl()
    assert first["id"] == "z" and first["unknown"] == ["zebra"]
    scores = [each["score"] for each in first["translations"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    assert first["translations"][0]["finish"] == "end"
    assert second["translations"] == [
        {"text": "", "tokens": [], "log_probability": 0.0, "score": 0.0, "finish": "end", "replaced": 0}
    ]


def test_unknown_words_are_named_and_a_text_of_them_alone_is_translated(phrases: Path) -> None:
    result = succeed("translate", phrases, "zebra quagga")
    assert "text 1: unknown to this run: 'zebra', 'quagga'" in result.err
    assert len(result.out.splitlines()) == 1


def test_long_texts_and_cut_translations_are_reported(phrases: Path) -> None:
    result = succeed("translate", phrases, " ".join(["the fish"] * 40), "--max-length", "3")
    assert "80 tokens, more than any source in training (11)" in result.err
    assert "cut at 3 tokens" in result.err
    assert len(result.out.split()) == 3


def test_a_translation_that_is_whole_at_the_limit_is_not_cut(phrases: Path) -> None:
    words = ("translate", phrases, SENTENCES[0], "--beam", "1")
    whole = succeed(*words, "--jsonl").jsonl()
    length = len(whole[0]["translations"][0]["tokens"])
    assert succeed(*words, "--jsonl", "--max-length", length).jsonl() == whole
    assert "cut" not in succeed(*words, "--max-length", length).err
    assert f"cut at {length - 1} tokens" in succeed(*words, "--max-length", length - 1).err


def test_the_attention_of_a_translation(phrases: Path) -> None:
    result = succeed("plot", phrases, "--attention", SENTENCES[2], "-o", "attention.png")
    assert Path("attention.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in result.out.splitlines()[1:]]
    assert [row[0] for row in rows] == [*succeed("translate", phrases, SENTENCES[2]).out.split(), "<doc>"]
    assert all(0 < float(row[2]) <= 1 for row in rows)


def test_what_no_font_has_is_named(phrases: Path, tmp_path: Path) -> None:
    Path("a").write_text("a b\n" * 30)
    Path("b").write_text("\U00100000 \U00100001\n" * 30)  # characters for private use
    few = small(training__epochs=3)
    succeed("train", "--dataset", "parallel:source=a,target=b", "-o", "run", *few)
    assert "no font here has" in succeed("plot", "run", "--attention", "a b", "-o", "a.png").err


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "RUN", "x"), "is a run of pairs, not of text. `rnnpipe translate"),
        (("predict", "RUN", "x"), "is a run of pairs, not of text"),
        (("forecast", "RUN"), "is a run of pairs, not of sequences"),
        (("eval", "RUN", "text.txt"), "is a run of pairs; TEXT is for runs of text"),
        (("eval", "RUN", "--window", "3"), "is a run of pairs; --window is for runs of text"),
        (("eval", "RUN", "--beam", "3"), "--beam and --tokenize go with --metric"),
        (("eval", "RUN", "--metric", "blue"), "Did you mean 'bleu'?"),
        (("eval", "RUN", "--metric", ""), "unknown metric ''"),
        (("eval", "RUN", "--metric", "bleu", "--tokenize", "nonne"), "unknown tokenizer 'nonne'. Did you mean 'none'?"),
        (("translate", "TEXT", "x"), "is a run of text, not of pairs"),
        (("translate", "RUN", "x", "--file", "f"), "not both"),
        (("translate", "RUN", "x", "-n", "9"), "n-best 9 needs a beam of at least 9"),
        (("plot", "RUN", "--attention", " "), "has no token"),
        (("train", "--dataset", PAIRS, "--set", "model.name=transformer", "--cell", "lstm"), "which has no cell"),
        (
            ("train", "--dataset", PAIRS, "--set", "model.name=transformer", "--set", "model.cell=gru"),
            "model.cell=gru is of no use with model.name=transformer",
        ),
        (("train", "--dataset", PAIRS, "--set", "model.bidirectional=true"), "model.bidirectional is of no use"),
        (("train", "--dataset", PAIRS, "--set", "model.name=language-model"), "does not fit"),
        (
            ("train", KITCHEN, "--set", "training.label_smoothing=0.1"),
            "training.label_smoothing is of no use with text",
        ),
        (("train", "--dataset", PAIRS, "--set", "training.label_smoothing=1"), "from 0 to below 1"),
        (("train", "--dataset", PAIRS, "--set", "model.name.attention=generel"), "general"),
        (("train", "--dataset", PAIRS, "--set", "model.encoder=one-hot"), "one-hot needs a size"),
        (
            (
                "train",
                "--dataset",
                PAIRS,
                "--set",
                "model.name=variational-autoencoder",
                "--set",
                "training.scheduled_sampling=0.2",
            ),
            "learns its latent variable from the whole target",
        ),
        (("train", "--dataset", PAIRS, "--set", "text.unknown_threshold=99999"), "would be unknown"),
        (("train", "--dataset", f"parallel:source={EN},target={KITCHEN}"), "has 800 lines"),
    ],
)
def test_refusals(runs: Path, words: tuple[str, ...], message: str) -> None:
    places = {"RUN": runs / "phrases", "TEXT": runs / "text"}
    before = sorted(Path().rglob("*"))
    result = [str(places.get(word, word)) for word in words]
    found = call(*result)
    assert found.code in (1, 2)
    assert message in found.error
    assert sorted(Path().rglob("*")) == before


def test_a_missing_tokenizer_is_told_before_anything_is_evaluated(
    phrases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sacrebleu")
    monkeypatch.setitem(sys.modules, "mecab_ko", None)
    monkeypatch.setattr("rnnpipe.pipeline.evaluate_pairs.load_pairs", pytest.fail)
    error = fail("eval", phrases, "--metric", "chrf,bleu", "--tokenize", "ko-mecab", code=2)
    assert "--tokenize ko-mecab: Korean tokenization requires" in error


def test_a_byte_order_mark_is_no_part_of_a_text(phrases: Path) -> None:
    text = b"the cook buys the fish today .\n"
    plain, marked = (succeed("translate", phrases, stdin=mark + text) for mark in (b"", b"\xef\xbb\xbf"))
    assert (marked.out, marked.err) == (plain.out, plain.err)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{\n", "line 1: not JSON"),
        (b'{"text": "x"}\n', 'line 1: expected an object with "source"'),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_bad_lines_are_named(phrases: Path, line: bytes, message: str) -> None:
    assert message in fail("translate", phrases, "--jsonl", code=1, stdin=line)


def test_models_without_attention_say_so(tmp_path: Path) -> None:
    few = small(training__epochs=0, training__max_steps=2, model__name__attention="none")
    succeed("train", "--dataset", PAIRS, "-o", "run", *few)
    assert "has no attention" in fail("plot", "run", "--attention", "the cook", code=2)
    assert "through attention" in fail("translate", "run", "the cook", "--replace-unknown", code=2)


def test_pairs_that_have_changed_are_noticed(tmp_path: Path) -> None:
    shutil.copy(EN, "a")
    shutil.copy(DE, "b")
    few = small(training__epochs=0, training__max_steps=2)
    succeed("train", "--dataset", "parallel:source=a,target=b", "-o", "run", *few)
    lines = Path("a").read_text().splitlines()
    Path("a").write_text("\n".join(reversed(lines)) + "\n")
    assert "was trained on other pairs" in fail("eval", "run", code=1)
    assert succeed("translate", "run", "the cook").code == 0, "the pairs themselves are not needed"
    damage(Path("run/target-dictionary.txt"))
    assert "target-dictionary.txt" in " ".join(verify(Path("run")).problems)


def test_pairs_with_an_empty_side_are_left_out_of_training(tmp_path: Path) -> None:
    Path("a").write_text("a b\n\na c\n" * 20)
    Path("b").write_text("A B\nA\n\n" * 20)
    result = succeed(
        "train", "--dataset", "parallel:source=a,target=b,split=1:0", "-o", "run", *small(training__epochs=1)
    )
    assert "40 training pairs have an empty side and are left out" in result.err
    assert "has no validation part" in result.err


def test_a_part_of_empty_texts_has_no_unknown_words(tmp_path: Path) -> None:
    Path("pairs.tsv").write_text("a b\tA B\n" * 20 + "\n" * 20)
    dataset = "parallel:file=pairs.tsv,split=1:1"
    succeed("train", "--dataset", dataset, "-o", "run", *small(training__epochs=0, training__max_steps=2))
    found = succeed("eval", "run", "--json").json()
    assert (found["pairs"], found["tokens"]) == (20, 20), "the end of each"
    assert found["unknown_rate"] == {"source": 0.0, "target": 0.0}


@pytest.mark.gpu
def test_a_gpu_translates_as_the_cpu_does(phrases: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    words = ("translate", phrases, *EN.read_text().splitlines()[:40], "--device")
    assert succeed(*words, "cuda").out == succeed(*words, "cpu").out
