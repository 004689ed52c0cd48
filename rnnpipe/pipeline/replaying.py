"""An answer generated again, from what its line recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnpipe.durable import read_lines
from rnnpipe.errors import InputError
from rnnpipe.pipeline.answers import answer, asked_again, difference, parse_answer
from rnnpipe.pipeline.common import Report
from rnnpipe.pipeline.manners import Manners, answer_prompts, search_prompts
from rnnpipe.pipeline.reading import open_for_reading


@dataclass(frozen=True)
class Replayed:
    """The text that came now; in words what differs from the answer, and what differs in numerics, None for nothing."""

    text: str
    difference: str | None
    numerics: str | None


def read_answer(path: Path, number: int) -> dict[str, Any]:
    """Return the answer in a line, the first of which is 1; raise InputError if there is none."""
    with path.open("rb") as file:
        for count, line in enumerate(read_lines(file, str(path)), 1):
            if count == number:
                return parse_answer(line, f"{path}, line {number}")
    raise InputError(f"{path}: has no line {number}; it has {count if path.stat().st_size else 0}.")


def replay(found: dict[str, Any], place: str, run: Path | None, *, report: Report) -> Replayed:
    """Generate an answer again; raise InputError if the run is not the one that gave it."""
    recorded = found["replay"]
    folder = run or Path(recorded["run"])
    if run is None and not folder.exists():
        raise InputError(f"{place}: was made by the run {folder}, which is not there; name it with --run.")
    form = recorded.get("quantize")
    opened, device = open_for_reading(folder, quantize=form, report=report), recorded["numerics"].get("device")
    if opened.record["numerics"]["device"] != device:
        opened = open_for_reading(folder, device=str(device), quantize=form, report=report)
    record = opened.record
    for part in ("weights", "dictionary"):
        if record[part] != recorded.get(part):
            raise InputError(
                f"{place}: was made with the {part} {str(recorded.get(part))[:16]}... of {recorded.get('checkpoint')}; "
                f"{folder} has {record[part][:16]}... ({record['checkpoint']}): another run, or trained further."
            )
    asked = asked_again(found, place)
    if asked.options.beam is None:
        ((_, generated),) = answer_prompts(Manners(opened, report), [asked], rows=1)
    else:
        ((_, generated),) = search_prompts(opened, [asked], asked.options)
    now = answer(asked, generated, record)
    told = ("text", "tokens", "finish", "log_probability")
    return Replayed(
        generated.text,
        difference({key: found.get(key) for key in told}, {key: now[key] for key in told}),
        difference(recorded["numerics"], record["numerics"]),
    )
