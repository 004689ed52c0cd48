"""The cleaners: the published word rules, the Unicode words, and the account of what was dropped and replaced."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnpipe.text.cleaning import Cleaner, CleaningReport, ascii_words, none
from rnnpipe.text.rules import Rules
from rnnpipe.text.tokenizing import characters, whitespace
from rnnpipe.text.unicode_words import unicode_words


def published_words(text: str) -> list[str]:
    """Return the words by the published rules, written down once more from their description."""
    text = text.lower()
    text = text.replace("\n", " ")
    text = re.sub(r"[^a-z '\-]", "", text)
    text = re.sub(" +", " ", text)
    return [word for word in text.split(" ") if word and not word.startswith("-")]


PIECES = [
    *("a", "Z", "the", " The ", "'", "-", "--", "-x", "x-", " -", "- ", " ", "  ", "\n", "\n\n", "\t", "\v", "\f"),
    *("7", "1984", "caf\u00e9", "cafe\u0301", "\u212a", "\u0130", "\u0131", "\u017f", "\u2019", "\u2014", "\u00a0"),
    *("\u2028", "\x85", "\x1c", "\ufeff", "\u00ad", "\u4e2d", "\ud55c", "\U0001f600", "\ufffd", "don't", "\x7f"),
]
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.text(max_size=60))


# --- ascii-words ---


@given(texts)
@settings(deadline=None, max_examples=300)
@example("\u212aelvin \u0130stanbul")
@example("-- a--b -c- \n-\n- d")
@example("one\ttwo 3three caf\u00e9s\r")
@example("A\rA\r\nb")
def test_ascii_words_are_the_published_rules(text: str) -> None:
    cleaned = ascii_words().clean(text)
    read = text.replace("\r\n", "\n").replace("\r", "\n")  # what text mode makes of a file with these bytes
    assert cleaned.split(" ") == (published_words(read) or [""])
    table = ascii_words().byte_table
    assert table is not None
    assert [w.decode() for w in table.words(text.encode()) if not w.startswith(b"-")] == published_words(read)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The CAT", "the cat"),
        ("tab\there", "tabhere"),
        ("1984 was 4ever", "was ever"),
        ("caf\u00e9s na\u00efve", "cafs nave"),
        ("\u212ag \u0130t", "kg it"),
        ("mother-in-law -- -dropped kept-", "mother-in-law kept-"),
        ("'tis o'clock'", "'tis o'clock'"),
        ("line\nbreak\n\nagain", "line break again"),
        ("long\u2014dash", "longdash"),
        ("\n - \n", ""),
        ("", ""),
    ],
)
def test_ascii_words_by_example(text: str, cleaned: str) -> None:
    assert ascii_words().clean(text) == cleaned


@given(texts)
@settings(deadline=None)
def test_ascii_words_are_idempotent(text: str) -> None:
    cleaned = ascii_words().clean(text)
    assert ascii_words().clean(cleaned) == cleaned


# --- unicode-words ---

SCRIPTS = [
    *("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "\u65e5\u672c\u8a9e"),
    *("\u30ab\u30bf\u30ab\u30ca\u30fc", "\u3072\u3089\u304c\u306a", "\u0627\u0644\u0639\u064e\u0631\u0628\u064a\u0629"),
    *("\u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac", "\ud55c\uad6d\uc5b4", "\u0440\u0443\u0441\u0441\u043a"),
    *("\u0968\u0966\u0968\u096a", "\u0663\u0664", "\u2166", "na\u00efve", "x\u00b2", "\U00010330\U00010331"),
]


@pytest.mark.parametrize("word", SCRIPTS)
def test_letters_marks_and_numbers_of_every_script_are_kept(word: str) -> None:
    word = unicodedata.normalize("NFC", word)
    assert unicode_words(lowercase=False).clean(f"({word}), \u00ab{word}\u00bb!") == f"{word} {word}"
    assert unicode_words(lowercase=False, punctuation=True).clean(f"({word})") == f"( {word} )"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("don't DON\u2019T rock'n'roll", "don't don't rock'n'roll"),
        ("mother-in-law co\u2010op co\u2011op", "mother-in-law co-op co-op"),
        ("'quoted' -dash- a--b", "quoted dash a b"),
        ("snake_case", "snake case"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("\u039f\u0394\u039f\u03a3 \u03a3", "\u03bf\u03b4\u03bf\u03c2 \u03c3"),
        ("cafe\u0301", "caf\u00e9"),
        ("one, two.\n\n  three\tfour \n", "one two\n\nthree four\n"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f \u4e16\u754c"),
        ("!?", ""),
    ],
)
def test_unicode_words_by_example(text: str, cleaned: str) -> None:
    assert unicode_words().clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Hello, world!", "hello , world !"),
        ("'Tis (a) test...", "' tis ( a ) test . . ."),
        ("a_b", "a _ b"),
        ("\u300c\u306f\u3044\u300d\u3002", "\u300c \u306f\u3044 \u300d \u3002"),
        ("bell\x07 nbsp\u00a0x\x85y", "bell nbsp x y"),
        ("don't well-known", "don't well-known"),
        ("\u00a35 \u2014 \U0001f600", "\u00a3 5 \u2014 \U0001f600"),
        ("a,\n!b", "a ,\n! b"),
    ],
)
def test_punctuation_becomes_words_of_its_own(text: str, cleaned: str) -> None:
    assert unicode_words(punctuation=True).clean(text) == cleaned


def test_case_is_kept_on_request() -> None:
    assert unicode_words(lowercase=False).clean("The CAT\u2019s \u0391\u03a3") == "The CAT's \u0391\u03a3"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@given(text=texts)
@settings(deadline=None)
def test_the_output_is_normalised(form: str, text: str) -> None:
    cleaned = unicode_words(form=form).clean(text)  # type: ignore[arg-type]
    assert unicodedata.is_normalized(form, cleaned)  # type: ignore[arg-type]


@given(texts, st.booleans(), st.booleans())
@settings(deadline=None, max_examples=300)
@example("a_'b-_\u0301", False, True)
@example("\u0391\u03a3'\u0391\u03a3\u00ad\u0391", True, False)
def test_unicode_words_are_idempotent(text: str, lowercase: bool, punctuation: bool) -> None:
    cleaner = unicode_words(lowercase=lowercase, punctuation=punctuation)
    cleaned = cleaner.clean(text)
    assert cleaner.clean(cleaned) == cleaned


@given(texts, st.booleans())
@settings(deadline=None)
def test_only_words_single_blanks_and_line_ends_are_left(text: str, punctuation: bool) -> None:
    cleaned = unicode_words(punctuation=punctuation).clean(text)
    assert cleaned.count("\n") == text.count("\n")
    for line in cleaned.split("\n"):
        assert line == " ".join(line.split())
        if not punctuation:
            for character in line:
                assert character in " '-\u200c\u200d" or unicodedata.category(character)[0] in "LMN", hex(
                    ord(character)
                )


@pytest.mark.parametrize("cleaner", [unicode_words(), unicode_words(punctuation=True), unicode_words(False), none()])
@given(lines=st.lists(texts.map(lambda text: text.replace("\n", " ") + "\n"), max_size=5), rest=texts)
@settings(deadline=None)
def test_cleaning_by_lines_is_cleaning_the_whole(cleaner: Cleaner, lines: list[str], rest: str) -> None:
    assert "".join(map(cleaner.clean, [*lines, rest])) == cleaner.clean("".join([*lines, rest]))


@given(lines=st.lists(texts.map(lambda text: text.replace("\n", " ") + "\n"), max_size=5), rest=texts)
@settings(deadline=None)
def test_ascii_words_by_lines(lines: list[str], rest: str) -> None:
    cleaner = ascii_words()
    pieces = filter(None, map(cleaner.clean, [*lines, rest]))
    assert cleaner.joiner.join(pieces) == cleaner.clean("".join([*lines, rest]))


@given(texts)
@settings(deadline=None)
def test_the_cleaner_none_changes_nothing(text: str) -> None:
    assert none().clean(text) == text


@pytest.mark.parametrize("text", ["\u210cello", "\uff26\u2163 \u2122", "\u0149gou"])
def test_compatibility_forms_are_idempotent_and_lower_case(text: str) -> None:
    cleaner = unicode_words(form="NFKC")
    cleaned = cleaner.clean(text)
    assert cleaned == cleaned.lower()
    assert cleaner.clean(cleaned) == cleaned


@pytest.mark.parametrize("text", ["I \u2764\ufe0f you", "\U0001f468\u200d\U0001f469", "a \u0301 b", "\u200c"])
def test_every_word_has_a_letter_or_number(text: str) -> None:
    for word in unicode_words().clean(text).split():
        assert any(unicodedata.category(character)[0] in "LN" for character in word), ascii(word)


@pytest.mark.parametrize("invisible", ["\u200e", "\u202e", "\u2066", "\ufff9"])
def test_invisible_characters_are_no_punctuation(invisible: str) -> None:
    assert unicode_words(punctuation=True).clean(f"a{invisible} b") == "a b"


@pytest.mark.parametrize("text", ["e\u200b\u0301", "cafe\u00ad\u0301"])
def test_the_output_is_normalised_in_either_case(text: str) -> None:
    cleaned = unicode_words(lowercase=False).clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert unicode_words(lowercase=False).clean(cleaned) == cleaned


# --- the account ---


def test_dropped_and_replaced_are_counted_exactly() -> None:
    report = CleaningReport()
    text = "The caf\u00e9s:\t12 -x\nA--b -- z\n"
    assert ascii_words().clean(text, report) == "the cafs a--b z"
    counts = {name: (dict(count.dropped), count.replaced) for name, count in report.rules.items()}
    assert counts == {
        "lower-case": ({}, 2),
        "newline becomes a space": ({}, 2),
        "delete all but a-z, space, ' and -": ({"\u00e9": 1, ":": 1, "\t": 1, "1": 1, "2": 1}, 0),
        "runs of spaces become one": ({}, 0),
        "drop words that start with -": ({"-": 3, "x": 1, " ": 3}, 0),
    }


def test_what_unicode_words_drop_is_counted_exactly() -> None:
    report = CleaningReport()
    assert unicode_words().clean("A\u2019s so\u00adft,  (end)!\n", report) == "a's soft end\n"
    counts = {name: (dict(count.dropped), count.replaced) for name, count in report.rules.items()}
    assert counts == {
        "straighten apostrophes and hyphens": ({}, 1),
        "delete invisible characters": ({"\u00ad": 1}, 0),
        "lower-case": ({}, 1),
        "normalise to NFC": ({}, 0),
        "keep words": ({",": 1, " ": 1, "(": 1, ")": 1, "!": 1}, 0),
    }


def test_characters_beyond_the_first_plane_are_counted() -> None:
    report = CleaningReport()
    unicode_words().clean("\U0001f600 a \U0001f600\n", report)
    assert report.rules["keep words"].dropped == Counter({"\U0001f600": 2, " ": 2})


def test_a_rule_that_replaces_and_drops_counts_both() -> None:
    report = CleaningReport()
    unicode_words().clean("a,b!", report)  # the comma becomes a blank, the exclamation mark nothing
    count = report.rules["keep words"]
    assert (count.replaced, sum(count.dropped.values())) == (1, 1)


@given(texts, st.booleans())
@settings(deadline=None)
def test_the_account_balances(text: str, ascii_only: bool) -> None:
    cleaner = ascii_words() if ascii_only else unicode_words()
    before = text
    for rule in cleaner.rules:
        report = CleaningReport()
        after = rule.apply(before)
        report.add(rule.name, before, after)
        count = report.rules[rule.name]
        gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
        assert count.replaced == min(gone.total(), come.total())
        assert sum(count.dropped.values()) == gone.total() - count.replaced
        if not come:
            assert count.dropped == gone
        before = after


@given(texts, texts)
@settings(deadline=None)
def test_reports_merge(first: str, second: str) -> None:
    one, two, both = CleaningReport(), CleaningReport(), CleaningReport()
    cleaner = unicode_words()
    cleaner.clean(first, one)
    cleaner.clean(second, two)
    cleaner.clean(first, both)
    cleaner.clean(second, both)
    one.merge(two)
    assert one == both


@given(texts)
@settings(deadline=None)
def test_explain_shows_each_step(text: str) -> None:
    for cleaner in (ascii_words(), unicode_words(), none()):
        steps = cleaner.explain(text)
        assert [name for name, _ in steps] == [rule.name for rule in cleaner.rules]
        assert (steps[-1][1] if steps else text) == cleaner.clean(text)


# --- tokenizers ---


@given(texts)
@settings(deadline=None)
def test_characters_split_and_join(text: str) -> None:
    tokenizer = characters()
    assert tokenizer.split(text) == list(text)
    assert tokenizer.join(tokenizer.split(text)) == text


def test_words_split_and_join() -> None:
    tokenizer = whitespace()
    assert tokenizer.split(" a  b\n\u2003c\t") == ["a", "b", "c"]
    assert tokenizer.join(["a", "b"]) == "a b"


def test_only_whitespace_words_use_the_byte_table() -> None:
    assert Rules(ascii_words(), whitespace()).byte_table is not None
    assert Rules(ascii_words(), characters()).byte_table is None
    assert Rules(unicode_words(), whitespace()).byte_table is None
