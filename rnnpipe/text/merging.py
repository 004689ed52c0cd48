"""Dictionaries put together, pruned, and looked at under other thresholds, without counting a text again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rnnpipe.errors import InputError, UsageError
from rnnpipe.text.rules import rules_digest
from rnnpipe.text.vocabulary import LeftOut, Vocabulary, build_vocabulary


@dataclass(frozen=True)
class ThresholdRow:
    """What an unknown threshold gives: the number of ids, how much of the text has one, and how much has none."""

    unknown_threshold: int
    size: int
    coverage: float

    @property
    def unknown_rate(self) -> float:
        """Return the share of the text's tokens that are unknown."""
        return 1 - self.coverage

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name."""
        return {
            "unknown_threshold": self.unknown_threshold,
            "size": self.size,
            "coverage": self.coverage,
            "unknown_rate": self.unknown_rate,
        }


def merge_vocabularies(
    named: Sequence[tuple[str, Vocabulary]], *, unknown_threshold: int | None = None, max_size: int | None = None
) -> Vocabulary:
    """Return the vocabulary that one count of all that these have counted would give, to the byte.

    named: each with the name that an error calls it by. Threshold and size are those of all, unless given here.
    Raises InputError, naming two, if their rules differ, or their thresholds or sizes and none is given, and for one
    that was pruned: its rare tokens are gone, so that no sum would be exact.
    """
    first_name, first = named[0]
    for name, vocabulary in named:
        if vocabulary.rules != first.rules:
            raise InputError(
                f"{name}: its tokens follow {vocabulary.rules.brief()} ({rules_digest(vocabulary.rules.to_json())}), "
                f"those of {first_name} {first.rules.brief()} ({rules_digest(first.rules.to_json())}); dictionaries of "
                "different rules have no common count. Build both by the same rules."
            )
        if vocabulary.left_out.types:
            raise InputError(
                f"{name}: was pruned; {vocabulary.left_out.types} types are left out of it, so that its counts cannot "
                "be added to others. Merge first, then prune."
            )
        for key, given in (("unknown_threshold", unknown_threshold), ("max_size", max_size)):
            own, other = getattr(vocabulary, key), getattr(first, key)
            if given is None and own != other:
                raise InputError(
                    f"{name}: has {key} {own}, {first_name} {other}; say which with --{key.replace('_', '-')} N."
                )
    counts: Counter[str] = Counter()
    for _, vocabulary in named:
        counts.update(dict(zip(vocabulary.tokens, vocabulary.counts, strict=True)))
    return build_vocabulary(
        {token.encode(): count for token, count in counts.items()},
        first.rules,
        unknown_threshold=first.unknown_threshold if unknown_threshold is None else unknown_threshold,
        max_size=first.max_size if max_size is None else max_size,
        counted=[record for _, vocabulary in named for record in vocabulary.counted],
        characters=sum(vocabulary.characters for _, vocabulary in named),
    )


def counted_twice(named: Iterable[tuple[str, Vocabulary]]) -> list[tuple[str, str, str]]:
    """Return each text that two of the vocabularies have counted, with the names of both."""
    seen: dict[tuple[str, str], str] = {}
    twice = []
    for name, vocabulary in named:
        own = {(record["name"], record["sha256"]) for record in vocabulary.counted}
        twice += [(text[0], seen[text], name) for text in sorted(own) if text in seen]
        seen.update(dict.fromkeys(own, name))
    return twice


def prune_vocabulary(
    vocabulary: Vocabulary, name: str, *, unknown_threshold: int | None = None, max_size: int | None = None
) -> Vocabulary:
    """Return the vocabulary without the tokens that have no id, under its own threshold and size or those given.

    Raises UsageError for a lower threshold or a greater size than those of a vocabulary that was pruned before.
    """
    threshold = vocabulary.unknown_threshold if unknown_threshold is None else unknown_threshold
    most = vocabulary.max_size if max_size is None else max_size
    if vocabulary.left_out.types:
        if threshold < vocabulary.unknown_threshold:
            raise UsageError(
                f"{name}: was pruned at the unknown threshold {vocabulary.unknown_threshold}; the tokens that "
                f"{threshold} would keep are gone. Prune the original dictionary."
            )
        if vocabulary.max_size is not None and (most is None or most > vocabulary.max_size):
            raise UsageError(
                f"{name}: was pruned to {vocabulary.max_size} tokens and has no more; prune the original dictionary."
            )
    moved = vocabulary.with_threshold(threshold, most)
    return replace(
        moved,
        tokens=moved.tokens[: moved.kept],
        counts=moved.counts[: moved.kept],
        left_out=LeftOut(
            vocabulary.left_out.types + len(moved.tokens) - moved.kept,
            vocabulary.left_out.tokens + sum(moved.counts[moved.kept :]),
        ),
    )


def preview_thresholds(vocabulary: Vocabulary, thresholds: Iterable[int]) -> list[ThresholdRow]:
    """Return what each unknown threshold would give, from the counts that are there; `max_size` holds for all."""
    rows = []
    for threshold in thresholds:
        moved = vocabulary.with_threshold(threshold, vocabulary.max_size)
        rows.append(ThresholdRow(threshold, moved.size, moved.coverage))
    return rows
