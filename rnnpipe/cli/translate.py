"""`rnnpipe translate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, device_option, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.generation.translate import Candidate, Translation


@click.command("translate")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", "source", type=PATH, metavar="F", help="Read texts from a file, one a line; - standard input.")
@click.option("--jsonl", is_flag=True, help='JSON lines: in, {"source": ..., "id"?}; out, one object a text.')
@click.option("--beam", type=click.IntRange(min=1), default=5, show_default=True, help="Beams; 1 is greedy.")
@click.option("-n", "--n-best", type=click.IntRange(min=1), default=1, show_default=True, help="Translations of each.")
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
    """Translate TEXT with a run of pairs, in input order; standard input without any."""
    from rnnpipe.generation.translate import Search
    from rnnpipe.pipeline.runs import open_pair_run
    from rnnpipe.plugins import full_registry

    if source is not None and texts:
        raise click.UsageError("give texts as arguments or with --file, not both.")
    report_quarantined(full_registry())
    search = Search(beam, max_length, alpha, n_best, replace_unknown, allow_unknown)
    opened = open_pair_run(run, device=device, report=say)
    ids: list[str] = []

    def sources() -> Iterator[str]:
        for number, record in enumerate(_read(texts, source, jsonl), 1):
            ids.append(str(record.get("id", number)))
            yield record["source"]

    longest = int(opened.checkpoint.state["longest_source"])
    for number, translation in enumerate(opened.translator().translate(sources(), search, batch_size)):
        if len(translation.tokens) > longest:
            say(
                f"text {ids[number]}: {len(translation.tokens)} tokens, more than any source in training ({longest}); "
                "the translation may be poor."
            )
        if jsonl:
            click.echo(json.dumps(_to_json(ids[number], translation), ensure_ascii=False))
            continue
        if translation.unknown:
            say(f"text {ids[number]}: unknown to this run: {', '.join(map(repr, translation.unknown))}")
        for candidate in translation.candidates:
            if candidate.finish == "length":
                say(f"text {ids[number]}: cut at {max_length} tokens; see --max-length.")
            click.echo(candidate.text if n_best == 1 else f"{candidate.score:.4f}\t{candidate.text}")


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


def _read(texts: tuple[str, ...], source: Path | None, jsonl: bool) -> Iterator[dict[str, Any]]:
    """Yield {"source": text, "id"?: ...} for each text given, or for each line of a file or of standard input."""
    from rnnpipe.pipeline.requests import read_texts

    if texts:
        yield from ({"source": check_text(text, f"text {number}")} for number, text in enumerate(texts, 1))
        return
    for place, text in read_texts(source or Path("-")):
        if not jsonl:
            yield {"source": text}
        elif text.strip():
            yield _parse(text, place)


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
