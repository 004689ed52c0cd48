"""`rnnpipe generate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, device_option, named, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.generation.prompts import Generated, Prompt
    from rnnpipe.generation.samplers import Sampler


@click.command("generate")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "--file", "source", type=PATH, metavar="F", help="Read prompts from a file, one a line; - is standard input."
)
@click.option("--jsonl", is_flag=True, help='JSON lines: in, {"prompt": ..., "id"?, "seed"?}; out, one object a text.')
@click.option("-n", "--number", type=click.IntRange(min=1), default=1, show_default=True, help="Texts for each prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Tokens a text.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, metavar="K", help="Draw from the K most likely tokens.")
@click.option("--top-p", type=float, metavar="P", help="Draw from the fewest tokens that reach probability P.")
@click.option(
    "--sampler", "more", multiple=True, metavar="NAME[:KEY=VALUE,...]", help="Another sampler, after those; repeatable."
)
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Keys what is drawn."
)
@click.option("--allow-unknown", is_flag=True, help="Let <unk> be drawn.")
@device_option
def command(
    run: Path,
    prompts: tuple[str, ...],
    source: Path | None,
    jsonl: bool,
    number: int,
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    more: tuple[str, ...],
    seed: int,
    allow_unknown: bool,
    device: str,
) -> None:
    """Continue prompts, in input order. An empty prompt, or none, starts a new document."""
    from rnnpipe.pipeline.runs import open_run
    from rnnpipe.plugins import full_registry

    if source is not None and prompts:
        raise click.UsageError("give prompts as arguments or with --file, not both.")
    registry = full_registry()
    report_quarantined(registry)
    samplers: list[Sampler] = [registry.build("sampler", "temperature", {"temperature": temperature})]
    samplers += [registry.build("sampler", "top-k", {"k": top_k})] if top_k is not None else []
    samplers += [registry.build("sampler", "top-p", {"p": top_p})] if top_p is not None else []
    samplers += [registry.build("sampler", one.name, one.options) for one in map(named, more)]
    reader = open_run(run, device=device, report=say).reader()
    lines = _read_prompts(prompts, source, jsonl, number, seed)
    joiner = reader.rules.tokenizer.join
    first, parted = True, False
    for generated in reader.generate(lines, samplers, max_tokens, allow_unknown=allow_unknown):
        if jsonl:
            click.echo(json.dumps(_to_json(generated), ensure_ascii=False))
            continue
        if generated.unknown:
            say(f"unknown to this run: {', '.join(map(repr, generated.unknown))}")
        start = (
            joiner([generated.prompt.text, ""]) if generated.prompt.text and generated.text else generated.prompt.text
        )
        text = start + generated.text
        if parted or (not first and "\n" in text):
            click.echo("---")
        parted = "\n" in text  # a text of several lines is set off on both sides
        click.echo(text)
        first = False


def _read_prompts(
    prompts: tuple[str, ...], source: Path | None, jsonl: bool, number: int, seed: int
) -> Iterator[Prompt]:
    """Yield the prompts, each `number` times; the k-th text of all is keyed by k, so it can be drawn again alone."""
    from rnnpipe.generation.prompts import Prompt

    count = 0
    for line, record in enumerate(_read_records(prompts, source, jsonl), 1):
        for copy in range(number):
            name = str(record.get("id", line)) + (f".{copy + 1}" if number > 1 else "")
            own_seed = record.get("seed", seed)
            yield Prompt(id=name, text=record["prompt"], number=copy if "seed" in record else count, seed=own_seed)
            count += 1


def _read_records(prompts: tuple[str, ...], source: Path | None, jsonl: bool) -> Iterator[dict[str, Any]]:
    from rnnpipe.durable import read_lines
    from rnnpipe.errors import InputError

    if source is None:
        yield from ({"prompt": check_text(prompt, f"prompt {k}")} for k, prompt in enumerate(prompts or ("",), 1))
        return
    if str(source) == "-" and sys.stdin is None:
        raise InputError("standard input is closed; give prompts as arguments or with --file F.")
    name = "standard input" if str(source) == "-" else str(source)
    with nullcontext(sys.stdin.buffer) if str(source) == "-" else source.open("rb") as file:
        for number, line in enumerate(read_lines(file, name), 1):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{name}, line {number}, byte {error.start}: not UTF-8; prompts are UTF-8.") from None
            if not jsonl:
                yield {"prompt": text}
            elif text.strip():
                yield _parse_record(text, f"{name}, line {number}")


def _parse_record(text: str, place: str) -> dict[str, Any]:
    from rnnpipe.errors import InputError

    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f'{place}: not JSON ({reason}); expected an object such as {{"prompt": "..."}}.') from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise InputError(f'{place}: expected an object with "prompt", a text; received {text[:60]}')
    check_text(record["prompt"], f'{place}, "prompt"')
    if isinstance(record.get("id"), list | dict):
        raise InputError(f'{place}: "id" is a {type(record["id"]).__name__}; it takes a text or a number.')
    check_text(str(record.get("id")), f'{place}, "id"')
    seed = record.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f'{place}: "seed" is {seed!r}; it takes a whole number from 0 to 2^63 - 1.')
    return record


def _to_json(generated: Generated) -> dict[str, Any]:
    return {
        "id": generated.prompt.id,
        "prompt": generated.prompt.text,
        "text": generated.text,
        "tokens": list(generated.tokens),
        "log_probability": generated.log_probability,
        "finish": generated.finish,
        "unknown": list(generated.unknown),
        "seed": generated.prompt.seed,
    }
