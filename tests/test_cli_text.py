"""The commands `clean`, `build-dict`, `dict` and `encode`: what they promise, and what bad input gets."""

from __future__ import annotations

import errno
import json
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from cli import (
    CORPORA,
    HARBOUR,
    JAPANESE,
    KITCHEN,
    assert_no_leftovers,
    call,
    entries,
    fail,
    file_size_limit,
    files,
    spawn,
    succeed,
    unsealed,
)

import rnnpipe.durable
from rnnpipe.text.vocabulary import load_vocabulary

ONE = ("--workers", 1)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    path = tmp_path / "kitchen.dict"
    succeed("build-dict", KITCHEN, "-o", path, *ONE)
    return path


# --- clean ---


def test_clean_divides_each_text_into_parts():
    result = succeed("clean", KITCHEN, HARBOUR, "-o", "corpus", "--split", "8:1:1")
    assert entries(Path("corpus")) == ["corpus.json", "test.txt", "train.txt", "valid.txt"]
    sizes = {part: Path(f"corpus/{part}.txt").stat().st_size for part in ("train", "valid", "test")}
    for part, size in sizes.items():
        assert f"{part}: {size:,} bytes, 2 documents" in result.out
    assert 0.75 < sizes["train"] / sum(sizes.values()) < 0.85
    assert "next: rnnpipe build-dict corpus" in result.err


def test_the_parts_are_contiguous_and_complete():
    succeed("clean", HARBOUR, "-o", "parts", "--split", "8:1:1")
    succeed("clean", HARBOUR, "-o", "whole")
    parts = "".join(Path(f"parts/{part}.txt").read_text(encoding="utf-8") for part in ("train", "valid", "test"))
    assert parts.split() == Path("whole/all.txt").read_text(encoding="utf-8").split()


def test_two_shares_give_two_parts():
    succeed("clean", KITCHEN, "-o", "corpus", "--split", "9:1")
    assert entries(Path("corpus")) == ["corpus.json", "train.txt", "valid.txt"]


def test_clean_counts_every_character():
    Path("a.txt").write_text("Café, 3 Ü!\nok  -dash\n", encoding="utf-8")
    report = succeed("clean", "a.txt", "-o", "corpus", "--cleaner", "ascii-words", "--json").json()
    assert Path("corpus/all.txt").read_text(encoding="utf-8") == "caf ok\n"
    assert report["folder"] == "corpus"
    assert report["characters_in"] == 21
    assert report["characters_out"] == 7
    assert report["mended_bytes"] == 0
    assert report["parts"] == {"all": {"bytes": 7, "documents": 1}}
    deleted = report["rules"]["delete all but a-z, space, ' and -"]
    assert deleted["dropped"] == {"é": 1, ",": 1, "3": 1, "ü": 1, "!": 1}
    assert report["rules"]["lower-case"]["replaced"] == 2


def test_clean_options_in_the_name_of_the_cleaner():
    Path("a.txt").write_text("Well, Done.\n", encoding="utf-8")
    succeed("clean", "a.txt", "-o", "corpus", "--cleaner", "unicode-words:lowercase=false,punctuation=true")
    assert Path("corpus/all.txt").read_text(encoding="utf-8") == "Well , Done .\n"


def test_clean_reads_standard_input_a_mark_and_every_line_end():
    data = b"\xef\xbb\xbfone\r\ntwo\rthree\n"
    report = succeed("clean", "-", "-o", "corpus", "--cleaner", "none", "--json", stdin=data).json()
    assert Path("corpus/all.txt").read_bytes() == b"one\ntwo\nthree\n"
    assert report["characters_in"] == report["characters_out"] == 14


def test_clean_reads_files_folders_and_patterns_once_each():
    for name in ("b", "a"):
        Path("texts/deep").mkdir(parents=True, exist_ok=True)
        Path(f"texts/deep/{name}.txt").write_text(f"{name}\n", encoding="utf-8")
    Path("texts/skipped.md").write_text("skipped\n", encoding="utf-8")
    succeed("clean", "texts", "-o", "folder")
    succeed("clean", "texts/deep/*.txt", "texts/deep/a.txt", "-o", "pattern")
    assert Path("folder/all.txt").read_text() == Path("pattern/all.txt").read_text() == "a\nb\n"


