"""What the stages share: rules by name, output folders, digests of inputs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rnnpipe.durable import read_json, sha256_file
from rnnpipe.errors import InputError
from rnnpipe.plugins import text_registry
from rnnpipe.text.cleaning import Cleaner
from rnnpipe.text.corpus import CorpusFolder, is_corpus, load_corpus
from rnnpipe.text.files import TextFile, total_bytes
from rnnpipe.text.opening import find_paths
from rnnpipe.text.rules import LoadRules, Named, Rules, TextRules, rules_digest
from rnnpipe.text.tokenizing import Tokenizer
from rnnpipe.text.workers import default_workers

_LEFTOVER = re.compile(r"\..+\.\d+\.tmp")  # what a killed writer leaves
Progress = Callable[[int], None]  # hears of the bytes done since it was last called; or, once, how many there are
Report = Callable[[str], None]  # hears of what a person should know


def no_progress(done_bytes: int) -> None:
    """Take no notice."""


def no_report(message: str) -> None:
    """Take no notice."""


def load_cleaner(cleaner: Named) -> Cleaner:
    """Return the cleaner of a name and options."""
    built: Cleaner = text_registry().build("cleaner", cleaner.name, cleaner.options)
    return built


def load_rules(cleaner: Named, tokenizer: Named) -> Rules:
    """Return the rules of names and options; worker processes call this too."""
    split: Tokenizer = text_registry().build("tokenizer", tokenizer.name, tokenizer.options)
    return Rules(load_cleaner(cleaner), split)


def rules_loader(rules: TextRules, corpora: Sequence[CorpusFolder] | None, asked_by: str) -> LoadRules:
    """Return the function that loads `rules`, less the cleaning that the corpora have been through already.

    Raises InputError, with both digests, if they were cleaned by other rules; `asked_by` says who asks for these.
    """
    cleaned_by = corpora[0].cleaner if corpora else Named("none")
    if cleaned_by == Named("none"):
        return partial(load_rules, rules.cleaner, rules.tokenizer)
    if cleaned_by != rules.cleaner:
        names = ", ".join(str(corpus.path) for corpus in corpora or ())
        raise InputError(
            f"{names}: was cleaned by {cleaned_by.to_json()} ({rules_digest(cleaned_by.to_json())}), but {asked_by} "
            f"says {rules.cleaner.to_json()} ({rules_digest(rules.cleaner.to_json())}). Clean the original text by "
            "those rules, or use the corpus's own."
        )
    return partial(load_rules, Named("none"), rules.tokenizer)


def find_corpora(inputs: Sequence[str]) -> list[CorpusFolder] | None:
    """Return the inputs as cleaned corpora if they all are, None if none is; raise InputError for a mixture."""
    cleaned = [is_corpus(item) for item in inputs]
    if not any(cleaned):
        return None
    if not all(cleaned):
        other = inputs[cleaned.index(False)]
        raise InputError(
            f"{other}: is no cleaned corpus, but {inputs[cleaned.index(True)]} is; give one kind at a time."
        )
    corpora = [load_corpus(Path(item)) for item in inputs]
    if len({rules_digest(corpus.cleaner.to_json()) for corpus in corpora}) > 1:
        raise InputError(f"{', '.join(inputs)}: were cleaned by different rules; clean them again alike.")
    return corpora


def digests(texts: Iterable[TextFile]) -> list[str]:
    """Return the SHA-256 of each text."""
    return [sha256_file(text.path, text.start, text.stop) for text in texts]


def describe_texts(
    texts: Iterable[TextFile], part: str, digests: Callable[[Sequence[TextFile]], Sequence[str]] = digests
) -> list[dict[str, Any]]:
    """Return name, size, SHA-256 and part of each text: what a dictionary says it has counted."""
    texts = list(texts)
    return [
        {"name": Path(text.name).name, "bytes": text.size, "sha256": digest, "part": part}
        for text, digest in zip(texts, digests(texts), strict=True)
    ]


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def workers_for(texts: Iterable[TextFile]) -> int:
    """Return how many workers texts are worth: starting a process takes as long as counting about 8 MB."""
    return max(1, min(default_workers(), total_bytes(texts) // 8_000_000))


def check_output_file(out: Path, inputs: Sequence[str], start: bytes, what: str) -> None:
    """Raise InputError if writing the file `out` would destroy an input, or anything that is not `what`.

    `start` is how such a file begins.
    """
    if out.is_dir():
        raise InputError(f"{out}: is a directory; name a file for {what}.")
    if any(item != "-" and Path(item).exists() and out.exists() and Path(item).samefile(out) for item in inputs):
        raise InputError(f"{out}: is an input; name another file for {what}.")
    if out.exists():
        if not out.is_file():
            raise InputError(f"{out}: is no ordinary file; name a file for {what}.")
        with out.open("rb") as file:
            head = file.read(len(start))
        if head and head != start:
            raise InputError(f"{out}: is there and not {what}; name another file, or remove it.")


def check_output_folder(
    out: Path, marker: str, format_name: str, own: Collection[str], inputs: Sequence[str] = ()
) -> None:
    """Raise InputError if writing the folder `out` would destroy something that is not an earlier output of this kind.

    Such an output has the file `marker`, which names itself `format_name`, and no files but those in `own`.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder to write to.")
    for item in (*inputs, *find_paths(inputs)):
        if item != "-" and Path(item).resolve().is_relative_to(out.resolve()):
            raise InputError(f"{out}: holds the input {item}; name another folder to write to.")
    if not out.is_dir() or not (names := sorted(item.name for item in out.iterdir())):
        return
    record = read_json(out / marker) if (out / marker).is_file() else None
    if not isinstance(record, dict) or record.get("format") != format_name:
        raise InputError(f"{out}: holds other files ({names[0]}); name a new or empty folder.")
    for file in sorted(out.rglob("*")):
        name = file.relative_to(out).as_posix()
        if not file.is_dir() and name not in own and not _LEFTOVER.fullmatch(file.name):
            raise InputError(f"{out}: also holds {name}, which is not ours to remove; name another folder.")
