"""Exported models: the same logits, tokens and samples without torch, from one file."""

from __future__ import annotations

import importlib
import inspect
import json
import random
import sys
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from cli import KITCHEN, fail, python, settings, succeed
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnpipe.cells.base import GatedCell, Gates, State
from rnnpipe.errors import UsageError
from rnnpipe.exported import sampling
from rnnpipe.exported.network import OnnxNetwork, open_exported
from rnnpipe.generation import samplers, steering, truncation
from rnnpipe.generation.engine import NOTHING, Facts
from rnnpipe.generation.tokens import Tokens
from rnnpipe.models.encoders import Embedding, OneHot
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.common import load_rules
from rnnpipe.pipeline.reading import run_sampler
from rnnpipe.plugins import full_registry
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import build_vocabulary

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
write_onnx = pytest.importorskip("rnnpipe.export.onnx_file").write_onnx

VOCABULARY = build_vocabulary(
    {f"w{n}".encode(): 20 - n for n in range(9)}, TextRules(Named("unicode-words"), Named("whitespace"))
)
V = VOCABULARY.size


def model_of(cell: Any, *, encoder: str = "embedding", window: int | None = None, **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    front = Embedding(V, size=8) if encoder == "embedding" else OneHot(V)
    both = window is not None
    recurrent = Recurrent(cell, front.output_size, 8, 2, bidirectional=both, **options)
    return LanguageModel(front, recurrent, V, window=window, tied=encoder == "embedding" and not both).eval()


def exported(model: LanguageModel, path: Path) -> OnnxNetwork:
    write_onnx(model, VOCABULARY, {"run": "a test"}, path)
    return open_exported(path).network


def check_logits(model: LanguageModel, network: OnnxNetwork) -> None:
    """Read texts of three lengths token by token; the logits behind each are those of the whole text at once."""
    ids = np.random.default_rng(0).integers(0, V, (12, 3))
    network.arrange(np.array([-1, -1, -1]))
    for step, tokens in enumerate(ids):
        network.read(tokens)
        if step == 4:
            network.arrange(np.array([2, 0, -1]))  # rows move, and one begins anew
            ids[:, [0, 1]] = ids[:, [2, 0]]
    starts = (0, 0, 5)
    for row, start in enumerate(starts):
        text = torch.tensor([VOCABULARY.doc_id, *ids[start:, row].tolist()])
        with torch.no_grad():
            if model.window is None:
                expected = model(text[:, None])[0][-1, 0]
            else:
                expected = model(text[-model.window :, None])[0][0]
        np.testing.assert_allclose(network._leaves[0][row], expected.numpy(), rtol=1e-4, atol=1e-5)


# The run below is exported in the default suite; every cell by `pytest -m slow tests/test_export.py`.
@pytest.mark.slow
@pytest.mark.parametrize("cell", full_registry().names("cell"))
def test_every_builtin_cell(tmp_path: Path, cell: str) -> None:
    model = model_of(cell)
    check_logits(model, exported(model, tmp_path / "model.onnx"))


@pytest.mark.slow
def test_one_hot_input(tmp_path: Path) -> None:
    model = model_of("qrnn", encoder="one-hot")
    check_logits(model, exported(model, tmp_path / "model.onnx"))


@pytest.mark.slow
def test_a_model_of_windows(tmp_path: Path) -> None:
    model = model_of("elman", window=2)
    check_logits(model, exported(model, tmp_path / "model.onnx"))


class Soft(GatedCell):
    """A cell that a plugin might have."""

    input_gates = recurrent_gates = 2

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        z = torch.nn.functional.softplus(u[0] + r[0])
        return (state[0] * torch.exp(-z) + torch.nn.functional.gelu(u[1] * r[1]),)


@pytest.mark.slow
def test_a_cell_of_somebody_else(tmp_path: Path) -> None:
    model = model_of(Soft)
    check_logits(model, exported(model, tmp_path / "model.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "module", "name"),
    [("mingru", "rnnpipe_mingru", "MinGRU"), ("peephole-lstm", "rnnpipe_peephole_lstm", "PeepholeLSTM")],
)
def test_the_cells_of_the_worked_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, module: str, name: str
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "plugins" / folder)
    model = model_of(getattr(importlib.import_module(module), name))
    check_logits(model, exported(model, tmp_path / "model.onnx"))


class Bessel(Soft):
    """A cell with a function that ONNX has not."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        return (torch.special.bessel_j0(u[0] + r[0]) * state[0],)


class Branches(Soft):
    """A cell that looks at what it computes."""

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        h: Tensor = u[0] + r[0] if float(state[0].sum()) >= 0 else u[1]
        return (h,)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Bessel, r"the operation \S*bessel_j0\S* has no form in ONNX"),
        pytest.param(Branches, "cannot be exported: .*data-dependent", marks=pytest.mark.slow),
    ],
)
def test_what_has_no_form_is_named(tmp_path: Path, cell: type, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        write_onnx(model_of(cell), VOCABULARY, {}, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


# --- the draw ---

TOKENS = Tokens.of(VOCABULARY, load_rules(VOCABULARY.rules.cleaner, VOCABULARY.rules.tokenizer))
PAIRS: list[tuple[Any, Any]] = [
    (samplers.Greedy(), sampling.Greedy()),
    (samplers.Temperature(0.7), sampling.Temperature(0.7)),
    (samplers.Temperature(0.0), sampling.Temperature(0.0)),
    (truncation.TopK(3), sampling.TopK(3)),
    (truncation.TopP(0.6), sampling.TopP(0.6)),
    (truncation.MinP(0.2), sampling.MinP(0.2)),
    (truncation.MinP(0.0), sampling.MinP(0.0)),
    (truncation.Typical(0.6), sampling.Typical(0.6)),
    (steering.RepetitionPenalty(1.5), sampling.RepetitionPenalty(1.5)),
    (steering.RepetitionPenalty(1.5, last=2), sampling.RepetitionPenalty(1.5, last=2)),
    (steering.Forbid("w3").for_tokens(TOKENS), sampling.Forbid("w3").for_tokens(TOKENS)),
    (steering.MinLength(3).for_tokens(TOKENS), sampling.MinLength(3).for_tokens(TOKENS)),
]


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(PAIRS), max_size=3))
@hypothesis.settings(max_examples=200, deadline=None)
def test_the_draw_is_that_of_torch(seed: int, chosen: list[tuple[Any, Any]]) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.choice([1.0, 0.1], (9, 1)) * generator.normal(0, 3, (9, V)).round(generator.integers(0, 4))
    logits[generator.random((9, V)) < 0.3] = -np.inf
    logits[:, generator.integers(V)] = 0.0
    drawn = generator.integers(0, V, (9, 4))
    drawn[generator.random(9) < 0.5, 2:] = NOTHING
    positions = (drawn >= 0).sum(-1)
    seeds, numbers = generator.integers(0, 2**62, (2, 9))
    facts = Facts(seeds, numbers, positions, 9 - positions, lambda: drawn, lambda: drawn)
    ours, rows = torch.from_numpy(logits), samplers.Rows.of(facts, torch.device("cpu"))
    np.testing.assert_array_equal(sampling.uniform(facts), samplers.uniform(rows).numpy())
    for of_torch, of_numpy in chosen:
        ours, logits = of_torch.adjust(ours, rows), of_numpy.adjust(logits, facts)
        np.testing.assert_allclose(logits, ours.numpy(), rtol=1e-12)
        if not (logits.max(-1) > -np.inf).all():
            break  # nothing is left in a row, and no sampler looks at it further
    np.testing.assert_array_equal(sampling.draw(logits, facts), samplers.draw(ours, rows).numpy())


def test_every_sampler_of_numpy_has_the_options_of_torchs() -> None:
    registry = full_registry()
    for name, made in sampling.SAMPLERS.items():
        assert inspect.signature(made) == inspect.signature(registry.get("sampler", name)), name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("temperature", {"temperature": -1.0}),
        ("temperature", {"temperature": 1e-300}),
        ("temperature", {"temperature": float("nan")}),
        ("top-k", {"k": 0}),
        ("top-p", {"p": 0.0}),
        ("min-p", {"p": 1.5}),
        ("typical", {"p": 0.0}),
        ("repetition-penalty", {"penalty": 1e-300}),
        ("repetition-penalty", {"penalty": 2.0, "last": -1}),
        ("min-length", {"tokens": 1 << 62}),
        ("min-length", {"tokens": -1}),
    ],
)
def test_the_same_options_are_refused_in_the_same_words(name: str, options: dict[str, Any]) -> None:
    told = []
    for build in (run_sampler, sampling.build_sampler):
        with pytest.raises(UsageError) as error:
            build(name, options)
        told.append(str(error.value))
    assert told[0] == told[1]


# --- the commands ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    succeed("train", KITCHEN, "--level", "char", "-o", folder, *settings(training__max_steps=60))
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    out = run.parent / "model.onnx"
    done = succeed("export", run, "-o", out, "--json")
    result = done.json()
    assert done.err == "", "nothing is to be warned of where the run computes in float32 too"
    assert result["bytes"] == out.stat().st_size
    assert result["difference"] < 1e-5
    return out


def test_the_same_file_again(run: Path, model: Path) -> None:
    """The file is a function of the run alone, and says nothing of where it was made."""
    before = model.read_bytes()
    succeed("export", run, "-o", model)
    assert model.read_bytes() == before
    assert str(run.parent).encode() not in before
    assert b".py" not in before


def prompts(count: int) -> bytes:
    text = Path(KITCHEN).read_text(encoding="utf-8")
    generator = random.Random(0)
    starts = [generator.randrange(len(text) - 50) for _ in range(count)]
    asked = [text[start : start + generator.randrange(40)] for start in starts]
    return "".join(json.dumps({"id": n, "prompt": prompt}) + "\n" for n, prompt in enumerate(asked)).encode()


DRAWN = {"greedy": ["--temperature", "0"], "sampled": ["--temperature", "0.8", "--top-k", "12", "--top-p", "0.9"]}


@pytest.mark.parametrize("how", DRAWN)
@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_same_texts_token_by_token(run: Path, model: Path, how: str, count: int) -> None:
    words = ["--file", "-", "--jsonl", "--max-tokens", "60", *DRAWN[how]]
    ours = succeed("generate", run, *words, stdin=prompts(count)).jsonl()
    theirs = succeed("generate", model, *words, stdin=prompts(count)).jsonl()
    assert len(ours) == count
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.pop("log_probability") == pytest.approx(other.pop("log_probability"), abs=1e-3)
        for key in ("run", "checkpoint", "weights", "dictionary", "numerics"):
            assert mine["replay"].pop(key) != other["replay"].pop(key) or key == "dictionary"
        assert mine == other


def test_a_text_hangs_on_no_other(model: Path) -> None:
    """With a seed of its own, a prompt gives the same text, to the last bit of its score, alone and among others."""
    lines = [json.dumps({**json.loads(line), "seed": n}).encode() for n, line in enumerate(prompts(80).splitlines())]
    words = ["generate", model, "--file", "-", "--jsonl", "--max-tokens", "30"]
    together = succeed(*words, stdin=b"\n".join(lines)).jsonl()
    assert len(together) == 80
    for number in range(0, 80, 9):
        assert succeed(*words, stdin=lines[number]).jsonl() == [together[number]]


def test_predict(run: Path, model: Path) -> None:
    ours = succeed("predict", run, "The ki", "--top", "6", "--json").json()
    theirs = succeed("predict", model, "The ki", "--top", "6", "--json").json()
    assert [each["token"] for each in ours.pop("next")] == [each["token"] for each in theirs.pop("next")]
    assert ours == theirs


def test_score(run: Path, model: Path) -> None:
    lines = ["The kitchen is quiet.", "", "zzz QQQ 5"]
    ours, theirs = (succeed("score", each, "--json", "--end", "--file", "-", stdin="\n".join(lines).encode()).jsonl()
                    for each in (run, model))  # fmt: skip
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.pop("log_probability") == pytest.approx(other.pop("log_probability"), abs=1e-3)
        assert mine.pop("perplexity") == pytest.approx(other.pop("perplexity"), rel=1e-4)
        assert mine == other


def test_replay_and_go_on(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["generate", model, "--file", "-", "--jsonl", "--max-tokens", "20", "-o", out]
    succeed(*words, stdin=prompts(4))
    whole = out.read_bytes()
    assert succeed("replay", f"{out}:3", "--json").json()["same"]
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert "has 2 answers" in succeed(*words, stdin=prompts(4)).err
    assert out.read_bytes() == whole


def test_torch_is_not_imported(model: Path) -> None:
    code = (
        "import sys; from rnnpipe.cli import _run\n"
        "assert _run(['generate', sys.argv[1], 'The', '--max-tokens', '5'], False) == 0\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'onnx', 'onnxscript')])"
    )
    result = python(code, model)
    assert result.out.splitlines()[-1] == "[]", result


def test_samplers_without_torch_are_named(model: Path) -> None:
    line = fail("generate", model, "The", "--sampler", "prefix:text=x", code=2)
    assert "sampler 'prefix' is not there without torch" in line
    assert "typical" in line


def test_beams_are_for_runs(model: Path) -> None:
    assert "beam search is for a run" in fail("generate", model, "The", "--beam", "2", code=2)


def test_a_device_is_for_runs(model: Path) -> None:
    assert "runs on the CPU" in fail("generate", model, "The", "--device", "cuda", code=2)


def test_files_that_are_no_exported_model(tmp_path: Path, model: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"not a model\n" * 99)
    assert f"{other}: is no ONNX model" in fail("generate", other, "x", code=1)
    other.write_bytes(model.read_bytes()[:-4000])
    assert f"{other}: " in fail("generate", other, "x", code=1)
    loaded = onnx.load(model)
    kept = list(loaded.metadata_props)
    del loaded.metadata_props[:]
    onnx.save(loaded, other)
    assert "is no exported model of rnnpipe" in fail("generate", other, "x", code=1)
    for key, value in {
        "rnnpipe.version": "2",
        "rnnpipe.dictionary": "x",
        "rnnpipe.fresh": "[]",
        "rnnpipe.window": "many",
    }.items():
        del loaded.metadata_props[:]
        for entry in kept:
            loaded.metadata_props.add(key=entry.key, value=value if entry.key == key else entry.value)
        if key == "rnnpipe.window":
            loaded.metadata_props.add(key=key, value=value)
        onnx.save(loaded, other)
        assert str(other) in fail("generate", other, "x", code=1), key


def test_what_is_there_is_not_written_over(tmp_path: Path, run: Path) -> None:
    mine = tmp_path / "thesis.onnx"
    mine.write_text("years of work")
    assert "is there and not an exported model" in fail("export", run, "-o", mine, code=1)
    assert mine.read_text() == "years of work"
    assert "is a directory" in fail("export", run, "-o", tmp_path, code=1)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, run: Path, model: Path, tmp_path: Path) -> None:
    commands = {"onnxscript": ["export", run, "-o", tmp_path / "x.onnx"], "onnxruntime": ["generate", model]}
    for package, words in commands.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert "pip install 'rnnpipe[onnx]'" in fail(*words, code=2)


def test_sequences_are_refused(tmp_path: Path) -> None:
    dataset = "counting-ones:train=20,valid=5,test=5"
    succeed("train", "--dataset", dataset, "-o", tmp_path / "ones", "--set", "training.epochs=1")
    assert "is a run of sequences" in fail("export", tmp_path / "ones", "-o", tmp_path / "x.onnx", code=2)
