"""The choice of a backend by measuring: fakes that are as fast as a clock says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cli import KITCHEN, settings, succeed
from torch import Tensor

from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell
from rnnpipe.config import load_config
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline import fastest as module
from rnnpipe.pipeline.build import build_model, resolve_numerics
from rnnpipe.pipeline.fastest import FILE, Circumstances, Load, fastest

CPU = Circumstances(torch.device("cpu"), "float32", captured=False)


class Fake(LoopBackend):
    """The loop under another name. asks: to be measured. fails: when it is run."""

    def __init__(self, name: str, priority: int, *, asks: bool = True, refuses: bool = False, fails: bool = False):
        self.name = name
        self.priority = priority
        self.asks = asks
        self.refuses = refuses
        self.fails = fails

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        return "it never does" if self.refuses else None

    def to_be_measured(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> bool:
        return self.asks

    def run(self, *given: Any) -> Any:
        if self.fails:
            raise RuntimeError("out of order")
        return super().run(*given)


def load(*backends: Fake, hidden: int = 4) -> Load:
    return Load(Recurrent("elman", 3, hidden, backends=backends), torch.zeros(5, 2, 3), None)


class Clock:
    """Tells given seconds for whatever ran in a load, which it runs once."""

    def __init__(self, given: Load, seconds: dict[str, float]) -> None:
        self.given, self.seconds = given, seconds
        self.asked: list[str] = []

    def __call__(self, work: Callable[[], None]) -> float:
        work()
        name = self.given.stack.backend_used
        assert name is not None
        self.asked.append(name)
        return self.seconds[name]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FILE


def choose(given: Load, seconds: dict[str, float]) -> tuple[str, list[str], list[str]]:
    """Return the choice, what was measured, and what was said."""
    clock, said = Clock(given, seconds), list[str]()
    first = given.stack.refusals(given.x)[0]
    return fastest([given], first, CPU, said.append, clock), clock.asked, said


def test_where_nothing_asks_the_priority_decides(cache: Path) -> None:
    given = load(Fake("a", 2, asks=False), Fake("b", 1, asks=False))
    assert choose(given, {}) == ("a", [], [])
    assert not cache.exists()


def test_the_fastest_that_asks_and_the_first_by_priority_are_measured_once(cache: Path) -> None:
    backends = (
        Fake("a", 3, asks=False),
        Fake("b", 2),
        Fake("c", 1),
        Fake("d", 0, asks=False),
        Fake("e", 5, refuses=True),
    )
    seconds = {"a": 0.002, "b": 0.003, "c": 0.001}
    given = load(*backends)
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    best, asked, said = choose(given, seconds)
    assert (best, asked) == ("c", ["a", "b", "c"])
    assert said == ["backend c: a window forward and backward takes a 2 ms, b 3 ms, c 1 ms (measured now)"]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(parameter.grad is None for parameter in given.stack.parameters())
    assert given.stack.backend == "auto"
    best, asked, said = choose(load(*backends), seconds)
    assert (best, asked) == ("c", [])
    assert said[0].endswith(f"(as measured before, in {cache})")
    assert choose(load(*backends, hidden=5), seconds)[1] == ["a", "b", "c"], "another shape"
    assert choose(load(*backends[:2]), seconds)[1] == ["a", "b"], "other candidates"


def test_what_is_hardly_faster_does_not_replace_the_first() -> None:
    assert choose(load(Fake("a", 2), Fake("b", 1)), {"a": 0.001, "b": 0.00099})[0] == "a"


def test_one_that_fails_is_said_and_passed_over(cache: Path) -> None:
    backends = Fake("a", 2, fails=True), Fake("b", 1)
    best, _, said = choose(load(*backends), {"b": 1.0})
    assert best == "b"
    assert said[0] == "warning: backend a fails: RuntimeError: out of order"
    assert not cache.exists(), "it is tried again"
    assert choose(load(Fake("a", 2, fails=True), Fake("b", 1, fails=True)), {})[0] == "a"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-9],
        lambda data: data.replace(b"0.001", b"0.009"),
        lambda data: data.replace(b'"version": 1', b'"version": 0'),
        lambda data: b"\xff",
        lambda data: b'{"format": "rnnpipe-backend-times", "version": 1, "times": {"k": {"a": -1}}}',
    ],
    ids=["cut", "changed", "older", "not JSON", "no times"],
)
def test_a_damaged_or_older_file_is_said_and_replaced(spoil: Callable[[bytes], bytes], cache: Path) -> None:
    backends, seconds = (Fake("a", 2), Fake("b", 1)), {"a": 0.002, "b": 0.001}
    choose(load(*backends), seconds)
    whole = cache.read_bytes()
    cache.write_bytes(spoil(whole))
    best, asked, said = choose(load(*backends), seconds)
    assert (best, asked) == ("b", ["a", "b"])
    assert str(cache) in said[0]
    assert said[0].endswith("Backends are measured anew.")
    assert cache.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "file"))
    best, _, said = choose(load(Fake("a", 2), Fake("b", 1)), {"a": 0.002, "b": 0.001})
    assert best == "b"
    assert "could not be kept" in said[0]


def test_only_the_newest_times_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    for hidden in (4, 5, 6):
        choose(load(Fake("a", 2), Fake("b", 1), hidden=hidden), {"a": 0.002, "b": 0.001})
    kept = json.loads(cache.read_bytes())["times"]
    assert [json.loads(key)["loads"][0]["cells"][0][2]["hidden_size"] for key in kept] == [5, 6]


def test_training_takes_it_and_so_does_all_that_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rnnpipe.models.recurrent._registered_backends", lambda: [Fake("a", 2), Fake("b", 1)])
    seconds = iter([0.002, 0.001])
    monkeypatch.setattr(module, "_clock", lambda where: lambda work: next(seconds))
    said = succeed("train", KITCHEN, "-o", "run", *settings(training__max_steps=2)).err
    assert "backend b: a window forward and backward takes a 2 ms, b 1 ms (measured now)" in said
    recorded = load_config(Path("run/config.toml"))
    assert recorded.numerics["backend"] == "b"
    silent: list[str] = []
    model = build_model(recorded, 9)
    numerics, _ = resolve_numerics(recorded, model, ready=True, report=silent.append)
    assert (numerics.backend, silent) == ("b", [])


def test_the_clock_takes_the_time_of_a_function() -> None:
    runs = iter(range(10**6))
    assert module._clock(CPU)(lambda: time.sleep(0.02)) >= 0.02
    module._clock(CPU)(lambda: next(runs) and None)
    assert next(runs) == 103, "three to warm up, and a hundred at most"
