"""The cleaner `unicode-words`, the default for people's own text: its rules, and the same rules by code point."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Literal

from rnnpipe.text import points
from rnnpipe.text.cleaning import Cleaner, Rule

Form = Literal["NFC", "NFKC", "NFD", "NFKD"]

_JOINERS = {0x200C, 0x200D}  # invisible, but part of words in Persian and the scripts of India


@cache
def _marks() -> str:
    """Return the combining marks, and the two joiners used inside words, as ranges of a regular expression class."""
    return _ranges(_JOINERS | {point for point in _CATEGORIZED if unicodedata.category(chr(point))[0] == "M"})


@cache
def _format_characters() -> str:
    """Return the invisible characters that direct how text is set, as ranges of a regular expression class."""
    return _ranges({point for point in _CATEGORIZED if unicodedata.category(chr(point)) == "Cf"})


# Where Unicode has marks and format characters: the rest of its planes holds ideographs and private use.
_CATEGORIZED = (*range(0x80, 0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x20000), *range(0xE0000, 0xE0200))


def _ranges(points: set[int]) -> str:
    """Return code points as ranges of a regular expression class."""
    ranges: list[list[int]] = []
    for point in sorted(points):
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" if last > first else chr(first) for first, last in ranges)


@cache
def _word_pattern(punctuation: bool, ascii_only: bool) -> re.Pattern[str]:
    marks = "" if ascii_only else _marks()
    word = rf"\w[\w{marks}]*"  # a mark belongs to the letter before it
    pattern = rf"{word}(?:['\-]{word})*|\n"
    if punctuation:
        pattern += rf"|[^\s\x00-\x1f\x7f-\x9f{'' if ascii_only else marks + _format_characters()}]"
    return re.compile(pattern)


def _keep_words(text: str, punctuation: bool) -> str:
    text = text.replace("_", " _ " if punctuation else " ")  # \w has it, though it is punctuation
    words = _word_pattern(punctuation, text.isascii()).findall(text)
    return " ".join(words).replace(" \n", "\n").replace("\n ", "\n")


STRAIGHTEN = {"\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"}
INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]+")


def _straighten(text: str) -> str:
    for typographic, plain in STRAIGHTEN.items():
        text = text.replace(typographic, plain)
    return text


def unicode_words(lowercase: bool = True, punctuation: bool = False, form: Form = "NFC") -> Cleaner:
    """Words of every script: letters, marks, numbers, inner apostrophes and hyphens; lines are kept.

    All else separates words; with `punctuation` each other visible character becomes a word of its own.
    """
    rules = [
        Rule("delete invisible characters", lambda text: text if text.isascii() else INVISIBLE.sub("", text)),
        Rule(f"normalise to {form}", lambda text: unicodedata.normalize(form, text)),
        Rule("straighten apostrophes and hyphens", _straighten),
    ]
    if lowercase:
        # Lower case may leave the normal form, and the way back may bring a capital: "\u03d4" in NFKC.
        rules.append(Rule("lower-case", lambda text: unicodedata.normalize(form, text.lower())))
    rules += [
        Rule(
            "keep words and punctuation" if punctuation else "keep words",
            lambda text: _keep_words(text, punctuation),
        ),
    ]
    return Cleaner(rules=tuple(rules), point_entry=_point_entries(lowercase, punctuation, form), idempotent=True)


# --- the same by code point ---


@cache
def _composing() -> tuple[frozenset[int], frozenset[int]]:
    """Return the code points that can begin, and those that can end, two that normalisation makes one."""
    pairs = [unicodedata.decomposition(chr(point)).split() for point in _CATEGORIZED]
    pairs = [pair for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")]
    hangul = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and final consonants, which are composed by rule
    return (
        frozenset(int(first, 16) for first, _ in pairs),
        frozenset(int(second, 16) for _, second in pairs) | hangul,
    )


@cache
def _point_entries(lowercase: bool, punctuation: bool, form: Form) -> Callable[[int], int]:
    """Return what these rules make of a code point alone, as points.py describes it."""
    begins, ends = _composing()
    mark = re.compile(f"[{_marks()}]")
    symbol = re.compile(rf"[^\s\w\x00-\x1f\x7f-\x9f{_marks()}{_format_characters()}]|_")

    def stays(character: str) -> bool:
        """Say whether normalisation leaves a character alone, whatever stands before it."""
        return unicodedata.is_normalized(form, character) and ord(character) not in ends

    def entry(point: int) -> int:
        character = chr(point)
        if INVISIBLE.fullmatch(character):
            return points.entry(points.DELETED)
        cleaned = _straighten(character)
        if lowercase:
            cleaned = cleaned.lower()
        combining = unicodedata.combining(character)
        if (
            character == "\u03a3"  # its lower case depends on its neighbours
            or len(cleaned) != 1
            or not (stays(character) and stays(cleaned))
            or unicodedata.combining(cleaned) != combining
        ):
            return points.entry(points.HARD)
        own_word = punctuation and symbol.fullmatch(cleaned) is not None
        if cleaned in "'-":
            return points.entry(points.JOINER, cleaned, symbol=own_word)
        if mark.fullmatch(cleaned):
            return points.entry(points.MARK, cleaned, combining=combining > 0)
        if re.fullmatch(r"[^\W_]", cleaned):
            return points.entry(points.HARD if combining else points.WORD, cleaned)
        # Behind a letter and such a character a capital sigma has its usual lower case: the rule does not look past it.
        alone = not combining and ("A" + character + "\u03a3").lower()[-1] == "\u03c3" and point not in begins
        return points.entry(points.SEPARATOR, cleaned, symbol=own_word, boundary=alone, combining=combining > 0)

    return entry
