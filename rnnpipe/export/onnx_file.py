"""One timestep of a language model as an ONNX file that needs nothing beside it.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from rnnpipe import __version__
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.durable import write_bytes
from rnnpipe.errors import RnnpipeError, UsageError
from rnnpipe.exported.metadata import Leaf, Metadata
from rnnpipe.models.language_model import LanguageModel, Memory
from rnnpipe.text.merging import prune_vocabulary
from rnnpipe.text.vocabulary import Vocabulary

OPSET = 20
_IR_VERSION = 10
_ROWS = 8  # in the trace and in the check
PRODUCED = b"\x08\x0a\x12\x07rnnpipe"  # how the files begin: the fields `ir_version` and `producer_name`
TOLERANCE = 1e-4  # of the logits and the states of ONNX Runtime beside ours, relative to the largest
_CHECKED_STEPS = 16
_OPERATION = re.compile(r"(?:torch\.ops\.|target=)((?:aten|prims|[a-z_]+)[.:][\w.]+)")


def write_onnx(model: LanguageModel, vocabulary: Vocabulary, about: Mapping[str, Any], path: Path) -> float:
    """Write a model of float32 on the CPU to an ONNX file; see `rnnpipe.exported.metadata` for what is in it.

    Return the largest difference of its logits and states from ours over some steps. Raises UsageError, with the
    operation, for a model that ONNX has no form for; writes nothing then.
    """
    onnx = _needed("onnx")
    _needed("onnxscript")  # torch's exporter does
    step = _Step(model, vocabulary.doc_id)
    graph = _trace(step)
    graph.ir_version, graph.producer_name, graph.producer_version = _IR_VERSION, "rnnpipe", __version__
    for key, value in step.metadata(prune_vocabulary(vocabulary, str(path)), about).to_properties().items():
        graph.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    data = graph.SerializeToString(deterministic=True)
    difference = _difference(step, data)
    if not difference <= TOLERANCE:
        raise RnnpipeError(
            f"{path}: ONNX Runtime's logits are off by {difference:.1e} relative to torch's (accepted: {TOLERANCE}); "
            "nothing was written. An operation of the model has another meaning there."
        )
    write_bytes(path, data)
    return difference


class _Step(nn.Module):
    """A model's `step` from tokens and leaves to logits and leaves, and what it gives behind the boundary.

    The cells' own `step` runs: other backends gain by many timesteps at once, or in ways that no other runtime knows.
    """

    def __init__(self, model: LanguageModel, boundary: int) -> None:
        super().__init__()
        self.model = model.eval()
        model.recurrent.backend = LoopBackend.name
        tokens = torch.full((1,), boundary)
        with torch.no_grad():
            first = model.absorb(tokens, model.blank(1))
            logits, second = model.foresee(first), model.absorb(tokens, first)
        leaves, self.spec = pytree.tree_flatten(self._carried(first))
        types = pytree.tree_leaves(self._carried(second))  # those that all later steps leave behind
        self.fresh: list[Tensor] = [logits, *(leaf.to(like.dtype) for leaf, like in zip(leaves, types, strict=True))]
        self.names = ["logits", *self._leaf_names(len(leaves))]

    def forward(self, tokens: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Return the logits and the leaves of the next state."""
        carried = pytree.tree_unflatten(list(leaves), self.spec)
        logits, memory = self.model.step(tokens, carried if self.model.window is not None else (None, carried))
        return logits, *pytree.tree_leaves(self._carried(memory))

    def _carried(self, memory: Memory) -> Any:
        """Return what the next step needs: all but the last output, which the logits are made of."""
        return memory if self.model.window is not None else memory[1]

    def _leaf_names(self, count: int) -> list[str]:
        """Return the names of a state's leaves: layer and the cell's own name, or of a window."""
        if self.model.window is not None:
            return ["recent", "lengths"]
        names = [f"{k}.{name}" for k, cell in enumerate(self.model.recurrent.cells()) for name in cell.state_shape]
        return names if len(names) == count else [str(number) for number in range(count)]

    def metadata(self, vocabulary: Vocabulary, about: Mapping[str, Any]) -> Metadata:
        """Return the metadata of the file."""
        fresh = tuple(Leaf(name, leaf.numpy()) for name, leaf in zip(self.names, self.fresh, strict=True))
        return Metadata(vocabulary, fresh, self.model.window, about)


def _trace(step: _Step) -> Any:
    """Return the ONNX model of a step, its number of rows open."""
    rows = torch.export.Dim("rows")
    leaves = [leaf.expand(_ROWS, *leaf.shape[1:]).contiguous() for leaf in step.fresh[1:]]
    tokens = torch.zeros(_ROWS, dtype=torch.int64)
    inputs = ["tokens", *(f"state.{name}" for name in step.names[1:])]
    outputs = ["logits", *(f"next.{name}" for name in step.names[1:])]
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                step,
                (tokens, *leaves),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: rows}, tuple({0: rows} for _ in leaves)),
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises what its parts raise
        raise UsageError(f"this model cannot be exported: {_reason(error)}") from error
    assert program is not None
    model = program.model_proto
    _clean(model.graph)
    return model


def _clean(graph: Any) -> None:
    """Take out what the exporter notes of the program that it ran in: its files and lines."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings and log to itself: what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """Return why a model could not be exported: the operation, if the exporter names one."""
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(" ".join(str(cause).split()))
        cause = cause.__cause__ or cause.__context__
    for message in reversed(messages):
        if found := _OPERATION.search(message):
            return f"the operation {found[1]} has no form in ONNX that is known."
    return f"{messages[-1][:300]}"


def _difference(step: _Step, data: bytes) -> float:
    """Return the largest difference of ONNX Runtime's outputs of a step from ours, relative to the largest of ours."""
    _needed("onnxruntime")
    generator = np.random.default_rng(0)
    state = [leaf.expand(_ROWS, *leaf.shape[1:]).contiguous() for leaf in step.fresh[1:]]
    session = importlib.import_module("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    largest = 0.0
    for _ in range(_CHECKED_STEPS):
        tokens = torch.from_numpy(generator.integers(0, step.model.vocab_size, _ROWS))
        with torch.no_grad():
            expected = step(tokens, *state)
        found = session.run(None, dict(zip(names, (each.numpy() for each in (tokens, *state)), strict=True)))
        for mine, other in zip(expected, map(torch.from_numpy, found), strict=True):
            off = (mine.double() - other.double()).abs().max() / mine.double().abs().max().clamp(min=1.0)
            largest = max(largest, float(off)) if torch.isfinite(off) else float("inf")
        state = list(expected[1:])  # of both: what is off by rounding may grow over the steps
    return largest


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise UsageError(f"export --format onnx needs the package {package}: pip install 'rnnpipe[onnx]'.") from None
