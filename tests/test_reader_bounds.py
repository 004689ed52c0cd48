"""The bound of each reader, one by one: what it would read without end, hold in memory or take at its word."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli import HARBOUR, KITCHEN, call, fail, settings, succeed
from hostile import sealed_again

from rnnpipe import durable
from rnnpipe.data.tokens import load_tokens
from rnnpipe.durable import parse_json, read_bounded, read_lines
from rnnpipe.errors import InputError
from rnnpipe.pipeline.requests import read_prompts
from rnnpipe.training.checkpoints import load_checkpoint, save_checkpoint
from rnnpipe.training.metrics import read_metrics

# --- what all readers share ---


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A device never ends, and a pipe may never begin."""
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="is no ordinary file"):
            read_bounded(path, 100)


def test_lines_are_bounded() -> None:
    assert list(read_lines(io.BytesIO(b"abc\n\nabcd"), "f", 4)) == [b"abc\n", b"\n", b"abcd"]
    lines = read_lines(io.BytesIO(b"abc\nabcd\n"), "f", 4)
    assert next(lines) == b"abc\n"
    with pytest.raises(InputError, match="f, line 2: more than the 4 bytes"):
        next(lines)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" + b"[]," * 20 + b"0]", "more than the 40 values"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"\\udc00": 1}', "surrogates not allowed"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b"-Infinity", "-Infinity is no number of JSON"),
        (b"9" * 5000, "not JSON that can be read"),
        (b"[" * 5000, "more than the 40 values"),
        (b"\xff", "byte 0 is not UTF-8"),
    ],
)
def test_json_is_bounded(data: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "JSON_VALUES", 40)
    with pytest.raises(InputError, match=message):
        parse_json(data, "f")
    assert parse_json('["\\ud83d\\ude00", "\u00e9", 1e5]'.encode(), "f") == ["\U0001f600", "\u00e9", 1e5]


# --- token files ---


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    succeed("build-dict", KITCHEN, "-o", tmp_path / "dict")
    succeed("encode", KITCHEN, "--dict", tmp_path / "dict", "-o", tmp_path / "tokens")
    return tmp_path / "tokens"