@pytest.mark.parametrize("encoding", ["cp932", "utf-16", "euc_jp"])
def test_clean_of_another_encoding_is_clean_of_utf8(encoding: str):
    text = Path(JAPANESE).read_text(encoding="utf-8")
    Path("other.txt").write_bytes(text.encode(encoding))
    succeed("clean", "other.txt", "-o", "other", "--encoding", encoding)
    succeed("clean", JAPANESE, "-o", "utf8")
    assert Path("other/all.txt").read_bytes() == Path("utf8/all.txt").read_bytes()


@pytest.mark.parametrize(("errors", "expected"), [("replace", "caf\ufffd there\n"), ("ignore", "caf there\n")])
def test_clean_mends_wrong_bytes_when_asked_and_counts_them(errors: str, expected: str):
    Path("latin.txt").write_bytes(b"caf\xe9 there\n")
    words = ("clean", "latin.txt", "-o", "corpus", "--cleaner", "none", "--errors", errors)
    result = succeed(*words)
    assert Path("corpus/all.txt").read_text(encoding="utf-8") == expected
    assert "1 bytes were not valid" in result.err
    assert succeed(*words, "--json").json()["mended_bytes"] == 1


def test_clean_again_replaces_its_own_output_only():
    succeed("clean", HARBOUR, "-o", "corpus", "--split", "8:1:1")
    succeed("clean", KITCHEN, "-o", "corpus")
    assert entries(Path("corpus")) == ["all.txt", "corpus.json"]
    assert entries(Path()) == ["corpus"]


# --- build-dict ---


def test_build_dict_reports_what_it_counted():
    result = succeed("build-dict", KITCHEN, "-o", "kitchen.dict", *ONE)
    vocabulary = load_vocabulary(Path("kitchen.dict"))
    assert f"{vocabulary.size:,} ids" in result.out
    assert f"coverage {vocabulary.coverage:.3%}" in result.out
    assert "unknown" in result.out
    assert "last kept: " in result.out
    assert "first unknown: " in result.out
    assert all(count > 3 for count in vocabulary.counts[: vocabulary.kept])
    assert "next: rnnpipe encode" in result.err


def test_build_dict_json_agrees_with_the_file():
    figures = succeed("build-dict", KITCHEN, "-o", "kitchen.dict", "--unknown-threshold", 5, *ONE, "--json").json()
    vocabulary = load_vocabulary(Path("kitchen.dict"))
    assert figures["size"] == vocabulary.size
    assert figures["digest"] == vocabulary.digest
    assert figures["tokens"] == vocabulary.total
    assert figures["unknown_threshold"] == 5
    assert figures["coverage"] + figures["unknown_rate"] == pytest.approx(1)
    assert figures == {
        "dictionary": "kitchen.dict",
        **{k: v for k, v in succeed("dict", "stats", "kitchen.dict", "--json").json().items() if k != "counted"},
    }


def test_a_cleaned_corpus_gives_the_counts_of_the_raw_text():
    succeed("clean", KITCHEN, "-o", "corpus")
    succeed("build-dict", "corpus", "-o", "cleaned.dict", *ONE)
    succeed("build-dict", KITCHEN, "-o", "raw.dict", *ONE)
    cleaned, raw = load_vocabulary(Path("cleaned.dict")), load_vocabulary(Path("raw.dict"))
    assert (cleaned.tokens, cleaned.counts, cleaned.rules) == (raw.tokens, raw.counts, raw.rules)


def test_a_divided_corpus_has_only_its_training_part_counted():
    succeed("clean", KITCHEN, "-o", "corpus", "--split", "8:1:1")
    succeed("build-dict", "corpus", "-o", "some.dict", *ONE)
    vocabulary = load_vocabulary(Path("some.dict"))
    assert vocabulary.total == len(Path("corpus/train.txt").read_text(encoding="utf-8").split())
    assert [item["part"] for item in vocabulary.counted] == ["train"]


def test_a_dictionary_is_the_same_for_workers_order_and_hash_seed():
    succeed("build-dict", KITCHEN, HARBOUR, JAPANESE, "-o", "one.dict", *ONE)
    succeed("build-dict", JAPANESE, KITCHEN, HARBOUR, "-o", "order.dict", *ONE)
    succeed("build-dict", KITCHEN, HARBOUR, JAPANESE, "-o", "two.dict", "--workers", 2)
    words = ("build-dict", KITCHEN, HARBOUR, JAPANESE, "-o", "seed.dict", *ONE)
    assert spawn(*words, environment={"PYTHONHASHSEED": "1"}).code == 0
    assert len({Path(f"{name}.dict").read_bytes() for name in ("one", "order", "two", "seed")}) == 1


