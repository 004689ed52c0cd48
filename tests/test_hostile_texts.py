"""Texts as they come: odd bytes and line ends, endless lines, next to nothing; and no pickle anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import HARBOUR, Result, python, settings, spawn, succeed

from rnnpipe.errors import InputError
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.text import counting
from rnnpipe.text.rules import Named

# --- causes are named before torch is imported ---

WITHOUT_TORCH = """
import os, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            os._exit(77)
sys.meta_path.insert(0, Refuse())
from rnnpipe.cli import run
run(sys.argv[1:])
"""
BAD = {
    "not UTF-8": (b"good\n" * 50 + b"caf\xe9\n", "bad.txt, line 51, byte 253 (0xe9): not valid utf-8"),
    "NUL": (b"good\r\n" * 50 + b"a\0b\n", "bad.txt, line 51, byte 301: NUL (0x00)"),
    "UTF-16": (("text\n" * 9).encode("utf-16-le"), "pass --encoding utf-16"),
    "empty": (b"", "bad.txt: is empty"),
    "BOM alone": (b"\xef\xbb\xbf", "bad.txt: is empty"),
    "blank": (b" \n\t\r\n \xe2\x80\xa8\xc2\x85\n", "nothing is left after cleaning"),
    "one token": (b"word\n", "no token occurs more than 3 times"),
    "one token again and again": (b"a " * 60, "has 61 tokens, too few for a window of 64"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_cause_is_named_before_torch_is_imported(tmp_path: Path, kind: str) -> None:
    content, message = BAD[kind]
    (tmp_path / "bad.txt").write_bytes(content)
    commands = {"train": ["-o", "run"]}
    if kind in ("not UTF-8", "NUL", "empty", "blank"):
        commands |= {"clean": ["-o", "out"], "build-dict": ["-o", "dict"]}
    for command, options in commands.items():
        result = python(WITHOUT_TORCH, command, "bad.txt", *options, cwd=tmp_path)
        said = "no token is left" if (command, kind) == ("build-dict", "blank") else message
        assert result.code == 1, (command, result)
        assert said in result.error, command
        assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]


def test_that_torch_would_be_noticed(tmp_path: Path) -> None:
    """The check above can fail: a good text goes on to torch."""
    assert python(WITHOUT_TORCH, "train", HARBOUR, "-o", "run", cwd=tmp_path).code == 77


# --- line ends ---

ODD = {
    "LF": "one\ntwo\n\nthree\n",
    "CR LF": "one\r\ntwo\r\n\r\nthree\r\n",
    "CR alone": "one\rtwo\r\rthree\r",
    "mixed": "one\r\ntwo\r\r\nthree\n",
    "BOM": "\ufeffone\ntwo\n\nthree\n",
    "Unicode's own": "one\u2028one\ntwo\x85two\u2029\n\nthree\x0b\x0c\x1c\x1d\x1ethree\n",
}


@pytest.mark.parametrize("kind", ODD)
def test_line_counts_are_those_of_wc(tmp_path: Path, kind: str) -> None:
    """Only LF, CR LF and CR end a line: what is counted in is what `wc -l` counts in the cleaned text, and an error."""
    data = ODD[kind].encode()
    (tmp_path / "odd.txt").write_bytes(data)
    succeed("clean", tmp_path / "odd.txt", "-o", tmp_path / "cleaned", "--cleaner", "none")
    cleaned = (tmp_path / "cleaned" / "all.txt").read_bytes()
    counted = subprocess.run(["wc", "-l", tmp_path / "cleaned" / "all.txt"], capture_output=True, check=True).stdout
    assert int(counted.split()[0]) == 4
    assert cleaned.decode() == ODD[kind].removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    (tmp_path / "odd.txt").write_bytes(data + b"\xff")
    result = spawn("clean", tmp_path / "odd.txt", "-o", tmp_path / "again", "--cleaner", "none")
    assert f"odd.txt, line 5, byte {len(data)} (0xff)" in result.error


# --- lines without an end ---

UNITS = {"words": b"the quick brown fox jumps over the lazy dog ", "solid": b"x"}
COMMANDS = {
    "clean": ("words", ["clean", "TEXT", "-o", "cleaned"]),
    "clean by no rules": ("solid", ["clean", "TEXT", "-o", "cleaned", "--cleaner", "none"]),
    "clean what is no text in words": ("solid", ["clean", "TEXT", "-o", "cleaned"]),
    "build-dict of words": (
        "words",
        ["build-dict", "TEXT", "-o", "dict", "--cleaner", "ascii-words", "--workers", "1"],
    ),
    "build-dict of characters": ("solid", ["build-dict", "TEXT", "-o", "dict", "--level", "char", "--workers", "1"]),
    "build-dict of cleaned characters": (
        "words",
        ["build-dict", "TEXT", "-o", "dict", "--level", "char", "--cleaner", "unicode-words", "--workers", "1"],
    ),
    "audit of characters": ("solid", ["corpus", "audit", "TEXT", "--level", "char"]),
    "clean another encoding": ("words", ["clean", "TEXT", "-o", "cleaned", "--cleaner", "none", "--encoding", "cp932"]),
}
REFUSED = {
    "clean what is no text in words": "16 MiB without a blank or a line end; this is not text in words",
    "build-dict of cleaned characters": "too many to be cleaned as one piece",
}


# A process's peak counts what its parent had when it started, so a small one stands between it and the tests.
MEASURE = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "rnnpipe", *sys.argv[2:]])
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss << 10))
sys.exit(process.returncode)
"""


