"""`rnnpipe generate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, check_text, device_option, hint, named, quantize_option, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.generation.prompts import Generated
    from rnnpipe.models.quantize import Form
    from rnnpipe.pipeline.answers import Answers
    from rnnpipe.pipeline.manners import Manners
    from rnnpipe.pipeline.requests import Asked, Options, Record

_SAY_EVERY = 10.0  # seconds, where answers go to a file


@click.command("generate")
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "--file", "source", type=PATH, metavar="F", help="Read prompts from a file, one a line; - is standard input."
)
@click.option("--jsonl", is_flag=True, help='JSON lines: in, {"prompt": ..., "id"?, "seed"?, ...}; out, one a text.')
@click.option("--plain", is_flag=True, help="With --jsonl: the file has plain lines all the same.")
@click.option("-o", "out", type=PATH, metavar="F", help="Write JSON lines to a file; what is there is gone on with.")
@click.option("-n", "--number", type=click.IntRange(min=1), default=1, show_default=True, help="Texts for each prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Tokens a text.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, metavar="K", help="Draw from the K most likely tokens.")
@click.option("--top-p", type=float, metavar="P", help="Draw from the fewest tokens that reach probability P.")
@click.option(
    "--sampler",
    "more",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="Another sampler: min-p, typical, repetition-penalty, forbid, min-length, pattern, prefix, or a plugin's; "
    "repeatable, in order.",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable.")
@click.option("--sentence", is_flag=True, help="End behind the first sentence.")
@click.option("--beam", type=click.IntRange(min=1), metavar="K", help="Search with K beams; -n texts, the best first.")
@click.option("--length-exponent", "alpha", type=float, metavar="A", help="Beams go by log p / length^A. [1]")
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Keys what is drawn."
)
@click.option("--allow-unknown", is_flag=True, help="Let <unk> be drawn.")
@click.option("--skip-errors", is_flag=True, help="Report lines that cannot be used, and leave them out.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Texts at once; no text depends on it.")
@quantize_option
@device_option
def command(
    run: Path,
    prompts: tuple[str, ...],
    source: Path | None,
    jsonl: bool,
    plain: bool,
    out: Path | None,
    number: int,
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    more: tuple[str, ...],
    stop: tuple[str, ...],
    sentence: bool,
    beam: int | None,
    alpha: float | None,
    seed: int,
    allow_unknown: bool,
    skip_errors: bool,
    batch: int | None,
    quantize: Form | None,
    device: str,
) -> None:
    """Continue prompts, in input order. An empty prompt, or none, starts a new document.

    Prompts are read ahead until --batch of them are drawn at once: where each answer is awaited, --batch 1. A prompt of
    JSON lines may have options of its own: max_tokens, temperature, top_k, top_p, samplers, stop, sentence,
    allow_unknown.
    """
    from rnnpipe.generation.engine import BATCH_ROWS
    from rnnpipe.pipeline.manners import Manners
    from rnnpipe.pipeline.reading import open_for_reading
    from rnnpipe.pipeline.requests import Beam, Options, number_prompts

    if out is not None and str(out) == "-":
        out = None
    if source is not None and prompts:
        raise click.UsageError("give prompts as arguments or with --file, not both.")
    if out is not None and not jsonl:
        raise click.UsageError("-o needs --jsonl: only JSON lines tell which prompts have been answered.")
    if out is not None and source is not None and out.exists() and source.exists() and out.samefile(source):
        raise click.UsageError(f"-o {out} is the file of the prompts; name another one.")
    if plain and not (jsonl and source):
        raise click.UsageError("--plain goes with --jsonl and --file.")
    if beam is not None and number > beam:
        raise click.UsageError(f"-n {number} needs as many beams; use --beam {number}.")
    if beam is None and alpha is not None:
        raise click.UsageError("--length-exponent goes with --beam.")
    options = Options(
        max_tokens, temperature, top_k, top_p, tuple(map(named, more)), stop, sentence, allow_unknown,
        None if beam is None else Beam(beam, number, 1.0 if alpha is None else alpha),
    )  # fmt: skip
    opened = open_for_reading(run, device=device, quantize=quantize, report=say)
    report_quarantined(opened.registry)
    skipped = _Skipped() if skip_errors else None
    records = _records(prompts, source, jsonl and not plain, skipped)
    asked = number_prompts(records, options, seed, number, skip=skipped)
    manners = Manners(opened, say)
    if skipped is not None:
        asked = manners.usable(asked, skipped)
    job = _Job(manners, batch or BATCH_ROWS, options)
    if jsonl:
        _write_lines(job, asked, out)
    else:
        _print_texts(job, asked)
    if skipped:
        say(f"{skipped.count:,} lines were left out")


@dataclass
class _Skipped:
    """Tells of lines that are left out, and counts them."""

    count: int = 0

    def __call__(self, message: str) -> None:
        self.count += 1
        say(f"left out: {message}")

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass
class _Job:
    manners: Manners
    rows: int
    options: Options

    def answers(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Generated]]:
        """Yield each prompt with its text."""
        from rnnpipe.pipeline.manners import answer_prompts, search_prompts

        if self.options.beam is not None:
            return search_prompts(self.manners.opened, asked, self.options, rows=self.rows)
        return answer_prompts(self.manners, asked, rows=self.rows)


def _records(
    prompts: tuple[str, ...], source: Path | None, jsonl: bool, skip: Callable[[str], None] | None
) -> Iterable[Record]:
    from rnnpipe.pipeline.requests import Record, read_prompts

    if source is not None:
        return read_prompts(source, jsonl=jsonl, skip=skip)
    given = enumerate(prompts or ("",), 1)
    return [Record(number, "", {"prompt": check_text(prompt, f"prompt {number}")}) for number, prompt in given]


def _print_texts(job: _Job, asked: Iterable[Asked]) -> None:
    """Print prompts with their continuations; a text of several lines is set off on both sides."""
    joiner = job.manners.opened.reader.rules.tokenizer.join
    first, parted = True, False
    for _, generated in job.answers(asked):
        prompt = generated.prompt.text
        if generated.unknown:
            say(f"unknown to this run: {', '.join(map(repr, generated.unknown))}")
        if generated.finish == "none allowed":
            say("a text ended where its samplers left no token to go on with")
        text = (joiner([prompt, ""]) if prompt and generated.text else prompt) + generated.text
        if parted or (not first and "\n" in text):
            click.echo("---")
        parted = "\n" in text
        click.echo(text)
        first = False


def _write_lines(job: _Job, asked: Iterable[Asked], out: Path | None) -> None:
    from rnnpipe.errors import Interrupted
    from rnnpipe.pipeline.answers import answers_file

    record = job.manners.opened.record
    with nullcontext() if out is None else answers_file(out) as answers:
        told = _Told(out)
        try:
            _write_answers(job, asked, answers, record, told)
        except KeyboardInterrupt:
            if out is None:
                raise
            raise Interrupted(f"interrupted; {out} has {told.there + told.texts:,} answers. "
                              "The same command goes on from there.") from None  # fmt: skip
        told.end()
    if out is not None and told.there + told.texts:
        hint("replay", f"{out}:1")


def _write_answers(
    job: _Job, asked: Iterable[Asked], answers: Answers | None, record: dict[str, Any], told: _Told
) -> None:
    from rnnpipe.pipeline.answers import answer, line_of

    missing = asked
    if answers is not None:
        missing = answers.missing(asked, record, told.go_on)
    for one, generated in job.answers(missing):
        line = answer(one, generated, record)
        if answers is None:
            click.echo(line_of(line))
        else:
            answers.write(line)
        told.note(generated)


class _Told:
    """What is said of answers while they are written to a file."""

    def __init__(self, out: Path | None) -> None:
        self.out = out
        self.there = self.texts = self.tokens = self.unknown = self.lost = 0
        self._begun = self._said = time.monotonic()

    def go_on(self, there: int) -> None:
        """Say that answers are there already."""
        self.there = there
        if there:
            say(f"{self.out} has {there:,} answers; going on behind them")
        self._begun = time.monotonic()

    def note(self, generated: Generated) -> None:
        """Count a text; say now and then how far the work is."""
        self.texts += 1
        self.tokens += len(generated.tokens)
        self.unknown += bool(generated.unknown)
        self.lost += generated.finish == "none allowed"
        if self.out is not None and time.monotonic() > self._said + _SAY_EVERY:
            self._said = time.monotonic()
            say(self._rate())

    def _rate(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._begun)
        return f"{self.texts:,} texts, {self.tokens:,} tokens, {self.tokens / seconds:,.0f} tokens/s"

    def end(self) -> None:
        """Say what was done."""
        if self.unknown:
            say(f'{self.unknown:,} prompts have words that are unknown to this run: "unknown" names them')
        if self.lost:
            say(f"{self.lost:,} texts ended where their samplers left no token to go on with")
        if self.out is not None:
            say(f"written: {self.out} ({self._rate()})")