def test_build_dict_of_characters_keeps_them_all():
    figures = succeed("build-dict", JAPANESE, "-o", "ja.dict", "--level", "char", *ONE, "--json").json()
    assert figures["unknown_rate"] == 0
    assert figures["types"] == len(set(Path(JAPANESE).read_text(encoding="utf-8")))
    assert figures["tokenizer"] == {"name": "characters"}


def test_max_size_keeps_the_most_frequent_tokens():
    succeed("build-dict", HARBOUR, "-o", "small.dict", "--max-size", 10, *ONE)
    vocabulary = load_vocabulary(Path("small.dict"))
    assert vocabulary.kept == 10
    assert min(vocabulary.counts[:10]) >= max(vocabulary.counts[10:])


def test_standard_input_counts_like_the_file():
    succeed("build-dict", "-", "-o", "stdin.dict", *ONE, stdin=Path(KITCHEN).read_bytes())
    succeed("build-dict", KITCHEN, "-o", "file.dict", *ONE)
    assert load_vocabulary(Path("stdin.dict")).counts == load_vocabulary(Path("file.dict")).counts


def test_build_dict_never_overwrites_its_input():
    Path("notes.txt").write_text("word " * 10 + "\n", encoding="utf-8")
    fail("build-dict", "notes.txt", "-o", "notes.txt", *ONE, code=1)
    assert Path("notes.txt").read_text(encoding="utf-8") == "word " * 10 + "\n"


def test_build_dict_refuses_to_replace_a_file_that_is_no_dictionary():
    Path("letter.txt").write_text("Dear Kate,\n", encoding="utf-8")
    fail("build-dict", KITCHEN, "-o", "letter.txt", *ONE, code=1)
    assert Path("letter.txt").read_text(encoding="utf-8") == "Dear Kate,\n"


def test_build_dict_replaces_a_dictionary(dictionary: Path):
    before = dictionary.read_bytes()
    succeed("build-dict", HARBOUR, "-o", dictionary, *ONE)
    assert dictionary.read_bytes() != before


# --- dict ---


def test_dict_show_prints_the_most_frequent_tokens(dictionary: Path):
    vocabulary = load_vocabulary(dictionary)
    shown = succeed("dict", "show", dictionary, "-n", 5, "--json").json()
    assert shown == [{"id": k, "token": vocabulary.tokens[k], "count": vocabulary.counts[k]} for k in range(5)]
    lines = succeed("dict", "show", dictionary, "-n", 5).out.splitlines()
    assert lines[0].split() == ["id", "count", "token"]
    assert lines[1].split() == ["0", str(vocabulary.counts[0]), repr(vocabulary.tokens[0])]
    assert len(lines) == 6


def test_dict_show_unknown_prints_the_tokens_without_an_id(dictionary: Path):
    shown = succeed("dict", "show", dictionary, "--unknown", "-n", 3, "--json").json()
    assert [item["id"] for item in shown] == [None] * 3
    assert all(0 < item["count"] <= 3 for item in shown)


def test_dict_stats_tells_rules_and_what_was_counted(dictionary: Path):
    stats = succeed("dict", "stats", dictionary, "--json").json()
    assert stats["cleaner"] == {"name": "unicode-words"}
    assert stats["counted"][0]["name"] == Path(KITCHEN).name
    text = succeed("dict", "stats", dictionary).out
    assert stats["digest"] in text
    assert Path(KITCHEN).name in text


def test_dict_explain_shows_each_rule_the_count_and_the_verdict(dictionary: Path):
    vocabulary = load_vocabulary(dictionary)
    report = succeed("dict", "explain", dictionary, "The, xyzzy", "--json").json()
    assert [step["rule"] for step in report["rules"]][-1] == "keep words"
    known, unknown = report["tokens"]
    assert (known["token"], known["id"], known["count"]) == ("the", 0, vocabulary.counts[0])
    assert (unknown["token"], unknown["id"], unknown["count"]) == ("xyzzy", None, 0)
    text = succeed("dict", "explain", dictionary, "The, xyzzy").out
    assert "lower-case: 'The, xyzzy' -> 'the, xyzzy'" in text
    assert "known, id 0" in text
    assert "unknown: never seen" in text


