"""Prompts in, continuations out, in input order, over an engine."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rnnpipe.errors import RnnpipeError
from rnnpipe.generation.engine import Drawing, Drawn, Engine, Finish, Finished, Job
from rnnpipe.generation.stops import Stops
from rnnpipe.generation.tokens import Tokens
from rnnpipe.text.rules import Rules

AHEAD = 16  # prompts that are read before the first of them is done, at most, for each row of the engine


@dataclass(frozen=True, eq=False)
class Manner:
    """How a text is drawn, and how long it may get. Prompts with the same object are drawn together."""

    drawing: Drawing
    max_tokens: int
    stops: Stops | None = None


@dataclass(frozen=True)
class Prompt:
    """A text to continue. `number` and `seed` key its random numbers; `id` is the caller's name for it.

    manner: how it is continued, if not as the others.
    """

    id: str
    text: str
    number: int
    seed: int
    manner: Manner | None = None


@dataclass(frozen=True)
class Generated:
    """A continuation: its tokens and text, its log-probability in nats under the model, and why it ended.

    text: without the stop string, if one ended it; that one's tokens are among the tokens. log_probability: in the
    model's own distribution, before any sampler, the document's end included if it was drawn. unknown: the words of
    the prompt that the vocabulary does not have.
    """

    prompt: Prompt
    tokens: tuple[str, ...]
    text: str
    log_probability: float
    finish: Finish
    unknown: tuple[str, ...]


def in_order(engine: Engine, jobs: Iterable[Job]) -> Iterator[tuple[Finished, list[Drawn]]]:
    """Run jobs; yield the end of each, in their order, with what was told of it on the way if it is followed.

    Memory is bounded however many there are: they are taken as rows become free, `AHEAD` for each row at most. An error
    in the making of a job is raised once those before it are done.
    """
    source = iter(jobs)
    pending: deque[Job] = deque()
    ends: dict[Job, Finished] = {}
    told: dict[Job, list[Drawn]] = defaultdict(list)
    failure: RnnpipeError | None = None
    while True:
        while engine.free > 0 and len(pending) < AHEAD * engine.rows:
            try:
                job = next(source, None)
            except RnnpipeError as error:
                failure, job, source = error, None, iter(())
            if job is None:
                break
            pending.append(job)
            engine.add(job)
        if not pending:
            if failure is not None:
                raise failure
            return
        for event in engine.step():
            if isinstance(event, Finished):
                ends[event.job] = event
            else:
                told[event.job].append(event)
        while pending and pending[0] in ends:
            job = pending.popleft()
            yield ends.pop(job), told.pop(job, [])


def continue_prompts(
    engine: Engine, tokens: Tokens, rules: Rules, prompts: Iterable[Prompt], manner: Manner
) -> Iterator[Generated]:
    """Yield a continuation for each prompt, in order."""

    jobs = (prompt_job(prompt, tokens, rules, prompt.manner or manner) for prompt in prompts)
    for end, _ in in_order(engine, jobs):
        yield continuation(end, tokens)


def prompt_job(prompt: Prompt, tokens: Tokens, rules: Rules, manner: Manner) -> Job:
    """Return what the engine draws to continue a prompt; `continuation` reads its end."""
    words = rules.tokenize(prompt.text)
    key = (prompt, unknown_words(words, tokens), manner.stops)
    return Job(key, encode(words, tokens), manner.drawing, manner.max_tokens, prompt.seed, prompt.number, manner.stops)


def continuation(end: Finished, tokens: Tokens) -> Generated:
    """Return the continuation that a job of `prompt_job` has come to."""
    prompt, unknown, stops = end.job.key
    return generated(prompt, end.tokens.tolist(), end.log_probabilities.tolist(), end.finish, unknown, stops, tokens)


def generated(
    prompt: Prompt,
    ids: Sequence[int],
    log_probabilities: Iterable[float],
    finish: Finish,
    unknown: tuple[str, ...],
    stops: Stops | None,
    tokens: Tokens,
) -> Generated:
    """Return the continuation of drawn ids, the boundary among them if it ended the text."""
    kept = ids[:-1] if finish == "document" else ids
    text = tokens.spell(kept) if stops is None else stops.cut(kept)
    told = tuple(tokens.texts[token_id] for token_id in kept)
    return Generated(prompt, told, text, math.fsum(log_probabilities), finish, unknown)


def unknown_words(words: Iterable[str], tokens: Tokens) -> tuple[str, ...]:
    """Return the words that the vocabulary does not have, each once."""
    return tuple(dict.fromkeys(word for word in words if word not in tokens.ids))


def encode(words: Iterable[str], tokens: Tokens) -> list[int]:
    """Return the ids of words; those that the vocabulary does not have get the unknown token's."""
    return [tokens.ids.get(word, tokens.unknown) for word in words]
