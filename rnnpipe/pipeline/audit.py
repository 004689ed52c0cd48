"""The stage `audit`: what the parts of a dataset share, and how many of their tokens a training dictionary lacks."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rnnpipe.config import Config, TextConfig, plugin_from_text, resolve
from rnnpipe.data.audit import Overlap, PartHashes, compare
from rnnpipe.data.base import PARTS, PairDataset, Part, SequenceDataset, TextDataset
from rnnpipe.data.text_files import TextFiles, temporary_folder
from rnnpipe.errors import InputError, UsageError, did_you_mean
from rnnpipe.pipeline.clean import dataset_parts
from rnnpipe.pipeline.common import Progress, find_corpora, no_progress, rules_loader, workers_for
from rnnpipe.plugins import full_registry, text_registry
from rnnpipe.text.counting import count_tokens
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.rules import LoadRules, TextRules
from rnnpipe.text.vocabulary import build_vocabulary

NGRAMS = {"word": 8, "char": 50}


@dataclass(frozen=True)
class Unknown:
    """Tokens of a part, and how many of them a dictionary of the training part has no id for."""

    tokens: int
    unknown: int


@dataclass(frozen=True)
class Audit:
    """What was compared: the length of runs, and by part the overlaps by kind and (of texts) the unknown tokens."""

    ngram: int
    overlaps: dict[str, dict[str, Overlap]]
    unknown: dict[str, Unknown]
    rules: TextRules | None = None
    unknown_threshold: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form for --json."""
        return {
            "ngram": self.ngram,
            "rules": self.rules and self.rules.to_json(),
            "unknown_threshold": self.unknown_threshold,
            "parts": {
                part: {
                    **{kind: overlap.to_json() for kind, overlap in kinds.items()},
                    **(vars(self.unknown[part]) if part in self.unknown else {}),
                }
                for part, kinds in self.overlaps.items()
            },
        }


def audit(
    inputs: Sequence[str],
    *,
    split: str = "8:1:1",
    level: Literal["word", "char"] = "word",
    ngram: int | None = None,
    unknown_threshold: int | None = None,
    encoding: str = "utf-8",
    errors: Errors = "strict",
    progress: Progress = no_progress,
) -> Audit:
    """Audit texts divided by `split`, cleaned corpora that are divided, or a dataset by its name (and options).

    Texts are compared in the tokens that `train` would make of them at this level. Raises InputError where there is no
    training part, or no other.
    """
    with temporary_folder() as spool:
        corpora = find_corpora(inputs)
        if corpora:
            parts: dict[str, list[TextFile]] = {}
            for corpus in corpora:
                for part in corpus.parts:
                    parts.setdefault(part, []).extend(corpus.texts(part))
        else:
            dataset, errors = _dataset(inputs, split, encoding, errors)
            if isinstance(dataset, SequenceDataset):
                return _audit_sequences(dataset, ngram, inputs, spool)
            parts = dataset_parts(dataset, spool, "line" if level == "word" else "character")
        _check_parts(parts, inputs)
        text = resolve(Config(text=TextConfig(level=level, cleaner=corpora[0].cleaner if corpora else None))).text
        assert text.cleaner and text.tokenizer and text.unknown_threshold is not None, "the configuration is resolved"
        rules = TextRules(text.cleaner, text.tokenizer)
        loader = rules_loader(rules, corpora, "--level")
        threshold = text.unknown_threshold if unknown_threshold is None else unknown_threshold
        n = ngram or NGRAMS[level]
        hashed = {part: PartHashes(spool / "hashes" / part, n) for part in parts}
        loaded = loader()
        for part, texts in parts.items():
            for each in texts:
                hashed[part].add_text(each, loaded, errors, progress)
        return Audit(n, compare(hashed), _unknown(parts, loader, rules, threshold, errors), rules, threshold)


def _dataset(
    inputs: Sequence[str], split: str, encoding: str, errors: Errors
) -> tuple[TextDataset | SequenceDataset, Errors]:
    """Return the dataset that is named, or that of the files that are, and what it does with bytes that are no text."""
    item = inputs[0]
    if len(inputs) > 1 or item == "-" or Path(item).exists() or glob.has_magic(item):
        return TextFiles(inputs=inputs, split=split, encoding=encoding, errors=errors), errors
    named = plugin_from_text(item)
    # The registry with what needs no torch is asked first.
    registries = (load() for load in (text_registry, full_registry))
    registry = next((each for each in registries if named.name in each.names("dataset")), None)
    if registry is None:
        names = full_registry().names("dataset")
        raise InputError(f"{item}: no such file, folder or dataset.{did_you_mean(item, names)}")
    dataset = registry.build("dataset", named.name, named.options)
    if isinstance(dataset, PairDataset):
        return _PairLines(dataset), errors
    if not isinstance(dataset, TextDataset | SequenceDataset):
        raise UsageError(f"dataset '{named.name}' has neither documents nor sequences nor pairs.")
    return dataset, named.options.get("errors", errors)


class _PairLines:
    """Pairs as a dataset of texts: a document of one line for each pair, source TAB target."""

    def __init__(self, pairs: PairDataset) -> None:
        self._pairs = pairs

    def documents(self, split: Part) -> Iterator[str]:
        """Yield the pairs of one part as one text."""
        lines = ["\t".join(" ".join(text.split()) for text in pair) + "\n" for pair in self._pairs.pairs(split)]
        yield "".join(lines)


def _check_parts(parts: Collection[str], inputs: Sequence[str]) -> None:
    if "train" not in parts or len(parts) < 2:
        raise InputError(
            f"{', '.join(inputs)}: has the parts {', '.join(parts) or 'none'}; an audit compares a training part with "
            "others. Divide the text with --split 8:1:1 (of clean, or of this command)."
        )


def _audit_sequences(dataset: SequenceDataset, ngram: int | None, inputs: Sequence[str], spool: Path) -> Audit:
    sequences = {str(part): found for part in PARTS if len((found := dataset.sequences(part)).lengths)}
    _check_parts(sequences, inputs)
    # Half of the shortest one: windows that overlap share such a run, though no window is like another.
    n = ngram or max(1, min(int(found.lengths.min()) for found in sequences.values()) // 2)
    hashed = {part: PartHashes(spool / part, n) for part in sequences}
    for part, found in sequences.items():
        hashed[part].add_sequences(found)
    return Audit(n, compare(hashed), {})


def _unknown(
    parts: dict[str, list[TextFile]], loader: LoadRules, rules: TextRules, threshold: int, errors: Errors
) -> dict[str, Unknown]:
    """Return how many tokens of each part a dictionary of the training part has no id for."""
    found = {}
    known: Collection[bytes] = ()
    for part in sorted(parts, key=lambda part: part != "train"):
        counts = count_tokens(parts[part], loader, errors=errors, workers=workers_for(parts[part])).tokens
        if part == "train":
            known = {token.encode() for token in build_vocabulary(counts, rules, unknown_threshold=threshold).ids}
        unknown = sum(count for token, count in counts.items() if token not in known)
        found[part] = Unknown(counts.total(), unknown)
    return found
