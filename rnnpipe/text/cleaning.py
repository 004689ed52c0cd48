"""Cleaners: ordered lists of named rules from text to text, and an exact account of what each rule did.

A cleaner sees a text in blocks that end at a line end (in a line longer than a megabyte: at a blank), so a rule must
not look across lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rnnpipe.text import points


@dataclass(frozen=True)
class Rule:
    """One step of cleaning: a name that people read and a pure function from text to text."""

    name: str
    apply: Callable[[str], str]


@dataclass(frozen=True)
class ByteTable:
    """The same rules as one pass over UTF-8 bytes, for cleaners that leave only ASCII words.

    In this order: `replacements`, then `table` maps each byte, then the bytes in `delete` are removed, the rest is
    split at blanks, and words that start with `drop_prefix` are dropped.
    """

    replacements: tuple[tuple[bytes, bytes], ...]
    table: bytes
    delete: bytes
    drop_prefix: bytes

    def words(self, block: bytes) -> list[bytes]:
        """Return the words of a block, those with the dropped prefix included (callers drop each once, by type)."""
        return self.letters(block).split()

    def letters(self, block: bytes) -> bytes:
        """Return what is left of a block, with a blank or more between its words."""
        for old, new in self.replacements:
            if old in block:
                block = block.replace(old, new)
        return block.translate(self.table, self.delete)


@dataclass(frozen=True)
class Cleaner:
    """Ordered rules. `joiner` goes between two cleaned blocks of a text: nothing where line ends are kept.

    `idempotent` says that cleaning its own output again changes nothing. `byte_table` and `point_entry` give the words
    of cleaned text faster than the rules do: the first is for rules that leave only ASCII, the second, which says of a
    code point what points.py describes, for any script; it is used by the C extension.
    """

    rules: tuple[Rule, ...]
    joiner: str = ""
    byte_table: ByteTable | None = None
    point_entry: Callable[[int], int] | None = None
    idempotent: bool = False

    def between(self, before: str, after: str) -> str:
        """Return what parts two cleaned blocks of a text in a file: a blank at least, if the rules took it away."""
        parted = not self.rules or before[-1:].isspace() or after[:1].isspace()
        return "" if parted else self.joiner or " "

    def clean(self, text: str, report: CleaningReport | None = None) -> str:
        """Return `text` after all rules; add what each did to `report`."""
        for rule in self.rules:
            cleaned = rule.apply(text)
            if report is not None:
                report.add(rule.name, text, cleaned)
            text = cleaned
        return text

    def explain(self, text: str) -> list[tuple[str, str]]:
        """Return the name of each rule with the text as that rule left it."""
        steps = []
        for rule in self.rules:
            text = rule.apply(text)
            steps.append((rule.name, text))
        return steps


@dataclass
class RuleCount:
    """What one rule did: characters it removed, by character, and the number it replaced by another one."""

    dropped: Counter[str] = field(default_factory=Counter)
    replaced: int = 0


@dataclass
class CleaningReport:
    """What cleaning did to a text, rule by rule, and how much went in and came out, in characters."""

    rules: dict[str, RuleCount] = field(default_factory=dict)

    def add(self, rule: str, before: str, after: str) -> None:
        """Add the difference between the character counts before and after a rule."""
        count = self.rules.setdefault(rule, RuleCount())
        if before == after:
            return
        gone = _histogram(before)
        come = _histogram(after)
        width = max(len(gone), len(come))
        difference = np.pad(gone, (0, width - len(gone))) - np.pad(come, (0, width - len(come)))
        gained = int(-difference[difference < 0].sum())
        lost = {int(point): int(difference[point]) for point in np.flatnonzero(difference > 0)}
        replaced = min(gained, sum(lost.values()))
        count.replaced += replaced
        if replaced == sum(lost.values()):
            return
        if replaced == 0:
            count.dropped.update({chr(point): number for point, number in lost.items()})
            return
        # A rule that both replaces and drops: which of the lost characters were replaced cannot be told from counts,
        # so the total of the dropped is exact and stands under one heading.
        count.dropped["(several characters)"] += sum(lost.values()) - replaced

    def merge(self, other: CleaningReport) -> None:
        """Add another report to this one."""
        for rule, theirs in other.rules.items():
            ours = self.rules.setdefault(rule, RuleCount())
            ours.dropped.update(theirs.dropped)
            ours.replaced += theirs.replaced


def _histogram(text: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if text.isascii():
        return np.bincount(np.frombuffer(text.encode("ascii"), np.uint8)).astype(np.int64)
    return np.bincount(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)).astype(np.int64)


# --- ascii-words: the rules of the published program ---

_NOT_ASCII_WORD = re.compile(r"[^a-z '\-]+")
_SPACES = re.compile(r" +")
_LINE_END = re.compile(r"\r\n|\r|\n")  # texts from files have newlines alone; prompts may have any
_DASH_WORD = re.compile(r"(?<![^ ])-[^ ]*")


def _drop_dash_words(text: str) -> str:
    return _SPACES.sub(" ", _DASH_WORD.sub("", text)).strip(" ") if "-" in text else text.strip(" ")


def _ascii_table() -> ByteTable:
    table = bytearray(range(256))
    for upper in range(ord("A"), ord("Z") + 1):
        table[upper] = upper + 32
    table[ord("\n")] = table[ord("\r")] = ord(" ")
    kept = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ '-\n\r"
    return ByteTable(
        # The two characters outside ASCII whose lower case begins with an ASCII letter: KELVIN SIGN, I WITH DOT ABOVE.
        replacements=(("\u212a".encode(), b"k"), ("\u0130".encode(), b"i")),
        table=bytes(table),
        delete=bytes(byte for byte in range(256) if byte not in kept),
        drop_prefix=b"-",
    )


def ascii_words() -> Cleaner:
    """Words of a-z, apostrophe and hyphen; every other character is deleted, not replaced by a blank.

    Digits, tabs and accented letters therefore join their neighbours: "caf\\u00e9s" becomes "cafs".
    """
    return Cleaner(
        rules=(
            Rule("lower-case", str.lower),
            Rule("newline becomes a space", lambda text: _LINE_END.sub(" ", text)),
            Rule("delete all but a-z, space, ' and -", lambda text: _NOT_ASCII_WORD.sub("", text)),
            Rule("runs of spaces become one", lambda text: _SPACES.sub(" ", text)),
            Rule("drop words that start with -", _drop_dash_words),
        ),
        joiner=" ",
        byte_table=_ascii_table(),
        idempotent=True,
    )


def none() -> Cleaner:
    """Leave the text as it is (line ends become newlines and a byte-order mark goes when a file is read)."""
    return Cleaner(rules=(), point_entry=points.blank_or_word, idempotent=True)
