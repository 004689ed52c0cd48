from collections.abc import Sequence
from typing import final

from _typeshed import ReadableBuffer

@final
class WordCounter:
    def __new__(
        cls, replacements: tuple[tuple[bytes, bytes], ...], table: bytes, delete: bytes, drop_prefix: bytes
    ) -> WordCounter: ...
    def update(self, block: ReadableBuffer, /) -> None: ...
    def counts(self) -> dict[bytes, int]: ...
    def merge(self, other: WordCounter, /) -> None: ...

@final
class WordEncoder:
    def __new__(
        cls,
        replacements: tuple[tuple[bytes, bytes], ...],
        table: bytes,
        delete: bytes,
        drop_prefix: bytes,
        words: Sequence[bytes],
        unknown: int,
    ) -> WordEncoder: ...
    def encode(self, block: ReadableBuffer, /) -> bytes: ...
