"""Samplers against the exact distribution, the counter-based generator, batches of prompts."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.errors import UsageError
from rnnpipe.generation.generate import Reader
from rnnpipe.generation.prompts import Prompt
from rnnpipe.generation.read import predict, score
from rnnpipe.generation.samplers import Greedy, Rows, Sampler, Temperature, draw, uniform
from rnnpipe.generation.truncation import TopK, TopP
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.common import load_rules
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import build_vocabulary

RULES = TextRules(Named("unicode-words"), Named("whitespace"))
WORDS = [f"w{n}" for n in range(9)]


def rows(count: int, seed: int = 0, prompt: int = 0) -> Rows:
    """Return rows that differ in position."""
    return Rows(torch.full((count,), seed), torch.full((count,), prompt), torch.arange(count))


def python_uniform(seed: int, prompt: int, position: int) -> float:
    """Return the generator's number by Python's own integers."""
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = (value + 0x9E3779B97F4A7C15) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    value = mix(seed)
    value = mix((value + prompt * 0x9E3779B97F4A7C15) & mask)
    value = mix((value + position * 0x9E3779B97F4A7C15) & mask)
    return (value >> 11) * 2.0**-53


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 2**20))
@settings(max_examples=200)
def test_uniform_is_the_published_mixer(seed: int, prompt: int, position: int) -> None:
    row = Rows(torch.tensor([seed]), torch.tensor([prompt]), torch.tensor([position]))
    assert float(uniform(row)) == python_uniform(seed, prompt, position)


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    kept = expected > 0
    assert not observed[~kept].any(), "a forbidden token was drawn"
    return float((np.square(observed - expected)[kept] / expected[kept]).sum())


def test_uniform_fills_the_interval_evenly_along_each_key() -> None:
    n, bins = 64_000, 64
    steps, zeros = torch.arange(n), torch.zeros(n, dtype=torch.int64)
    for key in (Rows(steps, zeros, zeros), Rows(zeros, steps, zeros), Rows(zeros, zeros, steps)):
        counts = np.histogram(uniform(key).numpy(), bins, (0, 1))[0]
        assert chi_square(counts, np.full(bins, n / bins)) < 110  # 63 degrees of freedom: beyond 1 in 5,000


LOGITS = torch.tensor([0.3, -1.0, 2.0, 1.9, -math.inf, 0.0], dtype=torch.float64)
SHARES = LOGITS.softmax(0)


def only(*kept: int) -> torch.Tensor:
    mask = torch.zeros(6, dtype=torch.float64)
    mask[list(kept)] = 1
    return SHARES * mask / (SHARES * mask).sum()


CASES: dict[str, tuple[list[Sampler], torch.Tensor]] = {
    "none": ([], SHARES),
    "temperature": ([Temperature(0.5)], SHARES**2 / (SHARES**2).sum()),
    "top-k": ([TopK(3)], only(2, 3, 0)),
    "top-k of all": ([TopK(100)], SHARES),
    "top-p": ([TopP(0.9)], only(2, 3, 0)),
    "top-p at its edge": ([TopP(float(SHARES[2]))], only(2)),
    "greedy": ([Greedy()], only(2)),
    "temperature 0": ([Temperature(0.0)], only(2)),
}


@pytest.mark.parametrize("case", CASES)
def test_samplers_draw_from_the_exact_distribution(case: str) -> None:
    samplers, exact = CASES[case]
    n = 40_000
    logits, batch = LOGITS.expand(n, -1), rows(n)
    for sampler in samplers:
        logits = sampler.adjust(logits, batch)
    counts = np.bincount(draw(logits, batch).numpy(), minlength=6)
    assert chi_square(counts, exact.numpy() * n) < 28  # 5 degrees of freedom: beyond 1 in 20,000


def test_top_k_breaks_ties_by_the_first() -> None:
    adjusted = TopK(2).adjust(torch.zeros(1, 4), rows(1))
    assert torch.isfinite(adjusted).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize(
    ("make", "value"), [(Temperature, -1.0), (Temperature, math.inf), (TopK, 0), (TopP, 0.0), (TopP, 1.5)]
)
def test_values_out_of_range(make: type, value: float) -> None:
    with pytest.raises(UsageError, match="is not accepted"):
        make(value)


@given(st.integers(0, 2**32 - 1), st.sampled_from([9, 70, 700]), st.integers(1, 800), st.floats(0.01, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_truncation_is_that_of_a_sorted_list(seed: int, size: int, k: int, p: float, flat: bool) -> None:
    """Top-k and top-p look at a part of the tokens only; the reference sorts them all, equal ones by their id."""
    logits = torch.from_numpy(np.random.default_rng(seed).integers(0, 3 if flat else 40, (3, size)) / 4.0)
    logits[:, 1] = -math.inf
    for row, by_k, by_p in zip(logits, TopK(k).adjust(logits, rows(3)), TopP(p).adjust(logits, rows(3)), strict=True):
        order = sorted(range(size), key=lambda token: (-float(row[token]), token))
        before = np.cumsum([0.0, *row[order].softmax(0).tolist()])[:size]
        for found, count in ((by_k, k), (by_p, int((before < p - 1e-12).sum()))):
            kept = [token for token in order[:count] if row[token] > -math.inf]
            assert found.isfinite().nonzero()[:, 0].tolist() == sorted(kept)
            assert torch.equal(found[kept], row[kept])


@given(st.integers(0, 10**6))
@settings(max_examples=50)
def test_draw_never_takes_a_forbidden_token(seed: int) -> None:
    logits = torch.full((8, 5), -math.inf, dtype=torch.float64)
    logits[:, 1] = 0.0
    logits[:, 3] = -700.0
    assert set(draw(logits, rows(8, seed)).tolist()) == {1}


def make_reader(cell: str = "lstm", *, window: int | None = None) -> Reader:
    torch.manual_seed(0)
    counts = {word.encode(): 20 - n for n, word in enumerate(WORDS)}
    vocabulary = build_vocabulary(counts, RULES)
    model = LanguageModel(Embedding(vocabulary.size, size=8), Recurrent(cell, 8, 16), vocabulary.size, window=window)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.6)
    rules = partial(load_rules, RULES.cleaner, RULES.tokenizer)()
    return Reader(model.double(), vocabulary, rules, torch.device("cpu"), "float32")


def prompts(count: int) -> list[Prompt]:
    texts = ["w1 w2 w3", "", "w5", "never-seen w1", "W2, w4! w4 w0 w8"]
    return [Prompt(str(n), texts[n % 5], n, seed=3) for n in range(count)]


@pytest.mark.parametrize("window", [None, 3])
def test_a_prompt_gives_the_same_alone_and_in_a_batch(window: int | None) -> None:
    reader = make_reader(window=window)
    together = list(reader.generate(prompts(70), [Temperature(0.9)], 12))
    assert [g.prompt.id for g in together] == [str(n) for n in range(70)]
    for number in (0, 1, 3, 63, 64, 69):
        (alone,) = reader.generate([prompts(70)[number]], [Temperature(0.9)], 12)
        assert (alone.tokens, alone.finish) == (together[number].tokens, together[number].finish)
        assert alone.log_probability == pytest.approx(together[number].log_probability)
    assert len({g.tokens for g in together}) > 20, "prompts that differ in number draw differently"


def test_generation_by_hand() -> None:
    """Greedy tokens and their log-probability equal those of the whole sequence run at once."""
    reader = make_reader()
    vocabulary = reader.vocabulary
    (generated,) = reader.generate([Prompt("a", "w1 w2", 0, 0)], [Greedy()], 6)
    ids = [vocabulary.doc_id, vocabulary.ids["w1"], vocabulary.ids["w2"]]
    total, words = 0.0, []
    for _ in range(6):
        logits = reader.model(torch.tensor(ids)[:, None])[0][-1, 0].detach().double()
        scores = logits.log_softmax(0)
        logits[vocabulary.unk_id] = -math.inf
        best = int(logits.argmax())
        total += float(scores[best])
        if best == vocabulary.doc_id:
            break
        ids.append(best)
        words.append(vocabulary.token(best))
    assert generated.tokens == tuple(words)
    assert generated.text == " ".join(words)
    assert generated.log_probability == pytest.approx(total)


def test_unknown_is_never_drawn_unless_allowed() -> None:
    reader = make_reader()
    with torch.no_grad():
        reader.model.readout.bias[reader.vocabulary.unk_id] = 50.0
    (refused,) = reader.generate([Prompt("a", "", 0, 0)], [], 20)
    assert "<unk>" not in refused.tokens
    (allowed,) = reader.generate([Prompt("a", "", 0, 0)], [], 20, allow_unknown=True)
    assert set(allowed.tokens) == {"<unk>"}
    assert allowed.finish == "length"


def test_a_document_ends() -> None:
    reader = make_reader()
    with torch.no_grad():
        reader.model.readout.bias[reader.vocabulary.doc_id] = 50.0
    (generated,) = reader.generate([Prompt("a", "w1 zebra w2 zebra yak", 0, 0)], [], 20)
    assert (generated.tokens, generated.finish) == ((), "document")
    assert generated.unknown == ("zebra", "yak")


def test_likely_next_tokens() -> None:
    reader = make_reader()
    told = list(predict(reader, ["W1, zebra!", "", "w3 w4"], 100))
    assert [one.text for one in told] == ["W1, zebra!", "", "w3 w4"]
    assert told[0].tokens == ("w1", "zebra")
    assert told[0].unknown == ("zebra",)
    vocabulary = reader.vocabulary
    for one in told:
        assert len(one.likely) == vocabulary.size
        shares = [share for _, share in one.likely]
        assert sum(shares) == pytest.approx(1.0)
        assert shares == sorted(shares, reverse=True)
        ids = torch.tensor([vocabulary.doc_id, *vocabulary.encode(one.tokens).tolist()])[:, None]
        expected = reader.model(ids)[0][-1, 0].detach().softmax(0)
        assert dict(one.likely)["w4"] == pytest.approx(float(expected[vocabulary.ids["w4"]]))
    assert next(predict(reader, ["w3 w4"], 2)).likely == told[2].likely[:2]


@pytest.mark.parametrize("end", [False, True])
def test_scores_are_those_of_the_whole_text_at_once(end: bool) -> None:
    reader = make_reader()
    vocabulary = reader.vocabulary
    texts = ["w1 w2 w3", "", "zebra w4", *(f"w{n} w1 w{n}" for n in range(9))]
    scored = list(score(reader, texts, end=end, rows=3))
    assert [one.text for one in scored] == texts
    for one in scored:
        ids = [vocabulary.doc_id, *vocabulary.encode(one.tokens).tolist(), *([vocabulary.doc_id] if end else [])]
        scores = reader.model(torch.tensor(ids)[:, None])[0][:, 0].detach().double().log_softmax(-1)
        expected = [float(scores[place, target]) for place, target in enumerate(ids[1:])]
        assert one.log_probabilities == pytest.approx(expected)
        assert one.log_probability == pytest.approx(sum(expected))
        if expected:
            assert one.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)))
    assert scored[2].unknown == ("zebra",)
    assert scored[1].perplexity is None or end
    assert list(score(reader, texts, end=end, rows=100)) == scored
