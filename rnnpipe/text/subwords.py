"""What subword tokenizers share: the words that they divide, and the counts of subwords by those of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from rnnpipe.errors import InputError, UsageError
from rnnpipe.text.tokenizing import Tokenizer

# A run of letters and digits, or of other marks, with the blank before it; any other blank and a line end alone. Put
# together they are the text. Scripts without blanks have long runs: those are cut, so that there are not too many.
LONGEST_WORD = 32
WORD = re.compile(rf" ?\w{{1,{LONGEST_WORD}}}| ?[^\w\s]{{1,{LONGEST_WORD}}}|\s")
_CACHED_WORDS = 1 << 18


def split_words(text: str) -> list[str]:
    """Return the words of a text, which put together are the text."""
    return WORD.findall(text)


def untrained(learn: Callable[[Mapping[str, int]], object]) -> Tokenizer:
    """Return the tokenizer of words from which a model is learnt."""
    return Tokenizer(split=split_words, join="".join, lossless=True, learn=learn)


def trained(divide: Callable[[str], Iterable[str]], tokens: tuple[str, ...]) -> Tokenizer:
    """Return the tokenizer of subwords into which `divide` cuts a word."""
    known: dict[str, tuple[str, ...]] = {}  # a text has few words that are new

    def split(text: str) -> list[str]:
        found: list[str] = []
        for word in split_words(text):
            subwords = known.get(word)
            if subwords is None:
                if len(known) == _CACHED_WORDS:
                    known.clear()
                subwords = known[word] = tuple(divide(word))
            found += subwords
        return found

    return Tokenizer(split=split, join="".join, lossless=True, tokens=tokens)


def subword_counts(words: Mapping[bytes, int], tokenizer: Tokenizer) -> Counter[bytes]:
    """Return the counts of a learnt tokenizer's subwords in a text that has these counts of words."""
    counts = Counter({token.encode(): 0 for token in tokenizer.tokens})
    for word, number in words.items():
        for subword in tokenizer.split(word.decode()):
            counts[subword.encode()] += number
    return counts


def check_size(size: int, characters: int, name: str) -> None:
    """Raise if a model of `size` subwords cannot hold the characters of the text, each of which is one."""
    if size < 1:
        raise UsageError(f"tokenizer '{name}': size={size}; it takes a whole number above 0.")
    if characters >= size:
        raise InputError(
            f"tokenizer '{name}': the text has {characters:,} different characters, and each is a subword, so that "
            f"size={size} leaves nothing to learn. Take a larger one, or a cleaner that leaves fewer characters."
        )
