"""`rnnpipe export`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, hint, json_option, print_json, report_quarantined


@click.command("export")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("--format", "form", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="Of the file.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="The file to write; RUN.onnx if not given.")
@click.option(
    "--weights",
    "which",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Which checkpoint.",
)
@json_option
def command(run: Path, form: str, output: Path | None, which: str, as_json: bool) -> None:
    """Write a run of text as one file that `generate`, `predict` and `serve` read without torch.

    It is one timestep, (tokens, state) -> (logits, state), in float32, for ONNX Runtime, with the dictionary and the
    text rules in it. It is run beside the original before it is written.
    """
    from rnnpipe.pipeline.exporting import export_run
    from rnnpipe.plugins import full_registry

    report_quarantined(full_registry())
    out = output or Path(f"{run.resolve().name}.onnx")
    difference = export_run(run, out, which=which, report=say)
    size = out.stat().st_size
    if as_json:
        print_json({"file": str(out), "format": form, "bytes": size, "difference": difference})
        return
    click.echo(f"{out}: {size:,} bytes; its logits and states are off by {difference:.1e} at most")
    hint("generate", out, "")
