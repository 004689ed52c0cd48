"""From what a person asks to what the engine runs: the names of samplers become objects here."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rnnpipe.errors import RnnpipeError, UsageError
from rnnpipe.generation.engine import BATCH_ROWS
from rnnpipe.generation.prompts import Generated, Manner, Prompt, continue_prompts
from rnnpipe.generation.stops import Stops
from rnnpipe.pipeline.reading import BuildSampler, Opened
from rnnpipe.pipeline.requests import Asked, Options

Warn = Callable[[str], None]
_KEPT = 64  # manners that are kept for prompts to come: patterns have large tables


def answer_prompts(
    manners: Manners, asked: Iterable[Asked], *, rows: int = BATCH_ROWS
) -> Iterator[tuple[Asked, Generated]]:
    """Yield each prompt with its text, in order, `rows` at a time.

    Raises UsageError for a prompt whose own options do not go, once the texts before it are done.
    """
    reader = manners.opened.reader
    given: deque[Asked] = deque()

    def prompts() -> Iterator[Prompt]:
        for one in asked:
            manner = manners.of(one)
            given.append(one)
            yield Prompt(one.id, one.text, one.number, one.seed, manner)

    nothing = Manner(reader.drawing(()), 1)  # every prompt has its own
    for generated in continue_prompts(reader.engine(rows), reader.tokens, reader.rules, prompts(), nothing):
        yield given.popleft(), generated


def search_prompts(
    opened: Opened, asked: Iterable[Asked], options: Options, *, rows: int = BATCH_ROWS
) -> Iterator[tuple[Asked, Generated]]:
    """Yield each prompt with one of its best texts, in order: a prompt's `number` is the rank, from 0."""
    from rnnpipe.generation.best import best_continuations
    from rnnpipe.generation.generate import Reader

    reader, beam = opened.reader, options.beam
    if not isinstance(reader, Reader):
        raise UsageError(f"{opened.record['run']}: an exported model draws; beam search is for a run.")
    assert beam is not None, "a search was asked for"
    groups: deque[list[Asked]] = deque()

    def prompts() -> Iterator[Prompt]:
        for group in _by_prompt(asked):
            groups.append(group)
            yield Prompt(group[0].id, group[0].text, 0, group[0].seed)

    found = best_continuations(
        reader,
        prompts(),
        width=beam.width,
        best=beam.best,
        max_tokens=options.max_tokens,
        alpha=beam.alpha,
        allow_unknown=options.allow_unknown,
        rows=rows,
    )
    for texts in found:
        for one in groups.popleft():
            yield one, texts[one.number]


def _by_prompt(asked: Iterable[Asked]) -> Iterator[list[Asked]]:
    """Yield what is asked of one prompt together: ranks that go up; an error in `asked` is raised behind the last."""
    group: list[Asked] = []
    try:
        for one in asked:
            if group and one.number <= group[-1].number:
                yield group
                group = []
            group.append(one)
    except RnnpipeError:
        if group:
            yield group
        raise
    if group:
        yield group


class Manners:
    """Makes the manners of prompts for one run; prompts with the same options get the same object.

    warn: told once of each thing that is likely not meant: a stop string that can never occur, a k larger than the
    vocabulary, fewer tokens at most than are needed at least.
    """

    def __init__(self, opened: Opened, warn: Warn) -> None:
        self.opened = opened
        self._reader = opened.reader
        self._warn = warn
        self._warned: set[str] = set()
        self._made: dict[str, Manner] = {}

    def usable(self, asked: Iterable[Asked], skip: Warn) -> Iterator[Asked]:
        """Yield the prompts whose options go; `skip` is told of the others, with their places."""
        for one in asked:
            try:
                self.of(one)
            except UsageError as error:
                skip(str(error))
            else:
                yield one

    def of(self, asked: Asked) -> Manner:
        """Return the manner of a prompt; raise UsageError naming its place if its options do not go."""
        try:
            return self.make(asked.options)
        except UsageError as error:
            raise UsageError(f"{asked.place}: {error}" if asked.place else str(error)) from None

    def make(self, options: Options) -> Manner:
        """Return the manner of options; raise UsageError for those that do not go with each other or with the run."""
        key = json.dumps(options.to_json(), sort_keys=True)
        if key not in self._made:
            if len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = self._make(options)
        return self._made[key]

    def _make(self, options: Options) -> Manner:
        samplers = build_samplers(options, self.opened.build_sampler)
        drawing = self._reader.drawing(samplers, allow_unknown=options.allow_unknown)
        size = self._reader.vocabulary.size
        if options.top_k is not None and options.top_k > size:
            self._say(f"top-k={options.top_k} of a vocabulary of {size}: any token can be drawn")
        least = max((getattr(sampler, "least", 0) for sampler in drawing.samplers), default=0)
        if least > options.max_tokens:
            self._say(f"a text needs {least} tokens at least, and gets {options.max_tokens} at most")
        if not options.stop and not options.sentence:
            return Manner(drawing, options.max_tokens)
        stops = Stops(self._reader.tokens, options.stop, options.sentence)
        for string in stops.impossible():
            self._say(f"the stop string {string!r} can never occur: this run's tokens do not spell it")
        if options.sentence and not stops.sentences_end():
            self._say("no token of this run has a mark that ends a sentence: none will stop a text")
        return Manner(drawing, options.max_tokens, stops)

    def _say(self, what: str) -> None:
        if what not in self._warned and len(self._warned) < _KEPT:
            self._warned.add(what)
            self._warn(f"warning: {what}")


def build_samplers(options: Options, build: BuildSampler) -> list[Any]:
    """Return the samplers of options, in order; `build` makes one of a name and options."""
    samplers = [build("temperature", {"temperature": options.temperature})]
    if options.top_k is not None:
        samplers.append(build("top-k", {"k": options.top_k}))
    if options.top_p is not None:
        samplers.append(build("top-p", {"p": options.top_p}))
    if options.temperature == 0:
        del samplers[1:]  # the one token that greedy leaves is the most likely one
    return [*samplers, *(build(one.name, one.options) for one in options.samplers)]
