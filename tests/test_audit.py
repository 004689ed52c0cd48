"""`rnnpipe corpus audit`: what the parts share, counted by hand and against Python's own sets."""

from __future__ import annotations

import hashlib
import random
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from cli import HARBOUR, fail, installed, succeed, write_plugin
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.data import audit as audits
from rnnpipe.data.audit import HashFiles, Overlap, PartHashes, compare, ngram_hashes
from rnnpipe.data.base import Sequences
from rnnpipe.durable import write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.audit import Unknown, audit
from rnnpipe.text import files
from rnnpipe.text.cleaning import none
from rnnpipe.text.corpus import FORMAT, VERSION
from rnnpipe.text.opening import open_texts
from rnnpipe.text.rules import Rules
from rnnpipe.text.tokenizing import characters, whitespace

TRAIN = "the cat sat on the mat\nthe dog sat on the mat\nthe cat sat on the mat\n"
TEST = "the cat sat on the mat\na cow sat on the log\n \n"


def write_corpus(folder: Path, **parts: list[str]) -> Path:
    """Write a cleaned corpus with these documents in its parts."""
    folder.mkdir()
    records = {}
    for part, documents in parts.items():
        places, data = [], b""
        for document in documents:
            places.append({"name": "a", "start": len(data), "stop": len(data) + len(document.encode())})
            data += document.encode()
        (folder / f"{part}.txt").write_bytes(data)
        records[part] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "documents": places}
    meta = {"format": FORMAT, "version": VERSION, "cleaner": {"name": "unicode-words"}, "parts": records}
    write_record(folder / "corpus.json", meta)
    return folder


def overlaps(documents: Mapping[str, list[str]], rules: Rules, ngram: int) -> dict[str, dict[str, Overlap]]:
    """Return the overlaps of parts given as texts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {part: PartHashes(folder / "hashes" / part, ngram) for part in documents}
        for part, texts in documents.items():
            for text in texts:
                (folder / "text.txt").write_bytes(text.encode())
                for opened in open_texts([str(folder)], folder / "spool") if text else ():
                    parts[part].add_text(opened, rules, "strict", lambda done_bytes: None)
        return compare(parts)


def by_sets(documents: Mapping[str, list[str]], by_character: bool, ngram: int) -> dict[str, dict[str, Overlap]]:
    """Return the same, from Python's own sets of the things themselves."""
    things: dict[str, dict[str, list[object]]] = {}
    for part, texts in documents.items():
        tokens = [list(text) if by_character else text.split() for text in texts]
        things[part] = {
            "documents": [text for text in texts if text],
            "lines": [line for text in texts for line in text.split("\n") if line.strip()],
            "ngrams": [tuple(own[at : at + ngram]) for own in tokens for at in range(len(own) - ngram + 1)],
        }
    found: dict[str, dict[str, Overlap]] = {}
    for part, kinds in things.items():
        found[part] = {}
        for kind, own in kinds.items():
            training = set(things["train"][kind])
            shared = None if part == "train" else sum(thing in training for thing in own)
            found[part][kind] = Overlap(len(own), len(own) - len(set(own)), shared)
    return found


# --- against sets ---

documents = st.lists(st.text(st.sampled_from("ab \n"), max_size=30), min_size=1, max_size=4)


@given(documents, documents, st.booleans(), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_overlaps_are_those_of_sets(train: list[str], test: list[str], by_character: bool, ngram: int) -> None:
    rules = Rules(none(), characters() if by_character else whitespace())
    parts = {"train": train, "test": test}
    assert overlaps(parts, rules, ngram) == by_sets(parts, by_character, ngram)


@pytest.mark.parametrize("by_character", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 7, 20])
def test_blocks_do_not_show(by_character: bool, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.cut_blocks, "__defaults__", (block_bytes,))
    monkeypatch.setattr(files.cut_characters, "__defaults__", (block_bytes,))
    parts = {"train": [TRAIN, "a b\n", TRAIN], "test": [TEST, TRAIN]}
    rules = Rules(none(), characters() if by_character else whitespace())
    assert overlaps(parts, rules, 5) == by_sets(parts, by_character, 5)


