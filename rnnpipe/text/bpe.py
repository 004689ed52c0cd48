"""Byte-pair encoding of characters (Sennrich et al. 2016, "Neural machine translation of rare words with subwords").

Learnt from exact counts of words, so that the model is the same for any order of files and any number of workers, and
in one pass over the text. Subwords are pieces of the text itself, blanks included; a character that the text it was
learnt from has not got is a token of its own, without an id.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from rnnpipe.errors import InputError
from rnnpipe.text.subwords import check_size, trained, untrained
from rnnpipe.text.tokenizing import Tokenizer

_RAREST = 2  # a pair seen once is no pattern


def bpe(*, size: int = 8000, model: dict[str, Any] | None = None) -> Tokenizer:
    """Subwords by byte-pair encoding: the most frequent pair of neighbours becomes one, again and again.

    size: how many subwords are learnt at most, single characters included. model: what `build-dict` has learnt.
    """
    if model is None:
        return untrained(lambda counts: learn_merges(counts, size))
    characters, merges = _read_model(model)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = dict.fromkeys([*characters, *(left + right for left, right in merges)])
    return trained(lambda word: merge_word(word, ranks), tuple(tokens))


def _read_model(model: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the characters and the merges of a model; raise InputError if it is none."""
    whole = isinstance(model, dict)
    characters, merges = (model.get("characters"), model.get("merges")) if whole else (None, None)
    if (
        not isinstance(characters, str)
        or not isinstance(merges, list)
        or not all(isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) and t for t in p) for p in merges)
    ):
        raise InputError("tokenizer 'bpe': its model is not characters and pairs to merge; build the dictionary again.")
    return characters, [(left, right) for left, right in merges]


def learn_merges(counts: Mapping[str, int], size: int) -> dict[str, Any]:
    """Return the model of at most `size` subwords: the characters, in order, and the pairs in the order learnt.

    Of pairs that are equally frequent, the first by their text is merged. Raises InputError if the characters alone
    are as many as `size`.
    """
    characters = sorted({character for word in counts for character in word})
    check_size(size, len(characters), "bpe")
    words = [(list(word), number) for word, number in sorted(counts.items()) if len(word) > 1]
    frequency: Counter[tuple[str, str]] = Counter()
    found_in: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for place, (symbols, number) in enumerate(words):
        for pair in itertools.pairwise(symbols):
            frequency[pair] += number
            found_in[pair].add(place)
    queue = [(-number, pair) for pair, number in frequency.items()]
    heapq.heapify(queue)
    known = set(characters)
    merges = []
    while queue and len(known) < size:
        negative, pair = heapq.heappop(queue)
        if frequency[pair] != -negative:  # it has become rarer since
            if frequency[pair] >= _RAREST:
                heapq.heappush(queue, (-frequency[pair], pair))
            continue
        if -negative < _RAREST:
            break
        merges.append(list(pair))
        known.add("".join(pair))
        grown: set[tuple[str, str]] = set()
        for place in found_in.pop(pair):
            symbols, number = words[place]
            made = _merge(symbols, pair, number, frequency)
            grown |= made
            for new in made:
                found_in[new].add(place)
        for new in grown:
            heapq.heappush(queue, (-frequency[new], new))
    return {"characters": "".join(characters), "merges": merges}


def _merge(
    symbols: list[str], pair: tuple[str, str], number: int, frequency: Counter[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Make each occurrence of a pair one symbol, from left to right, in a word seen `number` times.

    The frequencies of the pairs that go and come are changed; returns those that come.
    """
    first, second = pair
    both = first + second
    made = set()
    place = 0
    while place < len(symbols) - 1:
        if symbols[place] == first and symbols[place + 1] == second:
            frequency[pair] -= number
            if place:
                before = symbols[place - 1]
                frequency[before, first] -= number
                frequency[before, both] += number
                made.add((before, both))
            if place + 2 < len(symbols):
                after = symbols[place + 2]
                frequency[second, after] -= number
                frequency[both, after] += number
                made.add((both, after))
            symbols[place : place + 2] = [both]
        place += 1
    return made


def merge_word(word: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Return a word's subwords.

    Of the pairs there are, the one learnt first, and of its places the leftmost, becomes one, until none is left.
    """
    symbols = list(word)
    while len(symbols) > 1:
        pairs = itertools.pairwise(symbols)
        rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairs))
        if rank == len(ranks):
            break
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    return symbols
