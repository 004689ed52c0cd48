"""How much of one part of a dataset also stands in another: whole documents, whole lines, and runs of n tokens.

All of them are compared by 64-bit hashes. Those lie in temporary files, 8 bytes each, divided by their first bits, and
are compared one of PARTITIONS pieces at a time, so that memory grows with a 64th of the text. Among a thousand million
hashes, the chance that any two differing things are taken for the same is about 3 percent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnpipe.data.base import Sequences
from rnnpipe.text.counting import code_points, text_blocks
from rnnpipe.text.files import LINE_BYTES, Errors, TextFile, read_block
from rnnpipe.text.rules import Rules

PARTITIONS = 64
KINDS = ("documents", "lines", "ngrams")

Hashes = npt.NDArray[np.uint64]


class HashFiles:
    """The hashes of one kind of thing in one part: a multiset, on disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.count = 0
        self._paths = [folder / f"{number:02}" for number in range(PARTITIONS)]

    def add(self, hashes: Hashes) -> None:
        """Add hashes, each as often as it is given."""
        self.count += len(hashes)
        ordered = np.sort(hashes)
        bounds = np.searchsorted(ordered >> np.uint64(58), np.arange(PARTITIONS + 1))
        for path, start, stop in zip(self._paths, bounds[:-1], bounds[1:], strict=True):
            if start < stop:
                with path.open("ab") as file:
                    file.write(ordered[start:stop].data)

    def pieces(self) -> Iterable[Hashes]:
        """Yield all hashes, sorted, in PARTITIONS pieces; pieces of the same number hold the same range."""
        for path in self._paths:
            yield np.sort(np.fromfile(path, np.uint64)) if path.is_file() else np.empty(0, np.uint64)

    def duplicates(self) -> int:
        """Return how many are the same as one before them."""
        return sum(int(np.count_nonzero(piece[1:] == piece[:-1])) for piece in self.pieces())

    def found_in(self, other: HashFiles) -> int:
        """Return how many, each as often as it is there, also stand in the other one."""
        found = 0
        for own, theirs in zip(self.pieces(), other.pieces(), strict=True):
            if len(theirs):
                places = np.minimum(np.searchsorted(theirs, own), len(theirs) - 1)
                found += int(np.count_nonzero(theirs[places] == own))
        return found


class PartHashes:
    """The hashes of all documents, lines that are not blank, and runs of `ngram` tokens of one part."""

    def __init__(self, folder: Path, ngram: int) -> None:
        self.ngram = ngram
        self.kinds = {kind: HashFiles(folder / kind) for kind in KINDS}

    def add_text(self, text: TextFile, rules: Rules, errors: Errors, progress: Callable[[int], None]) -> None:
        """Add a document of text; its runs of tokens go across lines. Lines of more than a megabyte count in pieces."""
        document = hashlib.blake2b(digest_size=8)
        before = np.empty(0, np.uint64)
        line = ""
        for block in text_blocks(text, rules):
            read = read_block(block, errors).text
            document.update(read.encode())
            *lines, line = (line + read).split("\n")
            if len(line) > LINE_BYTES:
                lines, line = [*lines, line], ""
            self._add_lines(lines)
            before = self._add_run(before, _symbols(read, rules))
            progress(block.stop - block.start)
        self._add_lines([line])
        self._add_document(document.digest())

    def add_sequences(self, sequences: Sequences) -> None:
        """Add sequences of numbers: each is a document without lines, each timestep of its inputs a token."""
        for inputs, length in zip(sequences.inputs, sequences.lengths, strict=True):
            steps = [step.tobytes() for step in inputs[:length]]
            self._add_run(np.empty(0, np.uint64), _hash_each(steps))
            self._add_document(hashlib.blake2b(b"".join(steps), digest_size=8).digest())

    def _add_document(self, digest: bytes) -> None:
        self.kinds["documents"].add(np.frombuffer(digest, np.uint64))

    def _add_lines(self, lines: list[str]) -> None:
        self.kinds["lines"].add(_hash_each([line for line in lines if line and not line.isspace()]))

    def _add_run(self, before: Hashes, symbols: Hashes) -> Hashes:
        """Add the runs of n symbols that end in `symbols`; return the last n - 1 for the next call."""
        joined = np.concatenate([before, symbols])
        self.kinds["ngrams"].add(ngram_hashes(joined, self.ngram))
        return joined[max(0, len(joined) - self.ngram + 1) :]


def _symbols(text: str, rules: Rules) -> Hashes:
    """Return a hash of each token of an uncleaned text."""
    if rules.tokenizer.by_character:
        return code_points(rules.cleaner.clean(text)).astype(np.uint64)
    return _hash_each(rules.tokenize(text))


def _hash_each(things: list[str] | list[bytes]) -> Hashes:
    """Return Python's own hash of each: keyed anew in each process, and of no use outside it."""
    return np.fromiter(map(hash, things), np.int64, len(things)).view(np.uint64)


def ngram_hashes(symbols: Hashes, n: int) -> Hashes:
    """Return a hash of each run of n symbols, [N] to [N - n + 1] (none if there are fewer than n)."""
    count = max(0, len(symbols) - n + 1)
    hashes = np.full(count, 0x9E3779B97F4A7C15, np.uint64)
    for offset in range(n):  # SplitMix64's finalizer after each symbol (Steele et al. 2014), modulo 2^64
        hashes += symbols[offset : offset + count]
        hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes ^= hashes >> np.uint64(31)
    return hashes


@dataclass(frozen=True)
class Overlap:
    """Of one kind of thing in one part: how many there are, repeat one before them, and also stand in training."""

    count: int
    duplicates: int
    in_train: int | None  # None: this is the training part

    def to_json(self) -> dict[str, Any]:
        """Return the form for --json."""
        shown = {"count": self.count, "duplicates": self.duplicates}
        return shown if self.in_train is None else {**shown, "in_train": self.in_train}


def compare(parts: Mapping[str, PartHashes]) -> dict[str, dict[str, Overlap]]:
    """Return the overlap of each part with the part `train`, by kind."""
    train = parts["train"].kinds
    return {
        part: {
            kind: Overlap(hashes.count, hashes.duplicates(), None if part == "train" else hashes.found_in(train[kind]))
            for kind, hashes in own.kinds.items()
        }
        for part, own in parts.items()
    }
