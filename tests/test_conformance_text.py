"""The checks of cleaners, tokenizers and datasets: built-ins pass, and for each check there is a plugin it catches."""

from __future__ import annotations

import functools
import itertools
import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.data.base import Part, Sequences
from rnnpipe.data.text_files import TextFiles
from rnnpipe.errors import UsageError
from rnnpipe.plugins import full_registry
from rnnpipe.testing import ConformanceError, Failure, Finding, Skipped, checks_for, findings
from rnnpipe.testing.child import elsewhere
from rnnpipe.testing.cleaners import check_cleaner
from rnnpipe.testing.datasets import check_dataset
from rnnpipe.testing.fuzz import PIECES, for_each_text, lines, shrink, texts
from rnnpipe.testing.randomness import require_untouched
from rnnpipe.testing.tokenizers import check_tokenizer
from rnnpipe.text.cleaning import Cleaner, CleaningReport, Rule, ascii_words
from rnnpipe.text.files import TextFile
from rnnpipe.text.native import NATIVE
from rnnpipe.text.points import blank_or_word
from rnnpipe.text.tokenizing import Tokenizer, characters, whitespace
from rnnpipe.text.unicode_words import unicode_words

HARBOUR = str(Path(__file__).resolve().parent.parent / "corpora" / "harbour-year.txt")
OPTIONS: dict[str, dict[str, Any]] = {"text-files": {"inputs": [HARBOUR]}}
ELSEWHERE = "another process"
Wrong = tuple[Callable[..., Any], set[str]]  # a wrong plugin, and the other checks that may trip over it


def outcomes(kind: str, thing: Any, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(checks_for(kind, thing, options))}


def failed(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.outcome == "failed"}


def assert_caught(kind: str, check: str, wrong: Callable[..., Any], others: set[str]) -> None:
    # Another process takes half a second to start: there only for those that differ there.
    made = [made for made in checks_for(kind, wrong, {}) if made.name in (check, *others) or made.name != ELSEWHERE]
    found = {finding.check: finding for finding in findings(made)}
    assert check in failed(found), found[check]
    assert failed(found) <= {check} | others
    assert re.fullmatch(r"expected .+; received .+; smallest case: .+", found[check].detail)


@pytest.mark.parametrize("kind", ["dataset", "cleaner", "tokenizer"])
def test_built_ins_pass(kind: str, tmp_path: Path) -> None:
    series = {"csv": tmp_path / "series.csv", "npy": tmp_path / "series.npy"}
    series["csv"].write_text("".join(f"{number},{number % 7}\n" for number in range(400)))
    np.save(series["npy"], np.arange(400))
    options = OPTIONS | {name: {"path": str(path)} for name, path in series.items()}
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"source {number}\tZiel {number}\n" for number in range(40)))
    options["parallel"] = {"file": str(pairs)}
    built_in = [entry for entry in full_registry().entries(kind) if entry.distribution == "rnnpipe"]
    assert built_in
    for entry in built_in:
        found = outcomes(kind, entry.load(), **options.get(entry.name, {}))
        assert not failed(found), (entry.name, [found[name] for name in failed(found)])
        assert found[ELSEWHERE].outcome == "passed"


@pytest.mark.parametrize(
    "options",
    [{"punctuation": True}, {"lowercase": False, "form": "NFD"}, {"form": "NFKC", "punctuation": True}],
    ids=str,
)
def test_unicode_words_pass_with_options(options: dict[str, Any]) -> None:
    found = outcomes("cleaner", unicode_words, **options)
    assert not failed(found)
    assert found["idempotence"].outcome == "passed"


anything = st.lists(
    st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")), max_size=20
).map("".join)


@given(anything, st.booleans(), st.booleans(), st.sampled_from(["NFC", "NFKC", "NFD", "NFKD"]))
@settings(deadline=None, max_examples=300)
def test_what_says_so_is_idempotent(text: str, lowercase: bool, punctuation: bool, form: Any) -> None:
    for cleaner in (unicode_words(lowercase, punctuation, form), ascii_words()):
        assert cleaner.idempotent
        once = cleaner.clean(text)
        assert cleaner.clean(once) == once


# --- cleaners ---