@pytest.mark.parametrize("by_character", [False, True])
def test_overlaps_in_real_text_are_those_of_sets(
    data_dir: Path, by_character: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many blocks: lines, documents and runs of tokens that lie across them are those of the whole text."""
    monkeypatch.setattr(files.cut_blocks, "__defaults__", (1000,))
    monkeypatch.setattr(files.cut_characters, "__defaults__", (1000,))
    lines = (data_dir / "en" / "alice.txt").read_text(encoding="utf-8").replace("\ufeff", "").splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    parts = {"train": ["".join(lines[:1000]), "".join(lines[1000:2000])], "test": ["".join(lines[1900:3000])]}
    ngram = 12 if by_character else 3
    found = overlaps(parts, Rules(none(), characters() if by_character else whitespace()), ngram)
    assert found == by_sets(parts, by_character, ngram)
    assert found["test"]["lines"].in_train


def test_a_very_long_line_counts_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is bounded; what fits into one piece is still compared as a whole."""
    monkeypatch.setattr(audits, "LINE_BYTES", 100)
    monkeypatch.setattr(files.cut_characters, "__defaults__", (64,))
    found = overlaps({"train": ["ab\n" + "x" * 1000], "test": ["ab\n"]}, Rules(none(), characters()), 2)
    assert found["train"]["lines"].count > 5
    assert found["test"]["lines"] == Overlap(1, 0, 1)


# --- hashes ---


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 40)))
@settings(deadline=None, max_examples=50)
def test_hash_files_are_multisets(own: list[int], other: list[int], both: list[int]) -> None:
    spread = [number << 58 | number for number in both]  # over all files
    with tempfile.TemporaryDirectory() as name:
        one, two = HashFiles(Path(name) / "one"), HashFiles(Path(name) / "two")
        for hashes in (own, spread, spread[:3]):
            one.add(np.array([number % 2**64 for number in hashes], np.uint64))
        two.add(np.array([number % 2**64 for number in other + spread[:5]], np.uint64))
        things = Counter(number % 2**64 for number in own + spread + spread[:3])
        others = {number % 2**64 for number in other + spread[:5]}
        assert one.count == things.total()
        assert one.duplicates() == things.total() - len(things)
        assert one.found_in(two) == sum(count for number, count in things.items() if number in others)
        pieces = [np.repeat(hashes, counts) for hashes, counts in one.pieces()]
        assert np.concatenate(pieces).tolist() == sorted(things.elements())


def test_runs_in_another_order_are_others() -> None:
    """Position counts, and no two of many runs share a hash."""
    symbols = np.array([1, 2, 1, 2, 2, 1, 1, 0, 0], np.uint64)
    hashes = ngram_hashes(symbols, 2).tolist()
    assert hashes[0] == hashes[2]
    assert len(set(hashes)) == len({tuple(symbols[at : at + 2].tolist()) for at in range(8)})
    assert len(ngram_hashes(symbols, 10)) == 0
    for n in range(1, 10):  # of whatever lengths a run is joined
        runs = [tuple(symbols[at : at + n].tolist()) for at in range(10 - n)]
        hashes = ngram_hashes(symbols, n).tolist()
        assert [hashes.index(own) for own in hashes] == [runs.index(own) for own in runs]
    drawn = np.random.default_rng(1).integers(0, 8, 200_000).astype(np.uint64)
    runs = {tuple(drawn[at : at + 6].tolist()) for at in range(len(drawn) - 5)}
    assert len(np.unique(ngram_hashes(drawn, 6))) == len(runs)
    shares = np.bincount(ngram_hashes(drawn, 6) >> np.uint64(58), minlength=64)
    assert shares.min() > 0.5 * shares.mean(), "the files are of about one size"


# --- texts ---


