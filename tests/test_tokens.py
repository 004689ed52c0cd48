"""Token files and the stage `encode`: true ids and offsets, and every damage named."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import unsealed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnpipe.data.encode import BlockEncoder
from rnnpipe.data.tokens import ArrayWriter, TokenFolder, array_writer, check_dictionary, load_tokens, smallest_type
from rnnpipe.errors import InputError
from rnnpipe.pipeline import encode_parts
from rnnpipe.pipeline.clean import clean
from rnnpipe.pipeline.common import load_rules
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.pipeline.encode import encode
from rnnpipe.text import counting
from rnnpipe.text.files import BlockText, cut_blocks, cut_characters
from rnnpipe.text.rules import Named
from rnnpipe.text.unicode_words import unicode_words
from rnnpipe.text.vocabulary import DOC, UNK, build_vocabulary, load_vocabulary

TEXTS = {
    "a.txt": "The cat sat on the mat; the cat <unk> <doc> sat.\r\n" * 9 + "A rare word\r\n",
    "b.txt": "\u65e5\u672c \u65e5\u672c\tcaf\u00e9 -dash Cat\n" * 7,
    "c.txt": "?! the end",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, content in TEXTS.items():
        (folder / name).write_bytes(content.encode())
    return folder


@pytest.fixture
def dictionary(folder: Path, tmp_path: Path) -> Path:
    build_dict([str(folder)], tmp_path / "dict")
    return tmp_path / "dict"


@pytest.fixture
def tokens(folder: Path, dictionary: Path, tmp_path: Path) -> Path:
    encode([str(folder)], dictionary, tmp_path / "tokens")
    return tmp_path / "tokens"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def expected_words(content: str) -> list[str]:
    return unicode_words().clean(content.replace("\r\n", "\n")).split()


# --- what it writes ---


def test_the_arrays_open_in_numpy(tokens: Path) -> None:
    meta = json.loads((tokens / "meta.json").read_text())
    array = np.load(tokens / "all" / "tokens.npy", allow_pickle=False, mmap_mode="r")
    offsets = np.load(tokens / "all" / "offsets.npy", allow_pickle=False, mmap_mode="r")
    assert isinstance(array, np.memmap)
    assert (array.dtype, array.ndim, len(array)) == (np.uint8, 1, meta["parts"]["all"]["tokens"])
    assert (offsets.dtype, len(offsets)) == (np.int64, 3)
    assert sorted(tree(tokens)) == ["all/offsets.npy", "all/tokens.npy", "dictionary.txt", "meta.json"]


def test_ids_offsets_and_words(tokens: Path, dictionary: Path) -> None:
    folder = load_tokens(tokens)
    part, vocabulary = folder.part("all"), folder.vocabulary()
    assert vocabulary == load_vocabulary(dictionary)
    assert part.offsets.tolist() == np.flatnonzero(part.tokens == vocabulary.doc_id).tolist()
    documents = np.split(part.tokens, part.offsets[1:])
    for ids, content in zip(documents, TEXTS.values(), strict=True):
        words = [vocabulary.token(int(number)) for number in ids]
        expected = [word if word in vocabulary.ids else UNK for word in expected_words(content)]
        assert words == [DOC, *expected]
    assert len(part) == len(part.tokens)
    record = folder.meta["parts"]["all"]
    assert record["unknown"] == int((np.asarray(part.tokens) == vocabulary.unk_id).sum()) > 0
    assert folder.meta["vocab_size"] == vocabulary.size
    assert folder.parts == ["all"]


@pytest.mark.parametrize("cleaner", ["unicode-words", "ascii-words", "none"])
def test_the_same_bytes_for_any_division_of_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleaner: str
) -> None:
    tokenizer = Named("characters" if cleaner == "none" else "whitespace")
    build_dict([str(folder)], tmp_path / "dict", cleaner=Named(cleaner), tokenizer=tokenizer)
    encode([str(folder)], tmp_path / "dict", tmp_path / "out")
    expected = tree(tmp_path / "out")
    for size, workers in ((1, 1), (13, 1), (40, 2)):
        monkeypatch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=size))
        if size != 1:  # a block of one byte would part the last character: see test_files.py
            monkeypatch.setattr(counting, "cut_characters", partial(cut_characters, block_bytes=size))
        monkeypatch.setattr("rnnpipe.data.encode._GROUP_BLOCKS", 3)
        encode([str(folder)], tmp_path / "dict", tmp_path / "out", workers=workers)
        assert tree(tmp_path / "out") == expected


def test_characters(folder: Path, tmp_path: Path) -> None:
    build_dict(
        [str(folder)], tmp_path / "dict", cleaner=Named("none"), tokenizer=Named("characters"), unknown_threshold=1
    )
    tokens = encode([str(folder)], tmp_path / "dict", tmp_path / "out").folder
    part, vocabulary = tokens.part("all"), tokens.vocabulary()
    text = "".join(content.replace("\r\n", "\n") for content in TEXTS.values())
    decoded = [vocabulary.token(int(n)) for n in part.tokens if n != vocabulary.doc_id]
    assert decoded == [character if character in vocabulary.ids else UNK for character in text]
    assert UNK in decoded


def test_the_parts_of_a_corpus(folder: Path, tmp_path: Path) -> None:
    clean([str(folder)], tmp_path / "corpus", split="8:1:1")
    build_dict([str(tmp_path / "corpus")], tmp_path / "dict")
    tokens = encode([str(tmp_path / "corpus")], tmp_path / "dict", tmp_path / "out").folder
    vocabulary = tokens.vocabulary()
    assert tokens.parts == ["train", "valid", "test"]
    for part in tokens.parts:
        ids = tokens.part(part).tokens
        text = (tmp_path / "corpus" / f"{part}.txt").read_text()
        assert ids[ids != vocabulary.doc_id].tolist() == vocabulary.encode(text.split()).tolist()
    with pytest.raises(InputError, match="has no part 'all'; it has train, valid, test"):
        tokens.part("all")


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(0, "u1"), (2, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4"), (2**32, "u4"), (2**32 + 1, "u8")],
)
def test_the_smallest_type(size: int, dtype: str) -> None:
    assert smallest_type(size) == np.dtype(dtype)


@pytest.mark.parametrize(("words", "dtype"), [(254, np.uint8), (255, np.uint16)])
def test_the_file_has_the_smallest_type(tmp_path: Path, words: int, dtype: type) -> None:
    (tmp_path / "a.txt").write_text(" ".join(f"w{number}" for number in range(words)))
    build_dict([str(tmp_path / "a.txt")], tmp_path / "dict", unknown_threshold=0)
    folder = encode([str(tmp_path / "a.txt")], tmp_path / "dict", tmp_path / "out").folder
    part = folder.part("all")
    assert part.tokens.dtype == dtype
    assert int(part.tokens[0]) == words  # the boundary is the last id but one
    assert len(np.unique(part.tokens)) == words + 1


@given(st.lists(st.lists(st.integers(0, 65535), max_size=9), max_size=9), st.sampled_from(["u1", "u2", "i8"]))
@settings(deadline=None)
def test_an_appended_array_is_an_array_file(chunks: list[list[int]], kind: str) -> None:
    class Kept(io.BytesIO):
        def close(self) -> None:
            self.seek(0)

    file = Kept()
    dtype = np.dtype(kind)
    writer = ArrayWriter(file, dtype)
    for chunk in chunks:
        writer.append(np.array(chunk, np.int64).astype(dtype))
    writer.close()
    array = np.load(file, allow_pickle=False)
    assert array.dtype == dtype
    assert array.tolist() == np.array([n for chunk in chunks for n in chunk], np.int64).astype(dtype).tolist()
    assert writer.length == len(array)


def test_the_header_keeps_its_size(tmp_path: Path) -> None:
    sizes = {}
    for length in (0, 10**6):
        with array_writer(tmp_path / str(length), np.dtype(np.uint8)) as writer:
            writer.append(np.zeros(length, np.uint8))
        sizes[length] = (tmp_path / str(length)).stat().st_size
    assert sizes[10**6] - sizes[0] == 10**6


def test_an_up_to_date_folder_is_left_alone(folder: Path, dictionary: Path, tmp_path: Path) -> None:
    def stage(**options: Any) -> bool:
        return encode([str(folder)], dictionary, tmp_path / "out", skip=True, **options).skipped

    assert not stage()
    inode = (tmp_path / "out" / "meta.json").stat().st_ino
    assert stage()
    assert (tmp_path / "out" / "meta.json").stat().st_ino == inode
    assert not stage(errors="ignore")
    (folder / "c.txt").write_text("the other end")
    assert not stage(errors="ignore")
    build_dict([str(folder)], dictionary, unknown_threshold=1)
    assert not stage(errors="ignore")
    assert stage(errors="ignore")


def test_mended_text_is_encoded(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one \xff two\n" * 5)
    build_dict([str(tmp_path / "a.txt")], tmp_path / "dict", errors="replace")
    for errors in ("replace", "ignore"):
        tokens = encode([str(tmp_path / "a.txt")], tmp_path / "dict", tmp_path / "out", errors=errors).folder
        assert len(tokens.part("all")) == 11


# --- a run that is interrupted ---


def parts_of(folder: Path, tmp_path: Path) -> Path:
    """Return the texts as a corpus of three parts, one of them of two documents."""
    clean([str(folder)], tmp_path / "corpus", cleaner=Named("ascii-words"), split="6:2:2")
    return tmp_path / "corpus"


@pytest.mark.parametrize("of_parts", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_parts: bool, workers: int
) -> None:
    """Interrupted behind each block in turn, and again at each block of the run that goes on."""
    source = str(parts_of(folder, tmp_path) if of_parts else folder)
    dictionary = tmp_path / "dict"
    build_dict([source], dictionary, cleaner=Named("ascii-words"))
    encode([source], dictionary, tmp_path / "whole")
    monkeypatch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=90))
    monkeypatch.setattr(encode_parts, "_SAVE_SECONDS", -1.0)
    blocks: list[int] = []
    encode([source], dictionary, tmp_path / "counted", progress=blocks.append)
    assert len(blocks) > 7

    def interrupted_at(number: int) -> bool:
        left = number

        def progress(size: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        try:
            encode([source], dictionary, tmp_path / "out", workers=workers, progress=progress)
        except KeyboardInterrupt:
            return True
        return False

    for number in range(1, len(blocks)):
        assert interrupted_at(number)
        assert not (tmp_path / "out").exists()
        done = encode([source], dictionary, tmp_path / "out", workers=workers)
        assert (done.bytes_before > 0) == (number > 1)
        assert tree(tmp_path / "out") == tree(tmp_path / "whole")
        shutil.rmtree(tmp_path / "out")
    rounds = 0
    while interrupted_at(3):
        rounds += 1
        assert rounds < len(blocks)
    assert rounds > 2
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_what_was_interrupted_over_other_texts_is_begun_again(
    folder: Path, dictionary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=90))
    monkeypatch.setattr(encode_parts, "_SAVE_SECONDS", -1.0)
    partial_folder = tmp_path / ".out.partial"

    def interrupt() -> None:
        def progress(size: int) -> None:
            if (partial_folder / "encoding.json").exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encode([str(folder)], dictionary, tmp_path / "out", progress=progress)

    interrupt()
    journal = (partial_folder / "encoding.json").read_bytes()
    (partial_folder / "encoding.json").write_bytes(journal.replace(b'"document"', b'"dokument"'))
    done = encode([str(folder)], dictionary, tmp_path / "out")  # damaged: not trusted
    assert done.bytes_before == 0
    interrupt()
    (folder / "a.txt").write_text("Other text about the cat. " * 40)
    assert encode([str(folder)], dictionary, tmp_path / "out").bytes_before == 0
    encode([str(folder)], dictionary, tmp_path / "again")
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    interrupt()
    (partial_folder / "all" / "tokens.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"tokens\.npy: is shorter than it was"):
        encode([str(folder)], dictionary, tmp_path / "out")
    assert encode([str(folder)], dictionary, tmp_path / "out").bytes_before == 0  # an error leaves nothing
    (folder / "b.txt").write_bytes(b"\xff" * 50)
    with pytest.raises(InputError, match="not valid utf-8"):
        encode([str(folder)], dictionary, tmp_path / "out")
    assert not partial_folder.exists()


# --- what it refuses, and what it leaves behind ---


def test_a_folder_with_other_files_is_left_untouched(folder: Path, dictionary: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match=r"out: holds other files \(.*\); name a new or empty folder"):
        encode([str(folder)], dictionary, out)
    assert tree(out) == {"sub/thesis.doc": b"mine"}
    with pytest.raises(InputError, match="is a file; name a folder to write to"):
        encode([str(folder)], dictionary, dictionary)


def test_other_files_inside_a_part_are_left_untouched(folder: Path, tokens: Path, tmp_path: Path) -> None:
    (tokens / "all" / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match="thesis"):
        encode([str(folder)], tmp_path / "dict", tokens)
    assert (tokens / "all" / "thesis.doc").read_text() == "mine"


def test_the_inputs_may_not_lie_in_the_output(folder: Path, tokens: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.txt", tokens / "a.txt")
    before = tree(tokens)
    with pytest.raises(InputError, match=r"holds the input .*a\.txt"):
        encode([str(tokens / "a.txt")], tmp_path / "dict", tokens)
    with pytest.raises(InputError, match=r"holds the input .*dictionary\.txt"):
        encode([str(folder)], tokens / "dictionary.txt", tokens)
    assert tree(tokens) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_leaves_the_earlier_folder(folder: Path, tokens: Path, tmp_path: Path, workers: int) -> None:
    bad = folder / "d.txt"
    bad.write_bytes(b"the cat\n" * 2000 + b"\xff\n" + b"the cat\n" * 2000)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"d\.txt, line 2001, byte 16000 \(0xff\)"):
        encode([str(folder)], tmp_path / "dict", tokens, workers=workers)
    with pytest.raises(InputError, match="line 2001"):
        encode([str(folder)], tmp_path / "dict", tmp_path / "new", workers=workers)
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_no_token_left_is_an_error(dictionary: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("?! ...")
    with pytest.raises(InputError, match=r"a\.txt: no token is left under the rules of"):
        encode([str(tmp_path / "a.txt")], dictionary, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_corpus_cleaned_by_other_rules(folder: Path, dictionary: Path, tmp_path: Path) -> None:
    clean([str(folder)], tmp_path / "corpus", cleaner=Named("ascii-words"))
    with pytest.raises(InputError, match=r"was cleaned by .*ascii-words.* \([0-9a-f]{16}\), but .* \([0-9a-f]{16}\)"):
        encode([str(tmp_path / "corpus")], dictionary, tmp_path / "out")


# --- damage ---


def test_another_dictionary_shows_both_digests(folder: Path, tokens: Path, tmp_path: Path) -> None:
    other = build_dict([str(folder)], tmp_path / "other", unknown_threshold=1).vocabulary
    ours = load_tokens(tokens).meta["dictionary"]
    assert other.digest != ours
    with pytest.raises(InputError, match=f"{ours[:16]}.*{other.digest[:16]}"):
        check_dictionary(load_tokens(tokens), other, tmp_path / "other")
    check_dictionary(load_tokens(tokens), load_vocabulary(tmp_path / "dict"), tmp_path / "dict")
    shutil.copyfile(tmp_path / "other", tokens / "dictionary.txt")
    with pytest.raises(InputError, match=f"{ours[:16]}.*{other.digest[:16]}"):
        load_tokens(tokens).vocabulary()


def test_what_is_no_token_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"not a token folder \(no meta\.json\); `rnnpipe encode"):
            load_tokens(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "not .*token"),
        ({"version": 2}, "version 2; this rnnpipe reads 1"),
        ({"parts": [1]}, "not counts of documents, tokens and unknown by part"),
        ({"parts": {"all": 3}}, "not counts of documents"),
        ({"parts": {"all": {"documents": 3, "tokens": -1, "unknown": 0}}}, "not counts of documents"),
        ({"parts": {"all": {"documents": 3, "tokens": "9", "unknown": 0}}}, "not counts of documents"),
        ({"dictionary": None}, "the digest of the dictionary or its size is missing"),
    ],
    ids=range(7),
)
def test_a_damaged_record(tokens: Path, change: dict[str, Any], message: str) -> None:
    meta = tokens / "meta.json"
    meta.write_text(json.dumps({**json.loads(unsealed(meta.read_bytes())), **change}))
    with pytest.raises(InputError, match=rf"meta\.json: .*{message}"):
        load_tokens(tokens)


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy"])
@pytest.mark.parametrize("keep", [0, 5, 40, 127, 128, -1])
def test_a_cut_array_is_an_error(tokens: Path, name: str, keep: int) -> None:
    path = tokens / "all" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"{name}: .*run `rnnpipe encode` again"):
        load_tokens(tokens).part("all")
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}: is missing; run `rnnpipe encode` again"):
        load_tokens(tokens).part("all")


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, np.uint8), np.zeros((9, 9), np.uint8), np.zeros(200, np.float32), np.array(7, np.uint8)],
    ids=["length", "rank", "type", "scalar"],
)
def test_another_array_is_an_error(tokens: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tokens / "all" / "tokens.npy", array)
    with pytest.raises(
        InputError, match=r"tokens\.npy: is not the array of \d+ numbers of type uint8 that meta\.json promises"
    ):
        load_tokens(tokens).part("all")


def test_pickles_are_refused(tokens: Path) -> None:
    np.save(tokens / "all" / "tokens.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"tokens\.npy: is not the array"):
        load_tokens(tokens).part("all")
    (tokens / "all" / "tokens.npy").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(InputError, match=r"tokens\.npy: is not the array"):
        load_tokens(tokens).part("all")


HEADER = np.lib.format.magic(1, 0) + b"v\0{'descr': '|u1', 'fortran_order': False, 'shape': (9,), }".ljust(119) + b"\n"


@given(st.integers(0, 127), st.sampled_from(b"\0\n'\"{}[](),:0159<>|uifOVFT- #\\\xff"))
@settings(deadline=None, max_examples=200)
@example(8, 1)
@example(21, ord(","))
@example(26, ord("B"))
def test_a_damaged_header_is_an_error_or_harmless(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged" / "all"
    folder.mkdir(parents=True, exist_ok=True)
    data = bytearray(HEADER + bytes(range(9)))
    assert np.load(io.BytesIO(data)).tolist() == list(range(9))
    data[at] = byte
    (folder / "tokens.npy").write_bytes(data)
    np.save(folder / "offsets.npy", np.zeros(1, np.int64))
    digest = hashlib.sha256(bytes(range(9))).hexdigest()
    offsets = hashlib.sha256(bytes(8)).hexdigest()
    record = {"documents": 1, "tokens": 9, "unknown": 0, "sha256": digest, "offsets_sha256": offsets}
    try:
        part = TokenFolder(folder.parent, {"vocab_size": 9, "parts": {"all": record}}).part("all")
    except InputError as error:
        assert "tokens.npy" in str(error)
        return
    assert part.tokens.tolist() == list(range(9))


def test_a_zip_archive_in_place_of_an_array(tokens: Path) -> None:
    with (tokens / "all" / "tokens.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(InputError, match=r"tokens\.npy"):
        load_tokens(tokens).part("all")


def test_edited_tokens_are_an_error(tokens: Path) -> None:
    path = tokens / "all" / "tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] = 0xFF  # an id that the dictionary does not have
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"tokens\.npy"):
        load_tokens(tokens).part("all")


def test_an_array_of_another_unsigned_type_is_an_error(tokens: Path) -> None:
    path = tokens / "all" / "tokens.npy"
    array = np.load(path)
    np.save(path, array.astype(">u4"))
    with pytest.raises(InputError, match=r"tokens\.npy"):
        load_tokens(tokens).part("all")


def test_a_dictionary_of_characters_with_a_longer_token(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "dict"
    build_dict([str(folder)], path, cleaner=Named("none"), tokenizer=Named("characters"))
    lines = unsealed(path.read_bytes()).decode().split("\n")
    lines[1] += "x"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"dict, line 2"):
        encode([str(folder)], path, tmp_path / "out")


# --- the encoder ---


@given(st.lists(st.sampled_from(["a", "b", "-a", "-", "zz"]), max_size=20))
@settings(deadline=None)
def test_a_word_of_the_dictionary_may_not_start_with_a_dash(words: list[str]) -> None:
    rules = load_rules(Named("ascii-words"), Named("whitespace"))
    vocabulary = build_vocabulary({b"a": 5, b"b": 4}, _rules("ascii-words"))
    raw = " ".join(words).encode()
    ids = BlockEncoder(rules, vocabulary).encode(BlockText(raw, 0, len(raw)))
    assert ids.tolist() == [{"a": 0, "b": 1}.get(word, 3) for word in words if not word.startswith("-")]


def _rules(cleaner: str) -> Any:
    from rnnpipe.text.rules import TextRules

    return TextRules(Named(cleaner), Named("whitespace"))
