"""Stop strings and ends of sentences: found with the token that completes them, cut where they begin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.generation.stops import Stops, can_occur
from rnnpipe.generation.tokens import Tokens

LETTERS = ["a", "b", " ", ".", "!", "。", "」"]
WORDS = ["a", "ab", "b.", "ba"]


def tokens(texts: list[str], between: str) -> Tokens:
    """Return tokens with the two specials behind them."""
    ids = {text: number for number, text in enumerate(texts)}
    return Tokens([*texts, "<doc>", "<unk>"], len(texts), len(texts) + 1, ids, between.join)


@given(
    st.booleans(),
    st.lists(st.integers(0, 3), max_size=8),
    st.lists(st.text("ab. ", min_size=1, max_size=5), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_a_text_stops_with_the_token_that_completes_a_stop_string(
    letters: bool, drawn: list[int], strings: list[str]
) -> None:
    known = tokens(LETTERS if letters else WORDS, "" if letters else " ")
    stops = Stops(known, strings)
    for count in range(1, len(drawn) + 1):
        text = known.spell(drawn[:count])
        if places := [place for string in strings if (place := text.find(string)) >= 0]:
            assert stops(np.array(drawn[:count]))
            assert stops.cut(drawn[:count]) == text[: min(places)]
            return
        assert not stops(np.array(drawn[:count]))
        assert stops.cut(drawn[:count]) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a b. a", "a b."),
        ("a.b a", None),
        ("ab!.! b", "ab!.!"),
        ("a b", None),
        ("ab。ba", "ab。"),
        ("ab。」ba", "ab。」"),
    ],
)
def test_the_end_of_a_sentence(text: str, sentence: str | None) -> None:
    known = tokens(LETTERS, "")
    stops, ids = Stops(known, sentence=True), [LETTERS.index(character) for character in text]
    ends = [count for count in range(1, len(ids) + 1) if stops(np.array(ids[:count]))]
    assert stops.cut(ids) == (text if sentence is None else sentence)
    assert bool(ends) == (sentence is not None)


def test_what_stands_between_words_ends_a_sentence() -> None:
    known = tokens(WORDS, " ")
    assert not Stops(known, sentence=True)(np.array([0, 3]))
    assert Stops(known, sentence=True)(np.array([0, 3, 2]))
    assert Stops(known, sentence=True).cut([0, 2, 1]) == "a b."


@pytest.mark.parametrize(("texts", "between"), [(["a", "ab", "b"], " "), (["ab", "ba"], ""), (["aa", "b"], ", ")])
def test_a_string_can_occur_if_some_text_has_it(texts: list[str], between: str) -> None:
    known = tokens(texts, between)
    spelt = [between.join(text) for n in range(6) for text in itertools.product(texts, repeat=n)]
    for string in ("".join(each) for n in (1, 2, 3, 4) for each in itertools.product("ab, ", repeat=n)):
        assert can_occur(string, known) == any(string in text for text in spelt), string


def test_where_tokens_are_joined_in_another_way_it_is_not_known() -> None:
    known = tokens(["a", "b"], "")
    odd = Tokens(
        known.texts, known.boundary, known.unknown, known.ids, lambda parts: "+".join(parts).replace("+b", "b")
    )
    assert odd.between is None
    assert can_occur("zzz", odd)
    assert Stops(known, ["a", "z"]).impossible() == ["z"]
