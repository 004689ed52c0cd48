"""How much of one part of a dataset also stands in another: whole documents, whole lines, and runs of n tokens.

All of them are compared by 64-bit hashes. Those lie in temporary files, 12 bytes each, divided by their first bits, and
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


_COUNTED = np.dtype([("hash", np.uint64), ("count", np.uint32)])


class HashFiles:
    """The hashes of one kind of thing in one part: a multiset, on disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.count = 0
        self._paths = [folder / f"{number:02}" for number in range(PARTITIONS)]

    def add(self, hashes: Hashes) -> None:
        """Add hashes, each as often as it is given."""
        self.count += len(hashes)
        distinct, counts = np.unique(hashes, return_counts=True)  # a text that repeats itself fills no piece
        pairs = np.empty(len(distinct), _COUNTED)
        pairs["hash"], pairs["count"] = distinct, counts
        bounds = np.searchsorted(distinct >> np.uint64(58), np.arange(PARTITIONS + 1))
        for path, start, stop in zip(self._paths, bounds[:-1], bounds[1:], strict=True):
            if start < stop:
                with path.open("ab") as file:
                    file.write(pairs[start:stop].tobytes())

    def pieces(self) -> Iterable[tuple[Hashes, npt.NDArray[np.int64]]]:
        """Yield the distinct hashes, sorted, with their counts, in PARTITIONS pieces of always the same ranges."""
        for path in self._paths:
            pairs = np.fromfile(path, _COUNTED) if path.is_file() else np.empty(0, _COUNTED)
            distinct, places = np.unique(pairs["hash"], return_inverse=True)
            yield distinct, np.bincount(places, pairs["count"], len(distinct)).astype(np.int64)

    def duplicates(self) -> int:
        """Return how many are the same as one before them."""
        return self.count - sum(len(distinct) for distinct, _ in self.pieces())

    def found_in(self, other: HashFiles) -> int:
        """Return how many, each as often as it is there, also stand in the other one."""
        found = 0
        for (own, counts), (theirs, _) in zip(self.pieces(), other.pieces(), strict=True):
            found += int(counts[np.isin(own, theirs, assume_unique=True)].sum())
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
    if len(symbols) < n:
        return np.empty(0, np.uint64)
    # Of runs of 1, 2, 4, ... symbols, each joined of two of half its length, those that add up to n are joined.
    run, length = _mix(symbols), 1
    result, covered = np.zeros(len(symbols) + 1, np.uint64), 0
    while True:
        if n & length:
            covered += length
            result = _join(result, run[covered - length :])
        if covered == n:
            return result
        run, length = _join(run, run[length:]), 2 * length


def _join(first: Hashes, second: Hashes) -> Hashes:
    """Return a hash of each pair, as many as there are in the second array; order counts."""
    return _mix(first[: len(second)] * np.uint64(0x9E3779B97F4A7C15) + second)


def _mix(numbers: Hashes) -> Hashes:
    """Return numbers whose every bit depends on every bit of the given ones (SplitMix64, Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


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
