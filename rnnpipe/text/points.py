"""Rules of words by code point, in the form in which the C extension reads them.

An entry is a number that says what a code point becomes (bits 0 to 20), what it is to a word (bits 21 to 23), and three
flags. A word is a WORD, then WORDs and MARKs, and any number of times a JOINER followed by such a word again. A MARK
elsewhere is dropped; so is a JOINER, or it is a word of its own if it has the flag SYMBOL, as has any SEPARATOR with
it. What is DELETED might as well not be there.

HARD is a character whose fate depends on its neighbours; so are two characters in a row with the flag COMBINING, which
normalisation may put in another order. The chunk around them is cleaned by the cleaner's own rules, in Python. It ends
at characters with the flag BOUNDARY: no rule may look across one, and none may join one to what follows.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from functools import lru_cache

SEPARATOR, WORD, MARK, JOINER, DELETED, HARD = range(6)
PAGE = 256
_KIND_SHIFT, _BOUNDARY, _COMBINING, _SYMBOL = 21, 1 << 24, 1 << 25, 1 << 26


def entry(
    kind: int, becomes: str = "\0", *, boundary: bool = False, combining: bool = False, symbol: bool = False
) -> int:
    """Return the entry of a code point."""
    return ord(becomes) | kind << _KIND_SHIFT | boundary * _BOUNDARY | combining * _COMBINING | symbol * _SYMBOL


def blank_or_word(point: int) -> int:
    """Return the entry of a code point under no rules: white space parts words, all else is a word."""
    character = chr(point)
    return entry(SEPARATOR, boundary=True) if character.isspace() else entry(WORD, character)


@lru_cache(maxsize=1 << 14)
def page(point_entry: Callable[[int], int], number: int) -> bytes:
    """Return the entries of 256 code points, of four bytes each."""
    entries = array.array("I", map(point_entry, range(number * PAGE, (number + 1) * PAGE)))
    assert entries.itemsize == 4
    return entries.tobytes()
