"""Options and output that several commands share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from rnnpipe.cli import say

Function = TypeVar("Function", bound=Callable[..., Any])


class Path_(click.Path):  # noqa: N801 - click.Path with pathlib results
    """A path as `pathlib.Path`; whether it is there is for the command to say."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


PATH = Path_()


def text_options(function: Function) -> Function:
    """Add `--encoding` and `--errors`."""
    function = click.option(
        "--errors",
        type=click.Choice(["strict", "replace", "ignore"]),
        default="strict",
        show_default=True,
        help="What to do with bytes that are not of the encoding.",
    )(function)
    return click.option(
        "--encoding",
        default="utf-8",
        show_default=True,
        metavar="NAME[,NAME...]",
        help="Encoding of the input; of several, that which reads all of a file. UTF-16 is known by its mark.",
    )(function)


def workers_option(function: Function) -> Function:
    """Add `--workers`."""
    return click.option("--workers", type=click.IntRange(min=1), help="How many at once; as many as pay if not given.")(
        function
    )


def engine_options(function: Function) -> Function:
    """Add `--engine` and `--scheduler`."""
    scheduler = click.option("--scheduler", metavar="ADDRESS", help="Of the Dask cluster, as tcp://10.0.0.1:8786.")
    return click.option(
        "--engine",
        type=click.Choice(["local", "dask"]),
        default="local",
        show_default=True,
        help="Where the work is done: here, or on a cluster in a trusted network.",
    )(scheduler(function))


def device_option(function: Function) -> Function:
    """Add `--device`."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    )(function)


def quantize_option(function: Function) -> Function:
    """Add `--quantize`."""
    return click.option(
        "--quantize",
        type=click.Choice(["bf16", "int8"]),
        help="Weights in fewer bits, all else in float32; on the CPU.",
    )(function)


def json_option(function: Function) -> Function:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def named(text: str) -> Any:
    """Return a plugin's name and options from NAME or NAME:key=value,key=value as people type it."""
    from rnnpipe.config import plugin_from_text

    return plugin_from_text(text)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    from rnnpipe.durable import finite

    click.echo(json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False))


def hint(*words: object) -> None:
    """Say which command a person would run next, quoted for the shell."""
    say(f"next: {shlex.join(str(word) for word in ('rnnpipe', *words))}")


def print_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows in aligned columns; those in `right` are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def check_text(text: str, place: str) -> str:
    """Return a text as it is; raise InputError if it holds what is no text, as a byte that is not UTF-8 becomes."""
    from rnnpipe.errors import InputError

    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}, character {error.start + 1}: not valid text; give it as UTF-8.") from None
    return text


def open_lines(source: Path | None) -> Iterator[str]:
    """Return the lines of a file, `-` for standard input; raise InputError for one that is not UTF-8."""
    from rnnpipe.pipeline.requests import Lines

    assert source is not None, "a file was asked for"
    return (line.text for line in Lines(source))


def report_mended(count: int, errors: str) -> None:
    """Say how many bytes were not of the encoding and were replaced or left out."""
    if count:
        done = "replaced by U+FFFD" if errors == "replace" else "left out"
        say(f"warning: {count:,} bytes were not valid and were {done}")


def report_quarantined(registry: Any) -> None:
    """Warn once of each plugin that could not be loaded, and of names that are not clear."""
    for warning in (*registry.warnings, *registry.quarantined):
        say(f"warning: {warning}")


def number(value: float) -> str:
    """Return a number in four significant digits."""
    return f"{value:.4g}"


def shorten(options: Mapping[str, Any]) -> str:
    """Return options as `key=value` pairs."""
    return ", ".join(f"{key}={value}" for key, value in options.items())
