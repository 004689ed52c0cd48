"""The stage `encode`: texts and a dictionary to token files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnpipe.data.corpora.texts import open_parts
from rnnpipe.data.tokens import DICTIONARY, FORMAT, META, OWN_FILES, VERSION, TokenFolder, load_tokens
from rnnpipe.durable import resumable_directory, write_record
from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import (
    Progress,
    check_output_folder,
    describe_texts,
    find_corpora,
    fingerprint,
    no_progress,
    rules_loader,
)
from rnnpipe.pipeline.encode_parts import write_parts
from rnnpipe.pipeline.engines import LOCAL, Engine
from rnnpipe.text.files import Errors, TextFile, total_bytes
from rnnpipe.text.vocabulary import load_vocabulary


@dataclass(frozen=True)
class Encoded:
    """What the stage wrote, the bytes mended on the way in, and whether it was there already.

    bytes_before: of the texts, what an earlier run that was interrupted had done.
    """

    folder: TokenFolder
    mended_bytes: int
    bytes_before: int = 0
    skipped: bool = False


def encode(
    inputs: Sequence[str],
    dictionary: Path,
    out: Path,
    *,
    encoding: str = "utf-8",
    errors: Errors = "strict",
    workers: int | None = None,
    engine: Engine = LOCAL,
    skip: bool = False,
    before_writing: Callable[[], None] = lambda: None,
    progress: Progress = no_progress,
    expect: Progress = no_progress,
) -> Encoded:
    """Write the token folder `out` of texts, or of all parts of cleaned corpora, by the rules of a dictionary.

    A run that was interrupted, over the same, is gone on with. With `skip`, a token folder of just these is left as it
    is; `before_writing` is called when there is none, and may raise. Raises InputError, with the digests of both, if a
    corpus was cleaned by other rules than the dictionary's.
    """
    vocabulary = load_vocabulary(dictionary)
    check_output_folder(out, META, FORMAT, OWN_FILES, [*inputs, str(dictionary)])
    with engine.folder(out) as spool:
        corpora = find_corpora(inputs)
        parts: dict[str, list[TextFile]] = {}
        for corpus in corpora or ():
            for part in corpus.parts:
                parts.setdefault(part, []).extend(corpus.texts(part))
        if not corpora:
            parts = open_parts(inputs, spool, encoding, errors)
        loader = rules_loader(vocabulary.rules, corpora, str(dictionary))
        made_from = fingerprint(
            {
                "version": VERSION,
                "dictionary": vocabulary.digest,
                "errors": errors,
                "texts": {part: describe_texts(texts, part, engine.digests) for part, texts in parts.items()},
            }
        )
        if skip and (out / META).is_file():
            before = load_tokens(out)
            if before.meta.get("made_from") == made_from:
                return Encoded(before, 0, skipped=True)
        before_writing()
        expect(sum(map(total_bytes, parts.values())))
        with resumable_directory(out) as partial:
            records, mended, done_before = write_parts(
                partial,
                parts,
                loader,
                dictionary,
                vocabulary,
                made_from,
                errors=errors,
                workers=workers,
                engine=engine,
                progress=progress,
            )
            if all(record["tokens"] <= record["documents"] for record in records.values()):
                raise InputError(f"{', '.join(inputs)}: no token is left under the rules of {dictionary}.")
            shutil.copyfile(dictionary, partial.path / DICTIONARY)
            meta = {
                "format": FORMAT,
                "version": VERSION,
                "dictionary": vocabulary.digest,
                "vocab_size": vocabulary.size,
                "made_from": made_from,
                "parts": records,
            }
            write_record(partial.path / META, meta)
    return Encoded(load_tokens(out), mended, done_before)