def test_dict_explain_tells_a_rare_word_from_one_beyond_the_size():
    Path("a.txt").write_text("a " * 9 + "b " * 8 + "c " * 2, encoding="utf-8")
    succeed("build-dict", "a.txt", "-o", "a.dict", "--max-size", 1, *ONE)
    verdicts = [t["verdict"] for t in succeed("dict", "explain", "a.dict", "a b c", "--json").json()["tokens"]]
    assert verdicts == ["known, id 0", "unknown: not among the 1 most frequent", "unknown: seen at most 3 times"]


def test_dict_explain_of_nothing_says_so(dictionary: Path):
    assert "no token is left" in succeed("dict", "explain", dictionary, "!!!").out


# --- encode ---


def test_encode_decodes_to_the_words_of_the_text(dictionary: Path):
    result = succeed("encode", KITCHEN, "--dict", dictionary, "-o", "tokens", *ONE)
    vocabulary = load_vocabulary(dictionary)
    ids = np.load("tokens/all/tokens.npy", mmap_mode="r")
    assert ids[0] == vocabulary.doc_id
    succeed("clean", KITCHEN, "-o", "corpus")
    words = Path("corpus/all.txt").read_text(encoding="utf-8").split()
    expected = [word if word in vocabulary.ids else "<unk>" for word in words]
    assert [vocabulary.token(int(token_id)) for token_id in ids[1:]] == expected
    assert f"all: {len(words):,} tokens in 1 documents" in result.out
    assert "next: rnnpipe train tokens" in result.err


def test_encode_of_a_corpus_has_its_parts_and_json(dictionary: Path):
    succeed("clean", KITCHEN, "-o", "corpus", "--split", "8:1:1")
    report = succeed("encode", "corpus", "--dict", dictionary, "-o", "tokens", *ONE, "--json").json()
    assert list(report["parts"]) == ["train", "valid", "test"]
    assert report["dictionary"] == load_vocabulary(dictionary).digest
    for part, record in report["parts"].items():
        assert len(np.load(f"tokens/{part}/tokens.npy")) == record["tokens"]


def test_encode_gives_the_same_bytes_for_any_number_of_workers(dictionary: Path):
    for workers in (1, 2):
        succeed("encode", KITCHEN, HARBOUR, "--dict", dictionary, "-o", f"w{workers}", "--workers", workers)
    assert files(Path("w1")) == files(Path("w2"))


def test_the_hints_of_each_command_lead_from_text_to_tokens():
    succeed("clean", KITCHEN, "-o", "corpus", "--split", "8:1:1")
    words = ["clean", KITCHEN, "-o", "corpus", "--split", "8:1:1"]
    visited = []
    while words[0] != "train":
        visited.append(words[0])
        hints = [line for line in succeed(*words).err.splitlines() if line.startswith("next: rnnpipe ")]
        assert len(hints) == 1
        words = shlex.split(hints[0].removeprefix("next: rnnpipe "))
    assert visited == ["clean", "build-dict", "encode"]
    assert Path(words[1], "meta.json").is_file()


def test_the_hint_can_be_pasted_where_a_name_has_a_blank():
    succeed_hint = succeed("clean", KITCHEN, "-o", "my corpus").err.removeprefix("next: rnnpipe ")
    succeed(*shlex.split(succeed_hint), *ONE)


def test_results_go_to_stdout_and_all_else_to_stderr(dictionary: Path):
    for words in (
        ("clean", KITCHEN, "-o", "corpus"),
        ("build-dict", KITCHEN, "-o", "again.dict", *ONE),
        ("encode", KITCHEN, "--dict", dictionary, "-o", "tokens", *ONE),
    ):
        result = succeed(*words)
        assert "next:" not in result.out
        assert result.out
        assert [line for line in result.err.splitlines() if not line.startswith("next: ")] == []


def test_real_text_passes_through_all_three(data_dir: Path):
    text = data_dir / "en" / "alice.txt"
    if not text.is_file():
        pytest.skip(f"no {text}")
    succeed("clean", text, "-o", "corpus", "--cleaner", "ascii-words", "--split", "8:1:1")
    succeed("build-dict", "corpus", "-o", "alice.dict", *ONE)
    parts = succeed("encode", "corpus", "--dict", "alice.dict", "-o", "tokens", *ONE, "--json").json()["parts"]
    assert parts["train"]["tokens"] > 10_000
    assert parts["train"]["unknown"] / parts["train"]["tokens"] < 0.2


# --- bad input ---

