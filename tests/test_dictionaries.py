"""Dictionaries merged, pruned, previewed, exported and imported."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from cli import HARBOUR, JAPANESE, KITCHEN, fail, succeed
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import load_rules
from rnnpipe.text.exchange import FAIRSEQ_SPECIALS, read_fairseq, read_text, to_fairseq, to_text
from rnnpipe.text.exchange_tokenizers import to_tokenizers
from rnnpipe.text.merging import merge_vocabularies, preview_thresholds, prune_vocabulary
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import LeftOut, Vocabulary, build_vocabulary, load_vocabulary

PLAIN = TextRules(Named("none"), Named("whitespace"))
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
counted = st.dictionaries(words, st.integers(1, 9), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def build(counts: dict[str, int], rules: TextRules = PLAIN, **options: int | None) -> Vocabulary:
    return build_vocabulary({token.encode(): n for token, n in counts.items()}, rules, **options)  # type: ignore[arg-type]


def reread(vocabulary: Vocabulary) -> Vocabulary:
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder) / "dict")
        return load_vocabulary(Path(folder) / "dict", sealed=True)


# --- merge ---


def test_a_merge_is_one_build_over_everything_to_the_byte():
    texts = [HARBOUR, KITCHEN, JAPANESE]
    for k, text in enumerate(texts):
        succeed("build-dict", text, "-o", f"{k}.dict", "--unknown-threshold", 1)
    succeed("build-dict", *texts, "-o", "whole.dict", "--unknown-threshold", 1)
    succeed("dict", "merge", "2.dict", "0.dict", "1.dict", "-o", "merged.dict")
    assert Path("merged.dict").read_bytes() == Path("whole.dict").read_bytes()
    succeed("dict", "merge", "0.dict", "1.dict", "-o", "two.dict")
    succeed("dict", "merge", "two.dict", "2.dict", "-o", "tree.dict")
    assert Path("tree.dict").read_bytes() == Path("whole.dict").read_bytes()


@given(st.lists(counted, min_size=1, max_size=4), st.integers(0, 3), st.none() | st.integers(1, 5))
@settings(deadline=None)
def test_merged_counts_are_the_sums(parts: list[dict[str, int]], threshold: int, most: int | None):
    options = {"unknown_threshold": threshold, "max_size": most}
    named = [(f"{k}.dict", build(part, **options)) for k, part in enumerate(parts)]
    total: Counter[str] = sum((Counter(part) for part in parts), Counter())
    assert merge_vocabularies(named) == build(dict(total), **options)
    assert merge_vocabularies(named[::-1]).to_bytes() == merge_vocabularies(named).to_bytes()


def test_a_merge_refuses_other_rules_and_names_both():
    succeed("build-dict", KITCHEN, "-o", "words.dict")
    succeed("build-dict", KITCHEN, "-o", "characters.dict", "--level", "char")
    error = fail("dict", "merge", "words.dict", "characters.dict", "-o", "merged.dict", code=1)
    assert "words.dict" in error
    assert "characters.dict" in error
    assert "unicode-words" in error
    assert "'none'" in error
    assert not Path("merged.dict").exists()


def test_a_merge_asks_where_thresholds_differ():
    succeed("build-dict", KITCHEN, "-o", "a.dict")
    succeed("build-dict", HARBOUR, "-o", "b.dict", "--unknown-threshold", 1)
    error = fail("dict", "merge", "a.dict", "b.dict", "-o", "merged.dict", code=1)
    assert "unknown_threshold 1, a.dict 3; say which with --unknown-threshold" in error
    succeed("dict", "merge", "a.dict", "b.dict", "-o", "merged.dict", "--unknown-threshold", 1)
    succeed("build-dict", KITCHEN, HARBOUR, "-o", "whole.dict", "--unknown-threshold", 1)
    assert Path("merged.dict").read_bytes() == Path("whole.dict").read_bytes()


def test_a_text_counted_by_two_is_told():
    succeed("build-dict", KITCHEN, "-o", "a.dict")
    result = succeed("dict", "merge", "a.dict", "a.dict", "-o", "b.dict")
    assert "kitchen-notes.txt was counted by both a.dict and a.dict; its tokens count twice" in result.err


# --- prune and preview ---


@given(counted, st.integers(0, 5), st.none() | st.integers(1, 6))
@settings(deadline=None)
def test_a_pruned_dictionary_has_the_same_ids_and_figures(counts: dict[str, int], threshold: int, most: int | None):
    whole = build(counts, unknown_threshold=threshold, max_size=most)
    pruned = reread(prune_vocabulary(whole, "a.dict"))
    assert pruned.ids == whole.ids
    assert len(pruned.tokens) == whole.kept
    assert (pruned.total, pruned.types, pruned.coverage) == (whole.total, whole.types, whole.coverage)
    assert pruned.left_out == LeftOut(whole.types - whole.kept, whole.total - whole.covered)
    assert prune_vocabulary(pruned, "a.dict") == pruned


def test_prune_moves_threshold_and_size_and_cannot_go_back():
    succeed("build-dict", KITCHEN, "-o", "whole.dict")
    succeed("dict", "prune", "whole.dict", "-o", "small.dict", "--max-size", 50, "--unknown-threshold", 4)
    small, whole = load_vocabulary(Path("small.dict")), load_vocabulary(Path("whole.dict"))
    assert small.tokens == whole.tokens[:50]
    assert "gone" in fail("dict", "prune", "small.dict", "-o", "x", "--unknown-threshold", 3, code=2)
    assert "has no more" in fail("dict", "prune", "small.dict", "-o", "x", "--max-size", 51, code=2)
    assert "was pruned" in fail("dict", "merge", "whole.dict", "small.dict", "-o", "x", code=1)
    assert "no token would have an id" in fail(
        "dict", "prune", "whole.dict", "-o", "x", "--unknown-threshold", 10**6, code=1
    )
    assert not Path("x").exists()
    assert "or seen at most 4 times and pruned" in succeed("dict", "explain", "small.dict", "zzz").out


def test_prune_can_keep_the_tokens_in_the_file():
    succeed("build-dict", KITCHEN, "-o", "whole.dict")
    succeed("dict", "prune", "whole.dict", "-o", "moved.dict", "--unknown-threshold", 7, "--keep-unknown")
    succeed("build-dict", KITCHEN, "-o", "built.dict", "--unknown-threshold", 7)
    assert Path("moved.dict").read_bytes() == Path("built.dict").read_bytes()


@pytest.mark.parametrize("left_out", [{"types": 1}, {"types": -1, "tokens": 0}, [], {"types": 1, "tokens": 2, "x": 3}])
def test_a_damaged_note_of_what_was_left_out(left_out: object):
    first, rest = build({"a": 5}).to_bytes().split(b"\n", 1)
    header = {k: v for k, v in json.loads(first).items() if k != "sha256"}
    Path("a.dict").write_bytes(json.dumps({**header, "left_out": left_out}).encode() + b"\n" + rest)
    with pytest.raises(InputError, match="line 1: left_out is"):
        load_vocabulary(Path("a.dict"))


def test_a_preview_is_what_builds_with_each_threshold_give():
    rows = succeed("build-dict", KITCHEN, "--preview", "0:4", "--json").json()
    assert [row["unknown_threshold"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        built = succeed("build-dict", KITCHEN, "-o", "d", "--unknown-threshold", row["unknown_threshold"], "--json")
        assert {key: built.json()[key] for key in row} == row
    assert succeed("dict", "stats", "d", "--preview", "0:4", "--json").json() == rows
    table = succeed("build-dict", KITCHEN, "--preview", "2").out.splitlines()
    assert table[0].split() == ["threshold", "ids", "coverage", "unknown"]
    assert table[1].split()[:2] == ["2", f"{rows[2]['size']:,}"]


@given(counted)
@settings(deadline=None)
def test_coverage_and_size_fall_as_the_threshold_rises(counts: dict[str, int]):
    rows = preview_thresholds(build(counts), range(10))
    assert rows[0].coverage == 1
    assert rows[-1].size == 2
    for lower, higher in itertools.pairwise(rows):
        assert higher.size <= lower.size
        assert higher.coverage <= lower.coverage


@pytest.mark.parametrize("preview", ["", "a", "3:1", "1:2:3", "-1:2", "0:9999", "9" * 50])
def test_a_preview_that_is_no_range(preview: str):
    assert "--preview" in fail("build-dict", KITCHEN, "--preview", preview, code=2)


def test_neither_an_output_nor_a_preview_is_a_usage_error():
    assert "-o DICT" in fail("build-dict", KITCHEN, code=2)


# --- fairseq and text ---

fairseq_words = words.filter(lambda token: "\n" not in token and "\r" not in token)


@given(st.dictionaries(fairseq_words | st.sampled_from(FAIRSEQ_SPECIALS), st.integers(1, 9), min_size=1, max_size=12))
@settings(deadline=None)
def test_fairseq_round_trips(counts: dict[str, int]):
    vocabulary = build(counts, unknown_threshold=0)
    data = to_fairseq(vocabulary, "a.dict")
    lines = data.decode().split("\n")[:-1]
    assert (len(lines) + 4) % 8 == 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dict.txt"
        path.write_bytes(data)
        imported = read_fairseq(path)
    assert imported.counts == dict(zip(vocabulary.tokens, vocabulary.counts, strict=True))
    assert imported.fillers == len(lines) - vocabulary.kept
    assert to_fairseq(build(imported.counts, unknown_threshold=0), "a.dict") == data


def test_fairseq_by_the_commands():
    succeed("build-dict", KITCHEN, "-o", "a.dict")
    succeed("dict", "export", "a.dict", "--format", "fairseq", "-o", "dict.txt")
    first = Path("dict.txt").read_text(encoding="utf-8").splitlines()[0]
    original = load_vocabulary(Path("a.dict"))
    assert first == f"{original.tokens[0]} {original.counts[0]}"
    succeed("dict", "import", "dict.txt", "--format", "fairseq", "-o", "b.dict", "--cleaner", "unicode-words")
    imported = load_vocabulary(Path("b.dict"), sealed=True)
    assert imported.ids == original.ids
    assert imported.rules == original.rules
    assert imported.counted[0]["name"] == "dict.txt"
    succeed("dict", "export", "b.dict", "--format", "fairseq", "-o", "again.txt")
    assert Path("again.txt").read_bytes() == Path("dict.txt").read_bytes()


def test_a_line_end_cannot_stand_in_fairseqs_file():
    succeed("build-dict", KITCHEN, "-o", "a.dict", "--level", "char")
    assert "has a line end" in fail("dict", "export", "a.dict", "--format", "fairseq", "-o", "dict.txt", code=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 3\nb\n", "line 2: expected `token count`"),
        ("a x\n", "line 1: expected"),
        (" 3\n", "line 1: expected"),
        ("a 3\na 2\n", "line 2: 'a' stands in two lines"),
        ("<unk> 3\n", "line 1: '<unk>' is a special of fairseq"),
        ("", "line 1: expected"),
    ],
)
def test_a_damaged_file_of_fairseq(text: str, said: str):
    Path("dict.txt").write_text(text, encoding="utf-8")
    assert said in fail("dict", "import", "dict.txt", "--format", "fairseq", "-o", "a.dict", code=1)
    assert not Path("a.dict").exists()


def test_another_order_is_told():
    Path("dict.txt").write_text("b 3\na 3\nc 9\n", encoding="utf-8")
    result = succeed("dict", "import", "dict.txt", "--format", "fairseq", "-o", "a.dict")
    assert "not in the order of count, then token" in result.err
    assert load_vocabulary(Path("a.dict")).tokens == ("c", "a", "b")


@given(counted)
@settings(deadline=None)
def test_text_round_trips(counts: dict[str, int]):
    vocabulary = build(counts, unknown_threshold=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.txt"
        path.write_bytes(to_text(vocabulary))
        assert list(read_text(path).counts.items()) == list(zip(vocabulary.tokens, vocabulary.counts, strict=True))


@given(st.binary(max_size=30))
@settings(deadline=None)
def test_any_bytes_are_read_or_named(data: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.txt"
        path.write_bytes(data)
        for read in (read_text, read_fairseq):
            try:
                counts = read(path).counts
            except InputError as error:
                assert "tokens.txt, line " in str(error)
            else:
                assert reread(build(counts, unknown_threshold=0)).ids == build(counts, unknown_threshold=0).ids


# --- tokenizer.json ---


def their_ids(data: bytes, text: str) -> list[int]:
    tokenizers = pytest.importorskip("tokenizers")
    ids: list[int] = tokenizers.Tokenizer.from_str(data.decode()).encode(text).ids
    return ids


def our_ids(vocabulary: Vocabulary, text: str) -> list[int]:
    rules = load_rules(vocabulary.rules.cleaner, vocabulary.rules.tokenizer)
    return vocabulary.encode(rules.tokenize(text)).tolist()


EXPORTED = [
    ("--cleaner", "ascii-words"),
    ("--cleaner", "unicode-words"),
    ("--cleaner", "unicode-words:punctuation=true,form=NFKC,lowercase=false"),
    ("--cleaner", "none"),
    ("--level", "char"),
    ("--level", "subword", "--size", "700"),
]


@pytest.mark.parametrize("options", EXPORTED, ids=" ".join)
def test_tokenizers_gives_our_ids(options: tuple[str, ...]):
    succeed("build-dict", HARBOUR, "-o", "a.dict", *options)
    succeed("dict", "export", "a.dict", "--format", "tokenizers", "-o", "tokenizer.json")
    vocabulary = load_vocabulary(Path("a.dict"))
    for text in (HARBOUR, KITCHEN, JAPANESE):
        whole = Path(text).read_text(encoding="utf-8")
        ids = their_ids(Path("tokenizer.json").read_bytes(), whole)
        assert ids == our_ids(vocabulary, whole)
        assert text == JAPANESE or len(set(ids)) > 20


REAL = [
    *(("en", "utf-8", *options) for options in EXPORTED[:4]),
    ("en", "utf-8", "--level", "subword", "--size", "500"),
    ("ja", "cp932", "--level", "char"),
    ("ja", "cp932", "--level", "subword", "--size", "3600"),
]


@pytest.mark.parametrize(("language", "encoding", "options"), [(a, b, o) for a, b, *o in REAL])
def test_tokenizers_gives_our_ids_on_real_text(language: str, encoding: str, options: list[str], data_dir: Path):
    succeed("build-dict", data_dir / language, "-o", "a.dict", *options, "--encoding", encoding)
    vocabulary = load_vocabulary(Path("a.dict"))
    data = to_tokenizers(vocabulary, "a.dict")
    for path in sorted((data_dir / language).glob("*.txt"), key=lambda path: path.stat().st_size)[:2]:
        text = path.read_text(encoding=encoding)
        assert their_ids(data, text) == our_ids(vocabulary, text), path


AWKWARD = "abAZ '-_\n\r\t\x1c\x85\u00a0\u2028.,!09²½éÉßıİKΣΑσςᾳ\u0301\u0327\u200d\u00ad\u2019\u2010語が、\U0001f600ǅ𐐀"
fuzzed = st.text(st.sampled_from(AWKWARD))


@pytest.mark.parametrize(
    "cleaner", [Named("none"), Named("ascii-words"), Named("unicode-words", {"punctuation": True})]
)
@given(fuzzed)
@settings(deadline=None, max_examples=300)
def test_tokenizers_gives_our_ids_on_any_text(cleaner: Named, text: str):
    rules = TextRules(cleaner, Named("whitespace"))
    found = Counter(load_rules(rules.cleaner, rules.tokenizer).tokenize(text))
    vocabulary = build({"a": 1, "<unk>": 1, "<doc>": 1, **found}, rules, unknown_threshold=0)
    assert their_ids(to_tokenizers(vocabulary, "a.dict"), text) == our_ids(vocabulary, text)


def test_a_special_of_the_text_is_no_special():
    vocabulary = build({"<unk>": 9, "<doc>": 8, "a": 7}, unknown_threshold=0)
    assert their_ids(to_tokenizers(vocabulary, "a.dict"), "a <unk> other <doc>") == [2, 0, 4, 1]


def test_what_has_no_equal_there_is_refused():
    rules = TextRules(Named("aozora"), Named("whitespace"))
    with pytest.raises(InputError, match="the cleaner 'aozora' in front of the tokenizer 'whitespace' has no equal"):
        to_tokenizers(build({"a": 9}, rules), "a.dict")
    assert their_ids(to_tokenizers(build({"a": 9}, rules), "a.dict", cleaned=True), "a") == [0]
    rules = TextRules(Named("none"), Named("japanese-words"))
    with pytest.raises(InputError, match="the tokenizer 'japanese-words' has no equal"):
        to_tokenizers(build({"a": 9}, rules), "a.dict")
