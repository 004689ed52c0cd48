"""The optional C extension for byte tables: the same results as the Python code, several times as fast.

It releases the interpreter's lock, so that threads share the work; without it processes do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rnnpipe.text.cleaning import ByteTable

try:
    from rnnpipe.text import _native
except ImportError:  # no compiler when the package was built
    NATIVE = False
else:
    NATIVE = os.environ.get("RNNPIPE_NATIVE", "1") != "0"  # for comparing the two, as `rnnpipe bench` does

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rnnpipe.text._native import WordCounter, WordEncoder


def word_counter(table: ByteTable) -> WordCounter | None:
    """Return a counter of the words that a byte table leaves, or None without the extension."""
    if not NATIVE:
        return None
    return _native.WordCounter(table.replacements, table.table, table.delete, table.drop_prefix)


def word_encoder(table: ByteTable, words: Sequence[bytes], unknown: int) -> WordEncoder | None:
    """Return an encoder of those words into ids, their places in `words`, or None without the extension."""
    if not NATIVE:
        return None
    return _native.WordEncoder(table.replacements, table.table, table.delete, table.drop_prefix, words, unknown)
