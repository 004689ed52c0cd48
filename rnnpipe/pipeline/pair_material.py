"""A dataset of pairs as what a run is trained on: both sides cleaned, counted and encoded, in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rnnpipe.config import Config, TextConfig
from rnnpipe.data.base import PARTS, PairDataset
from rnnpipe.data.pairs import Pairs, PairSizes, side_of
from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.build import build_pair_model, resolve_pair_numerics
from rnnpipe.pipeline.common import Report, load_rules, no_report
from rnnpipe.pipeline.dictionary import check_vocabulary, learn
from rnnpipe.pipeline.folder import DICTIONARY, TARGET_DICTIONARY
from rnnpipe.pipeline.kind import build_dataset, named_model
from rnnpipe.pipeline.material import Material
from rnnpipe.plugins import full_registry
from rnnpipe.text.counting import Counts
from rnnpipe.text.rules import TextRules
from rnnpipe.text.vocabulary import Vocabulary, build_vocabulary
from rnnpipe.training.pair_objective import PairObjective


@dataclass(frozen=True)
class PairData:
    """The parts of a dataset of pairs that are not empty, as ids, and the dictionaries of both sides.

    empty: how many pairs of the training part were left out, as one side or both had no token.
    """

    name: str
    parts: Mapping[str, Pairs]
    source: Vocabulary
    target: Vocabulary
    sizes: PairSizes
    empty: int

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each part's ids."""
        return {part: pairs.digest for part, pairs in self.parts.items()}


def pair_dataset(config: Config) -> PairDataset:
    """Return the configured dataset, which is one of pairs."""
    return cast("PairDataset", build_dataset(config.data.dataset))


def load_pairs(
    config: Config, vocabularies: tuple[Vocabulary, Vocabulary] | None = None, dataset: PairDataset | None = None
) -> PairData:
    """Read the configured dataset, build the dictionaries from its training part unless given, and encode all parts.

    dataset: the configured one, where somebody has made it already.
    Raises InputError for a dataset without a training part, or a side without a token that occurs often enough.
    """
    name = config.data.dataset.name
    dataset = pair_dataset(config) if dataset is None else dataset
    texts = {str(part): found for part in PARTS if (found := list(dataset.pairs(part)))}
    if "train" not in texts:
        raise InputError(f"dataset '{name}': has no pairs in its part 'train'.")
    source, target = vocabularies or build_vocabularies(config, texts["train"])
    parts = {}
    empty = 0
    for part, pairs in texts.items():
        encoded = _encode(pairs, source, target)
        if part == "train":
            whole = ((encoded.source.lengths > 0) & (encoded.target.lengths > 0)).nonzero()[0]
            empty = len(encoded) - len(whole)
            if not len(whole):
                raise InputError(f"dataset '{name}': every pair of its part 'train' has an empty side.")
            encoded = encoded.select(whole) if empty else encoded
        parts[part] = encoded
    return PairData(name, parts, source, target, PairSizes(source.size, target.size, source == target), empty)


def build_vocabularies(config: Config, pairs: Sequence[tuple[str, str]]) -> tuple[Vocabulary, Vocabulary]:
    """Return the dictionaries of both sides, the same one twice if `text.joint`."""
    sides = list(zip(*pairs, strict=True))
    rules = [text_rules(text) for text in (config.text, config.target_text)]
    if config.text.joint:
        if rules[0] != rules[1]:
            raise UsageError("text.joint=true: both sides need the same level, cleaner and tokenizer; see target_text.")
        joint = _build(config, config.text, [*sides[0], *sides[1]], "both sides")
        return joint, joint
    return (
        _build(config, config.text, sides[0], "the source side"),
        _build(config, config.target_text, sides[1], "the target side"),
    )


def text_rules(text: TextConfig) -> TextRules:
    """Return the rules of a resolved side."""
    assert text.cleaner is not None and text.tokenizer is not None, "the configuration is resolved"
    return TextRules(text.cleaner, text.tokenizer)


def _build(config: Config, text: TextConfig, texts: Sequence[str], side: str) -> Vocabulary:
    assert text.unknown_threshold is not None, "the configuration is resolved"
    rules = text_rules(text)
    tokenize = load_rules(rules.cleaner, rules.tokenizer).tokenize
    tokens: Counter[bytes] = Counter()
    for each in texts:
        tokens.update(token.encode() for token in tokenize(each))
    counts = Counts(tokens, sum(map(len, texts)))
    rules, counted = learn(rules, counts)
    vocabulary = build_vocabulary(
        counted,
        rules,
        unknown_threshold=text.unknown_threshold,
        max_size=text.max_size,
        characters=counts.characters,
    )
    check_vocabulary(vocabulary, counts, [f"dataset '{config.data.dataset.name}', {side}"])
    return vocabulary


def _encode(pairs: Sequence[tuple[str, str]], source: Vocabulary, target: Vocabulary) -> Pairs:
    sides = []
    for texts, vocabulary in zip(zip(*pairs, strict=True), (source, target), strict=True):
        tokenize = load_rules(vocabulary.rules.cleaner, vocabulary.rules.tokenizer).tokenize
        sides.append(side_of([vocabulary.encode(tokenize(text)) for text in texts]))
    return Pairs(*sides)


def pair_material(config: Config, data: PairData, report: Report = no_report) -> Material:
    """Return what a run is trained on that reads a dataset of pairs."""
    if data.empty:
        report(f"warning: {data.empty:,} training pairs have an empty side and are left out")
    if "valid" not in data.parts:
        report(f"warning: dataset '{data.name}' has no validation part; the last weights are the best.")
    counts = ", ".join(f"{part} {len(pairs):,}" for part, pairs in data.parts.items())
    train = data.parts["train"]
    report(
        f"pairs: {counts}; training: {len(train.source.ids):,} source and {len(train.target.ids):,} target tokens; "
        f"dictionaries: {_size(data)}"
    )
    longest = int(train.source.lengths.max())
    model = full_registry().get("model", named_model(config, "pairs").name)
    bound = "; an upper bound" if getattr(model, "variational", False) else ""
    record = {
        "dictionary": data.source.digest,
        "target_dictionary": data.target.digest,
        "pairs": data.digests(),
        "longest_source": longest,
    }
    changed = "was trained with another dictionary; the pairs or their rules have changed."
    other = "was trained on other pairs than the dataset gives now; put those back."
    return Material(
        objective=PairObjective(
            train=train,
            valid=data.parts.get("valid"),
            source_end=data.source.doc_id,
            target_end=data.target.doc_id,
            config=config.training,
            seed=config.runtime.seed,
        ),
        build=lambda config: build_pair_model(config, data.sizes, data.source.ids),
        resolve=lambda config, model: resolve_pair_numerics(config, model, longest + 1, ready=True, report=report),
        record=record,
        differs={
            "dictionary": changed,
            "target_dictionary": changed,
            "pairs": other,
            "longest_source": other,
        },
        made_from=record,
        files={DICTIONARY: data.source.to_bytes(), TARGET_DICTIONARY: data.target.to_bytes()},
        title="A network that translates",
        described=[
            ("pairs", f"{data.name}: {counts}"),
            ("source rules", f"`{json.dumps(data.source.rules.brief())}`"),
            ("target rules", f"`{json.dumps(data.target.rules.brief())}`"),
            ("vocabularies", _size(data)),
        ],
        evaluated=f"of every target token, the true ones before it given{bound}",
    )


def _size(data: PairData) -> str:
    if data.sizes.joint:
        return f"{data.source.size:,} ids, of both sides"
    return f"{data.source.size:,} source ids, {data.target.size:,} target ids"
