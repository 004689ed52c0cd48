"""`rnnpipe bench corpus|train|cells|vectors|generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, json_option, print_json, print_table

if TYPE_CHECKING:
    from rnnpipe.bench.cells import CellRow, Refused


@click.group("bench")
def command() -> None:
    """Measure speed on this machine, as ratios against peers in the same run."""


@command.command("corpus")
@click.option(
    "--text", type=PATH, metavar="PATH", help="A file or a folder of *.txt; Python's reference text if not given."
)
@click.option(
    "--megabytes", type=click.IntRange(min=1), default=200, show_default=True, help="The text repeated to this."
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Of rnnpipe, at once.")
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each; the best counts.")
@json_option
def corpus(text: Path | None, megabytes: int, workers: int, runs: int, as_json: bool) -> None:
    """Measure build-dict and encode, whole processes in turns, against Polars, DuckDB, Hugging Face tokenizers and the
    published program."""
    from rnnpipe.bench.corpus import bench_corpus

    if text is not None and not text.exists():
        from rnnpipe.errors import InputError

        raise InputError(f"{text}: no such file or folder.")
    rows = bench_corpus(text, megabytes, workers, runs, say)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    table = [("job", "program", "MB", "seconds", "processor s", "MB/s", "resident MB", "ours / its")]
    for row in rows:
        ours = next(first for first in rows if first.job == row.job)
        ratio = f"{ours.rate / row.rate:.1f}"
        cells = (
            f"{row.size_bytes / 1e6:.0f}",
            f"{row.seconds:.2f}",
            f"{row.processor_seconds:.2f}",
            f"{row.rate:.0f}",
            f"{row.resident_bytes / 1e6:.0f}",
        )
        table.append((row.job, row.program, *cells, ratio))
    print_table(table, right=(2, 3, 4, 5, 6, 7))


@command.command("train")
@click.option("--task", type=click.Choice(["text", "translation"]), default="text", show_default=True, help="What for.")
@click.option("--text", type=PATH, metavar="PATH", help="Also compare validation losses after equal time on this text.")
@click.option("--seconds", type=click.FloatRange(min=1), default=70, show_default=True, help="Of that comparison.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Of the speed comparison.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of both.",
)
@json_option
def train(task: str, text: Path | None, seconds: float, rounds: int, precision: str, as_json: bool) -> None:
    """Measure training against a bare PyTorch loop of the same model, batch and recipe, in turns."""
    from rnnpipe.errors import InputError

    if task == "translation" and text is not None:
        raise click.UsageError("--text goes with --task text.")
    if text is not None and not text.is_file():
        raise InputError(f"{text}: no such file.")
    from rnnpipe.bench.pairs import bench_pairs
    from rnnpipe.bench.train import bench_quality, bench_speed

    speed = (bench_pairs if task == "translation" else bench_speed)(rounds, precision, say)
    quality = bench_quality(text, seconds, precision, say) if text is not None else []
    if as_json:
        print_json({"speed": [asdict(row) for row in speed], "quality": [asdict(row) for row in quality]})
        return
    table = [("model", "precision", "rnnpipe tokens/s", "bare loop", "ratio")]
    table += [(r.shape, r.precision, f"{r.rnnpipe:,.0f}", f"{r.bare:,.0f}", f"{r.ratio:.3f}") for r in speed]
    print_table(table, right=(2, 3, 4))
    if quality:
        click.echo()
        rows = [("program", "seconds", "steps", "loss, windows of 256", "loss, carried")]
        rows += [
            (r.program, f"{r.seconds:g}", f"{r.steps:,}", f"{r.windows_nats:.4f}", f"{r.carried_nats:.4f}")
            for r in quality
        ]
        print_table(rows, right=(1, 2, 3, 4))


@command.command("vectors")
@click.argument("tokens", type=PATH, metavar="TOKENS")
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="Passes over the text.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of both programs in turns.")
@json_option
def vectors(tokens: Path, epochs: int, rounds: int, as_json: bool) -> None:
    """Measure skip-gram and CBOW on the token folder TOKENS against gensim, in turns."""
    from rnnpipe.bench.vectors import bench_vectors
    from rnnpipe.data.tokens import load_tokens

    rows = bench_vectors(load_tokens(tokens), epochs, rounds, say)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = [("model", "program", "tokens/s", "held-out loss, nats")]
    table += [(r.model, r.program, f"{r.tokens_per_second:,.0f}", f"{r.loss_nats:.3f}") for r in rows]
    print_table(table, right=(2, 3))


@command.command("cells")
@click.option("--cell", "cells", multiple=True, metavar="NAME", help="This cell; may be repeated. [all]")
@click.option("--shapes", default="64x64x128x256", show_default=True, metavar="TxBxIxH,...", help="Of one layer.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Passes of each, in turns.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default=["auto"],
    show_default=True,
    help="Of all; may be repeated.",
)
@click.option("--captured", is_flag=True, help="Replay each as a CUDA graph, nn.LSTM too.")
@click.option("--csv", "table", type=PATH, metavar="FILE", help="Also write the rows as CSV.")
@click.option("--plot", type=PATH, metavar="PNG", help="Also draw the ratios (extra `plot`).")
@json_option
def cells_(
    cells: tuple[str, ...],
    shapes: str,
    rounds: int,
    precisions: tuple[str, ...],
    captured: bool,
    table: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure every backend of every cell, forward and backward, against nn.LSTM of the same sizes, in turns."""
    from rnnpipe.bench.cells import PEER, bench_cells, by_backend, graphs, to_csv
    from rnnpipe.durable import write_bytes

    rows, refused = bench_cells(cells, shapes.split(","), rounds, precisions, say, graphs() if captured else None)
    if table is not None:
        write_bytes(table, to_csv(rows))
        say(f"written: {table}")
    if as_json:
        print_json({"cells": [asdict(row) for row in rows], "refused": [asdict(row) for row in refused]})
    else:
        _print_cells(rows, refused, PEER)
    if plot is not None:
        from rnnpipe.plots import draw_bars

        draw_bars(by_backend(rows), plot, title="forward and backward of one layer", x=f"speed by that of {PEER}")
        say(f"written: {plot}")