def cleaner_of(*rules: Callable[[str], str], **more: Any) -> Cleaner:
    return Cleaner(tuple(Rule(f"rule {number}", rule) for number, rule in enumerate(rules)), **more)


def no_cleaner() -> list[Rule]:
    return [Rule("lower", str.lower)]


def one_name_for_two_rules() -> Cleaner:
    return Cleaner((Rule("lower", str.lower), Rule("lower", str.strip)))


def named(name: str = "x") -> Cleaner:
    return cleaner_of()


def half_a_pair() -> Cleaner:
    return cleaner_of(lambda text: text.replace("\u00e9", "\ud83d"))


def drops_what_it_has_seen() -> Cleaner:
    seen: set[str] = set()

    def fresh(text: str) -> str:
        new = text not in seen
        seen.add(text)
        return text if new else ""

    return cleaner_of(fresh)


def drops_words_by_hash() -> Cleaner:
    return cleaner_of(lambda text: re.sub(r"\w+", lambda word: word[0] if hash(word[0]) % 2 else "", text))


class Secretive(Cleaner):
    def clean(self, text: str, report: CleaningReport | None = None) -> str:
        return super().clean(text, report).casefold()


def does_more_than_its_rules() -> Cleaner:
    return Secretive((Rule("nothing", str),))


def escapes_again() -> Cleaner:
    return cleaner_of(lambda text: text.replace("&", "&amp;"), idempotent=True)


def heals_hyphens() -> Cleaner:
    return cleaner_of(lambda text: text.replace("-\n", ""))


def drops_line_ends() -> Cleaner:
    return cleaner_of(str.strip)


def table_of_capitals() -> Cleaner:
    cleaner = ascii_words()
    assert cleaner.byte_table is not None
    table = bytes(b for b in range(256)).replace(b"\n", b" ").replace(b"\r", b" ")
    return replace(cleaner, byte_table=replace(cleaner.byte_table, table=table))


def entries_of_capitals() -> Cleaner:
    """Say by code point that letters stay as they are."""
    return Cleaner(rules=(Rule("lower-case", str.lower),), point_entry=blank_or_word)


def table_that_drops_all() -> Cleaner:
    cleaner = ascii_words()
    assert cleaner.byte_table is not None
    return replace(cleaner, byte_table=replace(cleaner.byte_table, drop_prefix=b""))


WRONG_CLEANERS: dict[str, list[Wrong]] = {
    "builds": [(no_cleaner, set()), (one_name_for_two_rules, set()), (named, set())],
    "valid text": [(half_a_pair, set())],
    "determinism": [(drops_what_it_has_seen, {"explain", "streaming"})],
    ELSEWHERE: [(drops_words_by_hash, set())],
    "explain": [(does_more_than_its_rules, set())],
    "idempotence": [(escapes_again, set())],
    "streaming": [(heals_hyphens, set()), (drops_line_ends, set())],
    "byte table": [(table_of_capitals, set()), (table_that_drops_all, set())],
    "point entries": [(entries_of_capitals, set())] if NATIVE else [],
}


def cases(wrong: Mapping[str, Sequence[Wrong]]) -> list[Any]:
    return [
        pytest.param(check, thing, others, id=f"{check}-{thing.__name__}")
        for check, things in wrong.items()
        for thing, others in things
    ]


@pytest.mark.parametrize(("check", "wrong", "others"), cases(WRONG_CLEANERS))
def test_wrong_cleaners_are_caught(check: str, wrong: Callable[..., Any], others: set[str]) -> None:
    assert_caught("cleaner", check, wrong, others)


def test_the_smallest_text_is_shown() -> None:
    assert outcomes("cleaner", escapes_again)["idempotence"].detail == (
        "expected '&amp;' unchanged, as idempotent=True says; received '&amp;amp;'; smallest case: the text '&'"
    )
    detail = outcomes("cleaner", heals_hyphens)["streaming"].detail
    assert re.search(r"smallest case: the text '-[^ ]\\n[^ ]'$", detail), detail


# --- tokenizers ---


def no_tokenizer() -> list[str]:
    return []


def split_at_each_blank() -> Tokenizer:
    return Tokenizer(lambda text: re.split(r"\s", text), " ".join)


