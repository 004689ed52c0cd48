"""Prompts in, continuations out, in input order, over an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rnnpipe.generation.engine import Drawing, Drawn, Engine, Job
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import Vocabulary

AHEAD = 16  # prompts that are read before the first of them is done, at most, for each row of the engine


@dataclass(frozen=True)
class Prompt:
    """A text to continue. `number` and `seed` key its random numbers; `id` is the caller's name for it."""

    id: str
    text: str
    number: int
    seed: int


@dataclass(frozen=True)
class Generated:
    """A continuation: its tokens and text, its log-probability in nats under the model, and why it ended.

    `unknown` are the words of the prompt that the vocabulary does not have; `log_probability` is of the model's own
    distribution, before any sampler.
    """

    prompt: Prompt
    tokens: tuple[str, ...]
    text: str
    log_probability: float
    finish: str  # "length" or "document"
    unknown: tuple[str, ...]


@dataclass
class _Begun:
    prompt: Prompt
    unknown: tuple[str, ...]
    ids: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    finish: str | None = None

    def note(self, drawn: Drawn) -> None:
        self.log_probability += drawn.log_probability
        self.finish = drawn.finish
        if drawn.finish != "document":
            self.ids.append(drawn.token)


def unknown_words(words: Iterable[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the words that the vocabulary does not have, each once."""
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary.ids))


def join(ids: Sequence[int], vocabulary: Vocabulary, rules: Rules) -> tuple[tuple[str, ...], str]:
    """Return the tokens of ids, and the text that they make."""
    tokens = tuple(vocabulary.token(token_id) for token_id in ids)
    return tokens, rules.tokenizer.join(tokens)


def continue_prompts(
    engine: Engine,
    vocabulary: Vocabulary,
    rules: Rules,
    prompts: Iterable[Prompt],
    drawing: Drawing,
    max_tokens: int,
) -> Iterator[Generated]:
    """Yield a continuation for each prompt, in order.

    Memory is bounded however many there are: prompts are read as rows become free, `AHEAD` for each row at most.
    """
    source = enumerate(prompts)
    begun: dict[int, _Begun] = {}
    due = 0
    while True:
        while engine.free > 0 and len(begun) < AHEAD * engine.rows and (given := next(source, None)):
            key, prompt = given
            words = rules.tokenize(prompt.text)
            begun[key] = _Begun(prompt, unknown_words(words, vocabulary))
            ids = vocabulary.encode(words).tolist()
            engine.add(Job(key, ids, drawing, max_tokens, seed=prompt.seed, number=prompt.number))
        if not begun:
            return
        for drawn in engine.step():
            assert isinstance(drawn.job.key, int)
            begun[drawn.job.key].note(drawn)
        while due in begun and (finish := begun[due].finish):
            one = begun.pop(due)
            tokens, text = join(one.ids, vocabulary, rules)
            yield Generated(one.prompt, tokens, text, one.log_probability, finish, one.unknown)
            due += 1
