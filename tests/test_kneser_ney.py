"""The n-gram baseline against its equations, written out once more, word by word."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnpipe.data.kneser_ney import KneserNey, _discounts
from rnnpipe.errors import UsageError

V = 5
texts = st.lists(st.integers(0, V - 1), min_size=1, max_size=60)


def plain(train: list[int], n: int, boundary: int, history: tuple[int, ...], word: int) -> float:
    """Return p(word | history) by the equations, with sets and dictionaries."""
    padded = [boundary] * (n - 1) + train
    share = 1 / V
    for k in range(1, n + 1):
        raw: Counter[tuple[int, ...]] = Counter()
        for end in range(n - 1, len(padded)):
            raw[tuple(padded[end - n + 1 : end + 1])] += 1
        for length in range(n - 1, k - 1, -1):  # shorter grams count the different grams one longer that end in them
            raw = Counter(dict.fromkeys(raw, 1))
            shorter: Counter[tuple[int, ...]] = Counter()
            for gram in raw:
                shorter[gram[len(gram) - length :]] += 1
            raw = shorter
        context = history[len(history) - k + 1 :] if k > 1 else ()
        total = sum(count for gram, count in raw.items() if gram[:-1] == context)
        if not total:
            return share  # a context never seen has no longer one that was
        discounts = _discounts(np.array(list(raw.values())))
        taken = {gram: float(discounts[min(count, 3)]) for gram, count in raw.items()}
        left = sum(taken[gram] for gram in raw if gram[:-1] == context) / total
        gram = (*context, word)
        own = (raw[gram] - taken[gram]) / total if gram in raw else 0.0
        share = own + left * share
    return share


@given(texts, texts, st.integers(1, 4))
def test_the_equations(train: list[int], text: list[int], n: int) -> None:
    model = KneserNey(np.array(train), V, n, boundary=0)
    padded = [0] * (n - 1) + text
    expected = [
        math.log(plain(train, n, 0, tuple(padded[end - n + 1 : end]), padded[end])) for end in range(n - 1, len(padded))
    ]
    np.testing.assert_allclose(model.log_probabilities(np.array(text)), expected, rtol=1e-9)


@given(texts, texts, st.integers(1, 5))
def test_shares_sum_to_one(train: list[int], history: list[int], n: int) -> None:
    model = KneserNey(np.array(train), V, n, boundary=2)
    shares = [math.exp(model.log_probabilities(np.array([*history, word]))[-1]) for word in range(V)]
    assert sum(shares) == pytest.approx(1)


def test_discounts_are_those_of_the_paper() -> None:
    # n1 = 8, n2 = 4, n3 = 2, n4 = 1: Y = 8 / 16, D1 = 1 - 2 Y 4/8, D2 = 2 - 3 Y 2/4, D3 = 3 - 4 Y 1/2
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4])
    np.testing.assert_allclose(_discounts(counts), [0, 0.5, 1.25, 2])


def test_a_longer_context_helps_where_the_text_repeats() -> None:
    text = np.tile([0, 1, 0, 2, 0, 3], 50)
    losses = [-KneserNey(text, V, n, boundary=4).log_probabilities(text).mean() for n in (1, 2, 3)]
    assert losses[2] < 0.1 < losses[1] < losses[0]


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="n is 1 or more"):
        KneserNey(np.array([1]), V, 0, boundary=0)
    with pytest.raises(UsageError, match="at least one token"):
        KneserNey(np.array([], np.int64), V, 2, boundary=0)