def change_meta(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the record of a token folder and sign it anew, as whoever makes a hostile one would."""
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_bytes(sealed_again((json.dumps(meta, indent=2) + "\n").encode()))


@pytest.mark.parametrize("size", [True, -1, 1 << 33, 1.5, "300", None])
def test_a_vocabulary_of_another_kind_or_size(tokens: Path, size: object) -> None:
    change_meta(tokens, lambda meta: meta.update(vocab_size=size))
    with pytest.raises(InputError, match="its size is missing"):
        load_tokens(tokens)


def test_a_vocabulary_that_is_not_the_dictionary_s(tokens: Path) -> None:
    change_meta(tokens, lambda meta: meta.update(vocab_size=meta["vocab_size"] + 1))
    with pytest.raises(InputError, match=r"vocab_size is not \d+, which its dictionary has"):
        load_tokens(tokens).vocabulary()


@pytest.mark.parametrize("count", [True, -1, 1 << 49, 10**4000, "1"])
@pytest.mark.parametrize("key", ["documents", "tokens", "unknown"])
def test_counts_of_another_kind_or_size(tokens: Path, key: str, count: object) -> None:
    change_meta(tokens, lambda meta: meta["parts"]["all"].update({key: count}))
    with pytest.raises(InputError, match="not counts of documents, tokens and unknown by part"):
        load_tokens(tokens)


def test_a_part_that_lies_elsewhere(tokens: Path) -> None:
    change_meta(tokens, lambda meta: meta["parts"].update({"../../x": meta["parts"]["all"]}))
    with pytest.raises(InputError, match="not counts"):
        load_tokens(tokens)


def rewrite(path: Path, array: np.ndarray[Any, Any], key: str) -> None:
    """Put other numbers into a `.npy` file and sign them anew."""
    path.write_bytes(path.read_bytes()[:128] + array.tobytes())
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    change_meta(path.parent.parent, lambda meta: meta["parts"]["all"].update({key: digest}))


def test_an_id_that_no_token_has(tokens: Path) -> None:
    ids = np.array(load_tokens(tokens).part("all").tokens)
    ids[5] = load_tokens(tokens).meta["vocab_size"]
    rewrite(tokens / "all" / "tokens.npy", ids, "sha256")
    with pytest.raises(InputError, match=r"tokens\.npy: has the id \d+, which no token has"):
        load_tokens(tokens).part("all")
    assert "which no token has" in fail("train", tokens, "-o", tokens.parent / "run", *settings(), code=1)


@pytest.mark.parametrize("offsets", [[1], [-1], [1 << 40]])
def test_documents_that_begin_elsewhere(tokens: Path, offsets: list[int]) -> None:
    rewrite(tokens / "all" / "offsets.npy", np.array(offsets, np.int64), "offsets_sha256")
    with pytest.raises(InputError, match=r"offsets\.npy: is not the ascending list of where documents begin"):
        load_tokens(tokens).part("all")


# --- checkpoints ---


@pytest.mark.parametrize(
    "state",
    [
        {"step": 1, "training": {}},
        {"step": 1, "training": {"tensor": "x"}},
        {"step": 1, "training": {"tensor": []}},
        {"step": 1, "training": {"items": 3}},
        {"step": 1, "training": {"items": [[[], 1]]}},
        {"step": 1, "training": {"items": [[1, 2, 3]]}},
        {"step": 1, "training": {"tuple": None}},
        {"step": 1, "training": {"float": "x"}},
        {"step": 1},
        {"step": True, "training": {"list": []}},
        {"step": -1, "training": {"list": []}},
        {"step": 1, "training": {"list": []}, "best_step": "../../x"},
        [],
    ],
)
def test_a_state_that_no_training_wrote(tmp_path: Path, state: Any) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, [], {})
    data = json.dumps(state).encode()
    (path / "state.json").write_bytes(data)
    record = json.loads((path / "MANIFEST.json").read_text())
    record["files"]["state.json"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "MANIFEST.json").write_bytes(sealed_again((json.dumps(record, indent=2) + "\n").encode()))
    with pytest.raises(InputError, match=r"state\.json: (does not belong to|holds no table|best_step is)"):
        load_checkpoint(path).training()


@pytest.mark.parametrize(
    ("key", "value"),
    [("position", -5), ("epoch", "1"), ("items", None), ("seconds", "long"), ("loss", []), ("schedule", 3)],
)
def test_a_resumed_state_of_another_kind(tmp_path: Path, key: str, value: object) -> None:
    run = tmp_path / "run"
    words = ["train", HARBOUR, "-o", run, "--level", "char", *settings(training__max_steps=4)]
    succeed(*words)
    (run / "run.json").unlink()  # as if it had been interrupted
    path = run / "checkpoints" / "step-4"
    state = {**json.loads((path / "state.json").read_text()), key: value}
    data = json.dumps(state).encode()
    (path / "state.json").write_bytes(data)
    record = json.loads((path / "MANIFEST.json").read_text())
    record["files"]["state.json"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "MANIFEST.json").write_bytes(sealed_again((json.dumps(record, indent=2) + "\n").encode()))
    result = call("train", "--resume", run)
    assert result.code == 1
    assert "its state does not fit this training" in result.error


# --- lines of JSON ---


@pytest.mark.parametrize(
    "line", [b"\xff\n", b"[" * 5000 + b"\n", b'{"step": NaN}\n', b'{"step": "\\ud800"}\n', b"9" * 5000 + b"\n", b"[]\n"]
)
def test_metrics_that_are_none(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line)
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2: not (JSON|a row of metrics)"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "' + b"x" * (1 << 24) + b'"}\n', "line 2: more than the 16777216 bytes"),
        (b"[" * 5000 + b"\n", "nested too deeply"),
        (b'{"prompt": "a", "id": "\\ud800"}\n', '"id", character 1: not valid text'),
        (b'{"prompt": "\\udfff"}\n', '"prompt", character 1: not valid text'),
        (b'{"prompt": "a", "id": [1]}\n', '"id" is a list; it takes a text or a number'),
        (b'{"prompt": "a", "seed": 1e400}\n', '"seed" is inf'),
    ],
    ids=range(6),
)
def test_prompts_that_are_none(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "prompts").write_bytes(b'{"prompt": "a"}\n' + line)
    with pytest.raises(InputError, match=message):
        list(read_prompts(tmp_path / "prompts", jsonl=True))