def run_measured(words: list[str], folder: Path) -> tuple[Result, int]:
    """Run the command line in a process of its own; return the result and the peak of its resident memory in bytes."""
    command = [sys.executable, "-c", MEASURE, "peak", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    return Result(done.returncode, done.stdout, done.stderr), int((folder / "peak").read_text())


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("mebibytes", [24, pytest.param(1024, marks=pytest.mark.slow)])
def test_a_line_without_an_end_takes_little_memory(
    tmp_path: Path, name: str, mebibytes: int, record_property: Callable[[str, object], None]
) -> None:
    """A line of 1 GiB is read within 300 MB of resident memory, or refused in one line."""
    unit, words = COMMANDS[name]
    piece = UNITS[unit] * ((1 << 20) // len(UNITS[unit]) + 1)
    with (tmp_path / "long.txt").open("wb") as file:
        for _ in range(mebibytes):
            file.write(piece[: 1 << 20])
    result, peak = run_measured(["long.txt" if word == "TEXT" else word for word in words], tmp_path)
    record_property("resident_bytes", peak)
    print(f"{name}: {peak >> 20} MB")  # noqa: T201
    assert peak < (90 if mebibytes < 1024 else 300) << 20
    if name in REFUSED:
        assert result.code == 1
        assert REFUSED[name] in result.error
    else:
        assert result.code == 0, result


def test_characters_of_cleaned_text_are_counted_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"some words\n" * 10)
    rules = {"cleaner": Named("unicode-words"), "tokenizer": Named("characters")}
    monkeypatch.setattr(counting, "WHOLE_BYTES", 110)
    build_dict([str(path)], tmp_path / "dict", **rules)
    monkeypatch.setattr(counting, "WHOLE_BYTES", 109)
    with pytest.raises(InputError, match=r"text\.txt: 110 bytes, too many to be cleaned as one piece.*rnnpipe clean"):
        build_dict([str(path)], tmp_path / "dict", **rules)


# --- no pickle ---

POISONED = """
import importlib, json, pickle, pkgutil, sys
import torch, rnnpipe
from rnnpipe.cli import _run
for module in pkgutil.walk_packages(rnnpipe.__path__, "rnnpipe."):
    if not module.name.endswith(("__main__", "_native")):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name == "triton", error  # of an extra that the tests do without

class Poison:
    def __init__(self, *args, **kwargs):
        raise AssertionError("pickle was asked for")

for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
    setattr(pickle, name, Poison)
    setattr(pickle, "_" + name, Poison)
torch.load = torch.save = torch.serialization.load = torch.serialization.save = Poison

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise AssertionError("a pickle was read")

sys.addaudithook(refuse)
"""


def test_every_module_train_and_generate_with_pickle_poisoned(tmp_path: Path) -> None:
    """Every module is imported, then train, resume, eval and generate run; a call of pickle ends in an error."""
    run = "run"
    commands = [
        ["train", HARBOUR, "-o", run, "--level", "char", *settings(text__workers=1, training__max_steps=4)],
        ["train", "--resume", run],
        ["eval", run],
        ["generate", run, "The", "--max-tokens", "5"],
        ["corpus", "audit", HARBOUR, "--level", "char"],
    ]
    program = POISONED + "for words in json.loads(sys.argv[1]): assert _run(words, debug=True) == 0, words\n"
    result = python(program, json.dumps(commands), cwd=tmp_path)
    assert result.code == 0, result
    assert "unknown to a dictionary of train" in result.out


def test_that_a_pickle_would_be_noticed() -> None:
    """The poison works: whatever asks for pickle, there, gets an error."""
    program = POISONED + "\n".join(
        f"try: {code}\nexcept AssertionError as error: print(error)"
        for code in ("pickle.loads(b'N.')", "pickle.dumps(1)", "torch.save(1, 'x')", "pickle.Unpickler(None)")
    )
    hidden = (
        "\nimport _pickle\ntry: _pickle.loads(b'cbuiltins\\nint\\n.')\nexcept AssertionError as error: print(error)"
    )
    assert python(program + hidden).out.splitlines() == ["pickle was asked for"] * 4 + ["a pickle was read"]
