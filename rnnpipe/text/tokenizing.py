"""Tokenizers: from cleaned text to tokens and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tokenizer:
    """`split` cuts a text into tokens, `join` makes a text of tokens.

    The tokens of a text, joined, must be split into the same tokens again, and `split` must not look across line ends:
    texts are counted and encoded in blocks that end there. `by_character` says that the tokens are exactly the
    characters, which lets counting and encoding run on arrays; `lossless` that `join(split(text))` is any text itself.
    """

    split: Callable[[str], list[str]]
    join: Callable[[Iterable[str]], str]
    by_character: bool = False
    lossless: bool = False


def whitespace() -> Tokenizer:
    """Words between blanks (any Unicode white space); joined by one space."""
    return Tokenizer(split=str.split, join=" ".join)


def characters() -> Tokenizer:
    """Every character (Unicode code point), line ends included."""
    return Tokenizer(split=list, join="".join, by_character=True, lossless=True)
