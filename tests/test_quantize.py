"""Weights in fewer bits: near to float32, the same for a row in every batch, and told of in what they were used for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cli import KITCHEN, fail, settings, succeed
from hypothesis import given
from hypothesis import strategies as st

from rnnpipe.generation.torch_network import TorchNetwork
from rnnpipe.models.encoders import Embedding, OneHot
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.quantize import FORMS, BFloat16Weight, Form, Int8Weight, quantize
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.plugins import full_registry

V = 11
OFTEN = ("lstm",)  # the others by `pytest -m slow tests/test_quantize.py`


def model_of(cell: Any, *, encoder: str = "embedding", **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    front = Embedding(V, size=8) if encoder == "embedding" else OneHot(V)
    return LanguageModel(front, Recurrent(cell, front.output_size, 8, 2, **options), V, tied=encoder == "embedding")


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
@hypothesis.settings(max_examples=60, deadline=None)
def test_products_of_int8(seed: int, rows: int, inputs: int, outputs: int) -> None:
    """x W' is the product of the rounded rows and matrix, in integers."""
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(rows, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator)
    x[0] *= 0
    bias, weight = torch.randn(outputs, generator=generator), Int8Weight(w)
    scale = x.abs().amax(1, keepdim=True).clamp(min=1e-38) / 127
    rounded = (x / scale).round().long()
    expected = (rounded @ weight.stored.long().t()).double() * scale * weight.scales + bias
    torch.testing.assert_close(F.linear(x, weight, bias).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(F.linear(x, weight), F.linear(x, weight, torch.zeros(outputs)), rtol=0, atol=0)
    off = (weight.widen() - w).abs()
    assert bool((off <= weight.scales[:, None] * 0.5001).all())
    alone = torch.cat([F.linear(row[None], weight, bias) for row in x])
    assert torch.equal(alone, F.linear(x, weight, bias)), "a row depends on its neighbours"


def test_products_of_bf16() -> None:
    x, w, bias = torch.randn(5, 7), torch.randn(3, 7), torch.randn(3)
    found = F.linear(x, BFloat16Weight(w), bias)
    torch.testing.assert_close(found, F.linear(x.bfloat16(), w.bfloat16()).float() + bias)


def test_rows_are_looked_up() -> None:
    w, index = torch.randn(6, 4), torch.tensor([[0, 5], [2, 2]])
    for kind in (Int8Weight, BFloat16Weight):
        weight = kind(w)
        assert torch.equal(F.embedding(index, weight), weight.widen()[index])
        assert (weight.t() @ w).shape == (4, 4)  # any other function has it in float32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "cell", [pytest.param(n, marks=[] if n in OFTEN else pytest.mark.slow) for n in full_registry().names("cell")]
)
def test_every_builtin_cell(cell: str, form: Form) -> None:
    model, narrow = model_of(cell), model_of(cell)
    size = quantize(narrow, form)
    assert size.after < size.before
    assert len(size.matrices) >= 3
    assert not narrow.state_dict().keys() & set(size.matrices)
    ids = torch.randint(0, V, (20, 3), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = (each.eval()(ids)[0].log_softmax(-1) for each in (model, narrow))
    assert float((expected - found).abs().mean()) < 0.1
    assert not torch.equal(expected, found)


@pytest.mark.parametrize("form", FORMS)
def test_one_hot_input(form: Form) -> None:
    model, narrow = model_of("gru", encoder="one-hot"), model_of("gru", encoder="one-hot")
    quantize(narrow, form)
    ids = torch.randint(0, V, (9, 3))
    with torch.inference_mode():
        torch.testing.assert_close(narrow.eval()(ids)[0], model.eval()(ids)[0], rtol=0, atol=0.05)


def test_a_row_of_int8_is_the_same_in_every_batch() -> None:
    model = model_of("lstm")
    quantize(model, "int8")
    network = TorchNetwork(model, V - 2, torch.device("cpu"), "float32")
    assert network.tile == 8, "integers add up to the same in any order"
    ids = np.random.default_rng(0).integers(0, V, (6, 50))
    found = []
    for rows in ([7], range(50), range(7, 20)):
        network.arrange(np.full(len(rows), -1))
        for step in ids:
            network.read(step[list(rows)])
        found.append(network._foresee(network._blocks[0], np.arange(len(rows)))[list(rows).index(7)])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


# --- the commands ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize") / "run"
    succeed("train", KITCHEN, "--level", "char", "-o", folder, *settings(training__max_steps=60))
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_eval_tells_what_it_costs_and_buys(run: Path, form: Form) -> None:
    told = succeed("eval", run, "--quantize", form, "--json").json()
    plain = succeed("eval", run, "--json").json()
    assert told["form"] == form
    assert told["float32"] == plain
    for part in ("windows", "carried"):
        difference = told["quantized"][part]["loss_nats"] - plain[part]["loss_nats"]
        assert told["difference_nats"][part] == pytest.approx(difference)
        assert 0 < abs(difference) < 0.05
    assert told["bytes"]["quantized"] < told["bytes"]["float32"]
    assert "recurrent.layers.0.weight_hh" in " ".join(told["matrices"])


def test_eval_tells_it_to_people(run: Path) -> None:
    said = succeed("eval", run, "--quantize", "int8", KITCHEN).out
    assert "int8:" in said
    assert "difference: " in said


def test_texts_are_the_same_in_every_batch_and_replayed(run: Path, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"prompt": "The"[: n % 4], "seed": n}) for n in range(20)).encode()
    words = ["generate", run, "--file", "-", "--jsonl", "--max-tokens", "30", "--quantize", "int8"]
    alone, together = (succeed(*words, "--batch", batch, stdin=lines).jsonl() for batch in (1, 20))
    assert alone == together
    assert together != succeed(*words[:-2], stdin=lines).jsonl()
    out = tmp_path / "out.jsonl"
    succeed(*words, "-o", out, stdin=lines)
    assert succeed("replay", f"{out}:7", "--json").json()["same"]
    assert "quantize" in fail(*words[:-1], "bf16", "-o", out, stdin=lines, code=1)
    out.write_text(out.read_text().replace('"int8"', '"int9"'))
    assert "it takes bf16 or int8" in fail("replay", f"{out}:7", code=1)


def test_scores_and_predictions(run: Path) -> None:
    plain, narrow = (
        succeed("score", run, "The kitchen", "--json", *more).jsonl()[0] for more in ([], ["--quantize", "int8"])
    )
    assert narrow["log_probability"] == pytest.approx(plain["log_probability"], rel=0.05)
    assert narrow["log_probability"] != plain["log_probability"]
    told = succeed("predict", run, "The kitch", "--quantize", "bf16", "--json").json()
    assert len(told["next"]) == 10


def test_what_cannot_be_quantized(run: Path, tmp_path: Path) -> None:
    dataset = "counting-ones:train=20,valid=5,test=5"
    succeed("train", "--dataset", dataset, "-o", tmp_path / "ones", "--set", "training.epochs=1")
    assert "--quantize is for runs of text" in fail("eval", tmp_path / "ones", "--quantize", "int8", code=2)
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "is for a run" in fail("generate", tmp_path / "model.onnx", "--quantize", "int8", code=2)
