"""Word vectors in the formats of word2vec, text and binary, which most other programs read and write.

Both begin with a line `tokens size`. Text: a line `token number number ...` each. Binary: token, a blank, `size` floats
of 4 bytes (little-endian), and perhaps a newline.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from rnnpipe.durable import atomic_file
from rnnpipe.errors import InputError
from rnnpipe.vectors.folder import Vectors

_HEADER_BYTES = 64
_TOKEN_BYTES = 1 << 16
_NUMBER_BYTES = 64  # of a number in text, at most


def write_word2vec(path: Path, vectors: Vectors, *, binary: bool) -> None:
    """Write vectors for other programs; raise InputError for a token that the format cannot hold."""
    for token in vectors.tokens:
        if not token or any(character.isspace() for character in token):
            raise InputError(f"{path}: the token {token!r} has a blank or line end, which parts tokens in this format.")
    with atomic_file(path) as file:
        file.write(f"{len(vectors.tokens)} {vectors.size}\n".encode())
        for token, row in zip(vectors.tokens, vectors.rows, strict=True):
            if binary:
                file.write(token.encode() + b" " + row.astype("<f4").tobytes() + b"\n")
            else:
                numbers = " ".join(np.format_float_positional(number, trim="-") for number in row)
                file.write(f"{token} {numbers}\n".encode())


def read_word2vec(path: Path, *, binary: bool) -> Vectors:
    """Read vectors of another program; raise InputError naming the line or token of whatever is wrong."""
    with path.open("rb") as file:
        count, size = _read_header(path, file)
        # A promise that the file is too short for is refused before memory is taken for it.
        least = 4 * size + 2 if binary else 2 * size + 2
        if count * least > path.stat().st_size:
            raise InputError(
                f"{path}: too short for the {count} vectors of {size} numbers that its first line promises."
            )
        rows = np.empty((count, size), np.float32)
        tokens = []
        for number in range(count):
            token = (
                _read_binary(path, file, rows[number]) if binary else _read_line(path, file, rows[number], number + 2)
            )
            tokens.append(token)
            if not np.isfinite(rows[number]).all():
                raise InputError(f"{path}: the vector of {token[:60]!r} has a number that is none.")
        if file.read(1).strip():
            raise InputError(f"{path}: has more than the {count} vectors that its first line promises.")
    if len(set(tokens)) < count:
        raise InputError(f"{path}: has a token twice.")
    return Vectors(tuple(tokens), rows, {"imported": path.name})


def _read_header(path: Path, file: BinaryIO) -> tuple[int, int]:
    words = file.readline(_HEADER_BYTES).split()
    if len(words) != 2 or not all(word.isdigit() and len(word) < 12 and int(word) > 0 for word in words):
        raise InputError(f"{path}, line 1: expected `tokens size`, as word2vec writes it.")
    return int(words[0]), int(words[1])


def _read_binary(path: Path, file: BinaryIO, row: np.ndarray[tuple[int], np.dtype[np.float32]]) -> str:
    word = bytearray()
    while (byte := file.read(1)) != b" ":
        if not byte or len(word) > _TOKEN_BYTES:
            raise InputError(f"{path}: ends within a token, or has one longer than {_TOKEN_BYTES} bytes: not binary?")
        word += byte
    data = file.read(4 * len(row))
    if len(data) < 4 * len(row):
        raise InputError(f"{path}: ends within a vector.")
    row[:] = np.frombuffer(data, "<f4")
    return _token(path, bytes(word).lstrip(b"\n"))


def _read_line(path: Path, file: BinaryIO, row: np.ndarray[tuple[int], np.dtype[np.float32]], number: int) -> str:
    line = file.readline(_TOKEN_BYTES + _NUMBER_BYTES * len(row)).rstrip(b"\r\n ")
    words = line.rsplit(b" ", len(row))
    try:
        if len(words) != len(row) + 1:
            raise ValueError
        row[:] = np.array([float(word) for word in words[1:]])
    except ValueError:
        raise InputError(f"{path}, line {number}: expected a token and {len(row)} numbers.") from None
    return _token(path, words[0])


def _token(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the token {data[:60]!r} is not UTF-8.") from None
