"""Token files: ids in memory-mapped `.npy` arrays, with the digest of the dictionary they were made with.

A token folder holds `meta.json`, a copy of the dictionary, and for each part `tokens.npy` (ids in the smallest unsigned
type that fits; each document begins with the boundary `<doc>`) and `offsets.npy` (where each document begins, int64).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from rnnpipe.durable import read_record
from rnnpipe.errors import InputError
from rnnpipe.text.vocabulary import Vocabulary, load_vocabulary

FORMAT = "rnnpipe-tokens"
VERSION = 1
META = "meta.json"
DICTIONARY = "dictionary.txt"
PARTS = ("train", "valid", "test", "all")
OWN_FILES = (META, DICTIONARY, *(f"{part}/{name}.npy" for part in PARTS for name in ("tokens", "offsets")))
_MOST_IDS = 1 << 32
_MOST_TOKENS = 1 << 48

Ids = npt.NDArray[np.unsignedinteger[Any]]


def smallest_type(size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest unsigned integer type that holds the ids 0 to `size` - 1."""
    return np.dtype(np.min_scalar_type(max(size - 1, 0)))


@dataclass(frozen=True)
class TokenFile:
    """The tokens of one part: ids [N] and the document offsets [D], both memory-mapped."""

    tokens: Ids
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)


def array_header(dtype: np.dtype[Any], length: int) -> bytes:
    """Return how the `.npy` file of a one-dimensional array begins; its size does not depend on the length."""
    header = BytesIO()
    shape = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, shape)
    return header.getvalue()


class ArrayWriter:
    """Appends arrays to one `.npy` file, whose length is known only at the end."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], length: int = 0) -> None:
        """Write to an open file, or go on behind the first `length` numbers that are there."""
        self.length = length
        self.digest = hashlib.sha256()
        self._file = file
        self._dtype = dtype
        self._write_header()
        left = length * dtype.itemsize
        while left and (data := file.read(min(left, 1 << 20))):
            self.digest.update(data)
            left -= len(data)
        if left:
            raise InputError(f"{file.name}: is shorter than it was; remove the folder it lies in.")
        file.truncate()

    def append(self, array: npt.NDArray[Any]) -> None:
        """Write an array behind the others."""
        data = np.ascontiguousarray(array, self._dtype).view(np.uint8).data
        self._file.write(data)
        self.digest.update(data)
        self.length += len(array)

    def save(self) -> None:
        """Force what was written to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the header again, with the length; NumPy pads it so that it keeps its size."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        self._file.write(array_header(self._dtype, self.length))


@contextmanager
def array_writer(path: Path, dtype: np.dtype[Any], length: int = 0) -> Iterator[ArrayWriter]:
    """Open a `.npy` file for appending, behind the first `length` numbers of it.

    On an exception it is left as it is, for the caller to throw away or to go on with.
    """
    with path.open("r+b" if length else "w+b") as file:
        writer = ArrayWriter(file, dtype, length)
        yield writer
        writer.close()


@dataclass(frozen=True)
class Written:
    """How far the arrays of a part have come: tokens, those of them that are unknown, and documents begun."""

    tokens: int = 0
    unknown: int = 0
    documents: int = 0


class PartWriter:
    """Writes the ids of one part, a document after the other."""

    def __init__(self, tokens: ArrayWriter, offsets: ArrayWriter, vocabulary: Vocabulary, unknown: int) -> None:
        self._tokens, self._offsets, self._vocabulary, self._unknown = tokens, offsets, vocabulary, unknown

    def begin_document(self) -> None:
        """Write the boundary that each document begins with."""
        self._offsets.append(np.array([self._tokens.length], np.int64))
        self._tokens.append(np.array([self._vocabulary.doc_id]))

    def append(self, ids: Ids) -> None:
        """Write ids of the document."""
        self._unknown += int(np.count_nonzero(ids == self._vocabulary.unk_id))
        self._tokens.append(ids)

    def save(self) -> Written:
        """Force what was written to the disk, and return how much it is."""
        self._tokens.save()
        self._offsets.save()
        return Written(self._tokens.length, self._unknown, self._offsets.length)

    def record(self) -> dict[str, Any]:
        """Return the part's record for `meta.json`."""
        return {
            "documents": self._offsets.length,
            "tokens": self._tokens.length,
            "unknown": self._unknown,
            "sha256": self._tokens.digest.hexdigest(),
            "offsets_sha256": self._offsets.digest.hexdigest(),
        }


