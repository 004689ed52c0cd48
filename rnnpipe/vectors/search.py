"""Nearest neighbours and analogies among word vectors, by the cosine of the angle between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnnpipe.errors import UsageError, did_you_mean
from rnnpipe.vectors.folder import Rows, Vectors, rows_by_token


def nearest(vectors: Vectors, token: str, number: int = 10) -> list[tuple[str, float]]:
    """Return the tokens most like one, with the cosines, the most alike first."""
    (row,) = _find(vectors, [token])
    unit = _unit(vectors.rows)
    return _best(vectors, unit @ unit[row], [row], number)


def analogy(vectors: Vectors, a: str, b: str, c: str, number: int = 10) -> list[tuple[str, float]]:
    """Return what is to `c` as `b` is to `a`: the tokens nearest to b - a + c, which themselves do not count.

    Of the vectors at length 1 (Mikolov et al. 2013, "Linguistic regularities in continuous space word
    representations").
    """
    rows = _find(vectors, [a, b, c])
    unit = _unit(vectors.rows)
    wanted = unit[rows[1]] - unit[rows[0]] + unit[rows[2]]
    return _best(vectors, unit @ _unit(wanted[None])[0], rows, number)


def _unit(rows: Rows) -> Rows:
    """Return the rows at length 1; those that are 0 stay so."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30), np.float32)


def _best(vectors: Vectors, cosines: Rows, without: Sequence[int], number: int) -> list[tuple[str, float]]:
    cosines[list(without)] = -np.inf
    best = np.argsort(-cosines, kind="stable")[: min(number, len(cosines) - len(set(without)))]
    return [(vectors.tokens[row], float(cosines[row])) for row in best]


def _find(vectors: Vectors, tokens: Sequence[str]) -> list[int]:
    """Return the rows of tokens; raise UsageError naming one that has none, with the nearest."""
    rows = rows_by_token(vectors.tokens)
    for token in tokens:
        if token not in rows:
            raise UsageError(f"'{token}' has no vector.{did_you_mean(token, vectors.tokens)}")
    return [rows[token] for token in tokens]
