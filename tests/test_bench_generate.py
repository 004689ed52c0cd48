"""`rnnpipe bench generate` at a small size: complete rows, whose programs do the same work."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import fail, succeed

from rnnpipe.bench import generate as bench

CORPORA = Path(__file__).parent.parent / "corpora"


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("bench") / "run"
    small = ("--set", "model.hidden_size=8", "--set", "training.max_steps=2")
    succeed("train", CORPORA / "kitchen-notes.txt", "--level", "char", "-o", run, *small)
    return run


def test_rows(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_STARTS", 1)
    words = ("--prompts", 9, "--tokens", 3, "--rounds", 2, "--precision", "float32", "--no-peer")
    told = succeed("bench", "generate", small_run, *words, "--json").json()
    assert [row["program"] for row in told["rows"]] == [
        "rnnpipe",
        "matrix products of the same steps",
        "one prompt at a time",
    ]
    assert told["rows"][0]["ratio"] == 1
    assert all(row["tokens_per_second"] > 0 and row["ratio"] > 0 for row in told["rows"])
    assert 0 < told["first_token_seconds"] < 600
    monkeypatch.setattr(bench, "_first_token", lambda run: 1.0)
    assert "matrix products of the same steps  float32" in succeed("bench", "generate", small_run, *words).out


def test_the_products_are_those_of_the_steps(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = bench.open_run(small_run).reader()
    load = bench._load(reader, 5, 4, "float32", bench.Options())
    network = bench._Counted(bench.TorchNetwork(load.model, load.boundary, load.device, "float32"))
    bench._ours(load, network)
    assert sum(drawn for _, drawn in network.steps) == load.drawn
    assert sum(rows for rows, _ in network.steps) >= load.drawn - 5 + sum(map(len, load.prompts))
    done: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    product = bench.F.linear
    monkeypatch.setattr(bench.F, "linear", lambda x, w: done.append((tuple(x.shape), tuple(w.shape))) or product(x, w))
    bench._products(load, [(5, 0), (4, 0), (0, 3)])
    sizes = reader.model.recurrent.layers[0].weight_ih.shape[1]
    vocabulary = reader.vocabulary.size
    assert done == [
        ((5, sizes), (32, sizes)), ((5, 8), (32, 8)), ((4, sizes), (32, sizes)), ((4, 8), (32, 8)),
        ((3, 8), (vocabulary, 8)),
    ]  # fmt: skip


def test_the_peer(small_run: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `bench` is not installed")
    reader = bench.open_run(small_run).reader()
    row = bench._against_transformers(bench._load(reader, 3, 2, "float32", bench.Options()), 1.0, lambda line: None)
    assert row.tokens_per_second > 0
    assert row.ratio == 1 / row.tokens_per_second


def test_a_run_that_is_not_there() -> None:
    assert "nowhere" in fail("bench", "generate", "nowhere", "--no-peer", code=1)