def test_an_audit_counted_by_hand(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=[TRAIN], test=[TEST])
    found = audit([str(corpus)], ngram=4, unknown_threshold=1)
    assert found.overlaps == by_sets({"train": [TRAIN], "test": [TEST]}, False, 4)
    assert found.overlaps["train"]["lines"] == Overlap(3, 1, None)
    assert found.overlaps["test"]["documents"] == Overlap(1, 0, 0)
    assert found.overlaps["test"]["lines"] == Overlap(2, 0, 1)  # the blank one is none
    # Twelve words make nine runs; the three within the first line stand in training.
    assert found.overlaps["test"]["ngrams"] == Overlap(9, 0, 3)
    # Training has "dog" once; "a", "cow" and "log" not at all.
    assert found.unknown == {"train": Unknown(18, 1), "test": Unknown(12, 3)}
    assert audit([str(corpus)], level="char", ngram=4).unknown["test"] == Unknown(
        len(TEST), TEST.count("w") + TEST.count("l")
    )


def test_a_copied_document_is_found_and_told(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=["another one\n", TRAIN], valid=[TRAIN], test=[TEST])
    parts = succeed("corpus", "audit", corpus, "--json").json()["parts"]
    assert parts["train"]["documents"] == {"count": 2, "duplicates": 0}
    assert parts["valid"]["documents"] == {"count": 1, "duplicates": 0, "in_train": 1}
    assert parts["valid"]["lines"] == {"count": 3, "duplicates": 1, "in_train": 3}
    assert parts["valid"]["ngrams"] == {"count": 11, "duplicates": 0, "in_train": 11}
    assert parts["test"]["documents"]["in_train"] == 0
    assert (parts["test"]["tokens"], parts["test"]["unknown"]) == (12, 9)  # "the" alone is known
    told = succeed("corpus", "audit", corpus)
    assert "warning: 1 (100.00%) of the documents of valid also stand in train" in told.err
    assert "documents of test" not in told.err
    assert re.search(r"^test +lines +2 +0 \(0.00%\) +1 \(50.00%\)$", told.out, re.MULTILINE)
    assert "test: 9 (75.00%) of 12 tokens unknown to a dictionary of train" in told.out


def test_files_are_divided_as_for_training(tmp_path: Path) -> None:
    """The parts are those of `clean --split`, the unknown tokens those that `encode` then counts."""
    found = succeed("corpus", "audit", HARBOUR, "--split", "6:2:2", "--json").json()
    succeed("clean", HARBOUR, "-o", tmp_path / "cleaned", "--split", "6:2:2")
    succeed("build-dict", tmp_path / "cleaned", "-o", tmp_path / "dict")
    encoded = succeed(
        "encode", tmp_path / "cleaned", "--dict", tmp_path / "dict", "-o", tmp_path / "t", "--json"
    ).json()
    for part, record in encoded["parts"].items():
        assert found["parts"][part]["tokens"] == record["tokens"] - record["documents"]
        assert found["parts"][part]["unknown"] == record["unknown"] > 0
    again = succeed("corpus", "audit", tmp_path / "cleaned", "--json").json()
    assert again["parts"]["test"]["unknown"] == found["parts"]["test"]["unknown"]
    assert again["parts"]["test"]["ngrams"] == found["parts"]["test"]["ngrams"]


def test_a_dataset_by_name(tmp_path: Path) -> None:
    found = succeed("corpus", "audit", "python-docs", "--json").json()
    assert found["parts"]["test"]["documents"]["in_train"] == 0
    assert found["parts"]["train"]["documents"]["count"] > 50
    assert "Did you mean 'python-docs'" in fail("corpus", "audit", "python-doc", code=1)
    assert "dataset 'python-docs' has no option 'spilt'" in fail("corpus", "audit", "python-docs:spilt=1", code=2)