def learns_words() -> Tokenizer:
    known: set[str] = set()

    def split(text: str) -> list[str]:
        words = text.split()
        tokens = [token for word in words for token in ([word] if word in known else list(word))]
        known.update(words)
        return tokens

    return Tokenizer(split, " ".join)


def ordered_by_hash() -> Tokenizer:
    return Tokenizer(lambda text: sorted(text.split(), key=hash), " ".join)


def glued() -> Tokenizer:
    return Tokenizer(str.split, "".join)


def says_lossless() -> Tokenizer:
    return replace(whitespace(), lossless=True)


def hides_characters() -> Tokenizer:
    return replace(characters(), by_character=False)


def letters_with_their_accents() -> Tokenizer:
    return Tokenizer(re.compile(r"(?s:.)\u0301*").findall, "".join, by_character=True, lossless=True)


def runs_of_line_ends() -> Tokenizer:
    return Tokenizer(re.compile(r"\n+|[^\n]+").findall, "".join, lossless=True)


def bytes_as_surrogates() -> Tokenizer:
    return Tokenizer(
        lambda text: list(text.encode().decode("ascii", "surrogateescape")),
        lambda tokens: "".join(tokens).encode("ascii", "surrogateescape").decode(),
        lossless=True,
    )


def learns_the_first_word(*, model: str | None = None) -> Tokenizer:
    if model is None:
        return replace(whitespace(), learn=lambda counts: next(iter(counts)))
    return replace(whitespace(), tokens=(model,))


def learns_a_set(*, model: Any = None) -> Tokenizer:
    return replace(whitespace(), learn=lambda counts: tuple(sorted(counts)) if model is None else None)


def names_no_tokens(*, model: Any = None) -> Tokenizer:
    return replace(whitespace(), learn=lambda counts: sorted(counts) if model is None else None)


def joins_neighbours(*, model: Any = None) -> Tokenizer:
    if model is None:
        return replace(whitespace(), learn=lambda counts: sorted(counts))
    return Tokenizer(lambda text: text.split(maxsplit=1), " ".join, tokens=tuple(model))


WRONG_TOKENIZERS: dict[str, list[Wrong]] = {
    "builds": [(no_tokenizer, set()), (named, set())],
    "tokens": [(split_at_each_blank, {"streaming"})],
    "determinism": [(learns_words, {"split again", "streaming"})],
    ELSEWHERE: [(ordered_by_hash, {"streaming"})],
    "split again": [(glued, set())],
    "lossless": [(says_lossless, set())],
    "by character": [(hides_characters, set()), (letters_with_their_accents, {"streaming"})],
    "streaming": [(runs_of_line_ends, set())],
    "dictionary": [(bytes_as_surrogates, set())],
    "learning": [
        (learns_the_first_word, set()),
        (learns_a_set, set()),
        (names_no_tokens, set()),
        (joins_neighbours, set()),
    ],
}


@pytest.mark.parametrize(("check", "wrong", "others"), cases(WRONG_TOKENIZERS))
def test_wrong_tokenizers_are_caught(check: str, wrong: Callable[..., Any], others: set[str]) -> None:
    assert_caught("tokenizer", check, wrong, others)


# --- datasets ---

LONG = "It was a bright cold day in April, and the clocks were striking; nobody was there to hear any of them strike. "


class Texts:
    """A right dataset, for the wrong ones to differ from in one thing each."""

    parts: Mapping[str, Sequence[Any]] = {
        "train": [f"{LONG}{number}" for number in range(6)],
        "valid": [f"{number} {LONG}" for number in range(2)],
        "test": ["Short.", f"Not so short. {LONG}"],
    }

    def documents(self, split: Part) -> Iterable[Any]:
        return list(self.parts.get(split, ()))


class Pairs:
    def pairs(self, split: Part) -> Iterable[tuple[str, str]]:
        first = {"train": 0, "valid": 10, "test": 20}.get(split)
        return () if first is None else ((str(n), f"{n} in words") for n in range(first, first + 10))


