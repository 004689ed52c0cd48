"""What an exported model says of itself, beside its graph: the metadata of the ONNX file.

The graph is one timestep. Its inputs are `tokens` [rows] of int64 and the leaves of the state, `state.NAME` [rows,
...]; its outputs `logits` [rows, V] and the leaves of the next state, `next.NAME`. A document begins with the boundary
`<doc>`; `fresh` has, for one row, what the graph gives behind it: the logits first, then the state.

    rnnpipe.format      "rnnpipe-model"
    rnnpipe.version     "1"
    rnnpipe.dictionary  the dictionary file, with the tokens that have an id: text rules, ids in order
    rnnpipe.fresh       JSON: a list of {"name", "dtype", "shape", "data"}; data is base64 of little-endian bytes
    rnnpipe.window      how many tokens the model sees; absent where it carries a state
    rnnpipe.about       JSON: where it comes from
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from rnnpipe.durable import parse_json
from rnnpipe.errors import InputError
from rnnpipe.text.vocabulary import Vocabulary, read_vocabulary

FORMAT = "rnnpipe-model"
VERSION = "1"
DTYPES = ("float32", "float64", "int64", "bool")
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Leaf:
    """An output of the graph behind the boundary, [1, ...]: the logits, or a leaf of the state by its name."""

    name: str
    value: Array


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported model. fresh: the logits, then the state."""

    vocabulary: Vocabulary
    fresh: tuple[Leaf, ...]
    window: int | None
    about: Mapping[str, Any]

    def to_properties(self) -> dict[str, str]:
        """Return the properties of the ONNX file."""
        properties = {
            "rnnpipe.format": FORMAT,
            "rnnpipe.version": VERSION,
            "rnnpipe.dictionary": self.vocabulary.to_bytes().decode(),
            "rnnpipe.fresh": json.dumps([_leaf_to_json(leaf) for leaf in self.fresh]),
            "rnnpipe.about": json.dumps(self.about, ensure_ascii=False),
        }
        return properties if self.window is None else {**properties, "rnnpipe.window": str(self.window)}


def read_metadata(properties: Mapping[str, str], name: str) -> Metadata:
    """Read the properties of the ONNX file `name`; raise InputError for one that is not ours."""
    if properties.get("rnnpipe.format") != FORMAT:
        raise InputError(f"{name}: is no exported model of rnnpipe; `rnnpipe export RUN -o FILE.onnx` writes one.")
    if (version := properties.get("rnnpipe.version")) != VERSION:
        raise InputError(f"{name}: has the format version {version}; this rnnpipe reads {VERSION}. Export it again.")
    try:
        window = properties.get("rnnpipe.window")
        fresh = tuple(map(_leaf_from_json, parse_json(properties["rnnpipe.fresh"].encode(), name)))
        if not fresh or fresh[0].name != "logits":
            raise ValueError("no logits behind the boundary")
        return Metadata(
            read_vocabulary(io.BytesIO(properties["rnnpipe.dictionary"].encode()), f"{name}, dictionary"),
            fresh,
            None if window is None else int(window),
            parse_json(properties["rnnpipe.about"].encode(), name),
        )
    except (KeyError, ValueError, TypeError, binascii.Error) as error:
        raise InputError(
            f"{name}: its metadata is damaged ({type(error).__name__}: {error}). Export it again."
        ) from None


def check_leaves(inputs: Sequence[str], outputs: Sequence[str], metadata: Metadata) -> None:
    """Raise ValueError unless the graph's inputs and outputs are those that the metadata names."""
    names = [leaf.name for leaf in metadata.fresh[1:]]
    expected = (["tokens", *(f"state.{name}" for name in names)], ["logits", *(f"next.{name}" for name in names)])
    if (list(inputs), list(outputs)) != expected:
        raise ValueError(f"it has the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}")


def _leaf_to_json(leaf: Leaf) -> dict[str, Any]:
    value = leaf.value
    data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    return {
        "name": leaf.name,
        "dtype": value.dtype.name,
        "shape": list(value.shape),
        "data": base64.b64encode(data).decode(),
    }


def _leaf_from_json(record: Mapping[str, Any]) -> Leaf:
    if record["dtype"] not in DTYPES:
        raise ValueError(f"{record['dtype']!r} is no type of a state")
    dtype = np.dtype(record["dtype"]).newbyteorder("<")
    value = np.frombuffer(base64.b64decode(record["data"], validate=True), dtype).reshape(record["shape"])
    if value.shape[0] != 1:
        raise ValueError(f"{record['name']!r} is of {value.shape[0]} rows, not of one")
    return Leaf(record["name"], value.astype(dtype.newbyteorder("=")))
