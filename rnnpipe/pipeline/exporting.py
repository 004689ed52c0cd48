"""Runs as exported models."""

from __future__ import annotations

from pathlib import Path

from rnnpipe import __version__
from rnnpipe.errors import UsageError
from rnnpipe.export.onnx_file import PRODUCED, write_onnx
from rnnpipe.pipeline.common import Report, check_output_file, no_report
from rnnpipe.pipeline.runs import open_run


def export_run(folder: Path, out: Path, *, which: str = "best", report: Report = no_report) -> float:
    """Write a run of text as an ONNX file; return by how much ONNX Runtime's logits are off from torch's.

    The file computes in float32, whatever precision the run has.
    """
    check_output_file(out, [], PRODUCED, "an exported model")
    run = open_run(folder, device="cpu", which=which, report=report)
    if run.numerics.precision != "float32":
        report(f"the file computes in float32, the run in {run.numerics.precision}: some of their texts differ")
    about = {"run": folder.resolve().name, "checkpoint": run.checkpoint.path.name, "rnnpipe": __version__}
    try:
        return write_onnx(run.model.float(), run.vocabulary, about, out)
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