class Numbers:
    loss = "mse"
    target = "last"

    def sequences(self, split: Part) -> Sequences:
        if split not in ("train", "valid", "test"):
            raise UsageError(f"unknown part '{split}'.")
        generator = np.random.default_rng(["train", "valid", "test"].index(split))
        lengths = np.array([3, 7, 1, 5])
        inputs = generator.random((4, 7, 2), np.float32) * (np.arange(7) < lengths[:, None])[:, :, None]
        return self.change(inputs.astype(np.float32), inputs.sum(1), lengths)

    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        return Sequences(inputs, targets, lengths)


class Neither:
    pass


class NamedTexts(Texts):
    def __init__(self, *, name: str = "x") -> None:
        pass


class Bytes(Texts):
    def documents(self, split: Part) -> Iterable[Any]:
        return [text.encode() for text in super().documents(split)]


class Surrogates(Texts):
    parts: Mapping[str, Sequence[Any]] = {"train": ["fine", "\ud800"]}


class NoTraining(Texts):
    parts: Mapping[str, Sequence[Any]] = {"test": ["There is nothing to learn this from."]}


class Triples(Pairs):
    def pairs(self, split: Part) -> Iterable[Any]:
        return [(*pair, "more") for pair in super().pairs(split)]


class Doubles(Numbers):
    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        return Sequences(inputs.astype(np.float64), targets, lengths)


class TooLong(Numbers):
    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        return Sequences(inputs, targets, lengths + 1)


class Unpadded(Numbers):
    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        return Sequences(inputs + np.float32(1), targets, lengths)


class NotFinite(Numbers):
    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        return Sequences(inputs, targets + np.float32("inf"), lengths)


class TargetForEvery(Numbers):
    target = "every"


class OddLoss(Numbers):
    loss = "hinge"


class BeyondOne(Numbers):
    loss = "binary-cross-entropy"


class NegativeClass(Numbers):
    loss = "cross-entropy"

    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        return Sequences(inputs, -np.ones((4, 1), np.int64), lengths)


class ShufflesAgain(Texts):
    def __init__(self) -> None:
        self.random = random.Random(3)

    def documents(self, split: Part) -> Iterable[str]:
        documents = list(super().documents(split))
        self.random.shuffle(documents)
        return documents


class OneCursor(Texts):
    def documents(self, split: Part) -> Iterable[str]:
        documents = list(super().documents(split))
        self.at = 0
        while self.at < len(documents):
            self.at += 1
            yield documents[self.at - 1]


class OneBuffer(Numbers):
    def __init__(self) -> None:
        self.buffer = np.zeros((4, 7, 2), np.float32)

    def change(self, inputs: Any, targets: Any, lengths: Any) -> Sequences:
        self.buffer[:] = inputs
        return Sequences(self.buffer, targets, lengths)


class OneThread(Texts):
    def __init__(self) -> None:
        self.opened = threading.local()
        self.opened.documents = self.parts

    def documents(self, split: Part) -> Iterable[str]:
        return list(getattr(self.opened, "documents", {}).get(split, ()))


class InOrderOfASet(Texts):
    def documents(self, split: Part) -> Iterable[str]:
        return set(super().documents(split))


class SeedsTheGlobal(Texts):
    def documents(self, split: Part) -> Iterable[str]:
        documents = list(super().documents(split))
        random.seed(5)
        random.shuffle(documents)
        return documents


class MovesNumPys(Texts):
    def documents(self, split: Part) -> Iterable[str]:
        np.random.random()
        return super().documents(split)


class FollowsTheGlobalSeed(Texts):
    def documents(self, split: Part) -> Iterable[str]:
        documents, state = list(super().documents(split)), random.getstate()
        random.shuffle(documents)
        random.setstate(state)
        return documents


class Overlapping(Texts):
    parts: Mapping[str, Sequence[Any]] = {**Texts.parts, "test": [Texts.parts["train"][4], "Short."]}


class OverlappingPairs(Pairs):
    def pairs(self, split: Part) -> Iterable[tuple[str, str]]:
        return super().pairs("train") if split == "valid" else super().pairs(split)


class OverlappingNumbers(Numbers):
    def sequences(self, split: Part) -> Sequences:
        found = super().sequences("train" if split == "test" else split)
        return replace(found, targets=found.targets + 1) if split == "test" else found


