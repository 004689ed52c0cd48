"""A file of answers, a JSON object a line, that goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnpipe.durable import appended_lines, finite, read_lines
from rnnpipe.errors import InputError
from rnnpipe.generation.prompts import Generated
from rnnpipe.pipeline.requests import Asked, Options

if TYPE_CHECKING:
    from rnnpipe.pipeline.runs import Run


_BEGINS = b'{"id": '  # as every answer does


def run_record(run: Run, row_tile: int) -> dict[str, Any]:
    """Return what a text depends on beside its prompt: the weights, the dictionary and what decides the bits."""
    return {
        "run": str(run.folder.absolute()),
        "checkpoint": run.checkpoint.path.name,
        "weights": run.checkpoint.weights_digest(),
        "dictionary": run.vocabulary.digest,
        "numerics": {**run.numerics.to_table(), "row_tile": row_tile},
    }


def answer(asked: Asked, generated: Generated, record: dict[str, Any]) -> dict[str, Any]:
    """Return the line of an answer: what was generated, and in `replay` all that generating it again needs."""
    return {
        "id": asked.id,
        "prompt": asked.text,
        "text": generated.text,
        "tokens": list(generated.tokens),
        "log_probability": generated.log_probability,
        "finish": generated.finish,
        "unknown": list(generated.unknown),
        "seed": asked.seed,
        "replay": replay_record(asked, record),
    }


def replay_record(asked: Asked, record: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer's text depends on beside its prompt and seed."""
    return {"number": asked.number, "options": asked.options.to_json(), **record}


@contextlib.contextmanager
def answers_file(path: Path) -> Iterator[Answers]:
    """Open a file of answers to go on with; a line that was torn by an interruption is cut off.

    Raises InputError, and leaves the file as it is, if it is something else.
    """

    def check(first: bytes, torn: bytes) -> None:
        if first:
            parse_answer(first, f"{path}, line 1")
        begun = torn.startswith(_BEGINS) or _BEGINS.startswith(torn)
        if not begun or (torn.endswith(b"}") and not _is_answer(torn)):
            raise InputError(
                f"{path}: its end, {torn[:40]!r}, is no answer that was torn off. Name another file with -o."
            )

    with appended_lines(path, check) as file:
        yield Answers(path, file)


def _is_answer(line: bytes) -> bool:
    try:
        parse_answer(line, "")
    except InputError:
        return False
    return True


class Answers:
    """The answers that are there already, and a place for more."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file

    def missing(self, asked: Iterable[Asked], record: dict[str, Any], there: Callable[[int], None]) -> Iterator[Asked]:
        """Yield the prompts that have no answer yet; raise InputError if the answers there are those to others.

        there: told once how many answers there are.
        """
        source = iter(asked)
        count = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(read_lines(file, str(self.path)), 1):
                one = next(source, None)
                if one is None:
                    raise InputError(
                        f"{self.path}, line {number}: an answer more than there are prompts. Name another file with -o."
                    )
                self._check(number, line, one, record)
                count = number
        there(count)
        yield from source

    def _check(self, number: int, line: bytes, asked: Asked, record: dict[str, Any]) -> None:
        found = parse_answer(line, f"{self.path}, line {number}")
        given = {"id": asked.id, "prompt": asked.text, "seed": asked.seed}
        # The run may have been moved, and the work go on elsewhere: each line keeps its own numerics.
        replay = {key: value for key, value in replay_record(asked, record).items() if key not in ("run", "numerics")}
        for place, expected in ((found, given), (found["replay"], replay)):
            if what := difference({key: place.get(key) for key in expected}, expected):
                raise InputError(
                    f"{self.path}, line {number}: is not the answer to {asked.place or f'prompt {number}'} ({what}). "
                    "Name another file with -o, or remove this one."
                )

    def write(self, told: dict[str, Any]) -> None:
        """Append an answer."""
        self._file.write(line_of(told).encode() + b"\n")


def line_of(told: dict[str, Any]) -> str:
    """Return an answer as a line of JSON."""
    return json.dumps(finite(told), ensure_ascii=False, allow_nan=False)


def parse_answer(line: bytes, place: str) -> dict[str, Any]:
    """Return the answer in a line; raise InputError if it is none that can be replayed."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    kinds = {"id": str, "prompt": str, "seed": int, "text": str, "tokens": list, "replay": dict}
    if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"{place}: not an answer that `rnnpipe generate --jsonl` wrote: {line[:60]!r}.")
    replay = found["replay"]
    if replay.get("quantize") not in (None, "bf16", "int8"):
        raise InputError(f'{place}: "quantize" is {str(replay["quantize"])[:20]!r}; it takes bf16 or int8.')
    parts = {"number": int, "options": dict, "run": str, "weights": str, "numerics": dict}
    if not all(isinstance(replay.get(key), kind) for key, kind in parts.items()):
        raise InputError(f'{place}: "replay" has not all that generating it again needs.')
    answered: dict[str, Any] = found
    return answered


def asked_again(found: dict[str, Any], place: str) -> Asked:
    """Return the prompt that an answer is to."""
    replay = found["replay"]
    options = Options().with_own(replay["options"], place)
    return Asked(found["id"], found["prompt"], replay["number"], found["seed"], options, place)


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """Return in words what differs first between two records, None if nothing does."""
    for key in {**expected, **found}:
        one, other = found.get(key), expected.get(key)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return difference(one, other)
        return f"{key} {_short(one)}, not {_short(other)}"
    return None


def _short(value: Any) -> str:
    if value is None:
        return "unset"
    return repr(value) if len(str(value)) < 60 else f"{str(value)[:57]!r}..."
