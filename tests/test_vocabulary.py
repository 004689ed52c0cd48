"""The vocabulary: order, thresholds and specials; and the dictionary file, whole and damaged."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import unsealed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnpipe.errors import InputError
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import DOC, UNK, Vocabulary, build_vocabulary, escape, load_vocabulary, unescape

RULES = TextRules(Named("unicode-words", {"punctuation": True}), Named("whitespace"))
AWKWARD = "\\\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029 \0\x7f\u00a0\ufeff'\"<>ut\u65e5\U0001f600"
tokens = st.one_of(st.text(max_size=6), st.text(st.sampled_from(AWKWARD), max_size=6)).filter(
    lambda token: not re.search("[\ud800-\udfff]", token)
)
counted = st.dictionaries(tokens.map(str.encode), st.integers(1, 9), max_size=12)


def build(counts: dict[bytes, int], **options: Any) -> Vocabulary:
    return build_vocabulary(counts, RULES, **options)


@contextmanager
def file_of(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dictionary"
        path.write_bytes(data)
        yield path


def load(data: bytes) -> Vocabulary:
    with file_of(data) as path:
        return load_vocabulary(path)


SMALL = build({b"the": 9, b"of": 5, b"a": 5, b"\xc3\xa9": 5, b"b\tc": 4, b"rare": 1}, characters=99)


# --- ids ---


def test_ids_go_by_descending_count_then_bytes() -> None:
    counts = {"z": 2, "b": 5, "a": 5, "Z": 5, "\u00e9": 5, "\ue000": 5, "\U0001f600": 5, "ab": 5, "c": 7}
    vocabulary = build({token.encode(): number for token, number in counts.items()}, unknown_threshold=0)
    assert vocabulary.tokens == ("c", "Z", "a", "ab", "b", "\u00e9", "\ue000", "\U0001f600", "z")
    assert vocabulary.counts == (7, 5, 5, 5, 5, 5, 5, 5, 2)
    assert vocabulary.encode(vocabulary.tokens).tolist() == list(range(9))
    assert [vocabulary.token(number) for number in range(9)] == list(vocabulary.tokens)


def test_a_token_at_the_threshold_is_unknown_and_one_above_is_known() -> None:
    vocabulary = build({b"four": 4, b"three": 3, b"two": 2}, unknown_threshold=3)
    assert vocabulary.kept == 1
    assert vocabulary.encode(["four", "three", "two", "none"]).tolist() == [0, 2, 2, 2]
    assert build({b"four": 4, b"three": 3}).kept == 1  # 3 is the default
    assert build({b"one": 1}, unknown_threshold=0).kept == 1
    assert build({b"one": 1}, unknown_threshold=1).kept == 0


def test_the_largest_size_keeps_the_most_frequent() -> None:
    counts = {b"a": 9, b"b": 8, b"c": 8, b"d": 1}
    assert build(counts, max_size=2, unknown_threshold=0).ids == {"a": 0, "b": 1}
    assert build(counts, max_size=2, unknown_threshold=8).ids == {"a": 0}
    assert build(counts, max_size=99, unknown_threshold=0).kept == 4


@given(counted, st.integers(0, 9), st.none() | st.integers(1, 9))
@settings(deadline=None)
def test_what_is_kept(counts: dict[bytes, int], threshold: int, most: int | None) -> None:
    vocabulary = build(counts, unknown_threshold=threshold, max_size=most)
    expected = sorted((-number, token) for token, number in counts.items() if number > threshold)[:most]
    assert vocabulary.ids == {token.decode(): number for number, (_, token) in enumerate(expected)}
    assert vocabulary.size == len(expected) + 2
    assert (vocabulary.doc_id, vocabulary.unk_id) == (len(expected), len(expected) + 1)
    assert vocabulary.total == sum(counts.values())
    assert vocabulary.covered == sum(-number for number, _ in expected)
    assert vocabulary.coverage == (vocabulary.covered / vocabulary.total if counts else 0)


def test_text_cannot_produce_a_special() -> None:
    vocabulary = build({b"<unk>": 9, b"<doc>": 8, b"word": 7})
    assert vocabulary.encode(["<unk>", "<doc>", "word", "other"]).tolist() == [0, 1, 2, 4]
    assert (vocabulary.doc_id, vocabulary.unk_id, vocabulary.size) == (3, 4, 5)
    assert vocabulary.token(vocabulary.doc_id) == DOC
    assert vocabulary.token(vocabulary.unk_id) == UNK
    again = load(vocabulary.to_bytes())
    assert again.encode(["<unk>", "<doc>"]).tolist() == [0, 1]
    ordinary = build({b"word": 7})
    assert ordinary.encode([UNK, DOC]).tolist() == [ordinary.unk_id] * 2  # unknown words, not the boundary


def test_ids_outside_are_errors() -> None:
    for number in (-1, SMALL.size, 10**6):
        with pytest.raises(KeyError):
            SMALL.token(number)


def test_encoding_gives_an_array() -> None:
    ids = SMALL.encode([])
    assert ids.dtype == np.uint32
    assert ids.shape == (0,)


@given(counted, st.integers(0, 9), st.integers(0, 9), st.none() | st.integers(1, 9))
@settings(deadline=None)
def test_another_threshold_is_as_if_built_with_it(
    counts: dict[bytes, int], first: int, second: int, most: int | None
) -> None:
    moved = build(counts, unknown_threshold=first, max_size=3).with_threshold(second, most)
    built = build(counts, unknown_threshold=second, max_size=most)
    assert moved == built
    assert moved.ids == built.ids
    assert moved.digest == built.digest


# --- the file ---


@given(tokens)
@settings(deadline=None)
@example("\\")
@example("\\n")
@example("\\u0085")
def test_escapes_come_back(token: str) -> None:
    escaped = escape(token)
    assert unescape(escaped) == token
    assert "\t" not in escaped
    assert len(escaped.splitlines()) <= 1
    assert escaped.splitlines() == ([escaped] if escaped else [])


@pytest.mark.parametrize("text", ["\\", "a\\", "\\x41", "\\U0041", "\\u12", "\\u00G0", "\\u00AB", "\\\\\\", "\\ "])
def test_wrong_escapes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no escape; accepted"):
        unescape(text)


records = st.lists(
    st.fixed_dictionaries(
        {
            "name": tokens,
            "bytes": st.integers(0, 10**12),
            "sha256": st.sampled_from(["0f", "a1"]),
            "part": st.just("all"),
        }
    ),
    max_size=3,
)


@given(counted, st.integers(0, 9), st.none() | st.integers(1, 9), records, st.integers(0, 10**12))
@settings(deadline=None)
@example({token.encode(): 1 for token in AWKWARD}, 0, None, [], 0)
def test_save_and_load(
    counts: dict[bytes, int], threshold: int, most: int | None, texts: list[dict[str, Any]], characters: int
) -> None:
    vocabulary = build(counts, unknown_threshold=threshold, max_size=most, counted=texts, characters=characters)
    with file_of(b"an older one") as path:
        vocabulary.save(path)
        loaded = load_vocabulary(path)
        assert loaded == vocabulary
        assert loaded.digest == vocabulary.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        lines = path.read_bytes().decode().splitlines()
    if not any(re.search("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text["name"]) for text in texts):
        assert len(lines) == 1 + len(counts)  # for any reader's idea of a line
        assert all(line.count("\t") == 1 for line in lines[1:])


def test_the_order_of_what_was_counted_does_not_matter() -> None:
    texts = [{"name": name, "sha256": digest} for name, digest in (("b", "1"), ("a", "2"), ("a", "1"))]
    assert build({b"a": 5}, counted=texts) == build({b"a": 5}, counted=texts[::-1])


def test_the_file_is_as_documented() -> None:
    data = SMALL.to_bytes().decode()
    header, *lines = data.split("\n")
    seal = json.loads(header)["sha256"]
    assert seal == hashlib.sha256(data.replace(f', "sha256": "{seal}"', "").encode()).hexdigest()
    assert lines == ["9\tthe", "5\ta", "5\tof", "5\t\u00e9", "4\tb\\tc", "1\trare", ""]
    assert json.loads(header) == {
        "format": "rnnpipe-dictionary",
        "version": 1,
        "cleaner": {"name": "unicode-words", "punctuation": True},
        "tokenizer": {"name": "whitespace"},
        "unknown_threshold": 3,
        "max_size": None,
        "totals": {"characters": 99, "tokens": 29, "types": 6},
        "counted": [],
        "sha256": seal,
    }


# --- damage ---


def test_no_such_dictionary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: no such dictionary; `rnnpipe build-dict"):
        load_vocabulary(tmp_path / "missing")
    with pytest.raises(InputError, match="is a directory"):
        load_vocabulary(tmp_path)


def with_header(**changes: Any) -> bytes:
    line, _, body = SMALL.to_bytes().partition(b"\n")
    header = {**json.loads(line), "sha256": ..., **changes}
    return json.dumps({key: value for key, value in header.items() if value is not ...}).encode() + b"\n" + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: not a dictionary of rnnpipe"),
        (b"\n", "line 1: not a dictionary"),
        (b"the 9\nof 5\n", "line 1: not a dictionary"),
        (b"[1]\n", "line 1: not a dictionary"),
        (b"\xff\xfe{}\n", "line 1: not a dictionary"),
        (b"[" * 200_000 + b"\n", "line 1: not a dictionary"),
        (b'{"format": ' + b"9" * 5000 + b"}\n", "line 1: not a dictionary"),
        (with_header(format="other"), "line 1: not a dictionary"),
        (with_header(version=2), "line 1: format version 2; this rnnpipe reads 1"),
        (with_header(version=...), "line 1: format version None"),
        (with_header(unknown_threshold=-2), "line 1: unknown_threshold is -2"),
        (with_header(unknown_threshold="3"), "line 1: unknown_threshold is '3'"),
        (with_header(unknown_threshold=True), "line 1: unknown_threshold is True"),
        (with_header(max_size=1.5), r"line 1: max_size is 1\.5"),
        (with_header(totals=None), "line 1: totals is None"),
        (with_header(totals={"characters": 0, "tokens": 29}), "line 1: totals is"),
        (with_header(counted={}), "line 1: counted is {}"),
        (with_header(counted=[1]), "line 1: counted is"),
        (with_header(cleaner=...), "line 1, cleaner: expected a name"),
        (with_header(tokenizer={"nom": "x"}), "line 1, tokenizer: expected a name"),
        (with_header(totals={"characters": 0, "tokens": 29, "types": 7}), "promises 7 types and 29 tokens"),
        (with_header(totals={"characters": 0, "tokens": 28, "types": 6}), "promises 6 types and 28 tokens"),
    ],
    ids=range(22),
)
def test_a_damaged_header(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"5\tof", b"5 of", "line 4: expected `count TAB token`; received b'5 of"),
        (b"5\tof", b"\tof", "line 4: expected `count TAB token`"),
        (b"5\tof", b"-5\tof", "line 4: expected `count TAB token`"),
        (b"5\tof", b"5.0\tof", "line 4: expected"),
        (b"5\tof", b"\xd9\xa5\tof", "line 4: expected"),
        (b"5\tof", b"5" * 5000 + b"\tof", "line 4: expected"),
        (b"5\tof\n", b"\n5\tof\n", "line 4: expected"),
        (b"5\tof", b"5\t\xff", "line 4: .*utf-8"),
        (b"5\tof", rb"5	\x", r"line 4: '\\x' is no escape"),
        (b"5\tof", rb"5	\ud800", "line 4: .*surrogates"),
        (b"5\tof", b"5\ta", "line 4: out of order or twice"),
        (b"5\tof", b"5\tA", "line 4: out of order or twice"),
        (b"5\tof", b"6\tof", "line 4: out of order or twice"),
        (b"1\trare\n", b"1\trare", "line 7: expected"),
        (b"1\trare\n", b"", "promises 6 types and 29 tokens, the file has 5 and 28: it is damaged or was cut"),
        (b"1\trare\n", b"1\trare\n\n", "line 8: expected"),
        (b"1\trare\n", b"1\trare\n1\tsuch\n", "line 8: one more than the 6 types that the first line promises"),
        (b"1\trare\n", b"1\tof\n", "'of' stands in two lines"),
    ],
    ids=range(18),
)
def test_a_damaged_line_is_named(old: bytes, new: bytes, message: str) -> None:
    data = SMALL.to_bytes()
    assert data.count(old) == 1
    with pytest.raises(InputError, match=message):
        load(data.replace(old, new))


def test_a_header_without_its_largest_size() -> None:
    with pytest.raises(InputError, match="line 1: max_size"):
        load(with_header(max_size=...))


@pytest.mark.parametrize("record", [{}, {"name": "a.txt"}, {"name": 3, "bytes": 1, "sha256": "0", "part": "all"}])
def test_a_record_of_a_counted_text_is_checked(record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="line 1: counted"):
        load(with_header(counted=[record]))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_any_damage_is_named_or_gives_a_dictionary(data: st.DataObject) -> None:
    damaged = bytearray(unsealed(SMALL.to_bytes()))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["flip", "set", "delete", "insert"]))
        if kind == "flip":
            damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "set":
            damaged[place] = data.draw(st.sampled_from(b'\0\t\n\r\\"{}[],:0159-.e\xff'))
        elif kind == "delete":
            del damaged[place : place + data.draw(st.integers(1, 5))]
        else:
            damaged[place:place] = data.draw(st.binary(max_size=4))
        if not damaged:
            break
    check_damaged(bytes(damaged))


@given(st.integers(0, len(SMALL.to_bytes()) - 1))
@settings(deadline=None)
def test_a_cut_file_is_never_read(length: int) -> None:
    with pytest.raises(InputError):
        load(SMALL.to_bytes()[:length])


@given(st.binary(max_size=60), st.booleans())
@settings(deadline=None)
def test_any_bytes(data: bytes, after_the_header: bool) -> None:
    check_damaged(SMALL.to_bytes().split(b"\n")[0] + b"\n" + data if after_the_header else data)


def check_damaged(data: bytes) -> None:
    if b'"max_size": ' not in data and b'"version": 1' in data:
        return  # see the test before this one
    try:
        vocabulary = load(data)
    except InputError as error:
        assert re.search(r"dictionary(, line \d+|: the first line promises)", str(error))
        return
    assert load(vocabulary.to_bytes()) == vocabulary  # what is accepted is a dictionary in every respect
    assert len(vocabulary.ids) == vocabulary.kept
    assert vocabulary.encode(vocabulary.tokens[: vocabulary.kept]).tolist() == list(range(vocabulary.kept))
