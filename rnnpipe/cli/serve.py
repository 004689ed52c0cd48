"""`rnnpipe serve`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, device_option, quantize_option, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.models.quantize import Form

KEY_VARIABLE = "RNNPIPE_API_KEY"


@click.command("serve")
@click.argument("run", type=PATH, metavar="RUN")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any other than this machine's asks for a key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 is any that is free.")
@click.option("--key-file", type=PATH, metavar="F", help=f"The key that requests need; or in {KEY_VARIABLE}.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Texts at once; no text depends on it.")
@click.option("--max-body", type=click.IntRange(min=1), default=1 << 20, show_default=True, help="Bytes; 413.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=4096, show_default=True, help="Of a text; 400.")
@click.option("--max-texts", type=click.IntRange(min=1), default=128, show_default=True, help="Of a request; 400.")
@click.option("--max-seconds", type=click.FloatRange(min=0.1), default=120, show_default=True, help="A request; 408.")
@click.option("--max-requests", type=click.IntRange(min=1), default=128, show_default=True, help="An address; 429.")
@click.option("--max-waiting", type=click.IntRange(min=0), default=1024, show_default=True, help="Texts; 503.")
@quantize_option
@device_option
def command(
    run: Path,
    host: str,
    port: int,
    key_file: Path | None,
    batch: int | None,
    max_body: int,
    max_tokens: int,
    max_texts: int,
    max_seconds: float,
    max_requests: int,
    max_waiting: int,
    quantize: Form | None,
    device: str,
) -> None:
    """Serve a run of text, or an exported model, over HTTP; a page to try it is at /.

    \b
    POST /v1/completions   as OpenAI's, streaming too     GET /v1/models
    POST /predict          {"text": ..., "top": 10}       GET /health
    POST /score            {"text": ..., "end": false}    GET /metrics, for Prometheus

    Requests of all clients share one batch. SIGTERM and Ctrl-C end it once the requests that run are answered.
    """
    from rnnpipe.errors import UsageError
    from rnnpipe.generation.engine import BATCH_ROWS
    from rnnpipe.pipeline.reading import open_for_reading

    for package in ("starlette", "uvicorn"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            raise UsageError(f"serve needs the package {package}: pip install 'rnnpipe[serve]'.") from None
    from rnnpipe.serving.limits import Limits
    from rnnpipe.serving.run import ModelServer

    key = _read_key(key_file)
    opened = open_for_reading(run, device=device, quantize=quantize, report=say)
    report_quarantined(opened.registry)
    limits = Limits(max_body, max_tokens, max_texts, max_seconds, max_waiting, max_requests)
    name = run.resolve().name

    server = ModelServer(opened, name, host, port, key=key, rows=batch or BATCH_ROWS, limits=limits)

    def ready(end: Callable[[], None]) -> None:
        click.echo(server.url)
        say(f"{name} is served at {server.url}; Ctrl-C ends it")
        if server.key is not None and key is None:
            say(f"key: {server.key}")

    server.run(ready)
    say("ended; all requests that were taken are answered")


def _read_key(path: Path | None) -> str | None:
    from rnnpipe.errors import InputError

    key = path.read_text(encoding="utf-8").strip() if path is not None else os.environ.get(KEY_VARIABLE)
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        place = path if path is not None else KEY_VARIABLE
        raise InputError(f"{place}: a key has printable ASCII characters, one at least, and no blank.")
    return key
