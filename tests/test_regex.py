"""Regular expressions as automata: the same whole texts match as in Python's `re`."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.errors import UsageError
from rnnpipe.generation.regex import MOST_REPEATS, compile_regex, escape

ALPHABET = "ab1 \n-"
TEXTS = ["".join(text) for length in range(5) for text in itertools.product(ALPHABET, repeat=length)]

ITEMS = st.sampled_from(
    ["a", "b", "1", " ", "-", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\n", r"\.", "[ab]", "[^a]", "[a-b1]",
     r"[\d-]", r"[^\w\n]", "[]a]", "(?:a|)", "()"]
)  # fmt: skip
EXPRESSIONS = st.recursive(
    ITEMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + "|".join(parts) + ")"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,}", "{0,2}"])).map(lambda it: f"({it[0]}){it[1]}"),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
@settings(max_examples=150, deadline=None)
def test_it_matches_what_re_matches(expression: str) -> None:
    automaton, reference = compile_regex(expression, ALPHABET), re.compile(expression)
    for text in TEXTS:
        assert automaton.matches(text) == bool(reference.fullmatch(text)), text


@given(st.text())
def test_an_escaped_text_matches_itself_alone(text: str) -> None:
    automaton = compile_regex(escape(text), {*text, "x"})
    assert automaton.matches(text)
    assert not automaton.matches(text + "x")
    assert bool(text) != automaton.matches("")


def test_a_character_outside_the_alphabet_matches_nothing() -> None:
    assert not compile_regex(".", "ab").matches("c")


@pytest.mark.parametrize(
    ("expression", "place", "reason"),
    [
        ("^a", 1, "whole text must match"),
        ("a$", 2, "whole text must match"),
        ("a**", 3, "lazy"),
        ("a+?", 3, "lazy"),
        ("(?=a)", 2, "only (...) and (?:...)"),
        ("(?P<n>a)", 2, "only (...) and (?:...)"),
        (r"(a)\1", 5, "not accepted"),
        (r"\b", 2, "not accepted"),
        ("*a", 1, "nothing to repeat"),
        ("(a", 3, "expected ')'"),
        ("a)", 2, "')' without '('"),
        ("[ab", 4, "ends in the middle"),
        ("a\\", 3, "ends in the middle"),
        ("[b-a]", 5, "wrong way round"),
        ("a{2,1}", 3, "with m up to n"),
        ("a{x}", 3, "with m up to n"),
        (f"a{{{MOST_REPEATS + 1}}}", 3, "at most"),
        ("a{" + "9" * 5000 + "}", 3, "at most"),
    ],
)
def test_what_is_not_read_is_told_with_its_place(expression: str, place: int, reason: str) -> None:
    with pytest.raises(UsageError, match=f"character {place}: .*{re.escape(reason)}"):
        compile_regex(expression, ALPHABET)


@pytest.mark.parametrize("expression", ["(" * 4000 + "a" + ")" * 4000, "((a{99}){99}){99}", "(a|b)*a(a|b){20}"])
def test_what_is_too_large_is_refused(expression: str) -> None:
    with pytest.raises(UsageError, match=r"at most|too large|simpler"):
        compile_regex(expression, ALPHABET)