class OtherLengths(Numbers):
    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        return self.sequences("train")


class DrawsAnew(Numbers):
    def at_length(self, length: int, count: int, seed: int) -> Sequences:
        self.calls = getattr(self, "calls", 0) + 1
        inputs = np.random.default_rng(self.calls).random((count, length, 2), np.float32)
        return Sequences(inputs, inputs.sum(1), np.full(count, length))


class OneWay(Numbers):
    def scale(self, values: Any) -> Any:
        return values / 2


class NotBack(OneWay):
    def unscale(self, values: Any) -> Any:
        return values * 3


class AnyPart(Texts):
    def documents(self, split: Part) -> Iterable[str]:
        return super().documents(split if split in self.parts else "train")


class WholeFiles(TextFiles):
    def __init__(self) -> None:
        super().__init__(inputs=[HARBOUR])

    def texts(self, split: Part, spool: Path, at: Any) -> Sequence[TextFile]:
        return [replace(text, start=0) for text in super().texts(split, spool, at)]

    def documents(self, split: Part) -> Iterable[str]:
        return TextFiles(inputs=[HARBOUR]).documents(split)


FORM = "lengths and dtypes"
WRONG_DATASETS: dict[str, list[Wrong]] = {
    "builds": [(Neither, set()), (NamedTexts, set())],
    FORM: [
        *((wrong, set[str]()) for wrong in (Bytes, Surrogates, NoTraining, Triples, Doubles, TooLong, Unpadded)),
        *((wrong, set[str]()) for wrong in (NotFinite, TargetForEvery, OddLoss, BeyondOne, NegativeClass)),
    ],
    "same twice": [(ShufflesAgain, {"interleaved", "several workers"})],
    "interleaved": [(OneCursor, {"several workers"}), (OneBuffer, set())],
    "several workers": [(OneThread, set())],
    ELSEWHERE: [(InOrderOfASet, set())],
    "random state": [(SeedsTheGlobal, set()), (MovesNumPys, set()), (FollowsTheGlobalSeed, {ELSEWHERE})],
    "splits disjoint": [(Overlapping, set()), (OverlappingPairs, set()), (OverlappingNumbers, set())],
    "unknown part": [(AnyPart, set())],
    "files": [(WholeFiles, set())],
    "sequences of a length": [(OtherLengths, set()), (DrawsAnew, set())],
    "scaling": [(OneWay, set()), (NotBack, set())],
}


@pytest.mark.parametrize(("check", "wrong", "others"), cases(WRONG_DATASETS))
def test_wrong_datasets_are_caught(check: str, wrong: Callable[..., Any], others: set[str]) -> None:
    assert_caught("dataset", check, wrong, others)


@pytest.mark.parametrize("right", [Texts, Pairs, Numbers])
def test_right_datasets_of_each_kind_pass(right: Callable[..., Any]) -> None:
    found = outcomes("dataset", right)
    assert not failed(found)
    assert "0 of" in found["splits disjoint"].detail


def test_an_overlap_is_reported_and_allowed_where_the_dataset_says_why() -> None:
    class Told(Overlapping):
        overlap = "there are only so many texts"

    detail = outcomes("dataset", Overlapping)["splits disjoint"].detail
    assert "0 of 2 valid and 1 of 2 test documents are in train too; smallest case: item 0 of 'test'" in detail
    found = outcomes("dataset", Told)["splits disjoint"]
    assert found.outcome == "passed"
    assert "1 of 2 test documents are in train too (there are only so many texts)" in found.detail


def test_a_thing_that_cannot_be_built_fails_once() -> None:
    found = outcomes("dataset", TextFiles)
    assert failed(found) == {"builds"}
    assert "needs the option 'inputs'" in found["builds"].detail
    assert {finding.outcome for finding in found.values()} == {"failed", "skipped"}


# --- all three kinds ---


@pytest.mark.parametrize(
    ("kind", "thing", "wrong"),
    [
        ("cleaner", ascii_words, WRONG_CLEANERS),
        ("tokenizer", characters, WRONG_TOKENIZERS),
        ("dataset", Texts, WRONG_DATASETS),
    ],
)
def test_each_check_has_a_wrong_plugin(kind: str, thing: Any, wrong: Mapping[str, object]) -> None:
    assert {check.name for check in checks_for(kind, thing, {})} == set(wrong)