@contextmanager
def part_writer(folder: Path, vocabulary: Vocabulary, written: Written = Written()) -> Iterator[PartWriter]:
    """Open the arrays of one part for writing, or go on behind what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        array_writer(folder / "tokens.npy", smallest_type(vocabulary.size), written.tokens) as tokens,
        array_writer(folder / "offsets.npy", np.dtype(np.int64), written.documents) as offsets,
    ):
        yield PartWriter(tokens, offsets, vocabulary, written.unknown)


@dataclass(frozen=True)
class TokenFolder:
    """A token folder: its record, and its dictionary."""

    path: Path
    meta: dict[str, Any]

    @property
    def parts(self) -> list[str]:
        """Return the names of the parts that it has."""
        return list(self.meta["parts"])

    def vocabulary(self) -> Vocabulary:
        """Return its dictionary; raise InputError with both digests if another one lies there."""
        vocabulary = load_vocabulary(self.path / DICTIONARY)
        check_dictionary(self, vocabulary, self.path / DICTIONARY)
        if vocabulary.size != self.meta["vocab_size"]:
            raise InputError(f"{self.path / META}: vocab_size is not {vocabulary.size}, which its dictionary has.")
        return vocabulary

    def part(self, name: str) -> TokenFile:
        """Return the tokens of one part, memory-mapped; raise InputError for other ids or offsets than were written."""
        record = self.meta["parts"].get(name)
        if record is None:
            raise InputError(f"{self.path}: has no part '{name}'; it has {', '.join(self.parts)}.")
        path = self.path / name / "tokens.npy"
        tokens = _map_array(path, smallest_type(self.meta["vocab_size"]), record["tokens"])
        _check_digest(path, tokens, record.get("sha256"))
        path = path.with_name("offsets.npy")
        offsets = _map_array(path, np.dtype(np.int64), record["documents"])
        _check_digest(path, offsets, record.get("offsets_sha256"))
        if len(tokens) and int(tokens.max()) >= self.meta["vocab_size"]:
            raise InputError(f"{path.with_name('tokens.npy')}: has the id {tokens.max()}, which no token has.")
        if len(offsets) and not (offsets[0] == 0 and (np.diff(offsets) > 0).all() and offsets[-1] < len(tokens)):
            raise InputError(f"{path}: is not the ascending list of where documents begin.")
        return TokenFile(tokens, offsets)


def _check_digest(path: Path, array: npt.NDArray[Any], expected: Any) -> None:
    if hashlib.sha256(array.data).hexdigest() != expected:
        raise InputError(f"{path}: its SHA-256 is not the one in {META}: damaged; run `rnnpipe encode` again.")


def _map_array(path: Path, dtype: np.dtype[Any], length: int) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file, memory-mapped; raise InputError unless it is just of this type and length."""
    header = array_header(dtype, length)
    try:
        with path.open("rb") as file:
            head = file.read(len(header))
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; run `rnnpipe encode` again.") from None
    if head != header or size != len(header) + length * dtype.itemsize:
        raise InputError(
            f"{path}: is not the array of {length} numbers of type {dtype} that {META} promises: damaged; run "
            "`rnnpipe encode` again."
        )
    if length == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r", offset=len(header), shape=(length,))


def load_tokens(path: Path) -> TokenFolder:
    """Open a token folder; raise InputError if it is none."""
    meta_path = Path(path) / META
    if not meta_path.is_file():
        raise InputError(
            f"{path}: not a token folder (no {META}); `rnnpipe encode TEXT --dict DICT -o {path}` makes one."
        )
    meta = read_record(meta_path, FORMAT, VERSION)
    parts = meta.get("parts")
    if not isinstance(parts, dict) or not all(_is_part(name, record) for name, record in parts.items()):
        received = repr(parts)[:60]
        raise InputError(f"{meta_path}: parts is {received}, not counts of documents, tokens and unknown by part.")
    if not isinstance(meta.get("dictionary"), str) or not _is_count(meta.get("vocab_size"), _MOST_IDS):
        raise InputError(f"{meta_path}: the digest of the dictionary or its size is missing.")
    return TokenFolder(Path(path), meta)


def _is_part(name: str, record: Any) -> bool:
    return (
        name in PARTS
        and isinstance(record, dict)
        and all(_is_count(record.get(key), _MOST_TOKENS) for key in ("documents", "tokens", "unknown"))
        and all(isinstance(record.get(key), str) for key in ("sha256", "offsets_sha256"))
    )


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def check_dictionary(tokens: TokenFolder, vocabulary: Vocabulary, name: Path) -> None:
    """Raise InputError, with both digests, unless the tokens were made with this dictionary."""
    if tokens.meta["dictionary"] != vocabulary.digest:
        raise InputError(
            f"{tokens.path}: was encoded with the dictionary {tokens.meta['dictionary'][:16]}..., but {name} is "
            f"{vocabulary.digest[:16]}...; encode again with the one you mean."
        )
