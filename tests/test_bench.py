"""`rnnpipe bench` at a small size: its rows are complete, and what it compares does the same work."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnnpipe.bench import pairs as bench_pairs
from rnnpipe.bench import peers
from rnnpipe.bench import train as bench
from rnnpipe.bench.corpus import repeat_text
from rnnpipe.data.windows import Cursor
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.text.rules import Named

TINY = {"vocab_size": 20, "size": 4, "hidden_size": 8, "num_layers": 1, "batch_size": 4, "bptt": 8, "steps": 12}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    from rnnpipe.cli import _run

    assert _run([*words, "--json"], debug=True) == 0
    return json.loads(capsys.readouterr().out)


def test_corpus_rows(corpora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(capsys, "bench", "corpus", "--text", str(corpora), "--megabytes", "1", "--workers", "1", "--runs", "1")
    jobs = {(row["job"], row["program"].split(",")[0]) for row in rows}
    assert {("build-dict", "rnnpipe"), ("build-dict", "the published program"), ("encode", "rnnpipe")} <= jobs
    for row in rows:
        assert row["size_bytes"] >= 1_000_000
        assert row["megabytes_per_second"] == pytest.approx(row["size_bytes"] / 1e6 / row["seconds"])
        assert 5e6 < row["resident_bytes"] < 5e9


def test_repeated_text(tmp_path: Path, corpora: Path) -> None:
    text = (corpora / "kitchen-notes.txt").read_bytes()
    size = repeat_text(corpora / "kitchen-notes.txt", tmp_path / "out.txt", 2 * len(text) + 1)
    assert (tmp_path / "out.txt").read_bytes() == text * 3
    assert size == 3 * len(text)
    assert repeat_text(None, tmp_path / "docs.txt", 1) > 300_000


def test_the_peers_count_what_we_count(corpora: Path, tmp_path: Path) -> None:
    path = corpora / "harbour-year.txt"
    ours = build_dict([str(path)], tmp_path / "dict", cleaner=Named("ascii-words")).vocabulary
    assert peers.published(path) == ours.kept
    for package, peer in (("polars", peers.polars_build), ("duckdb", peers.duckdb_build)):
        if find_spec(package):
            assert peer(path) == ours.kept
    pytest.importorskip("tokenizers", reason="the extra `bench` is not installed")
    assert peers.tokenizers_build(path) == ours.kept + 1  # its <unk>
    assert peers.tokenizers_encode(path, tmp_path / "dict") == ours.total


def test_speed_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "SHAPES", {"tiny": TINY})
    (row,) = run(capsys, "bench", "train", "--rounds", "2", "--precision", "float32")["speed"]
    assert row["shape"] == "tiny"
    assert row["rnnpipe"] > 0
    assert row["bare"] > 0


def test_speed_rows_of_translation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"source_size": 20, "target_size": 30, "size": 4, "hidden_size": 8, "batch_size": 4, "steps": 12}
    monkeypatch.setattr(bench_pairs, "SHAPES", {"tiny": sizes})
    (row,) = run(capsys, "bench", "train", "--task", "translation", "--rounds", "1", "--precision", "float32")["speed"]
    assert row["shape"] == "tiny"
    assert row["rnnpipe"] > 0
    assert row["bare"] > 0


def test_the_bare_encoder_decoder_computes_our_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared does the same work: the same weights give the same loss."""
    monkeypatch.setattr(bench_pairs, "_DROPOUT", 0.0)
    sizes = {"source_size": 20, "target_size": 30, "size": 4, "hidden_size": 8, "batch_size": 6, "steps": 1}
    ours, bare = bench_pairs.our_model(sizes), bench_pairs.BareEncoderDecoder(20, 30, 4, 8)
    for parameter in bare.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    weights = {
        "source_encoder.weight": bare.source.weight,
        "target_encoder.weight": bare.target.weight,
        "readout.weight": bare.target.weight,
        "readout.bias": bare.readout.bias,
        "bridge.linear.weight": bare.bridge.weight,
        "bridge.linear.bias": bare.bridge.bias,
        "attention.key.weight": bare.key.weight,
        "combine.weight": bare.combine.weight,
        "combine.bias": bare.combine.bias,
    }
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        weights[f"encoder.layers.0.{name}"] = getattr(bare.encoder, f"{name}_l0")
        weights[f"encoder.layers.1.{name}"] = getattr(bare.encoder, f"{name}_l0_reverse")
        weights[f"decoder.layers.0.{name}"] = getattr(bare.decoder, f"{name}_l0")
    ours.load_state_dict(weights)
    objective = bench_pairs.our_objective(sizes)
    batch = next(objective.batches(Cursor()))
    torch.testing.assert_close(objective.loss(ours, batch, None)[0], bare(batch))


def test_quality_rows(monkeypatch: pytest.MonkeyPatch, corpora: Path) -> None:
    monkeypatch.setattr(bench, "SHAPES", {"characters, embedding 64, LSTM 512, batch 32 x 64": TINY})
    rows = bench.bench_quality(corpora / "harbour-year.txt", 1.0, "float32", lambda line: None)
    assert [row.program for row in rows] == ["rnnpipe", "bare loop"]
    for row in rows:
        assert row.steps > 3
        assert 1.0 < row.windows_nats < math.log(80)
        assert 1.0 < row.carried_nats < math.log(80)


def test_the_bare_loop_trains() -> None:
    torch.manual_seed(0)
    model = bench.BareModel(20, 4, 8, 1)
    ids = np.resize(np.arange(5), 2000).astype(np.uint16)
    before = model.readout.weight.detach().clone()
    assert bench.train_bare(model, ids, TINY, torch.device("cpu"), "float32", steps=7) == 7
    assert not torch.equal(model.readout.weight, before)
