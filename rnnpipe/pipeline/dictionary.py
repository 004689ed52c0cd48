"""The stage `build-dict`: texts to a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnpipe.data.corpora.texts import open_parts
from rnnpipe.data.text_files import temporary_folder
from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import (
    Progress,
    check_output_file,
    describe_texts,
    find_corpora,
    load_rules,
    no_progress,
    rules_loader,
    workers_for,
)
from rnnpipe.pipeline.engines import LOCAL, Engine
from rnnpipe.text.counting import Counts
from rnnpipe.text.files import Errors, TextFile, total_bytes
from rnnpipe.text.large import write_dictionary
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.runs import Spill
from rnnpipe.text.subwords import subword_counts
from rnnpipe.text.vocabulary import START as DICTIONARY_START
from rnnpipe.text.vocabulary import Summary, Vocabulary, build_vocabulary, load_vocabulary


@dataclass(frozen=True)
class Built:
    """What the stage wrote: its figures, the bytes mended on the way in, and whether it was there already."""

    summary: Summary
    mended_bytes: int
    out: Path | None
    in_memory: Vocabulary | None  # None: it may be larger than memory, and lies in `out` alone
    skipped: bool = False

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary, read from its file if need be."""
        if self.in_memory is not None:
            return self.in_memory
        assert self.out is not None
        return load_vocabulary(self.out)


def build_dict(
    inputs: Sequence[str],
    out: Path | None,
    *,
    cleaner: Named | None = None,
    tokenizer: Named = Named("whitespace"),
    unknown_threshold: int = 3,
    max_size: int | None = None,
    encoding: str = "utf-8",
    errors: Errors = "strict",
    workers: int | None = None,
    max_memory: int = 1 << 30,
    engine: Engine = LOCAL,
    skip: bool = False,
    before_writing: Callable[[], None] = lambda: None,
    progress: Progress = no_progress,
    expect: Progress = no_progress,
) -> Built:
    """Count the tokens of texts, or of the training parts of corpora, and write the dictionary `out`, if any.

    The file is the same to the byte for any number of workers and any order of inputs. `cleaner` None means the one
    that a cleaned corpus went through, otherwise `unicode-words`. A tokenizer that learns does so from the counts, and
    what it has learnt stands among the rules of the dictionary. Counts that need more than `max_memory` bytes lie on
    the disk meanwhile. With `skip`, a dictionary that already counts just this is left as it is; `before_writing` is
    called when there is none, and may raise.
    """
    if out is not None:
        check_output_file(out, inputs, DICTIONARY_START, "a dictionary")
    with engine.folder(out) as spool, temporary_folder() as runs, ThreadPoolExecutor(1) as beside:
        corpora = find_corpora(inputs)
        if corpora:
            chosen = [(corpus, "train" if "train" in corpus.parts else "all") for corpus in corpora]
            by_part = [(corpus.texts(part), part) for corpus, part in chosen]
        else:
            parts = open_parts(inputs, spool, encoding, errors)
            part = next((part for part in ("train", "all") if part in parts), None)
            if part is None:
                raise InputError(f"{', '.join(inputs)}: has no training part, which a dictionary counts.")
            by_part = [(parts[part], part)]
        texts = [text for part_texts, _ in by_part for text in part_texts]
        rules = TextRules(cleaner or (corpora[0].cleaner if corpora else Named("unicode-words")), tokenizer)
        loader = rules_loader(rules, corpora, "--cleaner")
        hashing = beside.submit(_describe, by_part, engine)
        if skip and out is not None and out.is_file():
            before = load_vocabulary(out)
            wanted = build_vocabulary(
                {}, rules, unknown_threshold=unknown_threshold, max_size=max_size, counted=hashing.result()
            )
            if (before.rules.unlearnt, before.counted, before.unknown_threshold, before.max_size) == (
                wanted.rules,
                wanted.counted,
                unknown_threshold,
                max_size,
            ):
                return Built(before.summary(), 0, out, before, skipped=True)
        before_writing()
        expect(total_bytes(texts))
        spill = Spill(runs, max_memory)
        counts = engine.count(
            texts, loader, errors=errors, workers=workers or workers_for(texts), spill=spill, progress=progress
        )
        counted = hashing.result()
        if spill.runs:
            if out is None or load_rules(rules.cleaner, rules.tokenizer).tokenizer.learn is not None:
                raise InputError(
                    f"{', '.join(inputs)}: the counts do not fit into {max_memory >> 20}M of memory, as a preview "
                    "and a tokenizer that learns need them; raise --max-memory."
                )
            summary = write_dictionary(
                out,
                spill,
                rules,
                unknown_threshold=unknown_threshold,
                max_size=max_size,
                counted=counted,
                characters=counts.characters,
                check=lambda kept, most: check_kept(kept, most, unknown_threshold, inputs),
            )
            return Built(summary, counts.mended_bytes, out, None)
        rules, tokens = learn(rules, counts)
        vocabulary = build_vocabulary(
            tokens,
            rules,
            unknown_threshold=unknown_threshold,
            max_size=max_size,
            counted=counted,
            characters=counts.characters,
        )
    check_vocabulary(vocabulary, counts, inputs)
    if out is not None:
        vocabulary.save(out)
    return Built(vocabulary.summary(), counts.mended_bytes, out, vocabulary)


def learn(rules: TextRules, counts: Counts) -> tuple[TextRules, Mapping[bytes, int]]:
    """Return the rules with what their tokenizer learns from the counts, and the counts of its tokens.

    If it does not learn, or has done so, these are the rules and the counts given.
    """
    tokenizer = load_rules(rules.cleaner, rules.tokenizer).tokenizer
    if tokenizer.learn is None or not counts.tokens:
        return rules, counts.tokens
    learnt = rules.learnt(tokenizer.learn({word.decode(): number for word, number in counts.tokens.items()}))
    return learnt, subword_counts(counts.tokens, load_rules(learnt.cleaner, learnt.tokenizer).tokenizer)


def _describe(by_part: Sequence[tuple[list[TextFile], str]], engine: Engine) -> list[dict[str, Any]]:
    return [record for texts, part in by_part for record in describe_texts(_whole_files(texts), part, engine.digests)]


def _whole_files(texts: Sequence[TextFile]) -> list[TextFile]:
    """Return one text for each file, from its first document's start to its last one's end."""
    whole: dict[Path, TextFile] = {}
    for text in texts:
        first = whole.get(text.path, text)
        whole[text.path] = TextFile(text.name, text.path, min(first.start, text.start), max(first.stop, text.stop))
    return list(whole.values())


def check_vocabulary(vocabulary: Vocabulary, counts: Counts, inputs: Sequence[str]) -> None:
    """Raise InputError if the inputs have no token at all, or none above the threshold."""
    names = ", ".join(inputs)
    if not counts.tokens:
        raise InputError(
            f"{names}: no token is left after cleaner '{vocabulary.rules.cleaner.name}' and tokenizer "
            f"'{vocabulary.rules.tokenizer.name}'; use another cleaner or text."
        )
    check_kept(vocabulary.kept, vocabulary.counts[0], vocabulary.unknown_threshold, inputs)


def check_kept(kept: int, most: int, unknown_threshold: int, inputs: Sequence[str]) -> None:
    """Raise InputError if no token is above the threshold; the most frequent one occurs `most` times."""
    if kept == 0:
        raise InputError(
            f"{', '.join(inputs)}: no token occurs more than {unknown_threshold} times (the most frequent: {most}), so "
            "all would be unknown. Lower the threshold with --unknown-threshold (for train: --set "
            "text.unknown_threshold=N) or give more text."
        )
