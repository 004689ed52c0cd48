"""`rnnpipe translate`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, device_option, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.generation.translate import Candidate, Translation
    from rnnpipe.pipeline.requests import Lines


@click.command("translate")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", "source", type=PATH, metavar="F", help="Read texts from a file, one a line; - standard input.")
@click.option("--jsonl", is_flag=True, help='JSON lines: in, {"source": ..., "id"?}; out, one object a text.')
@click.option("--beam", type=click.IntRange(min=1), default=5, show_default=True, help="Beams; 1 is greedy.")
@click.option(
    "-n", "--n-best", type=click.IntRange(min=1), default=1, show_default=True, help="Translations of each, at most."
)
@click.option("--max-length", type=click.IntRange(min=1), default=60, show_default=True, help="Tokens, at most.")
@click.option(
    "--alpha",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Log-probabilities are divided by length^ALPHA.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Texts at once.")
@click.option("--replace-unknown", is_flag=True, help="Put the source word attended to in place of <unk>.")
@click.option("--allow-unknown", is_flag=True, help="Let <unk> stand in translations.")
@device_option
def command(
    run: Path,
    texts: tuple[str, ...],
    source: Path | None,
    jsonl: bool,
    beam: int,
    n_best: int,
    max_length: int,
    alpha: float,
    batch_size: int,
    replace_unknown: bool,
    allow_unknown: bool,
    device: str,
) -> None:
    """Translate TEXT with a run of pairs, in input order; without any, or with -, each line of standard input.

    Lines that have come are translated together, and none is waited for before those are answered. With -n a line of
    output is NUMBER TAB SCORE TAB TEXT: the number of the text, its score, best first; an empty text has one, empty.
    """
    from rnnpipe.generation.translate import Search
    from rnnpipe.pipeline.requests import Lines
    from rnnpipe.pipeline.runs import open_pair_run
    from rnnpipe.plugins import full_registry

    if source is not None and texts:
        raise click.UsageError("give texts as arguments or with --file, not both.")
    if texts == ("-",):
        texts = ()
    report_quarantined(full_registry())
    search = Search(beam, max_length, alpha, n_best, replace_unknown, allow_unknown)
    opened = open_pair_run(run, device=device, report=say)
    lines = Lines(source or Path("-"))
    ids: deque[str] = deque()

    def sources() -> Iterator[str]:
        for name, text in _given(texts) if texts else _read(lines, jsonl):
            ids.append(name)
            yield text

    longest = int(opened.checkpoint.state["longest_source"])
    for translation in opened.translator().translate(sources(), search, batch_size, lines.waits):
        name = ids.popleft()
        if len(translation.tokens) > longest:
            say(
                f"text {name}: {len(translation.tokens)} tokens, more than any source in training ({longest}); "
                "the translation may be poor."
            )
        if jsonl:
            click.echo(json.dumps(_to_json(name, translation), ensure_ascii=False))
            continue
        if translation.unknown:
            say(f"text {name}: unknown to this run: {', '.join(map(repr, translation.unknown))}")
        for candidate in translation.candidates:
            if candidate.finish == "length":
                say(f"text {name}: cut at {max_length} tokens; see --max-length.")
            click.echo(candidate.text if n_best == 1 else f"{name}\t{candidate.score:.4f}\t{candidate.text}")


def _to_json(name: str, translation: Translation) -> dict[str, Any]:
    return {
        "id": name,
        "source": translation.source,
        "unknown": list(translation.unknown),
        "translations": [_candidate(each) for each in translation.candidates],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "text": candidate.text,
        "tokens": list(candidate.tokens),
        "log_probability": round(candidate.log_probability, 9),
        "score": round(candidate.score, 9),
        "finish": candidate.finish,
        "replaced": candidate.replaced,
    }


def _given(texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield texts, each behind its number."""
    for number, text in enumerate(texts, 1):
        yield str(number), check_text(text, f"text {number}")


def _read(lines: Lines, jsonl: bool) -> Iterator[tuple[str, str]]:
    """Yield the source text of each line behind its id, which is the line's number if it has none of its own."""
    from rnnpipe.pipeline.requests import name_of

    for line in lines:
        if not jsonl:
            yield str(line.number), line.text
        elif line.text.strip():
            record = _parse(line.text, line.place)
            yield name_of(record.get("id"), line.number), record["source"]


def _parse(text: str, place: str) -> dict[str, Any]:
    from rnnpipe.errors import InputError

    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f'{place}: not JSON ({reason}); expected an object such as {{"source": "..."}}.') from None
    if not isinstance(record, dict) or not isinstance(record.get("source"), str):
        raise InputError(f'{place}: expected an object with "source", a text; received {text[:60]}')
    check_text(record["source"], f'{place}, "source"')
    if isinstance(record.get("id"), list | dict):
        raise InputError(f'{place}: "id" is a {type(record["id"]).__name__}; it takes a text or a number.')
    check_text(str(record.get("id")), f'{place}, "id"')
    return record