def test_by_name_and_the_error_of_all_failures() -> None:
    assert {finding.outcome for finding in check_tokenizer("whitespace")} == {"passed", "skipped"}
    assert len(check_dataset("text-files", inputs=[HARBOUR])) == len(WRONG_DATASETS)
    with pytest.raises(UsageError, match="unknown cleaner 'asci-words'"):
        check_cleaner("asci-words")
    with pytest.raises(ConformanceError) as error:
        check_cleaner(escapes_again)
    assert str(error.value).splitlines() == [
        "cleaner 'escapes_again' fails 1 of 9 checks:",
        "  idempotence: expected '&amp;' unchanged, as idempotent=True says; received '&amp;amp;'; smallest case: the "
        "text '&'",
    ]


# --- what the checks stand on ---


def test_fuzzed_texts_are_what_a_reader_yields() -> None:
    found = list(texts())
    assert found == list(texts())
    assert len(found) > 1000
    assert not any(re.search("[\r\0\ud800-\udfff]", text) for text in found)
    assert {"", *PIECES} <= set(found)
    assert sum("\n" in text for text in found) > 200


@given(st.text(alphabet="abc\n", max_size=30))
def test_lines_are_the_text_in_pieces(text: str) -> None:
    assert "".join(lines(text)) == text
    assert all(piece.count("\n") <= 1 and "\n" not in piece[:-1] for piece in lines(text))


@given(st.text(alphabet="ab", max_size=30))
def test_what_is_left_by_shrinking_is_smallest(text: str) -> None:
    def fails(candidate: str) -> bool:
        return candidate.count("a") >= 2 and "b" in candidate

    if fails(text):
        smallest = shrink(text, fails)
        assert sorted(smallest) == ["a", "a", "b"]


def test_what_a_plugin_raises_is_shown_with_the_smallest_text() -> None:
    def look(text: str) -> None:
        if "\u00e9" in text:
            raise ValueError("no accents")

    with pytest.raises(Failure, match=r"received ValueError: no accents; smallest case: the text '\\xe9'"):
        for_each_text(look)


def test_a_failure_that_comes_only_once_is_a_failure() -> None:
    calls = itertools.count()
    with pytest.raises(Failure, match="a failure that came only once"):
        for_each_text(lambda text: ("x", "y") if next(calls) == 0 else None)


def test_what_another_process_cannot_import_is_skipped() -> None:
    def inside() -> Cleaner:
        return ascii_words()

    assert outcomes("cleaner", inside)[ELSEWHERE].outcome == "skipped"
    with pytest.raises(Skipped, match="defined inside a function"):
        elsewhere("rnnpipe.testing.cleaners:digests", inside, {})
    with pytest.raises(Skipped, match="cannot be sent"):
        elsewhere("rnnpipe.testing.cleaners:digests", ascii_words, {"option": object()})


def test_what_is_raised_in_another_process_is_a_failure() -> None:
    with pytest.raises(Failure, match="received UsageError: cleaner 'ascii_words' has no option 'wrong'"):
        elsewhere("rnnpipe.testing.cleaners:digests", ascii_words, {"wrong": 1})


def test_single_file_plugins_are_found_in_another_process(tmp_path: Path) -> None:
    from rnnpipe.plugins.discovery import file_source

    source = "from rnnpipe.text.cleaning import Cleaner\ndef plain():\n    return Cleaner(())\n"
    (tmp_path / "mine.py").write_text(source)
    module = file_source(tmp_path / "mine.py").load()
    assert outcomes("cleaner", module.plain)[ELSEWHERE].outcome == "passed"


def test_the_global_generators_are_left_as_they_were() -> None:
    random.seed(1)
    np.random.seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist())
    for wrong in (SeedsTheGlobal, MovesNumPys):
        assert failed(outcomes("dataset", wrong)) == {"random state"}
        with pytest.raises(Failure, match="generator has moved"):
            require_untouched(functools.partial(wrong().documents, "train"), "reading")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
