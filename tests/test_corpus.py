"""The stage `clean` and the corpus folder that it writes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli import unsealed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cleaning import texts

from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.clean import clean, clean_dataset, load_text_dataset
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.text import counting, files
from rnnpipe.text.cleaning import ascii_words
from rnnpipe.text.corpus import is_corpus, load_corpus
from rnnpipe.text.files import Block, cut_blocks, read_block
from rnnpipe.text.rules import Named
from rnnpipe.text.unicode_words import unicode_words

TEXT = "The First line,\r\nsecond\u2019s line!\n\nthird: \u65e5\u672c\n" * 20


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "text.txt"
    path.parent.mkdir()
    path.write_bytes(TEXT.encode())
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what it writes ---


@pytest.mark.parametrize("name", ["unicode-words", "ascii-words", "none"])
def test_the_corpus_is_the_cleaned_text(text: Path, tmp_path: Path, name: str) -> None:
    result = clean([str(text)], tmp_path / "out", cleaner=Named(name))
    read = TEXT.replace("\r\n", "\n")
    expected = {
        "unicode-words": unicode_words().clean(read),
        "ascii-words": ascii_words().clean(read) + "\n",
        "none": read,
    }[name]
    data = (tmp_path / "out" / "all.txt").read_bytes()
    assert data.decode() == expected
    assert (result.totals.characters_in, result.totals.characters_out) == (len(read), len(expected))
    assert result.totals.mended_bytes == 0
    corpus = load_corpus(tmp_path / "out")
    assert corpus.cleaner == Named(name)
    assert corpus.parts == ["all"]
    assert corpus.meta["parts"]["all"] == {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "documents": [{"name": str(text), "start": 0, "stop": len(data)}],
    }
    assert corpus.meta["characters_in"] == len(read)


@given(texts.map(lambda text: text.replace("\0", "").replace("\r", "")), st.integers(1, 30), st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_corpus_does_not_depend_on_the_blocks(content: str, size: int, ascii_only: bool) -> None:
    cleaner = ascii_words() if ascii_only else unicode_words()
    cleaned = cleaner.clean(content)
    if not cleaned.strip():
        return
    expected = cleaned if cleaned.endswith("\n") else cleaned + "\n"
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=size))
        folder = Path(name)
        (folder / "a.txt").write_bytes(content.encode())
        clean([str(folder / "a.txt")], folder / "out", cleaner=Named("ascii-words" if ascii_only else "unicode-words"))
        assert (folder / "out" / "all.txt").read_text() == expected


def test_the_report_adds_up_over_blocks_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("One 1!\nTWO 22!\n")
    (tmp_path / "b.txt").write_text("caf\u00e9 3\n-x y\n")
    inputs = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    for size in (100, 1):
        monkeypatch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=size))
        totals = clean(inputs, tmp_path / "out", cleaner=Named("ascii-words")).totals
        rules = totals.report.rules
        assert rules["lower-case"].replaced == 4
        assert rules["newline becomes a space"].replaced == 4
        dropped = rules["delete all but a-z, space, ' and -"].dropped
        assert dropped == {"1": 1, "!": 2, "2": 2, "\u00e9": 1, "3": 1}
        assert (totals.characters_in, totals.characters_out) == (27, len("one two\ncaf y\n"))


def test_documents_are_the_files(tmp_path: Path) -> None:
    for name, content in (("a", "one\n"), ("b", "?\n"), ("c", "two two\n")):
        (tmp_path / f"{name}.txt").write_text(content)
    clean([str(tmp_path / f"{name}.txt") for name in "abc"], tmp_path / "out", cleaner=Named("ascii-words"))
    found = load_corpus(tmp_path / "out").texts("all")
    assert [read_block(Block(text, text.start, text.stop), "strict").text for text in found] == ["one\n", "two two\n"]


def test_mended_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one \xff two\0\n")
    with pytest.raises(InputError, match=r"a\.txt, line 1, byte 9: NUL"):
        clean([str(tmp_path / "a.txt")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert clean([str(tmp_path / "a.txt")], tmp_path / "out", errors="replace").totals.mended_bytes == 2
    assert load_corpus(tmp_path / "out").meta["mended_bytes"] == 2
    assert (tmp_path / "out" / "all.txt").read_text() == "one two\n"


def test_another_encoding_gives_the_same_corpus(text: Path, tmp_path: Path) -> None:
    twin = tmp_path / "in" / "twin.txt"
    twin.write_bytes(TEXT.encode("utf-16"))
    clean([str(text)], tmp_path / "one")
    clean([str(twin)], tmp_path / "two", encoding="utf-16")
    assert (tmp_path / "one" / "all.txt").read_bytes() == (tmp_path / "two" / "all.txt").read_bytes()


def test_the_parts_of_a_split(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "out", split="8:1:1")
    corpus = load_corpus(tmp_path / "out")
    assert corpus.parts == ["train", "valid", "test"]
    parts = [(tmp_path / "out" / f"{part}.txt").read_text() for part in corpus.parts]
    assert "".join(parts) == unicode_words().clean(TEXT.replace("\r\n", "\n"))
    assert len(parts[0]) > 6 * len(parts[1]) > 0
    assert "all.txt" not in tree(tmp_path / "out")


def test_cleaning_again_gives_the_same_bytes(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "one", split="8:1:1")
    clean([str(text)], tmp_path / "two", split="8:1:1")
    clean([str(text)], tmp_path / "two", split="8:1:1")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_an_up_to_date_corpus_is_left_alone(text: Path, tmp_path: Path) -> None:
    def stage(**options: Any) -> bool:
        dataset = load_text_dataset(Named("text-files", {"inputs": [str(text)], "split": "8:1:1"}))
        options = {"cleaner": Named("unicode-words"), **options}
        return clean_dataset(dataset, tmp_path / "out", skip=True, **options).skipped

    assert not stage()
    assert stage()
    assert not stage(cleaner=Named("ascii-words"))
    assert not stage(cleaner=Named("ascii-words"), errors="ignore")
    text.write_text("other\n" * 99)
    assert not stage(cleaner=Named("ascii-words"), errors="ignore")
    assert stage(cleaner=Named("ascii-words"), errors="ignore")


@pytest.mark.parametrize("cleaner", ["unicode-words", "ascii-words"])
def test_the_dictionary_of_the_corpus_is_that_of_the_text(text: Path, tmp_path: Path, cleaner: str) -> None:
    clean([str(text)], tmp_path / "out", cleaner=Named(cleaner))
    one = build_dict([str(text)], tmp_path / "one", cleaner=Named(cleaner)).vocabulary
    two = build_dict([str(tmp_path / "out")], tmp_path / "two").vocabulary
    assert (one.rules, one.tokens, one.counts) == (two.rules, two.tokens, two.counts)
    assert two.counted[0]["sha256"] == load_corpus(tmp_path / "out").meta["parts"]["all"]["sha256"]


def test_a_dictionary_counts_the_training_part_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("train\n" * 90 + "valid\n" * 10)
    clean([str(tmp_path / "a.txt")], tmp_path / "out", split="9:1")
    vocabulary = build_dict([str(tmp_path / "out")], tmp_path / "dict").vocabulary
    assert dict(zip(vocabulary.tokens, vocabulary.counts, strict=True)) == {"train": 90}
    assert [(item["name"], item["part"]) for item in vocabulary.counted] == [("train.txt", "train")]


# --- what it refuses ---


def test_a_folder_with_other_files_is_left_untouched(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(thesis\.doc\)"):
        clean([str(text)], out)
    assert tree(out) == {"thesis.doc": b"mine"}
    with pytest.raises(InputError, match="is a file; name a folder"):
        clean([str(text)], out / "thesis.doc")
    assert tree(out) == {"thesis.doc": b"mine"}


def test_another_s_temporary_file_is_left_untouched(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "out")
    (tmp_path / "out" / "notes.tmp").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.tmp"):
        clean([str(text)], tmp_path / "out")
    assert (tmp_path / "out" / "notes.tmp").read_text() == "mine"


def test_an_empty_folder_and_an_earlier_corpus_are_replaced(text: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    clean([str(text)], tmp_path / "out", split="9:1")
    clean([str(text)], tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"all.txt", "corpus.json"}


def test_the_input_may_not_lie_in_the_output(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    clean([str(text)], out)
    before = tree(out)
    monkeypatch.chdir(out)
    for item in (str(out / "all.txt"), str(out), "all.txt", "../out/all.txt"):
        with pytest.raises(InputError, match=r"holds the input .*; name another folder"):
            clean([item], out)
    assert tree(out) == before


def test_an_input_named_by_a_link_may_not_lie_in_the_output(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clean([str(text)], out)
    before = tree(out)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(InputError, match="holds the input"):
        clean([str(tmp_path / "link" / "all.txt")], out)
    assert tree(out) == before


def test_an_input_found_by_a_glob_may_not_lie_in_the_output(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clean([str(text)], out)
    with pytest.raises(InputError, match="holds the input"):
        clean([str(out / "*.txt")], out)


def test_an_output_below_the_input_folder_is_no_input_of_the_next_run(text: Path) -> None:
    out = text.parent / "cleaned"
    first = clean([str(text.parent)], out)
    try:
        second = clean([str(text.parent)], out)
    except InputError:
        return
    assert second.totals.characters_in == first.totals.characters_in


def test_a_failure_leaves_the_earlier_corpus(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clean([str(text)], out)
    before = tree(tmp_path)
    bad = tmp_path / "in" / "bad.txt"
    bad.write_bytes(b"good line\n" * 5 + b"\xff\n")
    with pytest.raises(InputError, match="line 6, byte 50"):
        clean([str(text), str(bad)], out)
    with pytest.raises(InputError, match="line 6, byte 50"):
        clean([str(bad)], tmp_path / "new")
    bad.unlink()
    assert tree(tmp_path) == before


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("?!\n\n...\n")
    for cleaner in ("unicode-words", "ascii-words"):
        with pytest.raises(InputError, match=rf"a\.txt: nothing is left after cleaning with '{cleaner}'"):
            clean([str(tmp_path / "a.txt")], tmp_path / "out", cleaner=Named(cleaner))
    assert not (tmp_path / "out").exists()


def test_a_cleaner_that_is_none(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown cleaner 'asci-words'\. Did you mean 'ascii-words'"):
        clean([str(text)], tmp_path / "out", cleaner=Named("asci-words"))
    with pytest.raises(UsageError, match=r"cleaner 'unicode-words' has no option 'lower'\. Did you mean 'lowercase'"):
        clean([str(text)], tmp_path / "out", cleaner=Named("unicode-words", {"lower": True}))
    with pytest.raises(UsageError, match="'form' of cleaner 'unicode-words': 'NFX' is not accepted"):
        clean([str(text)], tmp_path / "out", cleaner=Named("unicode-words", {"form": "NFX"}))


# --- the record ---


def test_a_corpus_cleaned_by_other_rules(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "out")
    with pytest.raises(InputError, match=r"was cleaned by .*unicode-words.* \([0-9a-f]{16}\), but .* \([0-9a-f]{16}\)"):
        build_dict([str(tmp_path / "out")], tmp_path / "dict", cleaner=Named("ascii-words"))
    clean([str(text)], tmp_path / "plain", cleaner=Named("none"))
    assert build_dict([str(tmp_path / "plain")], tmp_path / "dict", cleaner=Named("ascii-words")).vocabulary.kept > 3


def test_corpora_and_files_are_not_mixed(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "one")
    clean([str(text)], tmp_path / "two", cleaner=Named("ascii-words"))
    with pytest.raises(InputError, match=r"text\.txt: is no cleaned corpus"):
        build_dict([str(tmp_path / "one"), str(text)], tmp_path / "dict")
    with pytest.raises(InputError, match="were cleaned by different rules"):
        build_dict([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "dict")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not .*corpus"),
        ({"version": 9}, "version 9; this rnnpipe reads 1"),
        ({"parts": []}, "parts is not a size and documents"),
        ({"parts": {"../../etc/passwd": {"size": 0, "documents": []}}}, "parts is not a size"),
        ({"parts": {"all": {"size": True, "documents": []}}}, "parts is not a size"),
        ({"parts": {"all": {"size": 5, "documents": [{"start": 0, "stop": 6}]}}}, "parts is not a size"),
        ({"parts": {"all": {"size": 5, "documents": [{"start": -1, "stop": 5}]}}}, "parts is not a size"),
        ({"parts": {"all": {"size": 5, "documents": [{"start": 3, "stop": 2}]}}}, "parts is not a size"),
        ({"parts": {"all": {"size": 5, "documents": [7]}}}, "parts is not a size"),
    ],
    ids=range(9),
)
def test_a_damaged_record(text: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    clean([str(text)], tmp_path / "out")
    meta = tmp_path / "out" / "corpus.json"
    meta.write_text(json.dumps({**json.loads(unsealed(meta.read_bytes())), **change}))
    with pytest.raises(InputError, match=rf"corpus\.json.*{message}"):
        load_corpus(tmp_path / "out")


def test_a_record_that_is_no_json(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "out")
    meta = tmp_path / "out" / "corpus.json"
    meta.write_bytes(meta.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"corpus\.json, line \d+, column \d+: .*not valid JSON"):
        load_corpus(tmp_path / "out")
    meta.write_bytes(b"{\xff}")
    with pytest.raises(InputError, match=r"corpus\.json: byte 1 is not UTF-8"):
        load_corpus(tmp_path / "out")


def test_a_cut_or_missing_part(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "out")
    corpus = load_corpus(tmp_path / "out")
    part = tmp_path / "out" / "all.txt"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"all\.txt: has \d+ bytes, corpus\.json promises \d+"):
        corpus.texts("all")
    part.unlink()
    with pytest.raises(InputError, match=r"all\.txt: is missing; run `rnnpipe clean` again"):
        corpus.texts("all")


def test_what_is_a_corpus(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "out")
    assert is_corpus(str(tmp_path / "out"))
    assert not is_corpus(str(text))
    assert not is_corpus(str(text.parent))
    assert not is_corpus("-")


# --- as it ought to be ---


def test_a_very_long_line_keeps_its_words_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_BYTES", 16)
    monkeypatch.setattr(files, "_WINDOW", 8)
    monkeypatch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=10))
    (tmp_path / "a.txt").write_text("word " * 40 + "\n")
    clean([str(tmp_path / "a.txt")], tmp_path / "out")
    assert (tmp_path / "out" / "all.txt").read_text().split() == ["word"] * 40


def test_each_text_ends_with_a_newline(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    clean([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], tmp_path / "out")
    assert (tmp_path / "out" / "all.txt").read_text() == "one\ntwo\n"


def test_a_file_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("word\n")
    clean([str(path)], tmp_path / "out")
    assert (tmp_path / "out" / "all.txt").read_text() == "word\n"


def test_a_divided_and_an_undivided_corpus_together(text: Path, tmp_path: Path) -> None:
    clean([str(text)], tmp_path / "one", split="9:1")
    clean([str(text)], tmp_path / "two")
    vocabulary = build_dict([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "dict").vocabulary
    assert {item["name"]: item["part"] for item in vocabulary.counted} == {"train.txt": "train", "all.txt": "all"}
