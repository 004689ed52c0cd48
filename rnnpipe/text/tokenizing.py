"""Tokenizers: from cleaned text to tokens and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tokenizer:
    """`split` cuts a text into tokens, `join` makes a text of tokens.

    The tokens of a text, joined, must be split into the same tokens again, and `split` must not look across line ends:
    texts are counted and encoded in blocks that end there. `by_character` says that the tokens are exactly the
    characters, which lets counting and encoding run on arrays; `lossless` that `join(split(text))` is any text itself.

    A tokenizer that learns from text is built twice. Without its option `model` it splits into words and has `learn`,
    from the counts of these words to what that option is to be: anything that JSON can hold, the same for any order of
    the words. With it, it splits each word, apart from all others, into subwords, and `tokens` lists those that the
    model knows; each of them gets an id.
    """

    split: Callable[[str], list[str]]
    join: Callable[[Iterable[str]], str]
    by_character: bool = False
    lossless: bool = False
    learn: Callable[[Mapping[str, int]], Any] | None = None
    tokens: tuple[str, ...] = ()


def whitespace() -> Tokenizer:
    """Words between blanks (any Unicode white space); joined by one space."""
    return Tokenizer(split=str.split, join=" ".join)


def characters() -> Tokenizer:
    """Every character (Unicode code point), line ends included."""
    return Tokenizer(split=list, join="".join, by_character=True, lossless=True)
