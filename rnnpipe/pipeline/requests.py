"""What a person asks a run to continue: prompts from a file or the command line, and how each is to be continued.

Nothing here needs torch.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rnnpipe.config import plugin_from_text
from rnnpipe.durable import read_lines
from rnnpipe.errors import InputError, UsageError, did_you_mean
from rnnpipe.options import bind_options
from rnnpipe.text.arriving import LineReader
from rnnpipe.text.rules import Named
from rnnpipe.text.transcoding import open_bytes


@dataclass(frozen=True)
class Beam:
    """Beam search: how many beams, how many of the best texts, and the exponent of the length that divides scores."""

    width: int
    best: int = 1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.best <= self.width:
            raise UsageError(f"beam: best={self.best} is not accepted; it takes 1 to the width, {self.width}.")
        if not 0 <= self.alpha < math.inf:
            raise UsageError(f"the exponent of the length is {self.alpha}; it takes 0 (no normalisation) or more.")


@dataclass(frozen=True)
class Options:
    """How a prompt is continued.

    samplers: others beside temperature, top-k and top-p, in order. stop: strings before which a text ends; sentence: it
    ends behind its first sentence as well. beam: search instead of drawing; it takes none of these, and is the same for
    all prompts.
    """

    max_tokens: int = 100
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    samplers: tuple[Named, ...] = ()
    stop: tuple[str, ...] = ()
    sentence: bool = False
    allow_unknown: bool = False
    beam: Beam | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= MOST_TOKENS:
            raise UsageError(f"max_tokens={self.max_tokens} is not accepted; it takes 1 to {MOST_TOKENS}.")
        if "" in self.stop:
            raise UsageError("stop: an empty text would end every text before it begins.")
        plain = Options.temperature, Options.top_k, Options.top_p, Options.samplers, Options.stop, Options.sentence
        own = self.temperature, self.top_k, self.top_p, self.samplers, self.stop, self.sentence
        if self.beam is not None and own != plain:
            raise UsageError("beam search draws nothing: it takes no temperature, sampler or stop.")

    def to_json(self) -> dict[str, Any]:
        """Return what is not as it is by default, as JSON holds it."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told["samplers"] = [named.to_json() for named in self.samplers]
        told["stop"] = list(self.stop)
        told["beam"] = self.beam and asdict(self.beam)
        plain = {field.name: field.default for field in fields(self)} | {"samplers": [], "stop": []}
        return {name: value for name, value in told.items() if value != plain[name]}

    def with_own(self, own: Mapping[str, Any], place: str) -> Options:
        """Return these with a prompt's own ones in their place; raise UsageError naming the place of a wrong one."""
        table = {key: value for key, value in own.items() if value is not None}
        if not table:
            return self
        if isinstance(table.get("beam"), dict):
            table["beam"] = Beam(**bind_options(Beam, table["beam"], f"{place}, beam"))
        if isinstance(table.get("stop"), str):
            table["stop"] = [table["stop"]]
        if isinstance(table.get("samplers"), list):
            table["samplers"] = [_sampler(value, place) for value in table["samplers"]]
        try:
            bound = bind_options(Options, table, "a prompt")
            if self.beam is not None:
                raise UsageError("beam search has the same options for all prompts.")
            return replace(self, **bound)
        except UsageError as error:
            raise UsageError(f"{place}: {error}") from None


@dataclass(frozen=True)
class Asked:
    """A prompt as it was asked for. `number` and `seed` key its random numbers; `place` names it in messages."""

    id: str
    text: str
    number: int
    seed: int
    options: Options
    place: str


OWN = ("id", "prompt", "seed")
MOST_TOKENS = 10**9  # a text
BOM = b"\xef\xbb\xbf"  # which some editors put before the first line


def _sampler(value: Any, place: str) -> Named:
    return plugin_from_text(value) if isinstance(value, str) else Named.from_json(value, f"{place}, samplers")


@dataclass(frozen=True)
class Record:
    """A prompt with its own id, seed and options as they were given, and the number of its line, from 1."""

    line: int
    place: str
    given: Mapping[str, Any]