# name: (the bytes of the file, or None for no file; what the error must say)
BAD_TEXTS = {
    "missing": (None, "no such file"),
    "empty": (b"", "is empty"),
    "mark alone": (b"\xef\xbb\xbf", "is empty"),
    "blank": (b" \n\n\t \n", "left"),
    "not UTF-8": (b"fine\nca\xe9 there\n", "line 2, byte 7 (0xe9)"),
    "NUL": (b"fine\nno\0t\n", "line 2, byte 7: NUL"),
    "UTF-16": ("hello there\n".encode("utf-16-le"), "--encoding"),
}


def commands(source: object, dictionary: Path) -> dict[str, tuple[object, ...]]:
    return {
        "clean": ("clean", source, "-o", "out"),
        "build-dict": ("build-dict", source, "-o", "out", *ONE),
        "encode": ("encode", source, "--dict", dictionary, "-o", "out", *ONE),
    }


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_a_bad_text_gets_one_line_and_leaves_nothing(kind: str, command: str, dictionary: Path):
    data, said = BAD_TEXTS[kind]
    if data is not None:
        Path("bad.txt").write_bytes(data)
    before = entries(Path())
    error = fail(*commands("bad.txt", dictionary)[command], code=1)
    assert "bad.txt" in error
    assert said in error
    if kind in ("not UTF-8", "NUL"):
        assert "--errors" in error
        assert "--encoding" in error
    assert entries(Path()) == before


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
def test_a_missing_file_suggests_the_nearest_name(command: str, dictionary: Path):
    Path("moby-dick.txt").write_text("Call me Ishmael.\n", encoding="utf-8")
    assert "Did you mean 'moby-dick.txt'?" in fail(*commands("moby-dik.txt", dictionary)[command], code=1)


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
@pytest.mark.parametrize("source", ["folder", "*.txt"])
def test_a_folder_or_pattern_without_text_is_an_error(command: str, source: str, dictionary: Path):
    Path("folder").mkdir()
    Path("folder/readme.md").write_text("no text\n", encoding="utf-8")
    before = entries(Path())
    assert source in fail(*commands(source, dictionary)[command], code=1)
    assert entries(Path()) == before


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
def test_one_bad_text_among_good_ones_is_named(command: str, dictionary: Path):
    Path("bad.txt").write_bytes(b"fine\n" * 9 + b"\xff\n")
    words = commands("bad.txt", dictionary)[command]
    error = fail(words[0], KITCHEN, *words[1:], code=1)
    assert "bad.txt, line 10, byte 45 (0xff)" in error
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
def test_a_wrong_encoding_is_told_by_its_line(command: str, dictionary: Path):
    Path("bad.txt").write_bytes("一行目\n二行目\n".encode("cp932") + b"\x81 \n")
    error = fail(*commands("bad.txt", dictionary)[command], "--encoding", "cp932", code=1)
    assert "bad.txt, line 3, byte 14 (0x81): not valid cp932" in error
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
def test_bad_bytes_on_standard_input_are_told_too(command: str, dictionary: Path):
    error = fail(*commands("-", dictionary)[command], code=1, stdin=b"ok\n\xff\n")
    assert "standard input, line 2, byte 3 (0xff)" in error
    assert "is empty" in fail(*commands("-", dictionary)[command], code=1, stdin=b"")


@pytest.mark.parametrize(
    "command",
    [
        "build-dict",
        "encode",
    ],
)
def test_replaced_bytes_are_counted(command: str, dictionary: Path):
    Path("bad.txt").write_bytes(b"the the the the salt \xff\xff\n")
    result = succeed(*commands("bad.txt", dictionary)[command], "--errors", "replace")
    assert "2 bytes were not valid" in result.err


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("word\n", (), "no token occurs more than 3 times"),
        ("a b c d e f g\n", (), "no token occurs more than 3 times"),
        ("a a a b b b\n", ("--unknown-threshold", 3), "--unknown-threshold"),
        ("...\n", (), "no token is left"),
    ],
)
def test_a_text_with_no_word_to_keep(text: str, options: tuple[object, ...], said: str):
    Path("few.txt").write_text(text, encoding="utf-8")
    error = fail("build-dict", "few.txt", "-o", "few.dict", *options, *ONE, code=1)
    assert said in error
    assert "few.txt" in error
    assert entries(Path()) == ["few.txt"]


