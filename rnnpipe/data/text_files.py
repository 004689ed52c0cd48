"""The dataset `text-files`: a person's own texts, each divided contiguously into parts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from rnnpipe.data.base import PARTS, Part
from rnnpipe.data.corpora.texts import open_undivided
from rnnpipe.errors import UsageError
from rnnpipe.text.files import Errors, TextFile, character_boundary, cut_characters, line_boundary, read_block
from rnnpipe.text.opening import check_encodings

Cut = Literal["line", "character"]


def parse_split(split: str) -> tuple[int, ...]:
    """Return the shares of "8:1:1" (train, valid, test) or "9:1" (train, valid); raise UsageError for anything else."""
    shares = split.split(":")
    if len(shares) in (2, 3) and all(s.isascii() and s.isdigit() and len(s) < 10 for s in shares) and int(shares[0]):
        return tuple(map(int, shares))
    raise UsageError(
        f"split '{split}' is not accepted; write the shares as train:valid or train:valid:test, as in 8:1:1."
    )


def split_text(text: TextFile, shares: Sequence[int], at: Cut) -> dict[Part, TextFile]:
    """Return the contiguous parts of a text, in the proportion of `shares` of its bytes, empty parts left out.

    Each cut is moved to the next line end, or to the next character with `at="character"`.
    """
    boundary = line_boundary if at == "line" else character_boundary
    total = sum(shares)
    ends = [boundary(text, text.start + text.size * share // total) for share in accumulate(shares)]
    starts = [text.start, *ends[:-1]]
    return {
        part: replace(text, start=start, stop=stop)
        for part, start, stop in zip(PARTS, starts, ends, strict=False)
        if start < stop
    }


class TextFiles:
    """Files, folders and globs of text; each file is one document, divided contiguously by `split`.

    inputs: what to read, as on the command line. split: shares of train, valid and test. encoding, errors: as for
    Python's `open`.
    """

    def __init__(
        self, *, inputs: Sequence[str], split: str = "8:1:1", encoding: str = "utf-8", errors: Errors = "strict"
    ) -> None:
        if not inputs:
            raise UsageError("dataset 'text-files' needs inputs: files, folders, globs, or - for standard input.")
        self.inputs = list(inputs)
        self.shares = parse_split(split)
        self.encoding = ",".join(check_encodings(encoding))
        self.errors = errors
        self._opened: dict[Path, list[TextFile]] = {}  # standard input can be read only once

    def texts(self, split: Part, spool: Path, at: Cut) -> Sequence[TextFile]:
        """Return the byte ranges of one part, one for each file that has any."""
        if spool not in self._opened:
            self._opened[spool] = open_undivided(self.inputs, spool, self.encoding, self.errors)
        parts = (split_text(text, self.shares, at) for text in self._opened[spool])
        return [part[split] for part in parts if split in part]

    def documents(self, split: Part) -> Iterable[str]:
        """Yield each file's part as one text."""
        with temporary_folder() as spool:
            for text in self.texts(split, spool, "line"):
                yield "".join(read_block(block, self.errors).text for block in cut_characters(text))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for copies that lasts as long as the block."""
    with tempfile.TemporaryDirectory(prefix="rnnpipe-") as folder:
        yield Path(folder)
