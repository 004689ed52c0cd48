"""The stage `clean`: texts in any encoding to cleaned UTF-8, divided into parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rnnpipe.data.base import PARTS, TextDataset, TextFileDataset
from rnnpipe.data.corpora.texts import open_parts
from rnnpipe.data.text_files import TextFiles, temporary_folder
from rnnpipe.durable import atomic_directory, write_record
from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.common import (
    Progress,
    check_output_folder,
    describe_texts,
    fingerprint,
    load_cleaner,
    no_progress,
)
from rnnpipe.plugins import text_registry
from rnnpipe.text.cleaning import CleaningReport
from rnnpipe.text.corpus import FORMAT, META, OWN_FILES, VERSION, CleanTotals, is_corpus, load_corpus, write_clean
from rnnpipe.text.files import Errors, TextFile, total_bytes
from rnnpipe.text.rules import Named


@dataclass(frozen=True)
class Cleaned:
    """What the stage wrote: the folder, its parts' records, the totals, and whether it was there already."""

    folder: Path
    parts: dict[str, Any]
    totals: CleanTotals
    skipped: bool = False


def clean(
    inputs: Sequence[str],
    out: Path,
    *,
    cleaner: Named = Named("unicode-words"),
    split: str | None = None,
    encoding: str = "utf-8",
    errors: Errors = "strict",
    progress: Progress = no_progress,
    expect: Progress = no_progress,
) -> Cleaned:
    """Clean files, folders, globs or standard input into the folder `out`; with `split`, divided into parts."""
    if split is not None:
        dataset = TextFiles(inputs=inputs, split=split, encoding=encoding, errors=errors)
        return clean_dataset(
            dataset, out, cleaner=cleaner, errors=errors, inputs=inputs, progress=progress, expect=expect
        )
    check_output_folder(out, META, FORMAT, OWN_FILES, inputs)
    with temporary_folder() as spool:
        parts = open_parts(inputs, spool, encoding, errors)
        return _write(out, parts, cleaner, errors, progress, expect, skip=False)


def clean_dataset(
    dataset: TextDataset,
    out: Path,
    *,
    cleaner: Named,
    split_at: Literal["line", "character"] = "line",
    errors: Errors = "strict",
    inputs: Sequence[str] = (),
    skip: bool = False,
    before_writing: Callable[[], None] = lambda: None,
    progress: Progress = no_progress,
    expect: Progress = no_progress,
) -> Cleaned:
    """Clean the parts of a text dataset into `out`; with `skip`, not if they lie there already.

    `before_writing` is called when they do not, and may raise.
    """
    check_output_folder(out, META, FORMAT, OWN_FILES, inputs)
    with temporary_folder() as spool:
        parts = dataset_parts(dataset, spool, split_at)
        if "train" not in parts:
            raise InputError("the dataset has no training text.")
        return _write(out, parts, cleaner, errors, progress, expect, skip, before_writing)


def load_text_dataset(dataset: Named) -> TextDataset:
    """Return the text dataset of a name and options; raise UsageError if it is of another kind."""
    registry = text_registry()
    built = registry.build("dataset", dataset.name, dataset.options)
    if not isinstance(built, TextDataset):
        raise UsageError(f"dataset '{dataset.name}' has no documents; a language model needs a dataset of texts.")
    return built


def dataset_parts(
    dataset: TextDataset, spool: Path, split_at: Literal["line", "character"]
) -> dict[str, list[TextFile]]:
    """Return the documents of each part that has any; those that lie in no file are written into the folder `spool`."""
    if isinstance(dataset, TextFileDataset):
        parts = {part: list(dataset.texts(part, spool, split_at)) for part in PARTS}
    else:
        parts = {part: _spool_documents(dataset, part, spool) for part in PARTS}
    return {str(part): texts for part, texts in parts.items() if texts}


def _spool_documents(dataset: TextDataset, part: Any, spool: Path) -> list[TextFile]:
    path = spool / f"{part}.txt"
    texts = []
    with path.open("wb") as file:
        position = 0
        for number, document in enumerate(dataset.documents(part), 1):
            size = file.write(document.encode())
            texts.append(TextFile(f"{part} document {number}", path, position, position + size))
            position += size
    return [text for text in texts if text.size]


def _write(
    out: Path,
    parts: dict[str, list[TextFile]],
    cleaner: Named,
    errors: Errors,
    progress: Progress,
    expect: Progress,
    skip: bool,
    before_writing: Callable[[], None] = lambda: None,
) -> Cleaned:
    built = load_cleaner(cleaner)
    made_from = fingerprint(
        {
            "version": VERSION,
            "cleaner": cleaner.to_json(),
            "errors": errors,
            "texts": [describe_texts(texts, part) for part, texts in parts.items()],
        }
    )
    if skip and is_corpus(str(out)):
        before = load_corpus(out)
        if before.meta.get("made_from") == made_from:
            return Cleaned(out, before.meta["parts"], CleanTotals(0, 0, 0, CleaningReport()), skipped=True)
    before_writing()
    expect(sum(map(total_bytes, parts.values())))
    totals = CleanTotals(0, 0, 0, CleaningReport())
    records = {}
    with atomic_directory(out) as temporary:
        for part, texts in parts.items():
            with (temporary / f"{part}.txt").open("wb") as file:
                records[part] = write_clean(file, texts, built, totals, errors, progress)
        if totals.characters_out == 0 or not any(_has_text(temporary / f"{part}.txt") for part in parts):
            names = ", ".join(dict.fromkeys(text.name for texts in parts.values() for text in texts))
            raise InputError(
                f"{names}: nothing is left after cleaning with '{cleaner.name}'; use another cleaner or text."
            )
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "cleaner": cleaner.to_json(),
            "made_from": made_from,
            "characters_in": totals.characters_in,
            "characters_out": totals.characters_out,
            "mended_bytes": totals.mended_bytes,
            "parts": records,
        }
        write_record(temporary / META, meta)
    return Cleaned(out, records, totals)


def _has_text(path: Path) -> bool:
    """Say whether a file has anything but blanks."""
    with path.open("rb") as file:
        return any(chunk.strip() for chunk in iter(lambda: file.read(1 << 20), b""))