def test_one_word_is_enough_without_a_threshold():
    Path("few.txt").write_text("word\n", encoding="utf-8")
    report = succeed("build-dict", "few.txt", "-o", "few.dict", "--unknown-threshold", 0, *ONE, "--json").json()
    assert report["size"] == 3
    succeed("encode", "few.txt", "--dict", "few.dict", "-o", "tokens", *ONE)
    assert np.load("tokens/all/tokens.npy").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("clean", KITCHEN, "-o", "out", "--cleaner", "ascii-word"), "Did you mean 'ascii-words'?"),
        (("clean", KITCHEN, "-o", "out", "--cleaner", "unicode-words:lowercas=true"), "Did you mean 'lowercase'?"),
        (("clean", KITCHEN, "-o", "out", "--cleaner", "unicode-words:lowercase=7"), "true or false"),
        (("clean", KITCHEN, "-o", "out", "--cleaner", "unicode-words:form=NFX"), "'NFC'"),
        (("clean", KITCHEN, "-o", "out", "--cleaner", "unicode-words:lowercase"), "key=value"),
        (("clean", KITCHEN, "-o", "out", "--cleaner", ":"), "expected NAME"),
        (("clean", KITCHEN, "-o", "out", "--split", "8:1:x"), "8:1:1"),
        (("clean", KITCHEN, "-o", "out", "--split", "0:1:1"), "8:1:1"),
        (("clean", KITCHEN, "-o", "out", "--split", "8"), "8:1:1"),
        (("clean", KITCHEN, "-o", "out", "--split", ""), "8:1:1"),
        (("clean", KITCHEN, "-o", "out", "--encoding", "utf9"), "unknown encoding 'utf9'"),
        (("clean", KITCHEN, "-o", "out", "--encoding", "rot13"), "not an encoding of text"),
        (("clean", KITCHEN, "-o", "out", "--errors", "repair"), "'replace'"),
        (("clean", KITCHEN, "-o", "out", "--splits", "8:1:1"), "Did you mean '--split'?"),
        (("clean", KITCHEN), "'-o'"),
        (("clean", "-o", "out"), "INPUT"),
        (("build-dict", KITCHEN, "-o", "out", "--tokenizer", "whitespaces"), "Did you mean 'whitespace'?"),
        (("build-dict", KITCHEN, "-o", "out", "--level", "letter"), "'char'"),
        (("build-dict", KITCHEN, "-o", "out", "--unknown-threshold", "-1"), "-1"),
        (("build-dict", KITCHEN, "-o", "out", "--unknown-threshold", "many"), "many"),
        (("build-dict", KITCHEN, "-o", "out", "--max-size", "0"), "0"),
        (("build-dict", KITCHEN, "-o", "out", "--workers", "0"), "0"),
        (("build-dict", KITCHEN, "-o", "out", "--unknown-treshold", "2"), "Did you mean '--unknown-threshold'?"),
        (("encode", KITCHEN, "-o", "out"), "'--dict'"),
        (("encode", KITCHEN, "-o", "out", "--dict", "x", "--worker", "1"), "'--workers'"),
        (("dict", "shwo", "x"), "Did you mean 'show'?"),
        (("dict", "show", "x", "-n", "0"), "0"),
        (("dict", "explain", "x"), "WORD"),
    ],
    ids=lambda value: " ".join(map(str, value))[-60:] if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_a_usage_error(words: tuple[object, ...], said: str):
    assert said in fail(*words, code=2)
    assert entries(Path()) == []


# --- dictionaries that are none, or of something else ---


