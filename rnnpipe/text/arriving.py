"""Lines of a stream as they arrive, for one who would rather work on those that are there than wait for more."""

from __future__ import annotations

import select
from typing import Any, Protocol


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes | None:
        """Return the next bytes, at most so many; nothing at the end, None if there are none as yet."""
        ...


_PIECE = 1 << 16


class LineReader:
    """The lines of a binary stream from which nothing has been read yet, in pieces as they come.

    It reads below a stream's own buffer, which would wait until it is full, of which nobody can tell what it has, and
    which takes a pipe that does not block, and has nothing as yet, for one that has ended.
    """

    def __init__(self, file: Readable) -> None:
        self._file: Any = getattr(file, "raw", file)
        self._read = getattr(self._file, "read1", self._file.read)
        self._held = bytearray()
        self._ended = False

    def readline(self, limit: int = -1) -> bytes:
        """Return the next line with its end, at most `limit` bytes of it; nothing at the end of the stream."""
        seen = 0
        while (end := self._held.find(b"\n", seen)) < 0 and not self._ended and not 0 <= limit <= len(self._held):
            seen = len(self._held)
            self._fill()
        stop = len(self._held) if end < 0 else end + 1
        if limit >= 0:
            stop = min(stop, limit)
        line = bytes(self._held[:stop])
        del self._held[:stop]
        return line

    def waits(self) -> bool:
        """Say whether the next line has not arrived; where the system cannot tell, as of a file in memory, it has.

        Of what has arrived it is enough to read so much as a line may well have; of a compressed file nothing is read
        here, as an error in it is for `readline` to raise.
        """
        while not self._ended and b"\n" not in self._held and len(self._held) < _PIECE:
            try:
                arrived = bool(select.select([self._file], [], [], 0)[0])
            except (OSError, TypeError, ValueError):
                return False
            if not arrived:
                return True
            if hasattr(self._file, "read1"):
                return False
            self._fill()
        return False

    def _fill(self) -> None:
        while (piece := self._read(_PIECE)) is None:  # a stream that does not block
            select.select([self._file], [], [])
        self._ended = not piece
        self._held += piece