def number_prompts(
    records: Iterable[Record],
    options: Options,
    seed: int,
    copies: int,
    *,
    skip: Callable[[str], None] | None = None,
) -> Iterator[Asked]:
    """Yield each prompt `copies` times; its line and the number of its copy key what is drawn.

    What is drawn therefore hangs on no other line. A prompt that has a seed of its own is keyed by this and the number
    of its copy, wherever it stands. That number is the rank of a text of beam search. skip: told of a prompt whose own
    options are none, which is then left out; without it UsageError is raised.
    """
    for record in records:
        given = record.given
        try:
            chosen = options.with_own({key: value for key, value in given.items() if key not in OWN}, record.place)
        except (InputError, UsageError) as error:
            if skip is None:
                raise
            skip(str(error))
            continue
        for copy in range(copies):
            name = name_of(given.get("id"), record.line) + (f".{copy + 1}" if copies > 1 else "")
            number = copy if "seed" in given or chosen.beam else (record.line - 1) * copies + copy
            yield Asked(name, given["prompt"], number, given.get("seed", seed), chosen, record.place)


def name_of(given: object, line: int) -> str:
    """Return the name of what a line asks for: its own id, or the line's number if that is absent or null."""
    return str(line if given is None else given)


def read_prompts(source: Path, *, jsonl: bool, skip: Callable[[str], None] | None = None) -> Iterator[Record]:
    """Yield the prompts of a file, a line each; `-` is standard input.

    skip: told of a line that cannot be read, which is then left out; without it InputError is raised. Options are
    checked as far as they have names and types.
    """
    for line in Lines(source, skip):
        if not jsonl:
            yield Record(line.number, line.place, {"prompt": line.text})
            continue
        if not line.text.strip():
            continue
        try:
            yield Record(line.number, line.place, _parse_record(line.text, line.place))
        except (InputError, UsageError) as error:
            if skip is None:
                raise
            skip(str(error))


@dataclass(frozen=True)
class Line:
    """A line without its end, its number from 1, and the place that messages name."""

    number: int
    place: str
    text: str


class Lines:
    """The lines of a file of UTF-8, compressed if its name says so, or with `-` those of standard input as they come.

    skip: told of a line that is not UTF-8, which is then left out; without it InputError is raised.
    """

    def __init__(self, source: Path, skip: Callable[[str], None] | None = None) -> None:
        self._source = source
        self._skip = skip
        self._reader: LineReader | None = None

    def __iter__(self) -> Iterator[Line]:
        piped = str(self._source) == "-"
        if piped and sys.stdin is None:
            raise InputError("standard input is closed; give texts as arguments or with --file F.")
        name = "standard input" if piped else str(self._source)
        with nullcontext(sys.stdin.buffer) if piped else open_bytes(self._source) as file:
            self._reader = LineReader(file)
            for number, line in enumerate(read_lines(self._reader, name), 1):
                place = f"{name}, line {number}"
                try:
                    text = line.removeprefix(BOM if number == 1 else b"").decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    message = f"{place}, byte {error.start}: not UTF-8; texts are read as UTF-8."
                    if self._skip is None:
                        raise InputError(message) from None
                    self._skip(message)
                else:
                    yield Line(number, place, text)

    def waits(self) -> bool:
        """Say whether the next line has not come yet."""
        return self._reader is not None and self._reader.waits()


def _parse_record(text: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f'{place}: not JSON ({reason}); expected an object such as {{"prompt": "..."}}.') from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise InputError(f'{place}: expected an object with "prompt", a text; received {text[:60]}')
    _check_text(text, record, place)
    if isinstance(record.get("id"), list | dict):
        raise InputError(f'{place}: "id" is a {type(record["id"]).__name__}; it takes a text or a number.')
    seed = record.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f'{place}: "seed" is {seed!r}; it takes a whole number from 0 to 2^63 - 1.')
    accepted = [*OWN, *(field.name for field in fields(Options) if field.name != "beam")]
    for key in record:
        if key not in accepted:
            raise InputError(f'{place}: unknown key "{key}".{did_you_mean(key, accepted)} Accepted: {_list(accepted)}.')
    return record


def _check_text(line: str, record: Mapping[str, Any], place: str) -> None:
    """Raise InputError for half a surrogate pair, which JSON can write and no text can hold."""
    if "\\u" not in line and line.isascii():
        return
    for key, value in record.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InputError(f'{place}, "{key}", character {error.start}: not valid text; give it as UTF-8.') from None


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
