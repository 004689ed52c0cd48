"""Counting and encoding on a real Dask cluster: a scheduler and two workers, each a process, on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import HARBOUR, JAPANESE, KITCHEN, fail, files, succeed

from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import load_rules
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.pipeline.encode import encode
from rnnpipe.pipeline.shards import count_shard, cut_shards
from rnnpipe.text.opening import open_texts
from rnnpipe.text.rules import Named

pytest.importorskip("distributed")
from rnnpipe.pipeline.dask_engine import DaskEngine

SMALL_SHARD = 30_000


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        quiet = ["--no-dashboard", "--host", "127.0.0.1", "--port", "0"]
        self.processes = [self._start("scheduler", *quiet, "--scheduler-file", str(self.file))]
        deadline = time.monotonic() + 60
        while not self.file.is_file() or not self.file.read_bytes():
            assert time.monotonic() < deadline, "the scheduler has not come up"
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, kind: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.dask_{kind}", *words]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def add_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of one thread."""
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder)]
        self.processes.append(self._start("worker", self.address, *words))
        return self.processes[-1]

    def stop(self) -> None:
        """Stop all."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.add_worker()
    cluster.add_worker()
    yield cluster
    cluster.stop()


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = Path("texts")
    texts.mkdir()
    for name, text in (("a", HARBOUR), ("b", KITCHEN), ("c", JAPANESE), ("d", HARBOUR)):
        (texts / f"{name}.txt").write_bytes(Path(text).read_bytes() * (5 if name == "d" else 1))


def in_small_shards(cluster: Cluster, report: Callable[[str], None] = lambda message: None) -> DaskEngine:
    return DaskEngine(cluster.address, report, shard_bytes=SMALL_SHARD)


LEVELS = {
    "words": ("ascii-words", "whitespace", 1),
    "unicode": ("unicode-words", "whitespace", 1),
    "characters": ("none", "characters", 0),
    "subwords": ("none", "bpe", -1),
}


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_bytes_as_here(level: str, cluster: Cluster):
    cleaner, tokenizer, threshold = LEVELS[level]
    split = Named(tokenizer, {"size": 1500} if tokenizer == "bpe" else {})
    told: list[str] = []
    engine = in_small_shards(cluster, told.append)
    rules = {"cleaner": Named(cleaner), "tokenizer": split, "unknown_threshold": threshold}
    build_dict(["texts"], Path("here.dict"), **rules)  # type: ignore[arg-type]
    done: list[int] = []
    build_dict(["texts"], Path("there.dict"), **rules, engine=engine, progress=done.append)  # type: ignore[arg-type]
    assert Path("there.dict").read_bytes() == Path("here.dict").read_bytes()
    assert sum(done) == sum(path.stat().st_size for path in Path("texts").iterdir())
    assert len(done) > 3
    encode(["texts"], Path("here.dict"), Path("here"))
    encode(["texts"], Path("here.dict"), Path("there"), engine=engine)
    assert files(Path("there")) == files(Path("here"))
    assert told[0] == f"{len(done)} shards: {len(done)} counted, 0 were there already"
    assert not list(Path().glob("*.shards"))


def test_by_the_commands_and_in_another_encoding(cluster: Cluster):
    text = Path(JAPANESE).read_text(encoding="utf-8")
    Path("japanese.txt").write_bytes(text.encode("cp932"))
    there = ("--engine", "dask", "--scheduler", cluster.address)
    words = ("build-dict", "japanese.txt", "--level", "char", "--encoding", "cp932")
    succeed(*words, "-o", "here.dict")
    result = succeed(*words, "-o", "there.dict", *there)
    assert "1 shards: 1 counted" in result.err
    assert Path("there.dict").read_bytes() == Path("here.dict").read_bytes()
    words = ("encode", "japanese.txt", "--dict", "here.dict", "--encoding", "cp932")
    succeed(*words, "-o", "here")
    succeed(*words, "-o", "there", *there)
    assert files(Path("there")) == files(Path("here"))


def test_counts_that_memory_has_no_room_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    build_dict(["texts"], Path("here.dict"), unknown_threshold=1)
    monkeypatch.setattr("rnnpipe.pipeline.dask_engine.TYPE_BYTES", 1 << 30)
    built = build_dict(["texts"], Path("there.dict"), unknown_threshold=1, engine=in_small_shards(cluster))
    assert built.in_memory is None
    assert Path("there.dict").read_bytes() == Path("here.dict").read_bytes()


class Stopped(Exception):
    """What a test ends a run with."""


def test_a_run_that_was_stopped_does_only_what_is_missing(cluster: Cluster):
    done: list[int] = []

    def stop(size: int) -> None:
        done.append(size)
        if len(done) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        build_dict(["texts"], Path("a.dict"), engine=in_small_shards(cluster), progress=stop)
    assert not Path("a.dict").exists()
    markers = len(list(Path("a.dict.shards").glob("*.json")))
    assert markers >= 3
    told: list[str] = []
    build_dict(["texts"], Path("a.dict"), engine=in_small_shards(cluster, told.append))
    there = int(told[0].split()[-4])
    assert there >= 3
    build_dict(["texts"], Path("b.dict"))
    assert Path("a.dict").read_bytes() == Path("b.dict").read_bytes()
    assert not Path("a.dict.shards").exists()


def test_a_text_that_has_changed_is_counted_again():
    shards = Path("shards")
    shards.mkdir()
    loader = load_rules, Named("unicode-words"), Named("whitespace")

    def load() -> object:
        return loader[0](*loader[1:])

    def count() -> list[bool]:
        texts = open_texts(["texts"], shards)
        cut = cut_shards(texts, load(), "rules", shards, SMALL_SHARD)  # type: ignore[arg-type]
        return [count_shard(str(shards), shard, load, "strict")["new"] for shard in cut]  # type: ignore[arg-type]

    first = count()
    assert all(first)
    assert not any(count())
    with Path("texts/d.txt").open("a", encoding="utf-8") as file:
        file.write("one more line\n")
    assert True in (again := count())
    assert False in again
    for run in shards.glob("*.run"):
        run.write_bytes(b"cut")  # of another size than its record says
    assert all(count())


def test_a_worker_killed_in_the_middle_costs_nothing_but_time(cluster: Cluster):
    build_dict(["texts"], Path("here.dict"))
    worker = cluster.add_worker()
    done: list[int] = []

    def kill(size: int) -> None:
        done.append(size)
        if len(done) == 2:
            cluster.processes[1].kill()

    build_dict(["texts"], Path("there.dict"), engine=in_small_shards(cluster), progress=kill)
    cluster.processes[1].wait()
    assert len(done) > 3
    assert worker.poll() is None
    assert Path("there.dict").read_bytes() == Path("here.dict").read_bytes()


# --- what goes wrong ---


def test_the_engine_and_its_scheduler_go_together():
    words = ("build-dict", KITCHEN, "-o", "a.dict")
    assert "needs --scheduler" in fail(*words, "--engine", "dask", code=2)
    assert "needs --scheduler" in fail(*words, "--scheduler", "tcp://127.0.0.1:1", code=2)


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rnnpipe.pipeline.dask_engine._TIMEOUT_SECONDS", 1)
    words = ("build-dict", KITCHEN, "-o", "a.dict", "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert "no Dask scheduler answers there" in fail(*words, code=1)


def test_an_error_of_a_worker_is_one_line(cluster: Cluster):
    Path("texts/d.txt").write_bytes(b"caf\xe9 " * 20_000)
    words = ("build-dict", "texts", "-o", "a.dict", "--engine", "dask", "--scheduler", cluster.address)
    assert "d.txt" in fail(*words, code=1)
    with contextlib.suppress(InputError):
        build_dict(["texts"], Path("a.dict"), engine=in_small_shards(cluster))
    assert not Path("a.dict").exists()


def test_a_preview_needs_an_output_there(cluster: Cluster):
    words = ("build-dict", KITCHEN, "--preview", "0:3", "--engine", "dask", "--scheduler", cluster.address)
    assert "name one with -o" in fail(*words, code=2)
