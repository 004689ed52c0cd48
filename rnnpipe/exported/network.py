"""An exported model as a network that the engine runs: ONNX Runtime for the timestep, NumPy for all else.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnpipe.errors import InputError, UsageError
from rnnpipe.exported.metadata import Array, Metadata, check_leaves, read_metadata
from rnnpipe.exported.sampling import draw, log_total
from rnnpipe.generation.engine import Drawing, Draws, Facts, Ints, Likely

ROW_TILE = 8
MOST_ROWS = 128  # in one call of the graph
FIXED_ROWS = 64  # in every call, where the number of rows changes a row's bits
_TESTED_STEPS = 2


class OnnxNetwork:
    """Rows of an exported model: logits, and the state behind them, whose leaves have the row as axis 0.

    The graph is called with at most `MOST_ROWS` rows, rounded up to `ROW_TILE`, if a test of this model finds that a
    row's bits then hang neither on how many there are nor on its place; otherwise each call has `FIXED_ROWS`.
    """

    def __init__(self, session: Any, metadata: Metadata) -> None:
        self.boundary = metadata.vocabulary.doc_id
        self.context = metadata.window
        self.tile, self._most = ROW_TILE, MOST_ROWS
        self._session = session
        self._vocab_size = metadata.vocabulary.size
        self._inputs = ["tokens", *(f"state.{leaf.name}" for leaf in metadata.fresh[1:])]
        self._fresh = [leaf.value for leaf in metadata.fresh]
        self._leaves = self._fresh
        self._rows = 1

    def arrange(self, order: Ints) -> None:
        """Make row i what row order[i] was, or fresh where that is -1."""
        padded = -(-len(order) // self.tile) * self.tile
        places = np.concatenate((order, np.full(padded - len(order), -1)))
        self._leaves = [leaf[np.maximum(places, 0)] for leaf in self._leaves]
        for leaf, new in zip(self._leaves, self._fresh, strict=True):
            leaf[places < 0] = new
        self._rows = padded

    def read(self, tokens: Ints) -> None:
        """Read one token a row."""
        padded = np.zeros(self._rows, np.int64)
        padded[: len(tokens)] = tokens
        given = [padded, *self._leaves[1:]]
        parts = []
        for start in range(0, self._rows, self._most):
            block = (each[start : start + self._most] for each in given)
            parts.append(self._session.run(None, dict(zip(self._inputs, block, strict=True))))
        self._leaves = parts[0] if len(parts) == 1 else [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]

    def read_ahead(self, rows: Ints, pieces: Callable[[], Ints]) -> bool:
        """Return False: the graph is of one timestep."""
        return False

    def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
        """Return the next token of some rows; all sums over the vocabulary are in float64."""
        logits = self._leaves[0][rows].astype(np.float64)
        adjusted = logits
        if drawing.banned:
            adjusted = logits.copy()
            adjusted[:, list(drawing.banned)] = -np.inf
        for sampler in drawing.samplers:
            adjusted = sampler.adjust(adjusted, facts)
        tokens, total = draw(adjusted, facts), log_total(logits)
        scores = np.take_along_axis(logits, np.maximum(tokens, 0)[:, None], -1)[:, 0] - total
        return Draws(tokens, scores, _likely(logits, total, drawing.likely) if drawing.likely else None)

    def prepare(self) -> None:
        """Try the graph, and choose how many rows it gets.

        Raises ValueError, or what ONNX Runtime raises, unless a step gives what the next one takes.
        """
        alone = self._last_rows(ROW_TILE)
        if [(leaf.shape[1:], leaf.dtype) for leaf in alone] != [(leaf.shape[1:], leaf.dtype) for leaf in self._fresh]:
            raise ValueError("a step does not make what the next one takes")
        if alone[0].shape != (ROW_TILE, self._vocab_size):
            raise ValueError(f"its logits are {alone[0].shape[1:]}, its vocabulary {self._vocab_size}")
        others = [self._last_rows(rows) for rows in (3 * ROW_TILE, MOST_ROWS)]
        if not all(np.array_equal(mine, other) for rest in others for mine, other in zip(alone, rest, strict=True)):
            self.tile = self._most = FIXED_ROWS
        self._leaves, self._rows = self._fresh, 1

    def _last_rows(self, rows: int) -> list[Array]:
        """Return the last tile of some rows after some steps; what it has read is the same whatever is before it."""
        tokens = np.random.default_rng(0).integers(0, self._vocab_size, (_TESTED_STEPS, MOST_ROWS))
        self._leaves, self._rows = self._fresh, 1
        self.arrange(np.full(rows, -1))
        for step in tokens:
            self.read(step[-rows:])
        return [leaf[-ROW_TILE:] for leaf in self._leaves]


def _likely(logits: Array, total: Array, count: int) -> list[Likely]:
    order = np.argsort(-logits, -1, kind="stable")[:, :count]
    scores = np.take_along_axis(logits, order, -1) - total[:, None]
    return [tuple(zip(ids, row, strict=True)) for ids, row in zip(order.tolist(), scores.tolist(), strict=True)]


@dataclass(frozen=True)
class Exported:
    """An exported model, opened: what it says of itself, the network, and what decides its bits."""

    metadata: Metadata
    network: OnnxNetwork
    numerics: Mapping[str, Any]


def open_exported(path: Path, *, threads: int = 0) -> Exported:
    """Open an exported model; raise InputError for a file that is none. threads: 0 for one a core."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        raise UsageError(f"{path}: an exported model needs ONNX Runtime: pip install 'rnnpipe[onnx]'.") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what is wrong is told by the exception
    try:
        session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # of its own classes, by what is wrong with the file
        raise InputError(f"{path}: is no ONNX model that ONNX Runtime takes: {error}.") from None
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    inputs, outputs = ([each.name for each in found] for found in (session.get_inputs(), session.get_outputs()))
    network = OnnxNetwork(session, metadata)
    try:
        check_leaves(inputs, outputs, metadata)
        network.prepare()
    except Exception as error:  # its metadata do not fit its graph, which ONNX Runtime says in classes of its own
        raise InputError(f"{path}: its graph and its metadata do not fit: {error}. Export it again.") from None
    numerics = {
        "device": "cpu",
        "precision": "float32",
        "threads": threads or os.cpu_count(),
        "onnxruntime": runtime.__version__,
        "row_tile": network.tile,
    }
    return Exported(metadata, network, numerics)
