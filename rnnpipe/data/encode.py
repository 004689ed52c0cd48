"""From text to ids, by blocks, on any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnpipe.data.tokens import Ids, smallest_type
from rnnpipe.errors import InputError
from rnnpipe.text.counting import batched, code_points, text_blocks
from rnnpipe.text.files import Block, BlockText, Errors, TextFile, read_block
from rnnpipe.text.native import is_native, word_encoder
from rnnpipe.text.rules import LoadRules, Rules
from rnnpipe.text.vocabulary import Vocabulary, load_vocabulary
from rnnpipe.text.word_slots import SlotEncoder
from rnnpipe.text.workers import map_ordered

_GROUP_BLOCKS = 32
_DROPPED = 0xFFFFFFFF  # marks a word that the byte table's prefix rule drops; no vocabulary is that large
_CACHED_UNKNOWNS = 1 << 20


class _WordIds(dict[bytes, int]):
    """Ids by word; a word that is not there is unknown, or dropped, and is remembered up to a bound."""

    def __init__(self, vocabulary: Vocabulary, drop_prefix: bytes) -> None:
        super().__init__((word.encode(), number) for word, number in vocabulary.ids.items())
        self._unk = vocabulary.unk_id
        self._prefix = drop_prefix
        self._room = len(self) + _CACHED_UNKNOWNS

    def __missing__(self, word: bytes) -> int:
        number = _DROPPED if word.startswith(self._prefix) else self._unk
        if len(self) < self._room:
            self[word] = number
        return number


class BlockEncoder:
    """The rules and the vocabulary, made ready to turn blocks of UTF-8 into ids."""

    def __init__(self, rules: Rules, vocabulary: Vocabulary) -> None:
        self.rules = rules
        self.vocabulary = vocabulary
        self.dtype = smallest_type(vocabulary.size)
        if rules.tokenizer.by_character:
            self._by_point = np.full(0x110000, vocabulary.unk_id, np.uint32)
            for token, number in vocabulary.ids.items():
                self._by_point[ord(token)] = number
            return
        self._native = word_encoder(rules, [word.encode() for word in vocabulary.ids], vocabulary.unk_id)
        if self._native is None and rules.byte_table is not None:
            words = [word.encode() for word in vocabulary.ids]
            self._slots = SlotEncoder(words, _WordIds(vocabulary, rules.byte_table.drop_prefix))

    def encode(self, block: BlockText) -> Ids:
        """Return the ids of an uncleaned block."""
        table = self.rules.byte_table
        ids: npt.NDArray[Any]
        if self.rules.tokenizer.by_character:
            ids = self._by_point[code_points(self.rules.cleaner.clean(block.text))]
        elif self._native is not None:
            ids = np.frombuffer(self._native.encode(block.raw), np.uint32)
        elif table is not None:
            ids = self._slots.encode(table.letters(block.raw))
            ids = ids[ids != _DROPPED]
        else:
            ids = self.vocabulary.encode(self.rules.tokenize(block.text))
        return ids.astype(self.dtype)


def load_encoder(load_rules: LoadRules, dictionary: Path) -> BlockEncoder:
    """Return the encoder of a dictionary file: what each worker process holds."""
    rules, vocabulary = load_rules(), load_vocabulary(dictionary)
    if rules.tokenizer.by_character:
        for line, token in enumerate(vocabulary.tokens, 2):
            if len(token) != 1:
                raise InputError(f"{dictionary}, line {line}: {token!r} is no single character, as its tokenizer says.")
    return BlockEncoder(rules, vocabulary)


def encode_texts(
    texts: Sequence[TextFile],
    load_rules: LoadRules,
    dictionary: Path,
    *,
    errors: Errors = "strict",
    workers: int = 1,
    progress: Callable[[int], None] = lambda done_bytes: None,
    mended: Callable[[int], object] = lambda count: None,
) -> Iterator[Iterator[Ids]]:
    """Yield, for each text in order, its ids in arrays; each text's arrays must be used up before the next text.

    `progress` hears of the bytes read, `mended` of the bytes that were not of the encoding, block by block.
    """
    rules = load_rules()
    blocks = (block for text in texts for block in text_blocks(text, rules))
    tasks = ((group, errors) for group in batched(blocks, _GROUP_BLOCKS))
    results = (
        result
        for group in map_ordered(
            _encode_group,
            partial(load_encoder, load_rules, dictionary),
            tasks,
            workers,
            threads=is_native(rules),
        )
        for result in group
    )

    def arrays(text: TextFile) -> Iterator[Ids]:
        position = text.start
        while position < text.stop:
            size, count, ids = next(results)
            progress(size)
            mended(count)
            position += size
            yield ids

    for text in texts:
        mended(text.mended)
        yield arrays(text)


def _encode_group(encoder: BlockEncoder, task: tuple[list[Block], Errors]) -> list[tuple[int, int, Ids]]:
    group, errors = task
    reads = ((block, read_block(block, errors)) for block in group)
    return [(block.stop - block.start, read.mended, encoder.encode(read)) for block, read in reads]
