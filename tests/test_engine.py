"""The continuous batch: the same texts whatever the rows, the order and the neighbours, in bounded memory."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation import make_reader, prompts

from rnnpipe.generation.engine import Drawing, Draws, Engine, Ints, Job, Keys
from rnnpipe.generation.prompts import AHEAD, Generated, Prompt, continue_prompts
from rnnpipe.generation.samplers import Greedy, Temperature
from rnnpipe.generation.torch_network import FIXED_ROWS


class Counting:
    """A network whose state is all that a row has read; it draws how many tokens that was."""

    boundary = 99
    context = None

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.reads = 0

    def arrange(self, order: list[int]) -> None:
        self.rows = [[self.boundary] if place < 0 else list(self.rows[place]) for place in order]

    def read(self, tokens: Ints) -> None:
        assert len(tokens) == len(self.rows)
        self.reads += 1
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)

    def draw(self, rows: Ints, keys: Keys, drawing: Drawing) -> Draws:
        drawn = [len(self.rows[row]) for row in rows]
        for row, position, number in zip(rows, keys.positions, keys.numbers, strict=True):
            assert self.rows[row][1 : len(self.rows[row]) - position] == list(PROMPTS[number])
        return Draws(np.array(drawn), np.zeros(len(drawn)), [()] * len(drawn))


PROMPTS = [tuple(range(n % 5)) for n in range(40)]


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 39), st.integers(1, 6)), max_size=40), st.randoms())
@settings(max_examples=100, deadline=None)
def test_every_job_is_drawn_from_its_own_row(rows: int, jobs: list[tuple[int, int]], chance: random.Random) -> None:
    network, drawing = Counting(), Drawing()
    engine = Engine(network, rows)
    found: dict[object, list[int]] = {key: [] for key in range(len(jobs))}
    finished, cancelled = set(), set()
    waiting = [Job(key, PROMPTS[n], drawing, length, number=n) for key, (n, length) in enumerate(jobs)]
    while waiting or engine.running or engine.waiting:
        while waiting and chance.random() < 0.7:
            engine.add(waiting.pop(0))
        for drawn in engine.step():
            assert drawn.job.key not in finished | cancelled
            found[drawn.job.key].append(drawn.token)
            if drawn.finish:
                finished.add(drawn.job.key)
        if chance.random() < 0.1 and (begun := [key for key in found if found[key] and key not in finished]):
            engine.cancel(begun[:1])
            cancelled.update(begun[:1])
        assert engine.running <= rows
    for key, (n, length) in enumerate(jobs):
        before = 1 + len(PROMPTS[n])
        whole = list(range(before, before + length))
        assert found[key] == (whole[: len(found[key])] if key in cancelled else whole)
    assert finished | cancelled == set(found)


def generated(rows: int, asked: list[Prompt], *, window: int | None = None, greedy: bool = False) -> list[Generated]:
    reader = make_reader(window=window)
    reader.model.float()
    engine = reader.engine(rows)
    drawing = Drawing((Greedy() if greedy else Temperature(0.9),), (reader.vocabulary.unk_id,))
    return list(continue_prompts(engine, reader.vocabulary, reader.rules, asked, drawing, 12))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("greedy", [False, True])
def test_rows_and_order_change_no_bit(window: int | None, greedy: bool) -> None:
    asked = prompts(70)
    expected = {one.prompt.id: one for one in generated(1, asked, window=window, greedy=greedy)}
    for rows in (7, 64, 1000):
        shuffled = random.Random(rows).sample(asked, len(asked))
        found = generated(rows, shuffled, window=window, greedy=greedy)
        assert [one.prompt.id for one in found] == [one.id for one in shuffled], "answers come in the order of prompts"
        assert {one.prompt.id: one for one in found} == expected


def test_where_the_number_of_rows_changes_bits_it_is_always_the_same() -> None:
    reader = make_reader()
    plain, seen = reader.model.step, set()

    def step(tokens: torch.Tensor, state: object) -> object:
        logits, following = plain(tokens, state)
        seen.add(len(tokens))
        return logits * (1 + 1e-9 * len(tokens)), following

    reader.model.step = step
    engine = reader.engine(100)
    seen.clear()
    few, many = (
        list(continue_prompts(engine, reader.vocabulary, reader.rules, asked, Drawing((Temperature(0.9),)), 12))
        for asked in (prompts(2), prompts(100))
    )
    assert seen == {FIXED_ROWS}
    assert few == many[:2]


def test_prompts_are_read_as_rows_become_free() -> None:
    """However many prompts there are, few are read before the first answer."""
    reader = make_reader()
    read = 0

    def endless() -> Iterator[Prompt]:
        nonlocal read
        while True:
            yield Prompt(str(read), "w1 w2", read, 0)
            read += 1

    drawing = Drawing((), (reader.vocabulary.unk_id, reader.vocabulary.doc_id))
    texts = continue_prompts(reader.engine(3), reader.vocabulary, reader.rules, endless(), drawing, 5)
    for number in range(50):
        assert next(texts).prompt.number == number
        assert read <= number + 3 * AHEAD


def test_the_likeliest_tokens_are_told() -> None:
    reader = make_reader()
    engine = reader.engine(4)
    ids = reader.vocabulary.encode(["w1", "w2"]).tolist()
    engine.add(Job("a", ids, Drawing((Greedy(),), likely=3), 1))
    (drawn,) = [event for _ in range(3) for event in engine.step()]
    logits = reader.model(torch.tensor([reader.vocabulary.doc_id, *ids])[:, None])[0][-1, 0].detach().log_softmax(0)
    scores, best = logits.topk(3)
    assert [token for token, _ in drawn.likely] == best.tolist()
    assert [score for _, score in drawn.likely] == pytest.approx(scores.tolist())
    assert (drawn.token, drawn.log_probability) == drawn.likely[0]
    assert drawn.finish is not None
    assert engine.running == 0