def test_what_cannot_be_audited(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", all=[TRAIN])
    assert "has the parts all; an audit compares" in fail("corpus", "audit", corpus, code=1)
    corpus = write_corpus(tmp_path / "trained", train=[TRAIN])
    assert "has the parts train; an audit compares" in fail("corpus", "audit", corpus, code=1)
    (tmp_path / "bad.txt").write_bytes(b"text\n" * 100 + b"\xff\n")
    assert "bad.txt, line 101, byte 500 (0xff)" in fail("corpus", "audit", tmp_path / "bad.txt", code=1)
    assert "unknown encoding" in fail("corpus", "audit", tmp_path / "bad.txt", "--encoding", "x", code=2)
    with pytest.raises(InputError, match="no such file"):
        audit([str(tmp_path / "a"), str(tmp_path / "b")])


# --- numbers and pairs ---

PLUGIN = """
import numpy as np
from rnnpipe import hookimpl
from rnnpipe.data.base import Sequences

class Bits:
    loss, target = "mse", "last"
    def sequences(self, split):
        count = {"train": 1000, "valid": 0, "test": 100}[split]
        x = np.random.default_rng(len(split)).integers(0, 2, (count, 10, 1)).astype(np.float32)
        return Sequences(x, x.sum(1), np.full(count, 10))

class Windows:
    loss, target = "mse", "last"
    def sequences(self, split):
        wave = np.sin(np.linspace(0, 10 * np.pi, 500, dtype=np.float32))
        windows = np.stack([wave[:-2], wave[1:-1]], 1)[:, :, None]
        fifth = np.arange(len(windows)) % 5 == 0
        chosen = windows[{"train": ~fifth, "valid": fifth & ~fifth, "test": fifth}[split]]
        return Sequences(chosen, chosen[:, 0], np.full(len(chosen), 2))

class Pairs:
    def pairs(self, split):
        return {"train": [("a b", "c"), ("a b", "d")], "valid": [], "test": [("a b", "c"), ("e", "f\\ng")]}[split]

class Nothing:
    pass

@hookimpl
def register_datasets():
    return {"bits": Bits, "windows": Windows, "pairs": Pairs, "nothing": Nothing}
"""


def test_leakage_by_exhaustion_and_by_overlapping_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten bits have 1,024 sequences, so 1 - (1 - 1/1024)^1000 = 62 % of a test set stand in a training set of 1,000;
    windows that overlap share their numbers, though no two are the same."""
    write_plugin(tmp_path / "site", "some-datasets", "some_datasets", PLUGIN)
    with installed(tmp_path / "site", monkeypatch):
        bits = succeed("corpus", "audit", "bits", "--json").json()
        told = succeed("corpus", "audit", "bits")
        windows = succeed("corpus", "audit", "windows", "--json").json()
        pairs = succeed("corpus", "audit", "pairs", "--json", "--ngram", 1).json()
        refusal = fail("corpus", "audit", "nothing", code=2)
    assert set(bits["parts"]) == {"train", "test"}
    assert 50 <= bits["parts"]["test"]["documents"]["in_train"] <= 75
    assert "of the documents of test also stand in train; score on the others as well" in told.err
    assert bits["ngram"] == 5
    assert windows["parts"]["test"]["documents"] == {"count": 100, "duplicates": 0, "in_train": 0}
    assert windows["parts"]["test"]["ngrams"]["in_train"] >= 198
    assert pairs["parts"]["test"]["lines"] == {"count": 2, "duplicates": 0, "in_train": 1}
    assert "has neither documents nor sequences nor pairs" in refusal


def test_sequences_are_compared_up_to_their_length() -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    x[1, :2] = x[0, :2]
    with tempfile.TemporaryDirectory() as name:
        parts = {part: PartHashes(Path(name) / part, 2) for part in ("train", "test")}
        parts["train"].add_sequences(Sequences(x[:1], x[:1, 0], np.array([2])))
        parts["test"].add_sequences(Sequences(x, x[:, 0], np.array([4, 2])))
        found = compare(parts)["test"]
    assert found["documents"] == Overlap(2, 0, 1)
    assert found["ngrams"] == Overlap(4, 1, 2)
    assert found["lines"].count == 0
