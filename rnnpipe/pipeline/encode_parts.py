"""Writing the parts of a token folder, so that a run that was interrupted goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rnnpipe.data.tokens import Written, part_writer
from rnnpipe.durable import Partial, clear_leftovers, read_record, write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import Progress, workers_for
from rnnpipe.pipeline.engines import Engine
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.rules import LoadRules
from rnnpipe.text.vocabulary import Vocabulary

_FORMAT = "rnnpipe-encoding"
_VERSION = 1
_JOURNAL = "encoding.json"
_SAVE_SECONDS = 5.0


@dataclass
class _Journal:
    """What has been done: the records of whole parts, and in the part after them the place that has been reached."""

    made_from: str
    parts: dict[str, Any] = field(default_factory=dict)
    document: int = 0  # of the part's texts, and the first byte of it that has not been encoded
    position: int = 0
    written: dict[str, int] = field(default_factory=lambda: asdict(Written()))
    mended_bytes: int = 0
    done_bytes: int = 0

    def save(self, folder: Path, text: TextFile) -> None:
        """Write the journal, durable; `text` is the document that it is in."""
        record = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        if self.position >= text.stop:
            record |= {"document": self.document + 1, "position": 0}
        write_record(folder / _JOURNAL, record)


def _load_journal(partial: Partial, made_from: str) -> _Journal:
    """Return the journal of an interrupted run over the same texts, or a new one in an empty folder."""
    clear_leftovers(partial.path, locked=True)
    try:
        record = read_record(partial.path / _JOURNAL, _FORMAT, _VERSION)
        journal = _Journal(**{name: record[name] for name in _Journal.__dataclass_fields__})
        if journal.made_from == made_from:
            partial.keep = True
            return journal
    except (FileNotFoundError, InputError, KeyError):  # nothing to go on from, or nothing that can be trusted
        pass
    partial.clear()
    return _Journal(made_from)


def write_parts(
    partial: Partial,
    parts: Mapping[str, Sequence[TextFile]],
    load_rules: LoadRules,
    dictionary: Path,
    vocabulary: Vocabulary,
    made_from: str,
    *,
    errors: Errors,
    workers: int | None,
    engine: Engine,
    progress: Progress,
) -> tuple[dict[str, Any], int, int]:
    """Write the arrays of all parts; return their records, the bytes mended, and the bytes done by an earlier run.

    Every few seconds the place reached goes into a journal. A run that finds one of the same texts, dictionary and
    rules (`made_from`) goes on from there, to the same bytes.
    """
    journal = _load_journal(partial, made_from)
    before = journal.done_bytes
    progress(before)
    saved = time.monotonic()
    for part, texts in parts.items():
        if part in journal.parts:
            continue
        rest = list(texts[journal.document :])
        going_on = journal.position > 0
        if going_on:
            rest[0] = replace(rest[0], start=journal.position, mended=0)
        with part_writer(partial.path / part, vocabulary, Written(**journal.written)) as writer:

            def advance(size: int) -> None:
                journal.position += size
                journal.done_bytes += size
                progress(size)

            def mend(count: int) -> None:
                journal.mended_bytes += count

            documents = engine.encode(
                rest,
                load_rules,
                dictionary,
                errors=errors,
                workers=workers or workers_for(rest),
                progress=advance,
                mended=mend,
            )
            for text, arrays in zip(rest, documents, strict=True):
                if not going_on:
                    journal.position = text.start
                    writer.begin_document()
                going_on = False
                for ids in arrays:
                    writer.append(ids)
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        journal.written = asdict(writer.save())
                        journal.save(partial.path, text)
                        partial.keep = True
                        saved = time.monotonic()
                journal.document += 1
                journal.position = 0
        journal.parts[part] = writer.record()
        journal.document = journal.position = 0
        journal.written = asdict(Written())
    (partial.path / _JOURNAL).unlink(missing_ok=True)
    return journal.parts, journal.mended_bytes, before
