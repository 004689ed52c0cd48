"""Words by slots in NumPy against `bytes.split` and a Counter, for any bytes, with many words for few slots."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnpipe.text import word_slots
from rnnpipe.text.word_slots import SlotCounter, SlotEncoder, find_words

PIECES = [
    b"a",
    b"b",
    b"the",
    b" ",
    b"  ",
    b"\n",
    b"\t",
    b"\x0b",
    b"\x1c",
    b"\x00",
    b"\xff",
    b"-",
    b"eight--8",
    b"nine----9",
]
PIECES += [b"sixteen-letters-", b"seventeen-letters", b"eighteen-letters-x", b"\x00" * 8]
blocks = st.one_of(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join), st.binary(max_size=60))


@pytest.fixture(params=[1, 5, 17])
def bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make so many bits of slots."""
    monkeypatch.setattr(word_slots, "_BITS", request.param)
    monkeypatch.setattr(word_slots, "_SLOTS", 1 << request.param)
    return int(request.param)


class Ids(dict[bytes, int]):
    def __missing__(self, word: bytes) -> int:
        return 999


def check(texts: list[bytes]) -> None:
    counter = SlotCounter()
    for text in texts:
        found = find_words(text)
        assert [found.word(at) for at in range(len(found.starts))] == text.split()
        counter.update(text)
    expected = Counter(word for text in texts for word in text.split())
    assert counter.counts() == expected
    known = [word for word, _ in expected.most_common()][::2]
    known += [b"no word", b""]  # what no block can have
    encoder = SlotEncoder(known, Ids({word: number for number, word in enumerate(known)}))
    ids = {word: number for number, word in enumerate(known)}
    for text in texts:
        assert encoder.encode(text).tolist() == [ids.get(word, 999) for word in text.split()]


@pytest.mark.usefixtures("bits")
def test_many_words() -> None:
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefgh\x00\xff", k=rng.randrange(1, 20))) for _ in range(2000)]
    check([b" ".join(rng.choices(words, k=5000)), b"\n".join(rng.choices(words, k=5000)), b""])


@given(texts=st.lists(blocks, max_size=3))
@settings(deadline=None, max_examples=150)
@example(texts=[b"", b" ", b"a\x00 a a\x00\x00 aa", b"x" * 16 + b" " + b"x" * 17])
def test_as_split_and_counter(texts: list[bytes]) -> None:
    check(texts)


@given(texts=st.lists(blocks, max_size=3))
@settings(deadline=None, max_examples=80)
def test_as_split_and_counter_with_two_slots(texts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_slots, "_BITS", 1)
        patch.setattr(word_slots, "_SLOTS", 2)
        check(texts)


def test_most_words_of_a_text_have_slots() -> None:
    rng = np.random.default_rng(0)
    words = [b"%x" % number for number in range(20_000)]
    text = b" ".join(words[number] for number in np.minimum(rng.zipf(1.2, 50_000), 19_999))
    counter = SlotCounter()
    counter.update(text)
    assert sum(counter._others.values()) < 0.05 * len(text.split())
