"""`rnnpipe verify`: every byte that is not as it was written is found, and the file named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli import HARBOUR, KITCHEN, call, damage, fail, python, settings, succeed

from rnnpipe.durable import read_record, write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.verify import verify


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run: to read."""
    folder = tmp_path_factory.mktemp("verify") / "run"
    succeed("train", KITCHEN, "-o", folder, *settings(training__evaluate_every=10))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


PARTS = {
    "run": ".",
    "checkpoint": "checkpoints/step-20",
    "dictionary": "dictionary.txt",
    "tokens": "tokens",
    "corpus": "corpus",
}


@pytest.mark.parametrize("kind", PARTS)
def test_what_is_whole_verifies(kind: str, trained: Path) -> None:
    path = trained / PARTS[kind]
    report = succeed("verify", path, "--json").json()
    assert (report["kind"], report["whole"], report["problems"]) == (kind, True, [])
    assert report["newest_step"] == (20 if kind == "run" else None)
    assert f"{kind}, whole" in succeed("verify", path).out


@pytest.mark.parametrize("kind", PARTS)
def test_damage_is_exit_code_1_and_names_the_file(kind: str, run: Path) -> None:
    path = run / PARTS[kind]
    file = next(p for p in [path, *sorted(path.rglob("*"))] if p.is_file() and p.suffix not in (".md", ".json"))
    damage(file)
    assert str(file) in fail("verify", path, code=1)
    result = call("verify", path, "--json")
    assert result.code == 1
    assert [problem for problem in result.json()["problems"] if str(file) in problem]


def test_every_problem_is_listed(run: Path) -> None:
    for name in ("dictionary.txt", "tokens/meta.json", "corpus/train.txt", "metrics.csv", "run.json", "config.toml"):
        (run / name).write_bytes(b"?" + (run / name).read_bytes()[1:])
    damage(run / "checkpoints" / "step-20" / "weights.safetensors")
    result = call("verify", run, "--json")
    problems = " ".join(result.json()["problems"])
    for name in (
        "dictionary.txt",
        "meta.json",
        "train.txt",
        "metrics.csv",
        "run.json",
        "config.toml",
        "step-20/weights",
    ):
        assert name in problems
    assert result.json()["newest_step"] == 10
    assert "more: --json lists them" in fail("verify", run, code=1)


def test_what_is_missing_is_named(run: Path) -> None:
    for name in ("dictionary.txt", "metrics.jsonl", "config.toml", "checkpoints/step-20/MANIFEST.json"):
        content = (run / name).read_bytes()
        (run / name).unlink()
        assert str(run / name).removesuffix("/MANIFEST.json") in fail("verify", run, code=1)
        (run / name).write_bytes(content)
    succeed("verify", run)


def test_a_dictionary_of_another_run_is_named(run: Path, tmp_path: Path) -> None:
    succeed("build-dict", KITCHEN, "-o", tmp_path / "other.dict", "--workers", 1)
    shutil.copy(tmp_path / "other.dict", run / "dictionary.txt")
    assert f"{run / 'dictionary.txt'}: is not the dictionary" in fail("verify", run, code=1)


def test_rows_behind_the_newest_checkpoint_are_no_damage(run: Path) -> None:
    for name in ("metrics.csv", "metrics.jsonl"):
        with (run / name).open("ab") as file:
            file.write(b"half a row")
    succeed("verify", run)


def test_what_a_writer_has_in_work_is_no_damage(run: Path) -> None:
    (run / "checkpoints" / ".step-30.1.tmp").mkdir()
    (run / "checkpoints" / ".step-30.1.tmp" / "weights.safetensors").write_bytes(b"half")
    succeed("verify", run)


def test_a_checkpoint_moved_aside_counts(run: Path) -> None:
    (run / "checkpoints" / "step-20").rename(run / "checkpoints" / ".step-20.1.aside")
    assert succeed("verify", run, "--json").json()["newest_step"] == 20
    assert succeed("eval", run, "--weights", "last", "--json").json()["step"] == 20


