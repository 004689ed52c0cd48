"""The continuous batch: the same texts whatever the rows, the order and the neighbours, in bounded memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation import make_reader, prompts

from rnnpipe.errors import InputError
from rnnpipe.generation.engine import NOTHING, PIECE, Drawing, Drawn, Draws, Engine, Facts, Finished, Ints, Job
from rnnpipe.generation.prompts import AHEAD, Generated, Manner, Prompt, continue_prompts
from rnnpipe.generation.samplers import Greedy, Rows, Temperature
from rnnpipe.generation.steering import Forbid
from rnnpipe.generation.torch_network import FIXED_ROWS, TorchNetwork
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent


class Counting:
    """A network whose memory is all that a row has read; it draws how many tokens that was.

    fewest: so many rows or more read pieces of their prompts ahead.
    """

    boundary = 99
    context = None
    tile = 4

    def __init__(self, fewest: int = 1) -> None:
        self.rows: list[list[int]] = []
        self.fewest = fewest

    def arrange(self, order: Ints) -> None:
        self.rows = [[self.boundary] if place < 0 else list(self.rows[place]) for place in order]

    def read(self, tokens: Ints) -> None:
        assert len(tokens) == len(self.rows)
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)

    def read_ahead(self, rows: Ints, pieces: Callable[[], Ints]) -> bool:
        assert sorted(rows) == rows.tolist()
        if len(rows) < self.fewest:
            return False
        assert pieces().shape == (len(rows), PIECE)
        for row, piece in zip(rows, pieces().tolist(), strict=True):
            self.rows[row] += piece
        return True

    def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
        assert sorted(rows) == rows.tolist()
        drawn = [len(self.rows[row]) for row in rows]
        known = zip(facts.positions, facts.left, facts.drawn(), facts.history(), strict=True)
        for row, (position, left, own, past) in zip(rows, known, strict=True):
            read = self.rows[row][1:]
            assert past[: len(read)].tolist() == read
            assert set(past[len(read) :]) <= {NOTHING}
            assert own[:position].tolist() == read[len(read) - position :]
            assert set(own[position:]) <= {NOTHING}
            assert left > 0
        return Draws(np.array(drawn), np.array(drawn) / 2, [((token, 0.0),) for token in drawn])


PROMPTS = [tuple(range((0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5)[n % 6])) for n in range(40)]


@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 39), st.integers(1, 6), st.booleans(), st.booleans()), max_size=40),
    st.randoms(),
)
@settings(max_examples=100, deadline=None)
def test_every_job_is_drawn_from_its_own_row(
    rows: int, fewest: int, jobs: list[tuple[int, int, bool, bool]], chance: random.Random
) -> None:
    engine, drawings = Engine(Counting(fewest), rows), (Drawing(), Drawing())
    waiting = [
        Job(key, PROMPTS[n], drawings[kind], length, number=n, follow=follow)
        for key, (n, length, kind, follow) in enumerate(jobs)
    ]
    ends: dict[int, Finished] = {}
    told: dict[int, list[int]] = {key: [] for key in range(len(jobs))}
    cancelled: set[int] = set()
    while waiting or engine.running or engine.waiting:
        while waiting and chance.random() < 0.7:
            engine.add(waiting.pop(0))
        for event in engine.step():
            assert event.job.key not in cancelled | set(ends)
            if isinstance(event, Drawn):
                assert (event.log_probability, event.likely) == (event.token / 2, ((event.token, 0.0),))
                told[event.job.key].append(event.token)
            else:
                ends[event.job.key] = event
        if chance.random() < 0.1 and (going := [key for key in told if key not in ends and key not in cancelled]):
            cancelled.add(going[0])
            waiting = [job for job in waiting if job.key != going[0]]
            engine.cancel(going[:1])
        assert engine.running <= rows
    assert set(ends) | cancelled == set(told)
    for key, end in ends.items():
        n, length, _, follow = jobs[key]
        first = 1 + len(PROMPTS[n])
        assert end.tokens.tolist() == list(range(first, first + length))
        assert end.log_probabilities.tolist() == [token / 2 for token in end.tokens]
        assert end.finish == "length"
        assert told[key] == (end.tokens.tolist() if follow else [])


def run(job: Job, network: Counting | None = None) -> Finished:
    engine = Engine(network or Counting(), 3)
    engine.add(job)
    while True:
        for event in engine.step():
            assert isinstance(event, Finished)
            return event


def test_a_text_ends_with_the_boundary_a_stop_or_where_no_token_is_allowed() -> None:
    class Stuck(Counting):
        def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
            draws = super().draw(rows, facts, drawing)
            return Draws(np.where(draws.tokens < 5, draws.tokens, NOTHING), draws.log_probabilities)

    assert run(Job(0, (), Drawing(), 1000)).finish == "document"
    assert run(Job(0, (), Drawing(), 1000)).tokens[-1] == Counting.boundary
    stopped = run(Job(0, (), Drawing(), 1000, stop=lambda drawn: drawn[-1] == 7))
    assert (stopped.finish, stopped.tokens.tolist()) == ("stop", list(range(1, 8)))
    stuck = run(Job(0, (), Drawing(), 1000), Stuck())
    assert (stuck.finish, stuck.tokens.tolist(), len(stuck.log_probabilities)) == ("none allowed", [1, 2, 3, 4], 4)
    assert run(Job(0, (), Drawing(), 4), Stuck()).finish == "length"


def test_a_text_may_be_long() -> None:
    network = Counting()
    network.boundary = -7
    found = run(Job(0, (3, 3), Drawing(), 1500), network)
    assert found.tokens.tolist() == list(range(3, 1503))
    assert found.log_probabilities.tolist() == [token / 2 for token in found.tokens]


def generated(rows: int, asked: list[Prompt], *, window: int | None = None, greedy: bool = False) -> list[Generated]:
    reader = make_reader(window=window)
    reader.model.float()
    engine = reader.engine(rows)
    manner = Manner(reader.drawing([Greedy() if greedy else Temperature(0.9)]), 12)
    return list(continue_prompts(engine, reader.tokens, reader.rules, asked, manner))


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


LONG = [Prompt(str(n), " ".join(f"w{(n + place) % 9}" for place in range(9 * n)), n, seed=3) for n in range(9)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "minlstm"])
def test_pieces_of_prompts_change_no_bit(cell: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read ahead alone and together, or token by token, texts are the same to the last bit of their probabilities."""
    reader = make_reader(cell)
    reader.model.float()
    reader.precision = precision
    manner = Manner(reader.drawing([Temperature(0.9)]), 12)
    plain, pieces = reader.model.absorb_all, []
    reader.model.absorb_all = lambda ids, memory: (pieces.append(ids.shape), plain(ids, memory))[1]
    found = [
        list(continue_prompts(reader.engine(rows), reader.tokens, reader.rules, LONG, manner)) for rows in (1, 3, 64)
    ]
    used = reader.network._pieces_are_steps
    assert used or cell == "minlstm", "a scan adds up in another order"
    assert {shape[0] for shape in pieces} == {PIECE}
    monkeypatch.setattr(TorchNetwork, "read_ahead", lambda *args: False)
    pieces.clear()
    expected = list(continue_prompts(reader.engine(7), reader.tokens, reader.rules, LONG, manner))
    assert pieces == []
    assert found == [expected] * 3


