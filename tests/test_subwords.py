"""Subwords: what is learnt, that nothing is lost, and from the text to a trained network."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cli import HARBOUR, JAPANESE, KITCHEN, fail, settings, succeed
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rnnpipe.data.tokens import load_tokens
from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import load_rules
from rnnpipe.testing import check_tokenizer
from rnnpipe.text.bpe import bpe, learn_merges, merge_word
from rnnpipe.text.subwords import split_words, subword_counts
from rnnpipe.text.unigram import learn_unigram, unigram
from rnnpipe.text.vocabulary import load_vocabulary

TEXT = Path(HARBOUR).read_text(encoding="utf-8")
NAMES = ["bpe", "unigram"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- byte-pair encoding ---


def test_the_pairs_of_the_paper():
    # Sennrich et al. 2016, algorithm 1, whose end of word is a character here.
    counts = {"low·": 5, "lower·": 2, "newest·": 6, "widest·": 3}
    merges = learn_merges(counts, 21)["merges"]
    assert merges[:3] == [["e", "s"], ["es", "t"], ["est", "·"]]  # 9 times each, the first by their text
    assert ["l", "o"] in merges[:5]
    assert merge_word("lowest·", {(left, right): rank for rank, (left, right) in enumerate(merges)}) == ["low", "est·"]


def plainly_learnt(counts: dict[str, int], size: int) -> list[list[str]]:
    """Learn merges by counting all pairs again after each: the definition."""
    words = {word: list(word) for word in counts}
    known = {character for word in counts for character in word}
    merges: list[list[str]] = []
    while len(known) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in words.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += counts[word]
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(list(best))
        known.add("".join(best))
        words = {
            word: merge_word("".join(symbols), {tuple(p): k for k, p in enumerate(merges)})
            for word, symbols in words.items()
        }
    return merges


@given(st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 5), min_size=1, max_size=8))
@hypothesis_settings(deadline=None)
def test_pairs_are_learnt_as_by_counting_all_again(counts: dict[str, int]):
    size = len({character for word in counts for character in word}) + 6
    assert learn_merges(counts, size)["merges"] == plainly_learnt(counts, size)


@given(st.text("ab ", max_size=40))
@hypothesis_settings(deadline=None)
def test_words_put_together_are_the_text(text: str):
    assert "".join(split_words(text)) == text


def test_words_do_not_depend_on_the_line():
    assert split_words("Don't  go\tin,\n2day\n") == ["Don", "'", "t", " ", " go", "\t", "in", ",", "\n", "2day", "\n"]
    assert max(map(len, split_words("語" * 100))) == 32


# --- both ---


def learnt(name: str, size: int) -> object:
    counts = Counter(split_words(TEXT))
    return learn_merges(counts, size) if name == "bpe" else learn_unigram(counts, size)


@pytest.mark.parametrize("name", NAMES)
def test_a_learnt_tokenizer_keeps_its_contract(name: str):
    if name == "unigram":
        pytest.importorskip("sentencepiece")
    check_tokenizer(name, model=learnt(name, 400))
    check_tokenizer(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_does_not_depend_on_the_order(name: str):
    if name == "unigram":
        pytest.importorskip("sentencepiece")
    items = list(Counter(split_words(TEXT)).items())
    random.Random(1).shuffle(items)
    shuffled = dict(items)
    again = learn_merges(shuffled, 400) if name == "bpe" else learn_unigram(shuffled, 400)
    assert again == learnt(name, 400)


@pytest.mark.parametrize("name", NAMES)
def test_subwords_are_counted_by_their_words(name: str):
    if name == "unigram":
        pytest.importorskip("sentencepiece")
    tokenizer = (bpe if name == "bpe" else unigram)(model=learnt(name, 400))  # type: ignore[operator]
    counts = subword_counts({word.encode(): n for word, n in Counter(split_words(TEXT)).items()}, tokenizer)
    found = Counter(token.encode() for token in tokenizer.split(TEXT))
    assert +counts == found
    assert {token.encode() for token in tokenizer.tokens} <= counts.keys()
    assert max(len(token) for token in tokenizer.tokens) > 3


@pytest.mark.parametrize("tokenizer", NAMES)
@pytest.mark.parametrize(("text", "size"), [(HARBOUR, 600), (JAPANESE, 600)])
def test_ids_decode_to_the_text(tokenizer: str, text: str, size: int):
    if tokenizer == "unigram":
        pytest.importorskip("sentencepiece")
    words = ("build-dict", text, "--level", "subword", "--tokenizer", tokenizer, "--size", size)
    figures = succeed(*words, "-o", "a.dict", "--json").json()
    assert figures["unknown_rate"] == 0
    assert size <= figures["size"] <= size + 4  # two specials, and characters that the library has no use for
    succeed("encode", text, "--dict", "a.dict", "-o", "tokens")
    vocabulary = load_vocabulary(Path("a.dict"), sealed=True)
    assert vocabulary.rules.level == "subword"
    tokens = load_tokens(Path("tokens")).part("all").tokens
    rules = load_rules(vocabulary.rules.cleaner, vocabulary.rules.tokenizer)
    decoded = rules.tokenizer.join(vocabulary.token(int(k)) for k in tokens[1:])
    original = Path(text).read_text(encoding="utf-8")
    assert decoded == original
    assert len(tokens) < len(original) * (0.6 if text == HARBOUR else 0.9)
    counts = np.bincount(tokens[1:], minlength=vocabulary.size)[: vocabulary.kept]
    assert counts.tolist() == list(vocabulary.counts)  # those of one pass over the words
    again = succeed(*words, "-o", "b.dict", "--workers", 2)
    assert Path("a.dict").read_bytes() == Path("b.dict").read_bytes(), again


def test_a_new_character_is_unknown_and_the_rest_is_not():
    succeed("build-dict", HARBOUR, "--level", "subword", "--size", 300, "-o", "a.dict")
    verdicts = succeed("dict", "explain", "a.dict", "sea語s", "--json").json()["tokens"]
    assert [(v["token"], v["id"] is None) for v in verdicts if v["token"] == "語"] == [("語", True)]
    assert "".join(v["token"] for v in verdicts) == "sea語s"
    assert sum(v["id"] is None for v in verdicts) == 1


def test_train_and_generate_with_subwords():
    size = 'text.tokenizer={name="bpe", size=300}'
    succeed("train", KITCHEN, "--level", "subword", "--set", size, "-o", "run", *settings())
    config = Path("run/config.toml").read_text(encoding="utf-8")
    assert 'level = "subword"' in config
    assert "merges" not in config
    assert succeed("generate", "run", "The dough", "--max-tokens", 5).out.startswith("The dough")
    assert "sha256:" in Path("run/README.md").read_text(encoding="utf-8")
    succeed("verify", "run")
    succeed("train", "run/config.toml", "-o", "again")
    assert Path("again/dictionary.txt").read_bytes() == Path("run/dictionary.txt").read_bytes()
    assert "up to date" in succeed("train", "run/config.toml", "-o", "again").err
    succeed("train", "run/tokens", "-o", "from-tokens", *settings())
    assert "merges" not in Path("from-tokens/config.toml").read_text(encoding="utf-8")


# --- what goes wrong ---


@pytest.mark.parametrize("name", NAMES)
def test_a_size_below_the_number_of_characters(name: str):
    if name == "unigram":
        pytest.importorskip("sentencepiece")
    words = ("build-dict", HARBOUR, "-o", "a.dict", "--level", "subword", "--tokenizer", name)
    assert "different characters" in fail(*words, "--size", 20, code=1)
    assert not Path("a.dict").exists()


def test_more_subwords_than_the_text_has():
    pytest.importorskip("sentencepiece")
    words = ("build-dict", KITCHEN, "-o", "a.dict", "--level", "subword", "--tokenizer", "unigram", "--size", 10**6)
    assert "cannot learn size=1000000" in fail(*words, code=1)


@pytest.mark.parametrize("level", ["char", "subword"])
def test_a_cleaned_corpus_keeps_its_own_rules(level: str):
    succeed("clean", HARBOUR, "-o", "corpus", "--cleaner", "unicode-words")
    size = ("--size", 300) if level == "subword" else ()
    succeed("build-dict", "corpus", "-o", "a.dict", "--level", level, *size)
    vocabulary = load_vocabulary(Path("a.dict"))
    assert vocabulary.rules.cleaner.name == "unicode-words"
    assert not any(token.isupper() for token in vocabulary.tokens)


def test_size_goes_with_subwords():
    assert "--level subword" in fail("build-dict", KITCHEN, "-o", "a.dict", "--size", 20, code=2)


def test_a_model_that_is_none():
    for model in ({}, {"characters": "ab", "merges": [["a"]]}, {"characters": 1, "merges": []}, "x"):
        with pytest.raises(InputError, match="its model is not"):
            bpe(model=model)  # type: ignore[arg-type]
    pytest.importorskip("sentencepiece")
    for text in ("?", "", "QUJD"):
        with pytest.raises(InputError, match="its model is damaged"):
            unigram(model=text)


def test_a_damaged_model_in_a_dictionary_is_one_line():
    succeed("build-dict", KITCHEN, "-o", "a.dict", "--level", "subword", "--size", 100)
    first, rest = Path("a.dict").read_bytes().split(b"\n", 1)
    header = json.loads(first)
    del header["sha256"]
    header["tokenizer"]["model"] = {"characters": 5}
    Path("a.dict").write_bytes(json.dumps(header).encode() + b"\n" + rest)
    assert "its model is not" in fail("encode", KITCHEN, "--dict", "a.dict", "-o", "tokens", code=1)