def _print_cells(rows: Sequence[CellRow], refused: Sequence[Refused], peer: str) -> None:
    head = ("cell", "backend", "shape", "precision", "tokens/s", "us/step", "first call, s")
    lines: list[tuple[str, ...]] = [(*head, "of its products' speed", f"ratio to {peer}")]
    for row in rows:
        numbers = (f"{row.tokens_per_second:,.0f}", f"{row.microseconds_per_step:,.0f}", f"{row.first_seconds:.2f}")
        bound = "" if row.of_bound is None else f"{row.of_bound:.2f}"
        lines.append((row.cell, row.label, row.shape, row.precision, *numbers, bound, f"{row.ratio:.2f}"))
    print_table(lines, right=(4, 5, 6, 7, 8))
    for no in refused:
        say(f"{no.cell}: {no.backend} refuses: {no.reason}")


@command.command("generate")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("--prompts", type=click.IntRange(min=1), default=1024, show_default=True, help="At once.")
@click.option("--tokens", type=click.IntRange(min=1), default=200, show_default=True, help="For each prompt.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Of all programs in turns.")
@click.option(
    "--precision", "precisions", type=click.Choice(["float32", "bfloat16"]), multiple=True, help="Repeatable. [both]"
)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy.")
@click.option("--peer/--no-peer", default=True, show_default=True, help="Measure transformers' generate as well, once.")
@json_option
def generate(
    run: Path,
    prompts: int,
    tokens: int,
    rounds: int,
    precisions: tuple[str, ...],
    temperature: float,
    peer: bool,
    as_json: bool,
) -> None:
    """Measure generation with RUN against its matrix products alone, a loop of one prompt at a time, and the
    `generate` of transformers with a GPT-2 of as many parameters."""
    from rnnpipe.bench.generate import bench_generation
    from rnnpipe.pipeline.requests import Options

    options = Options(temperature=temperature)
    found = bench_generation(
        run, prompts, tokens, rounds, precisions or ("float32", "bfloat16"), options, peer=peer, report=say
    )
    if as_json:
        print_json(asdict(found))
        return
    table = [("program", "precision", "tokens/s", "ours / its")]
    table += [(r.program, r.precision, f"{r.tokens_per_second:,.0f}", f"{r.ratio:.2f}") for r in found.rows]
    print_table(table, right=(2, 3))
    click.echo(f"\nfirst token after the start of a process: {found.first_token_seconds:.2f} s")


@command.command("serve")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("--clients", type=click.IntRange(min=1), default=64, show_default=True, help="At once.")
@click.option("--tokens", type=click.IntRange(min=1), default=200, show_default=True, help="For each text.")
@click.option("--longest", type=click.IntRange(min=1), default=64, show_default=True, help="Tokens of a prompt.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of all ways in turns.")
@click.option("--soak", type=click.FloatRange(min=0), default=0, metavar="SECONDS", help="Then a load of that length.")
@json_option
def serve(run: Path, clients: int, tokens: int, longest: int, rounds: int, soak: float, as_json: bool) -> None:
    """Measure a server of RUN under the load of many clients against the batch command, in turns."""
    from rnnpipe.bench.serve import bench_serve

    found = bench_serve(run, clients, tokens, longest, rounds, soak, say)
    if as_json:
        print_json(asdict(found))
        return
    table = [("way", "clients", "tokens/s", "by the batch command", "first token, median s", "99 of 100 within, s")]
    for row in found.rows:
        waited = ["", ""] if row.first_token_seconds is None else [f"{each:.3f}" for each in row.first_token_seconds]
        own = "" if row.way.startswith("batch") else str(row.clients)
        table.append((row.way, own, f"{row.tokens_per_second:,.0f}", f"{row.ratio:.2f}", waited[0], waited[1]))
    print_table(table, right=(1, 2, 3, 4, 5))
    if found.soak is not None:
        before, after = (f"{each / 1e6:,.0f}" for each in found.soak.resident_bytes)
        click.echo(
            f"\n{found.soak.requests:,} requests in {found.soak.seconds:,.0f} s: {found.soak.lost} lost; "
            f"resident {before} MB before, {after} MB after"
        )