@pytest.mark.parametrize("name", ["nothing", "folder", "text.txt"])
def test_what_cannot_be_verified_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("a text\n")
    assert f"{tmp_path / name}: " in fail("verify", tmp_path / name, code=1)


def test_a_dictionary_is_verified_without_torch(trained: Path) -> None:
    code = """
import sys
from rnnpipe.cli import _run
assert _run(["verify", sys.argv[1]], debug=False) == 0
assert "torch" not in sys.modules
"""
    assert python(code, trained / "dictionary.txt").code == 0


def test_a_record_carries_its_own_digest(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = {"format": "x", "version": 1, "name": "caf\u00e9", "nested": {"sha256": "of something else"}}
    write_record(path, record)
    assert read_record(path, "x", 1, sealed=True) == record
    for position in range(len(path.read_bytes())):
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        (tmp_path / "flipped.json").write_bytes(data)
        with pytest.raises(InputError, match=r"flipped\.json"):
            read_record(tmp_path / "flipped.json", "x", 1, sealed=True)
    path.write_text(json.dumps(record))
    assert read_record(path, "x", 1) == record
    with pytest.raises(InputError, match="does not end with the SHA-256"):
        read_record(path, "x", 1, sealed=True)


# --- random damage ---


def damaged(data: bytes, flips: int, cuts: int, seed: list[int]) -> Iterator[bytes]:
    """Yield copies of a file's bytes, each with one byte changed, or cut."""
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(data), size=flips):
        yield data[:place] + bytes([data[place] ^ random.integers(1, 256)]) + data[place + 1 :]
    for length in random.integers(0, len(data), size=cuts):
        yield data[:length]


def check_damage(run: Path, flips: int, cuts: int) -> int:
    """Damage each file that has a digest in turn; return how often, all of which `verify` must have found and named."""
    tried = 0
    groups = {kind: [run / path] if (run / path).is_file() else [] for kind, path in PARTS.items()}
    for kind in ("checkpoint", "tokens", "corpus"):
        groups[kind] = sorted(p for p in (run / PARTS[kind]).rglob("*") if p.is_file())
    groups["run"] = [run / name for name in ("metrics.csv", "metrics.jsonl", "run.json", "config.toml")]
    for kind, files in groups.items():
        for number, file in enumerate(files):
            whole = file.read_bytes()
            if whole == b"":
                continue
            for data in damaged(whole, flips, cuts, [number, len(whole)]):
                file.write_bytes(data)
                try:
                    problems = verify(run / PARTS[kind]).problems
                except InputError as error:  # it is no more known for what it was
                    problems = [str(error)]
                assert any(str(file) in problem for problem in problems), (file, data)
                tried += 1
            file.write_bytes(whole)
    assert verify(run).problems == []
    return tried


def test_random_damage_is_found_and_named(run: Path) -> None:
    assert check_damage(run, flips=12, cuts=3) >= 200


@pytest.mark.slow
def test_much_random_damage_is_found_and_named(run: Path) -> None:
    tried = check_damage(run, flips=200, cuts=50)
    sys.stderr.write(f"{tried} files with one byte changed or cut, all found\n")
    assert tried >= 250 * 15


def test_an_offset_that_is_possible_but_not_the_one_written_is_found(tmp_path: Path) -> None:
    succeed("build-dict", KITCHEN, HARBOUR, "-o", tmp_path / "dict", "--workers", 1)
    succeed("encode", KITCHEN, HARBOUR, "--dict", tmp_path / "dict", "-o", tmp_path / "tokens", "--workers", 1)
    file = tmp_path / "tokens" / "all" / "offsets.npy"
    data = bytearray(file.read_bytes())
    data[-8] ^= 1  # where the second document begins
    file.write_bytes(data)
    assert str(file) in fail("verify", tmp_path / "tokens", code=1)
