"""Word vectors in our own format: a folder with a record, the tokens, and their vectors.

`vectors.json` is the record, with sizes and SHA-256 of the other two; `tokens.json` has the tokens in the order of the
rows; `vectors.safetensors` holds `vectors`, [tokens, size] float32. Nothing else is needed to use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rnnpipe.durable import atomic_directory, parse_json, read_bounded, read_record, record_bytes
from rnnpipe.errors import InputError

FORMAT = "rnnpipe-vectors"
VERSION = 1
META = "vectors.json"
TOKENS = "tokens.json"
VECTORS = "vectors.safetensors"
OWN_FILES = (META, TOKENS, VECTORS)
_FILE_BYTES = 1 << 40

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Vectors:
    """Tokens and their vectors [tokens, size]; `made`: what they were made from and how."""

    tokens: tuple[str, ...]
    rows: Rows
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return how many numbers a vector has."""
        return int(self.rows.shape[1])


def save_vectors(folder: Path, vectors: Vectors) -> None:
    """Write the folder, whole and durable; one that is there is replaced."""
    contents = {
        TOKENS: (json.dumps(list(vectors.tokens), ensure_ascii=False, indent=0) + "\n").encode(),
        VECTORS: save({"vectors": np.ascontiguousarray(vectors.rows, np.float32)}),
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "tokens": len(vectors.tokens),
        "size": vectors.size,
        "made": dict(vectors.made),
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()
        },
    }
    with atomic_directory(folder) as temporary:
        for name, data in {**contents, META: record_bytes(record)}.items():
            (temporary / name).write_bytes(data)


def load_record(folder: Path) -> dict[str, Any]:
    """Return the record of a folder of vectors; raise InputError if it is none."""
    if not (folder / META).is_file():
        raise InputError(
            f"{folder}: no vectors of rnnpipe (no {META}); `rnnpipe embed DICT TOKENS -o {folder}` makes some."
        )
    record = read_record(folder / META, FORMAT, VERSION, sealed=True)
    files = record.get("files")
    if (
        not all(type(record.get(key)) is int and record[key] > 0 for key in ("tokens", "size"))
        or not isinstance(record.get("made"), dict)
        or not isinstance(files, dict)
        or set(files) != {TOKENS, VECTORS}
        or not all(isinstance(f, dict) and type(f.get("size")) is int for f in files.values())
    ):
        raise InputError(f"{folder / META}: does not say how many tokens, of what size, in which files.")
    return record


def load_vectors(folder: Path) -> Vectors:
    """Read a folder of vectors; raise InputError naming the file that is not as its record says."""
    record = load_record(folder)
    data = {}
    for name, expected in record["files"].items():
        path = folder / name
        try:
            data[name] = read_bounded(path, min(expected["size"], _FILE_BYTES))
        except FileNotFoundError:
            raise InputError(f"{path}: is missing.") from None
        if hashlib.sha256(data[name]).hexdigest() != expected.get("sha256"):
            raise InputError(f"{path}: its SHA-256 is not the one in {META}: damaged.")
    tokens = parse_json(data[TOKENS], str(folder / TOKENS))
    try:
        rows = load(data[VECTORS]).get("vectors")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # the latter for types that NumPy has not got
        raise InputError(f"{folder / VECTORS}: not a readable safetensors file of numbers: {error}.") from None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise InputError(f"{folder / TOKENS}: is no list of tokens.")
    if rows is None or rows.dtype != np.float32 or rows.shape != (len(tokens), record["size"]):
        raise InputError(f"{folder / VECTORS}: holds no vectors of {record['size']} numbers for {len(tokens)} tokens.")
    return Vectors(tuple(tokens), rows, record["made"])


def rows_by_token(tokens: Sequence[str]) -> dict[str, int]:
    """Return the row of each token."""
    return {token: row for row, token in enumerate(tokens)}
