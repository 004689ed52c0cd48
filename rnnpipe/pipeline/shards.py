"""Counting and encoding shard by shard, each with a marker, so that what is done is not done again.

These are the tasks of an engine of several machines: plain functions of picklable arguments. Texts and the folder of
shards must have the same paths on all of them. A shard's result is named by what it was made from; its record, written
last, is the marker.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnnpipe.data.encode import encode_texts
from rnnpipe.data.tokens import Ids
from rnnpipe.durable import atomic_file, read_record, sha256_file, write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import digests, fingerprint
from rnnpipe.text.counting import count_tokens
from rnnpipe.text.files import Block, Errors, TextFile, cut_blocks, cut_characters
from rnnpipe.text.rules import LoadRules, Rules
from rnnpipe.text.runs import merge_runs, write_run

SHARD_BYTES = 64 << 20  # a few seconds of work, and little enough to do twice
MERGED_AT_ONCE = 16
FORMAT = "rnnpipe-shard"
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """A range of one text, or several whole small ones, and the name of what is made of it."""

    texts: tuple[TextFile, ...]
    name: str

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return sum(text.size for text in self.texts)


def cut_shards(
    texts: Sequence[TextFile], rules: Rules, made_by: Any, spool: Path, shard_bytes: int = SHARD_BYTES
) -> Iterator[Shard]:
    """Yield the shards of texts, in order; `made_by` is all but the text that their results depend on.

    Small texts are put together until they are as large. A text in the folder `spool`, a copy that every run writes
    anew, is known by its content, any other one by path, size and time of its last change.
    """
    cut = cut_characters if rules.tokenizer.by_character and not rules.cleaner.rules else cut_blocks
    whole = rules.tokenizer.by_character and bool(rules.cleaner.rules)
    known: dict[Path, Any] = {}

    def shard(group: list[TextFile]) -> Shard:
        for text in group:
            if text.path not in known:
                known[text.path] = _identity(text.path, spool)
        described = [[str(text.path), text.start, text.stop, known[text.path]] for text in group]
        return Shard(tuple(group), fingerprint({"version": VERSION, "texts": described, "by": made_by})[:32])

    group: list[TextFile] = []
    room = shard_bytes
    for relative in texts:
        text = replace(relative, path=relative.path.absolute())  # whoever reads it works in another folder
        pieces = [text] if whole or text.size <= shard_bytes else _pieces(text, cut(text, shard_bytes))
        for piece in pieces:
            if group and piece.size > room:
                yield shard(group)
                group, room = [], shard_bytes
            group.append(piece)
            room -= piece.size
    if group:
        yield shard(group)


def _pieces(text: TextFile, blocks: Iterable[Block]) -> Iterator[TextFile]:
    """Yield the ranges of a text as texts; the first one answers for what was mended when it was copied."""
    for number, block in enumerate(blocks):
        yield replace(text, start=block.start, stop=block.stop, mended=0 if number else text.mended)


def _identity(path: Path, spool: Path) -> Any:
    if path.is_relative_to(spool):
        return sha256_file(path)
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def count_shard(folder: str, shard: Shard, load_rules: LoadRules, errors: Errors) -> dict[str, Any]:
    """Write the counts of a shard as a run; return its record: characters, mended bytes, types, whether it was new."""
    path = Path(folder) / f"{shard.name}.run"
    if (done := _done(path)) is not None:
        return done
    counts = count_tokens(shard.texts, load_rules, errors=errors)
    with atomic_file(path) as file:
        write_run(file, counts.tokens)
    return _finish(
        path,
        {"characters": counts.characters, "mended_bytes": counts.mended_bytes, "types": len(counts.tokens)},
    )


def digest_shard(folder: str, shard: Shard) -> str:
    """Return the SHA-256 of a shard's text."""
    (digest,) = digests(shard.texts)
    return digest


def merge_shards(folder: str, names: Sequence[str]) -> dict[str, Any]:
    """Merge runs into one, named by theirs; they stay where they are. Return its record."""
    path = Path(folder) / f"{fingerprint(list(names))[:32]}.run"
    if (done := _done(path)) is not None:
        return done
    records = [read_record(_marker(Path(folder) / f"{name}.run"), FORMAT, VERSION) for name in names]
    types = 0
    with atomic_file(path) as file:
        for batch in merge_runs([Path(folder) / f"{name}.run" for name in names], keep=True):
            write_run(file, batch.to_counts())
            types += len(batch.counts)
    sums = {key: sum(record[key] for record in records) for key in ("characters", "mended_bytes")}
    return _finish(path, {**sums, "types": types})


def encode_shard(folder: str, shard: Shard, load_rules: LoadRules, dictionary: str, errors: Errors) -> dict[str, Any]:
    """Write the ids of a shard's texts, one behind the other; return its record: bytes mended, how many ids of each."""
    path = Path(folder) / f"{shard.name}.npy"
    if (done := _done(path)) is not None:
        return done
    lengths: list[int] = []
    mended: list[int] = []
    documents = encode_texts(shard.texts, load_rules, Path(dictionary), errors=errors, mended=mended.append)
    with atomic_file(path) as file:
        for arrays in documents:
            lengths.append(0)
            for ids in arrays:
                file.write(np.ascontiguousarray(ids, np.uint32).data)
                lengths[-1] += len(ids)
    return _finish(path, {"mended_bytes": sum(mended), "lengths": lengths})


def read_ids(folder: Path, shard: Shard, lengths: Sequence[int]) -> Iterator[Ids]:
    """Yield the ids of each text of a shard; raise InputError if the file is not as long as its record says."""
    path = folder / f"{shard.name}.npy"
    if path.stat().st_size != 4 * sum(lengths):
        raise InputError(f"{path}: is not as long as its record says; remove {folder} and run this again.")
    with path.open("rb") as file:
        for length in lengths:
            yield np.fromfile(file, np.uint32, length)


def _marker(path: Path) -> Path:
    return path.with_suffix(".json")


def _done(path: Path) -> dict[str, Any] | None:
    """Return the record of a result that is there, or None."""
    if not _marker(path).is_file() or not path.is_file():
        return None
    record = read_record(_marker(path), FORMAT, VERSION, sealed=True)
    return {**record, "name": path.stem, "new": False} if record["size"] == path.stat().st_size else None


def _finish(path: Path, figures: dict[str, Any]) -> dict[str, Any]:
    record = {"format": FORMAT, "version": VERSION, "size": path.stat().st_size, **figures}
    write_record(_marker(path), record)
    return {**record, "name": path.stem, "new": True}


def remove_shards(folder: Path) -> None:
    """Remove the folder of shards, whose results are in one place now."""
    shutil.rmtree(folder, ignore_errors=True)