def test_where_a_piece_leaves_other_bits_it_is_read_token_by_token() -> None:
    reader = make_reader()
    manner = Manner(reader.drawing([Temperature(0.9)]), 12)
    plain = reader.model.absorb_all
    expected = list(continue_prompts(reader.engine(3), reader.tokens, reader.rules, LONG, manner))
    assert reader.network._pieces_are_steps
    other = make_reader()
    other.model.absorb_all = lambda ids, memory: (plain(ids, memory)[0] * (1 + 1e-12), plain(ids, memory)[1])
    assert list(continue_prompts(other.engine(3), other.tokens, other.rules, LONG, manner)) == expected
    assert not other.network._pieces_are_steps


def test_where_the_number_of_rows_changes_bits_it_is_always_the_same() -> None:
    reader = make_reader()
    plain, seen = reader.model.absorb, set()

    def absorb(tokens: torch.Tensor, memory: Any) -> Any:
        y, state = plain(tokens, memory)
        seen.add(len(tokens))
        return y * (1 + 1e-9 * len(tokens)), state

    reader.model.absorb = absorb
    assert reader.network.tile == FIXED_ROWS
    seen.clear()
    manner = Manner(reader.drawing([Temperature(0.9)]), 12)
    few, many = (
        list(continue_prompts(reader.engine(100), reader.tokens, reader.rules, asked, manner))
        for asked in (prompts(2), prompts(100))
    )
    assert seen == {FIXED_ROWS}
    assert few == many[:2]


