"""Beam search with a language model: against all texts, and the same whatever the batch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from test_generation import make_reader as make_words
from test_generation import prompts
from test_steering import make_reader

from rnnpipe.generation.best import best_continuations
from rnnpipe.generation.generate import Reader
from rnnpipe.generation.prompts import Prompt

LONGEST = 3


@pytest.fixture(scope="module")
def letters() -> Reader:
    return make_reader("characters", "abc")


def enumerated(reader: Reader, prompt: str, alpha: float) -> list[tuple[float, float, tuple[str, ...]]]:
    """Return (score, log-probability, tokens) of each text that ends, the best first, and of those cut at the limit."""
    end = reader.vocabulary.doc_id
    read = [end, *reader.vocabulary.encode(reader.rules.tokenize(prompt)).tolist()]
    ids = [n for n in range(reader.vocabulary.size) if n not in (end, reader.vocabulary.unk_id)]
    found = []
    for length in range(LONGEST + 1):
        for text in itertools.product(ids, repeat=length):
            with torch.inference_mode():
                logits = reader.model(torch.tensor([[n] for n in (*read, *text)]))[0][:, 0].log_softmax(-1)
            steps = [float(row[n]) for row, n in zip(logits[len(read) - 1 :], (*text, end), strict=True)]
            score = math.fsum(steps) / (length + 1) ** alpha
            allowed = logits[-1, [*ids, end]]
            ended = length < LONGEST or bool(logits[-1, end] >= allowed.max())
            total = math.fsum(steps if ended else steps[:-1])  # what is cut has not ended
            found.append((score, total, tuple(map(reader.vocabulary.token, text))))
    return sorted(found, key=lambda each: -each[0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.6])
@pytest.mark.parametrize("prompt", ["", "abc"])
def test_a_wide_beam_finds_the_best_of_all_texts(prompt: str, alpha: float, letters: Reader) -> None:
    asked = [Prompt("1", prompt, 0, 0)]
    (found,) = best_continuations(
        letters, asked, width=60, best=5, max_tokens=LONGEST, alpha=alpha, allow_unknown=False
    )
    expected = enumerated(letters, prompt, alpha)[:5]
    assert [each.tokens for each in found] == [tokens for _, _, tokens in expected]
    assert [each.log_probability for each in found] == pytest.approx([total for _, total, _ in expected])


@pytest.mark.parametrize("window", [None, 3])
def test_rows_and_order_change_no_bit(window: int | None) -> None:
    reader = make_words(window=window)
    options = {"width": 3, "best": 3, "max_tokens": 6, "alpha": 1.0, "allow_unknown": False}
    asked = prompts(20)
    expected = list(best_continuations(reader, asked, **options, rows=1))
    for rows in (7, 64, 1000):
        assert list(best_continuations(reader, asked, **options, rows=rows)) == expected
    assert list(best_continuations(reader, asked[::-1], **options))[::-1] == expected


def test_where_there_are_not_so_many_texts_the_rest_are_empty() -> None:
    reader = make_reader("characters", "a")
    (found,) = best_continuations(
        reader, [Prompt("1", "", 0, 0)], width=4, best=4, max_tokens=1, alpha=1.0, allow_unknown=False
    )
    assert {each.text for each in found[:2]} == {"", "a"}
    assert [each.finish for each in found[2:]] == ["none allowed"] * 2