@pytest.mark.parametrize("words", [("dict", "show"), ("dict", "stats"), ("dict", "explain"), ("encode",)])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no such dictionary"),
        ("folder", "is a directory"),
        ("empty", "line 1: not a dictionary"),
        ("text", "line 1: not a dictionary"),
        ("bytes", "line 1: not a dictionary"),
        ("cut in a line", "expected `count TAB token`"),
        ("cut between lines", "damaged or was cut"),
        ("other version", "format version 99"),
        ("swapped lines", "line 2: out of order"),
        ("bad escape", "is no escape"),
        ("bad header", "unknown_threshold is 'three'"),
    ],
)
def test_a_dictionary_that_is_none(kind: str, said: str, words: tuple[str, ...], dictionary: Path):
    good = dictionary.read_bytes()
    lines = good.split(b"\n")
    bad = {
        "empty": b"",
        "text": Path(KITCHEN).read_bytes(),
        "bytes": bytes(range(256)),
        "cut in a line": good[: good.rindex(b"\n", 0, len(good) // 2) + 2],
        "cut between lines": b"\n".join(lines[:20]) + b"\n",
        "other version": good.replace(b'"version": 1', b'"version": 99', 1),
        "swapped lines": b"\n".join([lines[0], *lines[20:0:-1], *lines[21:]]),
        "bad escape": b"\n".join([lines[0], lines[1] + b"\\q", *lines[2:]]),
        "bad header": good.replace(b'"unknown_threshold": 3', b'"unknown_threshold": "three"', 1),
    }
    path = Path("bad.dict")
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(bad[kind])
    before = entries(Path())
    more = {"explain": ("word",), "encode": ("--dict",)}.get(words[-1], ())
    if words == ("encode",):
        error = fail("encode", KITCHEN, "--dict", path, "-o", "out", *ONE, code=1)
    else:
        error = fail(*words, path, *more, code=1)
    if kind != "swapped lines" or "line 3" not in error:
        assert said in error
    assert "bad.dict" in error
    assert entries(Path()) == before


def test_a_dictionary_of_other_rules_is_refused_with_both_digests(dictionary: Path):
    succeed("clean", KITCHEN, "-o", "corpus", "--cleaner", "ascii-words")
    error = fail("encode", "corpus", "--dict", dictionary, "-o", "out", *ONE, code=1)
    assert "ascii-words" in error
    assert "unicode-words" in error
    assert not Path("out").exists()


def test_the_refusal_of_a_dictionary_names_it_and_the_corpus(dictionary: Path):
    succeed("clean", KITCHEN, "-o", "corpus", "--cleaner", "ascii-words")
    error = fail("encode", "corpus", "--dict", dictionary, "-o", "out", *ONE, code=1)
    assert "corpus:" in error
    assert str(dictionary) in error


def test_a_dictionary_with_an_unknown_cleaner_names_it(dictionary: Path):
    dictionary.write_bytes(unsealed(dictionary.read_bytes()).replace(b"unicode-words", b"unicode-wordz", 1))
    assert "Did you mean 'unicode-words'?" in fail("encode", KITCHEN, "--dict", dictionary, "-o", "out", *ONE, code=2)
    assert not Path("out").exists()
    succeed("dict", "show", dictionary)  # which needs no rules


def test_cleaned_and_raw_inputs_do_not_mix(dictionary: Path):
    succeed("clean", KITCHEN, "-o", "corpus")
    assert "one kind at a time" in fail("build-dict", "corpus", HARBOUR, "-o", "out", *ONE, code=1)
    assert "one kind at a time" in fail("encode", "corpus", HARBOUR, "--dict", dictionary, "-o", "out", *ONE, code=1)
    assert not Path("out").exists()


def test_another_cleaner_than_the_corpus_went_through_is_refused():
    succeed("clean", KITCHEN, "-o", "corpus", "--cleaner", "ascii-words")
    error = fail("build-dict", "corpus", "-o", "out", "--cleaner", "unicode-words", *ONE, code=1)
    assert "ascii-words" in error
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["corpus.json", "all.txt"])
def test_a_damaged_corpus_is_named(name: str):
    succeed("clean", KITCHEN, "-o", "corpus")
    path = Path("corpus", name)
    path.write_bytes(path.read_bytes()[:100])
    assert name in fail("build-dict", "corpus", "-o", "out", *ONE, code=1)
    path.unlink()
    if name == "all.txt":
        assert "is missing" in fail("build-dict", "corpus", "-o", "out", *ONE, code=1)
    assert not Path("out").exists()


# --- outputs that cannot be written ---


def output_commands(output: object, dictionary: Path) -> dict[str, tuple[object, ...]]:
    return {
        name: (*words[: words.index("-o")], "-o", output, *words[words.index("-o") + 2 :])
        for name, words in commands(KITCHEN, dictionary).items()
    }


@pytest.mark.parametrize("command", ["clean", "encode"])
def test_a_folder_with_other_files_is_refused_and_untouched(command: str, dictionary: Path):
    Path("mine").mkdir()
    Path("mine/notes.md").write_text("mine\n", encoding="utf-8")
    assert "mine: holds other files" in fail(*output_commands("mine", dictionary)[command], code=1)
    assert files(Path("mine")) == {"notes.md": b"mine\n"}
    assert_no_leftovers(Path())


@pytest.mark.parametrize("command", ["clean", "encode"])
def test_a_file_that_a_person_put_into_an_earlier_output_is_not_lost(command: str, dictionary: Path):
    words = output_commands("out", dictionary)[command]
    succeed(*words)
    Path("out/notes.md").write_text("mine\n", encoding="utf-8")
    call(*words)
    assert Path("out/notes.md").is_file()


@pytest.mark.parametrize(("command", "record"), [("clean", "corpus.json"), ("encode", "meta.json")])
def test_a_folder_with_a_record_of_another_program_is_refused(command: str, record: str, dictionary: Path):
    Path("mine").mkdir()
    Path("mine", record).write_text('{"made by": "another program"}\n', encoding="utf-8")
    Path("mine/notes.md").write_text("mine\n", encoding="utf-8")
    before = files(Path("mine"))
    call(*output_commands("mine", dictionary)[command])
    assert files(Path("mine")) == before


@pytest.mark.parametrize("command", ["clean", "encode"])
def test_a_file_where_a_folder_is_meant(command: str, dictionary: Path):
    Path("afile").write_text("mine\n", encoding="utf-8")
    assert "afile: is a file" in fail(*output_commands("afile", dictionary)[command], code=1)
    assert Path("afile").read_text(encoding="utf-8") == "mine\n"
    assert_no_leftovers(Path())


def test_a_folder_where_a_dictionary_is_meant():
    Path("folder").mkdir()
    assert "folder: is a directory" in fail("build-dict", KITCHEN, "-o", "folder", *ONE, code=1)
    assert entries(Path("folder")) == []


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
def test_a_file_in_the_way_of_the_output(command: str, dictionary: Path):
    Path("afile").write_text("mine\n", encoding="utf-8")
    assert "afile" in fail(*output_commands("afile/out", dictionary)[command], code=1)
    assert Path("afile").read_text(encoding="utf-8") == "mine\n"


def test_clean_refuses_to_replace_the_folder_that_holds_its_input():
    succeed("clean", KITCHEN, "-o", "corpus")
    before = files(Path("corpus"))
    assert "corpus" in fail("clean", "corpus/all.txt", "-o", "corpus", code=1)
    assert files(Path("corpus")) == before


def test_encode_refuses_to_replace_the_folder_that_holds_its_dictionary(dictionary: Path):
    succeed("encode", KITCHEN, "--dict", dictionary, "-o", "tokens", *ONE)
    before = files(Path("tokens"))
    fail("encode", HARBOUR, "--dict", "tokens/dictionary.txt", "-o", "tokens", *ONE, code=1)
    assert files(Path("tokens")) == before


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
@pytest.mark.parametrize("limit_bytes", [0, 100, 3000])
def test_a_full_disk_leaves_nothing_behind(limit_bytes: int, command: str, dictionary: Path):
    before = entries(Path())
    with file_size_limit(limit_bytes):
        fail(*output_commands("out", dictionary)[command], code=1)
    assert entries(Path()) == before


@pytest.mark.parametrize("command", ["clean", "build-dict", "encode"])
def test_a_full_disk_leaves_the_earlier_output_as_it_was(command: str, dictionary: Path):
    words = output_commands("out", dictionary)[command]
    succeed(*words)
    before = files(Path())
    with file_size_limit(1000):
        fail(*words, code=1)
    assert files(Path()) == before


def test_a_disk_that_fills_at_the_last_moment_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, dictionary: Path):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = entries(Path())
    monkeypatch.setattr(rnnpipe.durable.os, "fsync", full)
    for words in output_commands("out", dictionary).values():
        assert "No space left on device" in fail(*words, code=1)
        assert entries(Path()) == before


def test_a_full_disk_names_the_file(dictionary: Path):
    for words in output_commands("out", dictionary).values():
        with file_size_limit(100):
            assert "out" in fail(*words, code=1)


def test_the_japanese_corpus_keeps_every_letter():
    succeed("clean", JAPANESE, "-o", "corpus")
    kept = set(Path("corpus/all.txt").read_text(encoding="utf-8"))
    text = unicodedata.normalize("NFC", Path(JAPANESE).read_text(encoding="utf-8"))
    letters = {character for character in text if character.isalpha()}
    assert letters <= kept


def test_the_manifest_of_a_corpus_is_no_text():
    manifest = json.dumps({"format": "rnnpipe-corpus", "version": 1, "parts": {"train": {"size": -1}}})
    Path("corpus").mkdir()
    Path("corpus/corpus.json").write_text(manifest, encoding="utf-8")
    assert "corpus.json" in fail("build-dict", "corpus", "-o", "out", *ONE, code=1)
    assert call("clean", CORPORA, "-o", "out").code == 0  # a folder of texts, with other files beside them
