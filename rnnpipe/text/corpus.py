"""Cleaned corpora: one UTF-8 file for each part, and a record of the rules and of where each document lies.

A corpus folder holds `corpus.json` and `train.txt`, `valid.txt`, `test.txt`, or `all.txt` if it is not divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from rnnpipe.durable import read_record
from rnnpipe.errors import InputError
from rnnpipe.text.cleaning import Cleaner, CleaningReport
from rnnpipe.text.counting import text_blocks
from rnnpipe.text.files import Errors, TextFile, read_block
from rnnpipe.text.rules import Named, Rules
from rnnpipe.text.tokenizing import characters, whitespace

FORMAT = "rnnpipe-corpus"
VERSION = 1
META = "corpus.json"
OWN_FILES = (META, "train.txt", "valid.txt", "test.txt", "all.txt")


@dataclass
class CleanTotals:
    """What went through cleaning: characters in and out, bytes mended on the way in, and the report by rule."""

    characters_in: int
    characters_out: int
    mended_bytes: int
    report: CleaningReport


def write_clean(
    file: IO[bytes],
    texts: Sequence[TextFile],
    cleaner: Cleaner,
    totals: CleanTotals,
    errors: Errors,
    progress: Callable[[int], None] = lambda done_bytes: None,
) -> dict[str, Any]:
    """Clean texts into one file, each ending with a newline; return the part's record for `corpus.json`.

    With no rules a text is copied as it is: one that ends without a newline gets none.
    """
    # With no rules a block may end at any character; with rules it must end where lines do.
    rules = Rules(cleaner, whitespace() if cleaner.rules else characters())
    digest = hashlib.sha256()
    documents = []
    written = 0
    last = ""

    def write(text: str) -> None:
        nonlocal written, last
        last = text[-1]
        data = text.encode()
        digest.update(data)
        written += file.write(data)
        totals.characters_out += len(text)

    for text in texts:
        start = written
        totals.mended_bytes += text.mended
        for block in text_blocks(text, rules):
            read = read_block(block, errors)
            cleaned = cleaner.clean(read.text, totals.report)
            totals.characters_in += read.characters
            totals.mended_bytes += read.mended
            if cleaned:
                write(cleaner.between(last, cleaned) + cleaned if written > start else cleaned)
            progress(block.stop - block.start)
        if cleaner.rules and written > start and last != "\n":
            write("\n")
        documents.append({"name": text.name, "start": start, "stop": written})
    return {"size": written, "sha256": digest.hexdigest(), "documents": documents}


@dataclass(frozen=True)
class CorpusFolder:
    """A cleaned corpus: where it lies and its record."""

    path: Path
    meta: dict[str, Any]

    @property
    def cleaner(self) -> Named:
        """Return the name and options of the cleaner that was applied."""
        return Named.from_json(self.meta.get("cleaner"), f"{self.path / META}, cleaner")

    @property
    def parts(self) -> list[str]:
        """Return the names of its parts: train, valid and test, or all."""
        return list(self.meta["parts"])

    def texts(self, part: str) -> list[TextFile]:
        """Return the documents of a part."""
        record = self.meta["parts"][part]
        path = self.path / f"{part}.txt"
        if not path.is_file():
            raise InputError(f"{path}: is missing; run `rnnpipe clean` again.")
        size = path.stat().st_size
        if size != record["size"]:
            raise InputError(f"{path}: has {size} bytes, {META} promises {record['size']}; run `rnnpipe clean` again.")
        whole = TextFile(str(path), path, 0, size)
        return [replace(whole, start=d["start"], stop=d["stop"]) for d in record["documents"] if d["start"] < d["stop"]]


def is_corpus(path: str) -> bool:
    """Say whether a path is a cleaned corpus folder."""
    return (Path(path) / META).is_file()


def load_corpus(path: Path) -> CorpusFolder:
    """Open a cleaned corpus folder; raise InputError if its record is not one."""
    meta_path = Path(path) / META
    meta = read_record(meta_path, FORMAT, VERSION)
    parts = meta.get("parts")
    if not isinstance(parts, dict) or not all(_is_part(name, record) for name, record in parts.items()):
        raise InputError(f"{meta_path}: parts is not a size and documents for each part; run `rnnpipe clean` again.")
    return CorpusFolder(Path(path), meta)


def _is_part(name: Any, record: Any) -> bool:
    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    return (
        name in ("train", "valid", "test", "all")
        and isinstance(record, dict)
        and whole(record.get("size"))
        and isinstance(record.get("sha256"), str)
        and isinstance(record.get("documents"), list)
        and all(
            isinstance(d, dict)
            and whole(d.get("start"))
            and whole(d.get("stop"))
            and 0 <= d["start"] <= d["stop"] <= record["size"]
            for d in record["documents"]
        )
    )
