"""Counting and the stage `build-dict`: exact, and the same to the byte however the work is divided."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cleaning import published_words, texts

import rnnpipe.data.encode
from rnnpipe.data.encode import encode_texts
from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.text import counting, native, runs
from rnnpipe.text.cleaning import ascii_words, none
from rnnpipe.text.counting import Counts, count_tokens
from rnnpipe.text.files import TextFile, cut_blocks, cut_characters
from rnnpipe.text.rules import LoadRules, Named, Rules, TextRules
from rnnpipe.text.runs import Spill
from rnnpipe.text.tokenizing import characters, whitespace
from rnnpipe.text.unicode_words import unicode_words
from rnnpipe.text.vocabulary import build_vocabulary, load_vocabulary


def ascii_rules() -> Rules:
    return Rules(ascii_words(), whitespace())


def ascii_rules_in_python() -> Rules:
    """Load the rules, and in a worker process put the C module out of use."""
    if multiprocessing.parent_process() is not None:
        native.NATIVE = False
    return ascii_rules()


def unicode_rules() -> Rules:
    return Rules(unicode_words(), whitespace())


def character_rules() -> Rules:
    return Rules(none(), characters())


@pytest.fixture(params=["native", "python"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LoadRules:
    """Return the loader of the word rules, once with the C module and once without."""
    if request.param == "native":
        if not native.NATIVE:
            pytest.skip("the optional C module is not built")
        return ascii_rules
    without_native(monkeypatch)
    return ascii_rules_in_python


def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "NATIVE", False)


def blocks_of(monkeypatch: pytest.MonkeyPatch, size: int, group: int) -> None:
    """Make blocks of `size` bytes and tasks of `group` blocks."""
    monkeypatch.setattr(counting, "cut_blocks", partial(cut_blocks, block_bytes=size))
    monkeypatch.setattr(counting, "cut_characters", partial(cut_characters, block_bytes=size))
    monkeypatch.setattr(counting, "_GROUP_BLOCKS", group)
    monkeypatch.setattr(rnnpipe.data.encode, "_GROUP_BLOCKS", group)


def write(folder: Path, contents: list[str]) -> list[TextFile]:
    found = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.txt"
        path.write_bytes(content.encode())
        found.append(TextFile(path.name, path, 0, path.stat().st_size))
    return found


def utf8_bytes(counts: Counter[str]) -> dict[bytes, int]:
    return {token.encode(): number for token, number in counts.items()}


def encoded(found: list[TextFile], load: LoadRules, dictionary: Path, workers: int = 1) -> list[list[int]]:
    documents = encode_texts(found, load, dictionary, workers=workers)
    return [[int(token) for ids in document for token in ids] for document in documents]


readable = texts.map(lambda text: text.replace("\0", " "))  # NUL is an error in a file
SAMPLE = [
    "The cat, the Cat; -dash THE caf\u00e9s 12x\n" * 9 + "\u212aelvin \u0130stanbul\r\nno-end\r",
    "\ttab\there don't 'don't' -- a--b -\n\n" * 7 + "the end",
    "one \u65e5\u672c two\u00a0three\u2028four\x85five\x1csix\x0bseven\n" * 5,
]


# --- the word rules, three ways ---


@given(st.lists(readable, min_size=1, max_size=3), st.integers(1, 30))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(SAMPLE, 7)
@example(["-a\n-", "\r\n-b c\r-d", "\t-e"], 1)
def test_counts_and_ids_follow_the_published_rules(either: LoadRules, contents: list[str], size: int) -> None:
    words = [published_words(content.replace("\r\n", "\n").replace("\r", "\n")) for content in contents]
    expected = Counter(word for one in words for word in one)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        blocks_of(patch, size, 2)
        found = write(Path(name), contents)
        counts = count_tokens(found, either)
        assert counts.tokens == utf8_bytes(expected)
        vocabulary = build_vocabulary(counts.tokens, _ASCII, unknown_threshold=1)
        vocabulary.save(Path(name) / "dict")
        ids = {word: number for number, word in enumerate(vocabulary.tokens[: vocabulary.kept])}
        assert encoded(found, either, Path(name) / "dict") == [
            [ids.get(word, vocabulary.unk_id) for word in one] for one in words
        ]


_ASCII = TextRules(Named("ascii-words"), Named("whitespace"))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_count_and_encode_alike(
    either: LoadRules, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks_of(monkeypatch, 40, 3)
    found = write(tmp_path, SAMPLE)
    words = [published_words(content.replace("\r\n", "\n").replace("\r", "\n")) for content in SAMPLE]
    counts = count_tokens(found, either, workers=workers)
    assert counts.tokens == utf8_bytes(Counter(word for one in words for word in one))
    assert counts.characters == sum(len(content.replace("\r\n", "\n")) for content in SAMPLE)
    vocabulary = build_vocabulary(counts.tokens, _ASCII, unknown_threshold=6)
    vocabulary.save(tmp_path / "dict")
    assert encoded(found, either, tmp_path / "dict", workers) == [vocabulary.encode(one).tolist() for one in words]


@given(st.lists(readable, min_size=1, max_size=3), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
@example(SAMPLE, 7)
def test_unicode_words_and_characters_count_as_in_python(contents: list[str], size: int) -> None:
    contents = [content.replace("\r\n", "\n").replace("\r", "\n") + "\n" for content in contents]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        blocks_of(patch, size, 2)
        found = write(Path(name), contents)
        words = Counter(word for content in contents for word in unicode_words().clean(content).split())
        assert count_tokens(found, unicode_rules).tokens == utf8_bytes(words)
        counts = count_tokens(found, character_rules)
        assert counts.tokens == utf8_bytes(Counter("".join(contents)))
        assert counts.characters == len("".join(contents))


def test_progress_hears_of_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks_of(monkeypatch, 40, 3)
    found = write(tmp_path, SAMPLE)
    done: list[int] = []
    count_tokens(found, unicode_rules, progress=done.append)
    assert len(done) > 2
    assert sum(done) == sum(text.size for text in found)


def test_mended_bytes_are_counted(tmp_path: Path, either: LoadRules) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"a\xff b\n" * 10 + b"\0c")
    text = TextFile("bad.txt", path, 0, path.stat().st_size)
    for errors, characters_read in (("replace", 52), ("ignore", 41)):
        counts = count_tokens([text], either, errors=errors)  # type: ignore[arg-type]
        assert counts.tokens == {b"a": 10, b"b": 10, b"c": 1}
        assert (counts.mended_bytes, counts.characters) == (11, characters_read)
    counts = count_tokens([text], unicode_rules, errors="replace")
    assert counts.tokens == {b"a": 10, b"b": 10, b"c": 1}  # U+FFFD is no letter
    with pytest.raises(InputError, match=r"bad\.txt, line 11, byte 50: NUL|bad\.txt, line 1, byte 1 "):
        count_tokens([text], either)


def test_an_error_in_a_worker_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks_of(monkeypatch, 10, 2)
    path = tmp_path / "bad.txt"
    path.write_bytes(b"some words\n" * 20 + b"\xe9\n" + b"some words\n" * 20)
    text = TextFile("bad.txt", path, 0, path.stat().st_size)
    with pytest.raises(InputError, match=r"bad\.txt, line 21, byte 220 \(0xe9\)"):
        count_tokens([text], unicode_rules, workers=2)


def test_counts_merge() -> None:
    one = Counts(Counter({b"a": 2}), 5, 1)
    one.merge(Counts(Counter({b"a": 1, b"b": 3}), 7, 2))
    assert one == Counts(Counter({b"a": 3, b"b": 3}), 12, 3)


def test_characters_of_cleaned_words_do_not_depend_on_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = write(tmp_path, ["one two\nthree\nfour\n"])

    def load() -> Rules:
        return Rules(ascii_words(), characters())

    whole = count_tokens(found, load).tokens
    blocks_of(monkeypatch, 4, 64)
    assert count_tokens(found, load).tokens == whole


# --- the stage ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder, SAMPLE)
    return folder


CLEANERS = [Named("ascii-words"), Named("unicode-words"), Named("none")]


@pytest.mark.parametrize("cleaner", CLEANERS, ids=lambda cleaner: cleaner.name)
def test_the_dictionary_is_the_same_for_any_division_of_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleaner: Named
) -> None:
    tokenizer = Named("characters" if cleaner.name == "none" else "whitespace")
    names = sorted(str(path) for path in folder.iterdir())

    def build(inputs: list[str], workers: int = 1) -> bytes:
        build_dict(inputs, tmp_path / "dict", cleaner=cleaner, tokenizer=tokenizer, workers=workers)
        return (tmp_path / "dict").read_bytes()

    expected = build([str(folder)])
    assert load_vocabulary(tmp_path / "dict").kept > 5
    assert build(names[::-1]) == expected
    assert build([names[1], str(folder)]) == expected
    for size, group in ((1, 1), (7, 3), (50, 2)):
        blocks_of(monkeypatch, size, group)
        assert build(names[1:] + names[:1]) == expected
    assert build(names[::-1], workers=2) == expected
    if cleaner.name == "ascii-words":  # threads
        assert build(names, workers=3) == expected
        without_native(monkeypatch)
        assert build(names) == expected


def test_the_dictionary_is_the_same_with_three_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_dict([str(folder)], tmp_path / "one", workers=1)
    blocks_of(monkeypatch, 30, 2)
    build_dict([str(folder)], tmp_path / "three", workers=3)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_the_dictionary_does_not_depend_on_the_hash_seed(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rnnpipe.pipeline.dictionary import build_dict\n"
        "from rnnpipe.text.rules import Named\n"
        "for name in ('ascii-words', 'unicode-words'):\n"
        "    build_dict([sys.argv[1]], Path(sys.argv[2] + name), cleaner=Named(name))"
    )
    found = []
    for seed in ("1", "2"):
        out = tmp_path / f"seed-{seed}-"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C" if seed == "1" else "C.UTF-8"}
        subprocess.run([sys.executable, "-c", program, str(folder), str(out)], check=True, env=environment)
        found.append([Path(f"{out}{name}").read_bytes() for name in ("ascii-words", "unicode-words")])
    assert found[0] == found[1]


def test_counts_at_and_below_the_threshold_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("four " * 4 + "three " * 3 + "one\n")
    built = build_dict([str(tmp_path / "a.txt")], tmp_path / "dict")
    assert built.vocabulary == load_vocabulary(tmp_path / "dict")
    assert (built.vocabulary.tokens, built.vocabulary.counts) == (("four", "three", "one"), (4, 3, 1))
    assert built.vocabulary.kept == 1
    lines = (tmp_path / "dict").read_text().splitlines()
    assert lines[1:] == ["4\tfour", "3\tthree", "1\tone"]


def test_the_dictionary_says_what_it_counted(folder: Path, tmp_path: Path) -> None:
    import hashlib

    vocabulary = build_dict([str(folder)], tmp_path / "dict", unknown_threshold=2, max_size=9).vocabulary
    assert vocabulary.rules == TextRules(Named("unicode-words"), Named("whitespace"))
    assert (vocabulary.unknown_threshold, vocabulary.max_size, vocabulary.kept) == (2, 9, 9)
    assert vocabulary.characters == sum(len(content.replace("\r\n", "\n")) for content in SAMPLE)
    assert list(vocabulary.counted) == [
        {
            "name": f"{number}.txt",
            "bytes": len(content.encode()),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
            "part": "all",
        }
        for number, content in enumerate(SAMPLE)
    ]


def test_an_up_to_date_dictionary_is_left_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dict"
    assert not build_dict([str(folder)], out, skip=True).skipped
    before = out.stat().st_ino
    assert build_dict([str(folder)], out, skip=True).skipped
    assert out.stat().st_ino == before
    assert not build_dict([str(folder)], out, skip=True, unknown_threshold=2).skipped
    assert not build_dict([str(folder)], out, skip=True, unknown_threshold=2, max_size=5).skipped
    (folder / "0.txt").write_text("other text " * 9)
    assert not build_dict([str(folder)], out, skip=True, unknown_threshold=2, max_size=5).skipped


def test_nothing_to_keep_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("?! ...\n")
    with pytest.raises(InputError, match=r"a\.txt: no token is left after cleaner 'unicode-words'"):
        build_dict([str(path)], tmp_path / "dict")
    path.write_text("one two two\n")
    with pytest.raises(InputError, match=r"no token occurs more than 3 times \(the most frequent: 2\)"):
        build_dict([str(path)], tmp_path / "dict")
    with pytest.raises(InputError, match="is a directory"):
        build_dict([str(path)], tmp_path)
    with pytest.raises(UsageError, match=r"unknown cleaner 'unicode-word'\. Did you mean 'unicode-words'"):
        build_dict([str(path)], tmp_path / "dict", cleaner=Named("unicode-word"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_the_dictionary_never_replaces_its_input(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("my only copy " * 9)
    with pytest.raises(InputError):
        build_dict([str(path)], path)
    assert path.read_text() == "my only copy " * 9


def test_a_dictionary_in_the_folder_is_not_counted(folder: Path) -> None:
    out = folder / "dict.txt"
    build_dict([str(folder)], out)
    before = out.read_bytes()
    with contextlib.suppress(InputError):
        build_dict([str(folder)], out)
    assert out.read_bytes() == before


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_a_file_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("word " * 9)
    build_dict([str(path)], tmp_path / "dict")
    assert load_vocabulary(tmp_path / "dict").tokens == ("word",)


# --- counts larger than memory ---


@pytest.mark.parametrize("cleaner", CLEANERS[:2], ids=lambda cleaner: cleaner.name)
@pytest.mark.parametrize("with_c", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_dictionary_is_the_same_under_any_cap(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleaner: Named, with_c: bool, workers: int
) -> None:
    """Memory for nothing at all, so that each block of counts becomes a run."""
    if not with_c:
        without_native(monkeypatch)
        workers = 1
    (folder / "odd.txt").write_text(
        "\\back \u0085 \u2028 x " + "often " * 300 + "so " * 129 + "many " * 128 + "k" * 40 + " "
    )
    built = build_dict([str(folder)], tmp_path / "whole", cleaner=cleaner, unknown_threshold=1)
    assert built.in_memory is not None
    blocks_of(monkeypatch, 40, 2)
    monkeypatch.setattr(Spill, "count_bytes", 0)
    spilled = build_dict([str(folder)], tmp_path / "spilled", cleaner=cleaner, unknown_threshold=1, workers=workers)
    assert spilled.in_memory is None
    assert (tmp_path / "spilled").read_bytes() == (tmp_path / "whole").read_bytes()
    assert spilled.summary == built.summary
    assert spilled.vocabulary == built.vocabulary
    capped = build_dict([str(folder)], tmp_path / "capped", cleaner=cleaner, unknown_threshold=1, max_size=3)
    assert capped.summary == replace(built.vocabulary, max_size=3).summary()
    with pytest.raises(InputError, match=r"no token occurs more than 9999 times \(the most frequent: 3"):
        build_dict([str(folder)], tmp_path / "none", cleaner=cleaner, unknown_threshold=9999)
    with pytest.raises(InputError, match="raise --max-memory"):
        build_dict([str(folder)], None, cleaner=cleaner)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["capped", "spilled", "texts", "whole"]


tokens_of_runs = st.dictionaries(st.text(max_size=20).map(str.encode), st.integers(1, 2**62), max_size=12)


@given(st.lists(tokens_of_runs, max_size=6), st.integers(2, 4), st.booleans())
@settings(deadline=None, max_examples=100)
def test_merged_runs_are_the_sum(counts: list[dict[bytes, int]], most_open: int, with_c: bool) -> None:
    expected: Counter[bytes] = Counter()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_MOST_OPEN", most_open)
        if not with_c:
            without_native(patch)
        spill = Spill(Path(name), 0)
        for some in counts:
            spill.write({token: count // 8 + 1 for token, count in some.items()})
            expected.update({token: count // 8 + 1 for token, count in some.items()})
        batches = list(spill.merged())
        assert not list(Path(name).iterdir())
    merged = [pair for batch in batches for pair in zip(batch.tokens(), batch.counts.tolist(), strict=True)]
    assert merged == sorted(expected.items())
    lengths = [length for batch in batches for length in batch.lengths().tolist()]
    assert lengths == [len(token.decode()) for token, _ in merged]


@given(st.lists(st.text(st.sampled_from("ab\0\u00e9"), max_size=20), max_size=30))
def test_a_drained_counter_is_a_run_and_empty(words: list[str]) -> None:
    counter = native.word_counter(Rules(none(), whitespace()))
    if counter is None:
        pytest.skip("the optional C module is not built")
    expected = Counter(word.encode() for word in " ".join(words).split())
    for _ in range(2):
        counter.update(" ".join(words).encode())
        assert counter.types() == len(expected)
        with tempfile.TemporaryDirectory() as name:
            spill = Spill(Path(name), 0)
            spill.drain(counter)
            drained = [(t, n) for b in spill.merged() for t, n in zip(b.tokens(), b.counts.tolist(), strict=True)]
        assert drained == sorted(expected.items())
        assert counter.types() == 0
        assert counter.counts() == {}


def test_a_counter_is_full_before_it_grows_beyond_the_limit() -> None:
    counter = native.word_counter(Rules(none(), whitespace()))
    if counter is None:
        pytest.skip("the optional C module is not built")
    assert not counter.full(10, 0)  # an empty one takes a block whatever it needs
    counter.update(b"one two")
    assert counter.full(10, 1024 * 32)
    assert not counter.full(10, 1024 * 32 + 10)
    assert counter.full(2000, 1024 * 32 + 2000)  # a thousand words more: it would grow
    assert not counter.full(2000, 3 * 1024 * 32 + 2000)
    counter.drain(1)
    with pytest.raises(RuntimeError, match="drain it to its end"):
        counter.update(b"three")


def test_a_run_cut_short_is_an_error() -> None:
    if not native.NATIVE:
        pytest.skip("the optional C module is not built")
    for data in (b"\1", b"\5\0\0\0" + bytes(8) + b"abc"):
        with pytest.raises(ValueError, match="ends within a record"):
            native.run_merger((io.BytesIO(data).read,))
