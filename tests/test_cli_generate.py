"""`generate` by the thousand, `replay`, `score`, and `predict` of many lines: what is kept, told, refused."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli import KITCHEN, call, fail, settings, start, succeed

from rnnpipe.generation.torch_network import FIXED_ROWS, TorchNetwork
from rnnpipe.runtime import ROW_TILE

WORDS = ["the", "salt", "a", "pan", "of", "water", "xyzzy", "butter"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate") / "words"
    succeed("train", KITCHEN, "-o", folder, *settings())
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate") / "letters"
    succeed("train", KITCHEN, "-o", folder, "--level", "char", *settings())
    return folder


def write_prompts(count: int, **more: Any) -> list[dict[str, Any]]:
    """Write prompts.jsonl, of mixed lengths and with options of their own, and return its records."""
    chance = random.Random(0)
    records = []
    for number in range(count):
        record = {"id": f"p{number}", "prompt": " ".join(chance.choices(WORDS, k=number % 9)), "seed": number, **more}
        if number % 3 == 0:
            record["temperature"] = 0
        if number % 5 == 0:
            record |= {"max_tokens": number % 7 + 1, "samplers": ["min-p:p=0.01"]}
        records.append(record)
    Path("prompts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records


def generate(run: Path, *words: object, **options: Any) -> Any:
    return succeed("generate", run, "--file", "prompts.jsonl", "--jsonl", "--max-tokens", 9, *words, **options)


# --- answers ---


def test_the_same_answers_at_every_batch_and_in_every_order(run: Path):
    records = write_prompts(150)
    expected = generate(run, "--batch", 1000).out
    assert generate(run, "--batch", 1).out == generate(run, "--batch", 7).out == expected
    random.Random(1).shuffle(records)
    mixed = "".join(json.dumps(record) + "\n" for record in records)
    again = succeed("generate", run, "--file", "-", "--jsonl", "--max-tokens", 9, "--batch", 64, stdin=mixed.encode())
    assert sorted(again.out.splitlines()) == sorted(expected.splitlines())
    assert [row["id"] for row in again.jsonl()] == [record["id"] for record in records]


def test_options_of_a_prompt_go_before_those_of_all(run: Path):
    write_prompts(6)
    rows = generate(run, "--temperature", 2).jsonl()
    assert [len(row["tokens"]) for row in rows] == [1, 9, 9, 9, 9, 6]
    assert rows[0]["replay"]["options"] == {
        "max_tokens": 1, "temperature": 0.0, "samplers": [{"name": "min-p", "p": 0.01}]
    }  # fmt: skip
    assert rows[1]["replay"]["options"] == {"max_tokens": 9, "temperature": 2.0}


@pytest.mark.parametrize("torn", [b"", b'{"id": "p4", "prom'])
def test_answers_go_on_where_they_stopped(torn: bytes, run: Path):
    write_prompts(30)
    told = generate(run, "-o", "whole.jsonl").err
    assert "written: whole.jsonl (30 texts" in told
    whole = Path("whole.jsonl").read_bytes()
    assert generate(run).out.encode() == whole
    Path("part.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:11]) + torn)
    assert "part.jsonl has 11 answers; going on behind them" in generate(run, "-o", "part.jsonl").err
    assert Path("part.jsonl").read_bytes() == whole
    assert "(0 texts" in generate(run, "-o", "part.jsonl").err


def test_answers_to_others_are_not_gone_on_with(run: Path, letters: Path):
    write_prompts(3)
    generate(run, "-o", "out.jsonl")
    before = Path("out.jsonl").read_bytes()
    words = ("--file", "prompts.jsonl", "--jsonl", "-o", "out.jsonl")
    assert "line 2: is not the answer to prompts.jsonl, line 2 (max_tokens 9, not unset)" in fail(
        "generate", run, *words, code=1
    )
    assert "weights" in fail("generate", letters, *words, "--max-tokens", 9, code=1)
    write_prompts(2)
    assert "line 3: an answer more than there are prompts" in fail("generate", run, *words, "--max-tokens", 9, code=1)
    Path("out.jsonl").write_text("hello\n", encoding="utf-8")
    assert "line 1: not an answer" in fail("generate", run, *words, code=1)
    Path("out.jsonl").write_bytes(before)
    assert "needs --jsonl" in fail("generate", run, "a", "-o", "out.jsonl", code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_loses_nothing(number: int, run: Path):
    write_prompts(4000, max_tokens=60)
    words = ("generate", run, "--file", "prompts.jsonl", "--jsonl", "-o", "out.jsonl", "--batch", 64)
    with start(*words) as process:
        until = time.monotonic() + 60
        while (not Path("out.jsonl").exists() or not Path("out.jsonl").stat().st_size) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    there = Path("out.jsonl").read_bytes()
    count = there.count(b"\n")
    assert 0 < count < 4000, "interrupted in the middle"
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"out.jsonl has {count:,} answers. The same command goes on from there." in err
        assert there.endswith(b"\n")
    records = Path("prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[: count + 20]
    Path("prompts.jsonl").write_text("".join(records), encoding="utf-8")
    assert f"has {count:,} answers" in succeed(*words).err
    assert Path("out.jsonl").read_text(encoding="utf-8") == succeed(*words[:-4]).out


def test_a_line_that_cannot_be_used_is_left_out_if_asked(run: Path):
    lines = ['{"prompt": "a"}', "nonsense", '{"prompt": "a", "temperature": -1}', '{"prompt": "a", "top_q": 1}',
             '{"prompt": "a", "samplers": ["nothing"]}', '{"prompt": "the"}']  # fmt: skip
    words = ("generate", run, "--file", "-", "--jsonl", "--max-tokens", 3)
    result = succeed(*words, "--skip-errors", stdin="\n".join(lines).encode())
    assert [row["id"] for row in result.jsonl()] == ["1", "6"]
    for said in ("line 2: not JSON", "line 3: temperature=-1.0", "line 4: unknown key \"top_q\". Did you mean 'top_p'",
                 "line 5: unknown sampler 'nothing'", "4 lines were left out"):  # fmt: skip
        assert said in result.err
    lines[1:5] = [""] * 4
    assert succeed(*words, stdin="\n".join(lines).encode()).out == result.out, "a text hangs on its own line alone"


def test_what_was_left_out_is_left_out_again(run: Path):
    wrong = [
        {"temperature": "hot"}, {"max_tokens": True}, {"max_tokens": 0}, {"max_tokens": 10**20}, {"stop": 5},
        {"stop": [""]}, {"samplers": [3]}, {"samplers": ["min-length:tokens=99999999999999999999"]}, {"top_k": 0},
        {"samplers": [{"name": "pattern", "regex": "(" * 3000}]}, {"beam": {"width": 2}},
    ]  # fmt: skip
    records = [{}, *wrong, {"stop": None, "temperature": None}]
    text = "".join(json.dumps({"prompt": "the", **record}) + "\n" for record in records)
    Path("prompts.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    first = generate(run, "--skip-errors", "-o", "out.jsonl").err
    for line in range(2, len(wrong) + 2):
        assert re.search(rf"prompts.jsonl, line {line}\b", first)
    there = Path("out.jsonl").read_bytes()
    assert [json.loads(line)["id"] for line in there.splitlines()] == ["1", str(len(records))]
    assert "out.jsonl has 2 answers" in generate(run, "--skip-errors", "-o", "out.jsonl").err
    Path("out.jsonl").write_bytes(there.splitlines(keepends=True)[0])
    generate(run, "--skip-errors", "-o", "out.jsonl")
    assert Path("out.jsonl").read_bytes() == there


@pytest.mark.parametrize(
    "theirs",
    [
        b"precious, no end of line",
        b"alice\nthe",
        b'{"id": 7, "prompt": "mine"}',
        b'{"id": 7}\n',
        b'{"a": 1',
        b"\x00" * 9,
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(theirs: bytes, run: Path):
    Path("mine").write_bytes(theirs)
    assert "mine" in fail("generate", run, "the", "--jsonl", "--max-tokens", 2, "-o", "mine", code=1)
    assert Path("mine").read_bytes() == theirs


def test_answers_do_not_go_where_the_prompts_are(run: Path):
    write_prompts(2)
    before = Path("prompts.jsonl").read_bytes()
    words = ("generate", run, "--file", "prompts.jsonl", "--jsonl", "-o")
    assert "is the file of the prompts" in fail(*words, "prompts.jsonl", code=2)
    assert Path("prompts.jsonl").read_bytes() == before
    assert succeed(*words, "-").out == succeed(*words[:-1]).out
    assert not Path("-").exists()


def test_prompts_may_be_plain_and_answers_not(run: Path):
    Path("prompts.txt").write_text("the salt\n\na pan\n", encoding="utf-8")
    rows = succeed("generate", run, "--file", "prompts.txt", "--plain", "--jsonl", "--max-tokens", 2).jsonl()
    assert [(row["id"], row["prompt"]) for row in rows] == [("1", "the salt"), ("2", ""), ("3", "a pan")]


# --- replay ---


def test_every_answer_is_replayed(run: Path):
    write_prompts(12)
    generate(run, "-o", "out.jsonl", "--top-p", 0.9, "--sampler", "repetition-penalty:penalty=1.2")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    for number in (1, 2, 6, 12):
        told = succeed("replay", f"out.jsonl:{number}", "--json").json()
        assert told == {"same": True, "difference": None, "text": rows[number - 1]["text"]}


def test_a_replay_that_differs_says_what(run: Path):
    write_prompts(2)
    generate(run, "-o", "out.jsonl")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[1]["text"] += "!"
    Path("out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = call("replay", "out.jsonl:2")
    assert result.code == 1
    assert "out.jsonl:2: not the same: text" in result.error


def test_the_row_tile_is_the_one_in_use(run: Path, monkeypatch: pytest.MonkeyPatch):
    write_prompts(1)
    assert generate(run).json()["replay"]["numerics"]["row_tile"] == ROW_TILE
    monkeypatch.setattr(TorchNetwork, "_rows_are_alike", lambda network: False)
    assert generate(run).json()["replay"]["numerics"]["row_tile"] == FIXED_ROWS


def test_replays_that_cannot_be(run: Path, letters: Path):
    write_prompts(1)
    generate(run, "-o", "out.jsonl")
    assert "has no line 2; it has 1" in fail("replay", "out.jsonl:2", code=1)
    assert "was made with the weights" in fail("replay", "out.jsonl:1", "--run", letters, code=1)
    for words in ("out.jsonl", "out.jsonl:0", "out.jsonl:x"):
        assert "expected FILE:LINE" in fail("replay", words, code=2)
    row = json.loads(Path("out.jsonl").read_text(encoding="utf-8"))
    row["replay"]["run"] = "moved-away"
    Path("out.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert "moved-away, which is not there; name it with --run" in fail("replay", "out.jsonl:1", code=1)
    assert succeed("replay", "out.jsonl:1", "--run", run, "--json").json()["same"]


# --- how a text is drawn, and where it stops ---


def test_stop_strings_and_sentences(letters: Path):
    words = ("generate", letters, "the salt", "-n", 20, "--max-tokens", 80, "--jsonl")
    rows = succeed(*words, "--stop", "e", "--stop", "th").jsonl()
    assert {row["finish"] for row in rows} == {"stop", "document"}
    assert not any("e" in row["text"] or "th" in row["text"] for row in rows)
    assert all("".join(row["tokens"]).startswith(row["text"]) for row in rows)
    stopped = [row["text"] for row in succeed(*words, "--sentence").jsonl() if row["finish"] == "stop"]
    assert stopped and all(text[-1] in ".!?\"'" for text in stopped)


def test_a_stop_string_that_cannot_occur(letters: Path):
    warned = succeed("generate", letters, "a", "--max-tokens", 2, "--stop", "雨").err
    assert warned.count("the stop string '雨' can never occur") == 1
    assert "an empty text" in fail("generate", letters, "a", "--stop", "", code=2)


def test_patterns_prefixes_and_lengths(letters: Path):
    words = ("generate", letters, "a", "-n", 10, "--max-tokens", 12, "--jsonl", "--sampler")
    for row in succeed(*words, 'pattern:regex="[a-c]{3,5}( d|e, )"').jsonl():
        assert row["finish"] == "document"
        assert set(row["text"][:3]) <= set("abc")
        assert row["text"].endswith((" d", "e, "))
    assert all(row["text"].startswith("salt") for row in succeed(*words, 'prefix:text="salt"').jsonl())
    assert all(len(row["tokens"]) == 12 for row in succeed(*words, "min-length:tokens=12").jsonl())
    assert not any("e" in row["text"] for row in succeed(*words, 'forbid:tokens=["e", "<doc>"]').jsonl())
    assert "character 3" in fail("generate", letters, "a", "--sampler", 'pattern:regex="a("', code=2)
    assert "no text of this run's tokens can match" in fail(*words[:2], "--sampler", 'pattern:regex="雨"', code=2)


def test_what_is_likely_not_meant_is_told(run: Path, letters: Path):
    assert "no token of this run has a mark" in succeed("generate", run, "the", "--sentence", "--max-tokens", 2).err
    words = ("generate", letters, "a", "--max-tokens", 3, "--sampler")
    for sampler in ("min-length:tokens=4", 'prefix:text="salt"', 'pattern:regex="a{4,9}"'):
        assert "needs 4 tokens at least, and gets 3 at most" in succeed(*words, sampler).err
    assert "goes with --beam" in fail("generate", letters, "a", "--length-exponent", 2, code=2)


def test_a_k_larger_than_the_vocabulary(letters: Path):
    assert "any token can be drawn" in succeed("generate", letters, "a", "--top-k", 5000, "--max-tokens", 1).err


def test_beams(letters: Path):
    words = ("generate", letters, "--jsonl", "--max-tokens", 5, "the", "", "a pan")
    rows = succeed(*words, "--beam", 4, "-n", 3).jsonl()
    assert [row["id"] for row in rows] == [f"{prompt}.{rank}" for prompt in (1, 2, 3) for rank in (1, 2, 3)]
    greedy = [row["text"] for row in succeed(*words, "--temperature", 0).jsonl()]
    assert [row["text"] for row in succeed(*words, "--beam", 1).jsonl()] == greedy
    Path("beams.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert succeed("replay", "beams.jsonl:5", "--json").json() == {
        "same": True, "difference": None, "text": rows[4]["text"]
    }  # fmt: skip
    bad = call(
        "generate", letters, "--jsonl", "--file", "-", "--beam", 2, "-n", 2, stdin=b'{"prompt": "a", "id": null}\n{\n'
    )
    assert bad.code == 1 and "line 2: not JSON" in bad.error
    assert [row["id"] for row in bad.jsonl()] == ["1.1", "1.2"], "what came before is answered"
    assert "use --beam 3" in fail("generate", letters, "a", "--beam", 2, "-n", 3, code=2)
    assert "draws nothing" in fail("generate", letters, "a", "--beam", 2, "--top-k", 3, code=2)


# --- what is read, not drawn ---


def test_score(run: Path):
    lines = ["the salt", "", "xyzzy pan of water", "the salt"]
    Path("lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = succeed("score", run, "--file", "lines.txt", "--json", "--tokens").jsonl()
    assert [row["text"] for row in rows] == lines
    assert [row["tokens"] for row in rows] == [2, 0, 4, 2]
    assert rows[0] == rows[3]
    assert (rows[1]["log_probability"], rows[1]["perplexity"], rows[2]["unknown"]) == (0, None, ["xyzzy", "pan"])
    for row in (rows[0], rows[2]):
        assert math.fsum(score for _, score in row["scores"]) == pytest.approx(row["log_probability"])
        assert row["perplexity"] == pytest.approx(math.exp(-row["log_probability"] / row["tokens"]))
    result = succeed("score", run, *lines[:2])
    assert result.out.splitlines()[1] == "0.0000\t0\t-\t"
    assert result.out.startswith(f"{rows[0]['log_probability']:.4f}\t2\t")
    ended = succeed("score", run, "the salt", "--end", "--json").json()
    assert ended["tokens"] == 3
    assert "texts as arguments or with --file" in fail("score", run, code=2)


def test_a_drawn_text_scores_as_it_said(run: Path):
    """The log-probability of an answer to an empty prompt is that of its text, read."""
    (row,) = succeed("generate", run, "", "--max-tokens", 12, "--jsonl", "--temperature", 1.5).jsonl()
    scored = succeed("score", run, row["text"], "--json", *["--end"] * (row["finish"] == "document")).json()
    assert scored["log_probability"] == pytest.approx(row["log_probability"])


def test_predict_of_lines(run: Path):
    Path("lines.txt").write_text("the salt\n\nxyzzy\n", encoding="utf-8")
    rows = succeed("predict", run, "--file", "lines.txt", "--top", 3, "--json").jsonl()
    assert [row["text"] for row in rows] == ["the salt", "", "xyzzy"]
    for row in rows:
        assert row["next"] == succeed("predict", run, row["text"], "--top", 3, "--json").json()["next"]
    printed = succeed("predict", run, "--file", "lines.txt", "--top", 3)
    assert len(printed.out.splitlines()) == 3
    assert "line 3: unknown to this run: 'xyzzy'" in printed.err
    assert "not UTF-8" in fail("score", run, "--file", "-", code=1, stdin=b"\xff\n")


# --- hundreds of thousands ---


@pytest.mark.slow
def test_200_000_prompts_take_no_more_memory_than_2_000(run: Path):
    """`pytest -m slow tests/test_cli_generate.py`: 2 minutes."""
    peaks = []
    for count in (2_000, 200_000):
        Path("prompts.txt").write_text("the salt of a pan\na pan\n" * (count // 2), encoding="utf-8")
        words = ("--file", "prompts.txt", "--plain", "--jsonl", "--max-tokens", 3, "-o", f"{count}.jsonl")
        with start("generate", run, *words) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss)
        with Path(f"{count}.jsonl").open("rb") as file:
            assert sum(1 for _ in file) == count
    assert peaks[1] < peaks[0] * 1.1
