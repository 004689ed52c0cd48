"""Samplers that look at tokens and at what was drawn, against the distributions of whole texts, all enumerated."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch

from rnnpipe.errors import UsageError
from rnnpipe.generation import constraints
from rnnpipe.generation.constraints import Pattern, Prefix
from rnnpipe.generation.engine import Job
from rnnpipe.generation.generate import Reader
from rnnpipe.generation.samplers import Sampler, Temperature
from rnnpipe.generation.steering import Forbid, MinLength, RepetitionPenalty
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.common import load_rules
from rnnpipe.testing.samplers import critical_value
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import build_vocabulary

LONGEST = 4
DRAWS = 6000
PROMPT = "ab"
END = "<doc>"


def make_reader(tokenizer: str, words: Sequence[str]) -> Reader:
    """Return a model of these tokens whose weights are random."""
    torch.manual_seed(1)
    rules = TextRules(Named("none"), Named(tokenizer))
    vocabulary = build_vocabulary({word.encode(): 9 - n for n, word in enumerate(words)}, rules, unknown_threshold=0)
    model = LanguageModel(Embedding(vocabulary.size, size=4), Recurrent("gru", 4, 8), vocabulary.size)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.7)
    loaded = load_rules(rules.cleaner, rules.tokenizer)
    return Reader(model.double(), vocabulary, loaded, torch.device("cpu"), "float32")


@pytest.fixture(scope="module")
def letters() -> Reader:
    return make_reader("characters", "abc")


@pytest.fixture(scope="module")
def words() -> Reader:
    return make_reader("whitespace", ["a", "ab", "b"])


Rule = Callable[[list[str], dict[str, float]], dict[str, float]]


def exact(reader: Reader, prompt: str, rule: Rule) -> dict[tuple[str, ...], float]:
    """Return the probability of every text, END among its tokens if the document ends, by the rule's own steps.

    rule: from the tokens so far and the model's logits by token to the logits to draw with, without what is forbidden.
    """
    names = {reader.vocabulary.doc_id: END, reader.vocabulary.unk_id: "<unk>"}
    names = {n: names.get(n, reader.vocabulary.token(n)) for n in range(reader.vocabulary.size)}
    ids = {name: n for n, name in names.items()}
    read = [END, *reader.rules.tokenize(prompt)]

    def going_on(text: tuple[str, ...], share: float) -> dict[tuple[str, ...], float]:
        if len(text) == LONGEST or text[-1:] == (END,):
            return {text: share}
        with torch.inference_mode():
            logits = reader.model(torch.tensor([[ids[token]] for token in (*read, *text)]))[0][-1, 0].tolist()
        left = rule(list(text), {names[n]: value for n, value in enumerate(logits) if names[n] != "<unk>"})
        if not left:
            return {text: share}
        total = math.fsum(map(math.exp, left.values()))
        found: dict[tuple[str, ...], float] = {}
        for token, value in left.items():
            found |= going_on((*text, token), share * math.exp(value) / total)
        return found

    return going_on((), 1.0)


def drawn(reader: Reader, prompt: str, samplers: list[Sampler]) -> Counter[tuple[str, ...]]:
    """Return how often each text is drawn."""
    engine, drawing = reader.engine(1000), reader.drawing(samplers)
    ids = reader.vocabulary.encode(reader.rules.tokenize(prompt)).tolist()
    for number in range(DRAWS):
        engine.add(Job(number, ids, drawing, LONGEST, number=number))
    texts: Counter[tuple[str, ...]] = Counter()
    while engine.waiting or engine.running:
        texts.update(tuple(reader.tokens.texts[n] for n in end.tokens) for end in engine.step())
    return texts


def require_drawn(texts: Counter[tuple[str, ...]], shares: dict[tuple[str, ...], float]) -> None:
    assert math.fsum(shares.values()) == pytest.approx(1)
    assert set(texts) <= set(shares), "a text that cannot come"
    statistic, freedom, rare, seldom = 0.0, -1, 0.0, 0
    for text, share in shares.items():
        if share * DRAWS < 5:
            rare, seldom = rare + share * DRAWS, seldom + texts[text]
            continue
        statistic, freedom = statistic + (texts[text] - share * DRAWS) ** 2 / (share * DRAWS), freedom + 1
    if rare >= 5:
        statistic, freedom = statistic + (seldom - rare) ** 2 / rare, freedom + 1
    assert statistic <= critical_value(freedom), (statistic, freedom)


def matching(pattern: str, alphabet: Sequence[str], between: str) -> Rule:
    """Allow what can still come to match within the tokens left, by trying all of it."""
    texts = [text for n in range(LONGEST + 1) for text in itertools.product(alphabet, repeat=n)]
    right = {text for text in texts if re.fullmatch(pattern, between.join(text))}
    begun = {text[:n] for text in right for n in range(len(text) + 1)}

    def rule(text: list[str], logits: dict[str, float]) -> dict[str, float]:
        def allowed(token: str) -> bool:
            return tuple(text) in right if token == END else (*text, token) in begun

        return {token: value for token, value in logits.items() if allowed(token)}

    return rule


def without(*tokens: str) -> Rule:
    return lambda text, logits: {token: value for token, value in logits.items() if token not in tokens}


def not_before(length: int) -> Rule:
    return lambda text, logits: {token: value for token, value in logits.items() if token != END or len(text) >= length}


def penalized(penalty: float, last: int) -> Rule:
    def rule(text: list[str], logits: dict[str, float]) -> dict[str, float]:
        past = [*PROMPT, *text][-last:] if last else [*PROMPT, *text]
        scaled = {token: value / penalty if value > 0 else value * penalty for token, value in logits.items()}
        return {token: scaled[token] if token in past else value for token, value in logits.items()}

    return rule


def half(rule: Rule) -> Rule:
    """Return a rule with temperature 0.5 behind it."""
    return lambda text, logits: {token: 2 * value for token, value in rule(text, logits).items()}


CASES: dict[str, tuple[list[Sampler], Rule]] = {
    "forbid": ([Forbid(["b"])], without("b")),
    "forbid the end": ([Forbid("<doc>")], without(END)),
    "min-length": ([MinLength(3)], not_before(3)),
    "repetition-penalty": ([RepetitionPenalty(1.7)], penalized(1.7, 0)),
    "repetition-penalty of the last": ([RepetitionPenalty(0.4, last=2)], penalized(0.4, 2)),
    "pattern": ([Pattern("(ab|c)+a?")], matching("(ab|c)+a?", "abc", "")),
    "pattern that must end": ([Pattern("a{2}|b{4}")], matching("a{2}|b{4}", "abc", "")),
    "prefix": ([Prefix("ca")], matching("ca.*", "abc", "")),
    "before the temperature, wherever it is named": (
        [Temperature(0.5), RepetitionPenalty(1.7)],
        half(penalized(1.7, 0)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_texts_have_their_exact_distribution(case: str, letters: Reader) -> None:
    samplers, rule = CASES[case]
    require_drawn(drawn(letters, PROMPT, samplers), exact(letters, PROMPT, rule))


@pytest.mark.parametrize("pattern", ["a( ab)*", "[ab]b? b", "ab|b ab a"])
def test_a_pattern_sees_what_stands_between_words(pattern: str, words: Reader) -> None:
    shares = exact(words, "b", matching(pattern, ["a", "ab", "b"], " "))
    require_drawn(drawn(words, "b", [Pattern(pattern)]), shares)


def test_a_wrong_distribution_is_caught(letters: Reader) -> None:
    with pytest.raises(AssertionError):
        require_drawn(drawn(letters, PROMPT, [RepetitionPenalty(1.7)]), exact(letters, PROMPT, penalized(1.0, 0)))


def test_tokens_and_texts_that_the_vocabulary_does_not_have(letters: Reader, words: Reader) -> None:
    with pytest.raises(UsageError, match="unknown token 'z'"):
        letters.drawing([Forbid(["z"])])
    for sampler in (Pattern("z+"), Pattern("a z"), Prefix("az")):
        with pytest.raises(UsageError, match="no text of this run's tokens can match"):
            letters.drawing([sampler])
    with pytest.raises(UsageError, match="no text of this run's tokens"):
        words.drawing([Prefix("aa")])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RepetitionPenalty(0.0), "1e-6 to 1e6"),
        (lambda: RepetitionPenalty(math.inf), "1e-6 to 1e6"),
        (lambda: Temperature(1e-310), "1e-06 or more"),
        (lambda: MinLength(10**20), "below 2"),
        (lambda: RepetitionPenalty(1.1, last=-1), "0 .all. or more"),
        (lambda: MinLength(-1), "0 or more"),
    ],
)
def test_values_out_of_range(make: Callable[[], Sampler], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_a_long_text_is_held_to_its_pattern_as_a_short_one(letters: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where chunks end, states are kept; so with chunks of 3 tokens, and hardly any room for states."""
    drawing = [Pattern("(ab|c)+(a{2,5}|b)*"), Prefix("ca"), MinLength(20)]

    def texts() -> list[list[int]]:
        engine, found = letters.engine(5), letters.drawing(drawing)
        for number in range(30):
            engine.add(Job(number, [], found, 40, number=number))
        ends = []
        while engine.waiting or engine.running:
            ends += engine.step()
        return [end.tokens.tolist() for end in sorted(ends, key=lambda end: end.job.number)]

    expected = texts()
    monkeypatch.setattr(constraints, "_CHUNK", 3)
    assert texts() == expected
    monkeypatch.setattr(constraints, "_MOST_KNOWN", 4)
    assert texts() == expected
    assert min(map(len, expected)) >= 20
