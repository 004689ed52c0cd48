"""The C module against the pure-Python byte tables, whose results it must give for any bytes."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.text import points
from rnnpipe.text.cleaning import ByteTable, Cleaner, ascii_words, none
from rnnpipe.text.native import NATIVE, word_counter, word_encoder
from rnnpipe.text.rules import Rules
from rnnpipe.text.tokenizing import whitespace
from rnnpipe.text.unicode_words import unicode_words

native = pytest.importorskip(
    "rnnpipe.text._native", reason="the optional C module rnnpipe.text._native is not built", exc_type=ImportError
)
if not NATIVE:
    pytest.skip("the C module that is built is of an older version, or put out of use", allow_module_level=True)

ASCII = ascii_words().byte_table
assert ASCII is not None
IDENTITY = ByteTable(replacements=(), table=bytes(range(256)), delete=b"", drop_prefix=b"-")

# Letters, blanks of every kind, dashes, the two replaced characters whole and cut, NUL and invalid bytes.
PARTS = [
    *(b"a", b"Z", b"'", b"-", b"--", b" ", b"  ", b"\n", b"\r\n", b"\t", b"\x0b", b"\x0c", b"\x00", b"7", b"\x1c"),
    *(b"the", b" The ", b"-x", b"sixteen-letters-", b"seventeen-letters", b"a-word-of-more-than-thirty-two-letters"),
    *("\u212a".encode(), "\u0130".encode(), "\u212a".encode()[:1], "\u212a".encode()[:2], "\u0130".encode()[:1]),
    *(b"\xaa", b"\xb0", b"\x84\xaa", b"\xff", b"\xc0\x80", "caf\u00e9".encode(), "\u2019".encode(), "\u4e2d".encode()),
]
blocks = st.one_of(st.lists(st.sampled_from(PARTS), max_size=60).map(b"".join), st.binary(max_size=80))
# Few letters, so that patterns overlap, meet themselves and are made by earlier replacements.
narrow = st.lists(st.sampled_from([b"a", b"b", b"c", b"-", b" ", b"\x00"]), max_size=30).map(b"".join)
few = st.lists(st.sampled_from([b"a", b"b", b"c", b"-", b" ", b"\x00", b"xy"]), max_size=4).map(b"".join)
pairs = st.lists(st.tuples(few.filter(bool), few), max_size=3).map(tuple)


@st.composite
def tables(draw: st.DrawFn) -> ByteTable:
    table = bytearray(draw(st.sampled_from([bytes(range(256)), bytes(reversed(range(256))), bytes(256)])))
    changes = st.dictionaries(st.integers(0, 255), st.sampled_from(b"ab- \t\n\x00\xff"), max_size=30)
    for byte, to in draw(changes).items():
        table[byte] = to
    return ByteTable(
        replacements=draw(pairs),
        table=bytes(table),
        delete=draw(st.one_of(st.just(b""), st.binary(max_size=20), few)),
        drop_prefix=draw(st.sampled_from([b"-", b"", b"a", b"ab", b"\x00"])),
    )


def rules(table: ByteTable) -> tuple[tuple[tuple[bytes, bytes], ...], bytes, bytes, bytes]:
    return table.replacements, table.table, table.delete, table.drop_prefix


def counter(table: ByteTable) -> native.WordCounter:
    return native.WordCounter(rules(table))


def encoder(table: ByteTable, words: Sequence[bytes], unknown: int) -> native.WordEncoder:
    return native.WordEncoder(rules(table), words, unknown)


def expected_counts(table: ByteTable, texts: Sequence[bytes]) -> dict[bytes, int]:
    words = Counter(word for text in texts for word in table.words(text))
    return {word: number for word, number in words.items() if not word.startswith(table.drop_prefix)}


def expected_ids(table: ByteTable, words: Sequence[bytes], unknown: int, text: bytes) -> list[int]:
    ids = {word: number for number, word in enumerate(words)}
    return [
        ids.get(word, unknown) for word in table.words(text) if word in ids or not word.startswith(table.drop_prefix)
    ]


def check(table: ByteTable, texts: Sequence[bytes]) -> None:
    counts = counter(table)
    for text in texts:
        assert counts.update(text) is None
    expected = expected_counts(table, texts)
    assert list(counts.counts().items()) == list(expected.items())  # in the same order
    known = sorted({word for text in texts for word in table.words(text)})[::2]
    encode = encoder(table, known, 2**32 - 1).encode
    for text in texts:
        ids = np.frombuffer(encode(text), np.uint32)
        assert ids.tolist() == expected_ids(table, known, 2**32 - 1, text)


@given(st.lists(blocks, max_size=4))
def test_ascii_words_as_in_python(texts: list[bytes]) -> None:
    check(ASCII, texts)


@given(tables(), st.lists(st.one_of(blocks, narrow), max_size=3))
@settings(max_examples=300)
def test_any_table_as_in_python(table: ByteTable, texts: list[bytes]) -> None:
    check(table, texts)


@given(pairs, narrow)
@settings(max_examples=500)
def test_replacements_one_after_the_other(replacements: tuple[tuple[bytes, bytes], ...], text: bytes) -> None:
    check(ByteTable(replacements, bytes(range(256)), b"\x00", b"-"), [text])


@pytest.mark.parametrize(
    "replacements",
    [
        ((b"ab", b"c"), (b"ca", b"d")),  # the first makes matches of the second
        ((b"x", b""), (b"ab", b"c")),  # deleting brings a match together
        ((b"ab", b"c"), (b"bc", b"d")),  # overlapping
        ((b"aa", b"a"),),
        ((b"a", b" "), (b"b", b"long " * 2000)),
        ((b"\xc4", b" . " * 1300), (b"\xe2\x84", b" ")),
    ],
)
def test_unusual_replacements(replacements: tuple[tuple[bytes, bytes], ...]) -> None:
    rng = random.Random(1)
    texts = [bytes(rng.choices(b"abcx \xc4\xe2\x84", k=size)) for size in (0, 1, 10, 3000, 5000)]
    check(ByteTable(replacements, bytes(range(256)), b"", b"-"), texts)


def test_pieces_long_words_and_many_words() -> None:
    rng = random.Random(2)
    many = b" ".join(b"%x" % rng.randrange(50_000) * rng.choice((1, 1, 3, 8)) for _ in range(60_000))
    mixed = b"".join(rng.choices(PARTS, k=40_000))
    for table in (ASCII, IDENTITY):
        check(table, [many, mixed, many])
        for size in (4094, 4095, 4096, 4097, 8192, 100_000):  # the ends of the pieces in which a block is scanned
            for tail in (b"", b"\n", b" end", "\u212a".encode(), "\u212a".encode()[:2]):
                check(table, [b"k" * size + tail, b" " * size + tail, b"a " * (size // 2) + tail])


def test_nul_bytes_are_part_of_words() -> None:
    counts = counter(IDENTITY)
    counts.update(b"a a\x00 a\x00\x00 \x00 \x00\x00 a\x00")
    assert counts.counts() == {b"a": 1, b"a\x00": 2, b"a\x00\x00": 1, b"\x00": 1, b"\x00\x00": 1}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda text: np.frombuffer(text, np.uint8)])
@pytest.mark.parametrize("table", [IDENTITY, ByteTable(((b"a", b""),), IDENTITY.table, b"", b"-")])
def test_any_contiguous_buffer(table: ByteTable, kind: type[bytes]) -> None:
    counts = counter(table)
    counts.update(kind(b"one two one"))
    assert counts.counts() == {b"one": 2, b"two": 1}
    assert np.frombuffer(encoder(table, [b"two"], 1).encode(kind(b"one two")), np.uint32).tolist() == [1, 0]


@given(blocks, blocks)
def test_merge(first: bytes, second: bytes) -> None:
    one, two = counter(ASCII), counter(ASCII)
    one.update(first)
    two.update(second)
    before = two.counts()
    one.merge(two)
    assert list(one.counts().items()) == list(expected_counts(ASCII, [first, second]).items())
    assert two.counts() == before
    two.merge(two)
    assert two.counts() == {word: 2 * number for word, number in before.items()}


def test_a_word_of_the_vocabulary_is_never_dropped() -> None:
    encode = encoder(IDENTITY, [b"a", b"", b"-b", b"a"], 9).encode
    assert np.frombuffer(encode(b"a -b -c d - -"), np.uint32).tolist() == [3, 2, 9]  # as in a dict, the last "a" wins


def test_threads_share_an_encoder() -> None:
    rng = random.Random(3)
    texts = [b"".join(rng.choices(PARTS, k=5000)) for _ in range(40)]
    encode = encoder(ASCII, sorted(expected_counts(ASCII, texts))[::2], 7).encode
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encode, texts)) == [encode(text) for text in texts]


def test_one_counter_refuses_a_second_thread() -> None:
    counts, empty, sink = counter(ASCII), counter(ASCII), counter(ASCII)
    text = b"one two three " * 300_000
    refused = finished = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal refused, finished
        for method in [counts.update] * 8:
            try:
                method(text)
                with lock:
                    finished += 1
            except RuntimeError as error:
                assert "another thread" in str(error)
                with lock:
                    refused += 1
            for attempt in (counts.counts, lambda: counts.merge(empty), lambda: sink.merge(counts)):
                try:
                    attempt()
                except RuntimeError:
                    with lock:
                        refused += 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused > 0 < finished
    assert counts.counts() == dict.fromkeys((b"one", b"two", b"three"), finished * 300_000)


def test_errors() -> None:
    table = bytes(range(256))
    with pytest.raises(ValueError, match="256"):
        native.WordCounter(((), table[1:], b"", b"-"))
    with pytest.raises(ValueError, match="empty"):
        native.WordCounter((((b"", b"a"),), table, b"", b"-"))
    for replacements in ([], (b"ab",), ((b"a",),), ((b"a", "b"),), ([b"a", b"b"],)):
        with pytest.raises(TypeError):
            native.WordCounter((replacements, table, b"", b"-"))
    with pytest.raises(TypeError):
        native.WordCounter(((), table, "", b"-"))
    counts = counter(IDENTITY)
    for block in ("text", None, 3):
        with pytest.raises(TypeError):
            counts.update(block)
    with pytest.raises(BufferError):
        counts.update(memoryview(b"abcd")[::2])
    with pytest.raises(TypeError):
        counts.merge({})
    assert counts.counts() == {}
    for unknown in (-1, 2**32):
        with pytest.raises(ValueError, match="unknown"):
            encoder(IDENTITY, [], unknown)
    with pytest.raises(TypeError):
        encoder(IDENTITY, ["a"], 0)
    with pytest.raises(TypeError):
        encoder(IDENTITY, [], 0).encode("text")


def test_arguments_are_given_back() -> None:
    pair = (b"\xc4\xb0" * 5, b"i" * 3)
    words = [b"w" * size for size in range(2, 40)]  # bytes of length 1 are shared by everybody
    table = ByteTable((pair,), bytes(range(256)), b"-+", b"a prefix")
    given_objects = [pair, *pair, table.replacements, table.table, table.delete, table.drop_prefix, words, *words]
    before = [sys.getrefcount(one) for one in given_objects]
    for _ in range(10):
        check(table, [b" ".join(words)])
        encoder(table, words, 0)
        for bad in ((b"", b"x"), (b"x",)):
            with pytest.raises((ValueError, TypeError)):
                native.WordCounter(((pair, bad), table.table, table.delete, table.drop_prefix))
        with pytest.raises(TypeError):
            encoder(table, [*words, "x"], 0)
    gc.collect()
    assert [sys.getrefcount(one) for one in given_objects] == before


# --- words by code point ---

# Letters of several scripts, marks that compose and marks that are put in order, what changes length or depends on its
# neighbours in lower case, joiners, symbols, invisible characters, blanks, ends of pages and planes.
CHARACTERS = (
    "aZ09_-'\u2019\u02bc\u2010\u2011 .,=<!\t\n\r\x0b\x1c\x85\xa0\u2028\u3000"
    "\u00e9\u00c9\u0301\u0323\u0338\u0345\u0307\u05b4\u05bc\u05e9\u0651\u064e\u0628"
    "\u03a3\u03c3\u03c2\u0391\u0130\u0131\u1e9e\u00df\ufb01\u212a\u212b\u03d4\u01c5\u0149"
    "\u00ad\u200b\u200c\u200d\u2060\ufeff\u0915\u094d\u09c7\u09be\u1100\u1161\u11a8\uac00\uac01"
    "\u304b\u3099\u304c\u4e2d\u2f00\uf900\uff21\u00b2\u00bd\u2160\u1d15e"
    "\u00ff\u0100\uffff\U00010000\U00010400\U0001d400\U0001f600\U000e0001\U0010ffff"
)
unicode_texts = st.one_of(
    st.text(st.sampled_from(CHARACTERS), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.lists(
        st.sampled_from(["The", "\u03a3\u03a3", "e\u0301", "don\u2019t", " ", "-", "\n", "a.b", "=\u0338"]), max_size=20
    ).map("".join),
)
FORMS = ("NFC", "NFKC", "NFD", "NFKD")
CLEANERS = [
    none(),
    *(unicode_words(lower, symbols, form) for form in FORMS for lower in (True, False) for symbols in (True, False)),
]  # type: ignore[arg-type]


def check_points(cleaner: Cleaner, texts: Sequence[str]) -> None:
    by_rules = Rules(cleaner, whitespace())
    counter, expected = word_counter(by_rules), Counter()
    assert counter is not None
    for text in texts:
        counter.update(text.encode())
        expected.update(word.encode() for word in by_rules.tokenize(text.replace("\r\n", "\n").replace("\r", "\n")))
    assert counter.counts() == expected
    known = sorted(expected)[::2]
    encoder = word_encoder(by_rules, known, len(known))
    assert encoder is not None
    ids = {word: number for number, word in enumerate(known)}
    for text in texts:
        words = by_rules.tokenize(text.replace("\r\n", "\n").replace("\r", "\n"))
        received = np.frombuffer(encoder.encode(text.encode()), np.uint32)
        assert received.tolist() == [ids.get(word.encode(), len(known)) for word in words]


@pytest.mark.parametrize("cleaner", CLEANERS, ids=range(len(CLEANERS)))
@given(texts=st.lists(unicode_texts, max_size=3))
@settings(deadline=None, max_examples=150)
def test_words_by_code_point_as_by_rules(cleaner: Cleaner, texts: list[str]) -> None:
    check_points(cleaner, texts)


def test_every_code_point_among_letters() -> None:
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for cleaner in (unicode_words(), unicode_words(punctuation=True, form="NFKC")):
        for start in range(0, 0x20000, 64):
            check_points(
                cleaner, ["".join(f"a{chr(p)}b {chr(p)}c {chr(p)}{chr(p)}\n" for p in points[start : start + 64])]
            )


def test_many_words_by_code_point() -> None:
    rng = random.Random(4)
    for size in (0, 1, 1000, 30_000):
        text = "".join(rng.choices(CHARACTERS + "abcde \n" * 20, k=size))
        for cleaner in (CLEANERS[0], unicode_words(), unicode_words(punctuation=True)):
            check_points(cleaner, [text, "x" * size, text + "\u03a3"])


def test_a_block_that_is_not_utf8_or_has_rules_that_fail() -> None:
    counter = word_counter(Rules(unicode_words(), whitespace()))
    assert counter is not None
    for bad in (b"a \xff", b"\xe2\x84", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"):
        with pytest.raises(ValueError, match="not UTF-8"):
            counter.update(bad)

    def fail(*_: object) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        native.WordCounter((fail, fail)).update(b"a")
    with pytest.raises(ZeroDivisionError):
        native.WordCounter((lambda number: points.page(unicode_words().point_entry, number), fail)).update(
            "\u03a3".encode()
        )
    with pytest.raises(ValueError, match="256 entries"):
        native.WordCounter((lambda number: b"", fail)).update(b"a")
    with pytest.raises(TypeError, match="functions"):
        native.WordCounter((1, 2))


@given(st.one_of(st.binary(max_size=40), unicode_texts.map(str.encode), blocks))
@settings(max_examples=400)
def test_characters_are_counted_as_in_python(raw: bytes) -> None:
    try:
        text = raw.decode()
        expected = len(text.replace("\r\n", "\n")) if "\0" not in text else -1
    except UnicodeDecodeError:
        expected = -1
    assert native.characters(raw) == expected
