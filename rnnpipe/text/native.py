"""The optional C extension: the same results as the Python code, several times as fast.

It releases the interpreter's lock, so that threads share the work; without it processes do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from rnnpipe.text import points
from rnnpipe.text.cleaning import Cleaner
from rnnpipe.text.rules import Rules

_INTERFACE = 2  # of the extension, in c/module.c: an older build is left alone, as if there were none
_CACHED_CHUNK = 64  # bytes of a chunk whose words are remembered

try:
    from rnnpipe.text import _native
except ImportError:  # no compiler when the package was built
    WHY_NOT = "it is not built; `pip install` builds it where there is a C compiler"
else:
    WHY_NOT = "" if getattr(_native, "INTERFACE", 1) == _INTERFACE else "it is an older build; install rnnpipe again"
if os.environ.get("RNNPIPE_NATIVE") == "0":  # for comparing the two, as `rnnpipe bench` does
    WHY_NOT = "RNNPIPE_NATIVE=0 puts it out of use"
NATIVE = not WHY_NOT

if TYPE_CHECKING:
    from rnnpipe.text._native import RunMerger, WordCounter, WordEncoder


def is_native(rules: Rules) -> bool:
    """Say whether the extension counts and encodes under these rules."""
    return NATIVE and rules.splits_words and (rules.cleaner.byte_table or rules.cleaner.point_entry) is not None


def word_counter(rules: Rules) -> WordCounter | None:
    """Return a counter of the words that the rules leave, or None if the extension cannot."""
    return _native.WordCounter(_native_rules(rules.cleaner)) if is_native(rules) else None


def word_encoder(rules: Rules, words: Sequence[bytes], unknown: int) -> WordEncoder | None:
    """Return an encoder of those words into ids, their places in `words`, or None if the extension cannot."""
    return _native.WordEncoder(_native_rules(rules.cleaner), words, unknown) if is_native(rules) else None


def run_merger(reads: tuple[Callable[[int], bytes], ...]) -> RunMerger | None:
    """Return what merges the runs that these functions read, or None without the extension."""
    return _native.RunMerger(reads) if NATIVE else None


def count_characters(raw: bytes) -> int | None:
    """Return the characters of UTF-8 without NUL, CR LF being one; -1 if it is not that; None without the extension."""
    return _native.characters(raw) if NATIVE else None


def _native_rules(cleaner: Cleaner) -> tuple[Any, ...]:
    table = cleaner.byte_table
    if table is not None:
        return (table.replacements, table.table, table.delete, table.drop_prefix)
    assert cleaner.point_entry is not None

    def words(chunk: bytes) -> bytes:
        return " ".join(cleaner.clean(chunk.decode()).split()).encode()

    cached = lru_cache(maxsize=1 << 16)(words)
    return (
        partial(points.page, cleaner.point_entry),
        lambda chunk: cached(chunk) if len(chunk) <= _CACHED_CHUNK else words(chunk),
    )
