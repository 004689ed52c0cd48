"""What reads texts and draws them: a run, or an exported model, which needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rnnpipe.errors import UsageError
from rnnpipe.generation.reader import TextReader
from rnnpipe.pipeline.answers import run_record
from rnnpipe.pipeline.common import Report, load_rules, no_report
from rnnpipe.plugins import Registry, full_registry, text_registry

if TYPE_CHECKING:
    from rnnpipe.models.quantize import Form
    from rnnpipe.pipeline.runs import Run

BuildSampler: TypeAlias = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Opened:
    """A model opened for reading, and where its plugins come from.

    record: what a text depends on beside its prompt. build_sampler: makes a sampler that suits the model, of a name and
    options.
    """

    reader: TextReader
    record: dict[str, Any]
    registry: Registry
    build_sampler: BuildSampler


def open_for_reading(
    path: Path, *, device: str = "auto", quantize: Form | None = None, report: Report = no_report
) -> Opened:
    """Open the folder of a run of text, quantized if asked, or the file of an exported model.

    Torch is imported for a run only.
    """
    if path.is_file():
        if quantize is not None:
            raise UsageError(f"{path}: an exported model stays as it is; --quantize {quantize} is for a run.")
        return _open_exported(path, device)
    from rnnpipe.pipeline.runs import open_run

    registry = full_registry()
    run = open_run(path, device="cpu" if quantize is not None and device == "auto" else device, report=report)
    if quantize is None:
        return _opened(run, registry, {})
    from rnnpipe.pipeline.quantizing import quantize_run

    run, _ = quantize_run(run, quantize)
    return _opened(run, registry, {"quantize": quantize})


def _opened(run: Run, registry: Registry, more: Mapping[str, Any]) -> Opened:
    reader = run.reader()
    return Opened(reader, {**run_record(run, reader.network.tile), **more}, registry, run_sampler)


def run_sampler(name: str, options: Mapping[str, Any]) -> Any:
    """Return a sampler for a run."""
    return full_registry().build("sampler", name, options)


def _open_exported(path: Path, device: str) -> Opened:
    from rnnpipe.exported.network import open_exported
    from rnnpipe.exported.reader import ExportedReader
    from rnnpipe.exported.sampling import build_sampler

    if device not in ("auto", "cpu"):
        raise UsageError(f"{path}: an exported model runs on the CPU; --device {device} is for a run.")
    exported = open_exported(path)
    vocabulary = exported.metadata.vocabulary
    rules = load_rules(vocabulary.rules.cleaner, vocabulary.rules.tokenizer)
    record = {
        "run": str(path),
        "checkpoint": path.name,
        "weights": hashlib.sha256(path.read_bytes()).hexdigest(),
        "dictionary": vocabulary.digest,
        "numerics": exported.numerics,
    }
    return Opened(ExportedReader(exported, rules), record, text_registry(), build_sampler)
