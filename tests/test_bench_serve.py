"""`rnnpipe bench serve` at a small size: complete rows, and a soak that counts what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import KITCHEN, settings, succeed

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")


def test_rows_and_a_soak(tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed("train", KITCHEN, "--level", "char", "-o", run, *settings(training__max_steps=2))
    words = ("--clients", 3, "--tokens", 4, "--longest", 5, "--rounds", 1, "--soak", 0.5, "--json")
    told = succeed("bench", "serve", run, *words).json()
    assert [(row["way"], row["clients"]) for row in told["rows"]] == [
        ("batch command", 3),
        ("batch command, 3 texts at once", 3),
        ("server", 3),
        ("server, streaming", 3),
        ("server, streaming", 16),
    ]
    assert all(row["tokens_per_second"] > 0 and row["ratio"] > 0 for row in told["rows"])
    assert [row["first_token_seconds"] is not None for row in told["rows"]] == [False, False, False, True, True]
    assert told["soak"]["lost"] == 0
    assert told["soak"]["requests"] >= 1
    assert min(told["soak"]["resident_bytes"]) > 1e6


@pytest.mark.slow
def test_ten_minutes_lose_nothing_and_memory_stays(tmp_path: Path) -> None:
    """The soak of `rnnpipe bench serve RUN --soak 600`."""
    run = tmp_path / "run"
    succeed("train", KITCHEN, "--level", "char", "-o", run, *settings(training__max_steps=2))
    told = succeed("bench", "serve", run, "--tokens", 50, "--rounds", 1, "--soak", 600, "--json").json()
    before, after = told["soak"]["resident_bytes"]
    assert told["soak"]["lost"] == 0
    assert told["soak"]["requests"] > 1000
    assert after < 1.05 * before