def test_a_row_alone_is_added_up_as_among_others() -> None:
    """Torch adds up one row of 32,768 numbers or more in parts, one a thread."""

    class Sums:
        def __init__(self) -> None:
            self.seen: dict[int, float] = {}

        def adjust(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
            self.seen = dict(zip(rows.prompts.tolist(), logits.sum(-1).tolist(), strict=True))
            return logits

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = LanguageModel(Embedding(40_000, size=2), Recurrent("lstm", 2, 8), 40_000)
        network = TorchNetwork(model.double(), 0, torch.device("cpu"), "float32")
        found = []
        for numbers in ([0, 1, 2, 3], [0], [1], [2], [3]):
            sums = Sums()
            engine, drawing = Engine(network, 4), Drawing((sums,))
            for number in numbers:
                engine.add(Job(number, [number + 5], drawing, 1, number=number))
            while engine.waiting or engine.running:
                engine.step()
            found.append(sums.seen)
    finally:
        torch.set_num_threads(threads)
    together, *alone = found
    assert {number: total for one in alone for number, total in one.items()} == together


def test_prompts_are_read_as_rows_become_free() -> None:
    """However many prompts there are, few are read before the first answer."""
    reader = make_reader()
    read = 0

    def endless() -> Iterator[Prompt]:
        nonlocal read
        while True:
            yield Prompt(str(read), "w1 w2", read, 0)
            read += 1

    manner = Manner(reader.drawing([Forbid(["<doc>"])]), 5)
    texts = continue_prompts(reader.engine(3), reader.tokens, reader.rules, endless(), manner)
    for number in range(50):
        assert next(texts).prompt.number == number
        assert read <= number + 3 * AHEAD


def test_an_error_in_the_prompts_comes_behind_the_texts_before_it() -> None:
    def asked() -> Iterator[Prompt]:
        yield from prompts(5)
        raise InputError("line 6: nonsense")

    reader = make_reader()
    texts = continue_prompts(reader.engine(3), reader.tokens, reader.rules, asked(), Manner(reader.drawing([]), 5))
    assert [next(texts).prompt.number for _ in range(5)] == list(range(5))
    with pytest.raises(InputError, match="line 6"):
        next(texts)


def test_the_likeliest_tokens_are_told() -> None:
    reader = make_reader()
    engine = reader.engine(4)
    ids = reader.vocabulary.encode(["w1", "w2"]).tolist()
    engine.add(Job("a", ids, Drawing((Greedy(),), likely=3), 1, follow=True))
    drawn, end = [event for _ in range(3) for event in engine.step()]
    logits = reader.model(torch.tensor([reader.vocabulary.doc_id, *ids])[:, None])[0][-1, 0].detach().log_softmax(0)
    scores, best = logits.topk(3)
    assert [token for token, _ in drawn.likely] == best.tolist()
    assert [score for _, score in drawn.likely] == pytest.approx(scores.tolist())
    assert (drawn.token, drawn.log_probability) == drawn.likely[0]
    assert (end.tokens.tolist(), end.log_probabilities.tolist()) == ([drawn.token], [drawn.log_probability])
    assert engine.running == 0
