"""Windows for training and evaluation: every target exactly once, aligned with the text, resumable anywhere."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnpipe.data.windows import (
    IGNORED,
    Batch,
    Cursor,
    reset_windows,
    single_windows,
    stream_batches_per_epoch,
    stream_windows,
)
from rnnpipe.errors import InputError

lengths = st.integers(2, 120)
small = st.integers(1, 9)
windows_up_to = st.integers(1, 40)


def text_of(length: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Return tokens that are their own positions, so that a batch says where it comes from."""
    return np.arange(length, dtype=np.uint16)


def epoch_of(batches: Iterator[Batch], first: Cursor = Cursor()) -> list[Batch]:
    """Return the batches up to the end of the epoch in which `first` stands."""
    found = []
    for batch in batches:
        found.append(batch)
        if batch.cursor.epoch > first.epoch:
            return found
    raise AssertionError("the batches ended")


def same(one: Batch, two: Batch) -> bool:
    return (
        torch.equal(one.inputs, two.inputs)
        and torch.equal(one.targets, two.targets)
        and (one.resets, one.items, one.cursor) == (two.resets, two.items, two.cursor)
    )


# --- the text as a stream ---


@given(lengths, small, windows_up_to)
@settings(deadline=None, max_examples=200)
@example(2, 5, 7)
@example(10, 3, 3)
@example(11, 3, 4)
def test_each_token_but_the_first_is_a_target_once_an_epoch(length: int, batch_size: int, bptt: int) -> None:
    batches = epoch_of(stream_windows(text_of(length), batch_size, bptt))
    targets = [int(t) for batch in batches for t in batch.targets.flatten() if t != IGNORED]
    assert sorted(targets) == list(range(1, length))
    assert [batch.items for batch in batches] == [int((b.targets != IGNORED).sum()) for b in batches]
    assert len(batches) == stream_batches_per_epoch(length, batch_size, bptt)


@given(lengths, small, windows_up_to)
@settings(deadline=None, max_examples=200)
def test_windows_are_aligned_and_rows_continue(length: int, batch_size: int, bptt: int) -> None:
    batches = epoch_of(stream_windows(text_of(length), batch_size, bptt))
    rows = batches[0].inputs.shape[1]
    assert 1 <= rows <= batch_size
    assert rows == batch_size or rows == max(1, (length - 1) // bptt)
    for batch in batches:
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[1] == rows
        counted = batch.targets != IGNORED
        assert torch.equal(batch.targets[counted], batch.inputs[counted] + 1)
    assert all(len(batch.inputs) == bptt for batch in batches[:-1])
    assert 1 <= len(batches[-1].inputs) <= bptt
    targets = torch.cat([batch.targets for batch in batches])
    for row in range(rows):
        steps = targets[:, row].tolist()
        text = [target for target in steps if target != IGNORED]
        assert text == list(range(text[0], text[0] + len(text)))  # row b continues row b
        assert steps == text + [IGNORED] * (len(steps) - len(text))  # masked at the end alone
    sizes = (targets != IGNORED).sum(0)
    assert int(sizes.max() - sizes.min()) <= 1
    assert int((targets == IGNORED).sum(0).max()) <= 1
    assert [batch.resets for batch in batches] == [True] + [False] * (len(batches) - 1)


@given(lengths, small, windows_up_to, st.integers(0, 3), st.integers(0, 25))
@settings(deadline=None, max_examples=200)
def test_a_stream_resumes_anywhere(length: int, batch_size: int, bptt: int, epoch: int, steps: int) -> None:
    tokens = text_of(length)
    whole = list(itertools.islice(stream_windows(tokens, batch_size, bptt, Cursor(epoch)), steps + 5))
    cursor = whole[steps - 1].cursor if steps else Cursor(epoch)
    resumed = itertools.islice(stream_windows(tokens, batch_size, bptt, cursor), 5)
    assert all(same(one, two) for one, two in zip(whole[steps:], resumed, strict=True))


@given(lengths, small, windows_up_to)
@settings(deadline=None)
def test_every_epoch_of_a_stream_is_alike(length: int, batch_size: int, bptt: int) -> None:
    stream = stream_windows(text_of(length), batch_size, bptt)
    first = epoch_of(stream)
    second = epoch_of(stream, Cursor(1))
    assert first[-1].cursor == Cursor(1, 0)
    assert second[-1].cursor == Cursor(2, 0)
    assert second[0].resets
    assert [b.inputs.tolist() for b in first] == [b.inputs.tolist() for b in second]
    assert [b.targets.tolist() for b in first] == [b.targets.tolist() for b in second]


def test_a_stream_by_example() -> None:
    first, second = itertools.islice(stream_windows(text_of(12), 2, 3), 2)
    assert first.inputs.tolist() == [[0, 5], [1, 6], [2, 7]]
    assert first.targets.tolist() == [[1, 6], [2, 7], [3, 8]]
    assert (first.resets, first.items, first.cursor) == (True, 6, Cursor(0, 3))
    assert second.inputs.tolist() == [[3, 8], [4, 9], [4 + 1, 10]]
    assert second.targets.tolist() == [[4, 9], [5, 10], [IGNORED, 11]]
    assert (second.resets, second.items, second.cursor) == (False, 5, Cursor(1, 0))


def test_a_memory_map_is_read_as_it_is(tmp_path: object) -> None:
    path = f"{tmp_path}/tokens.npy"
    np.save(path, np.arange(300, dtype=np.uint16))
    mapped = np.load(path, mmap_mode="r")
    batch = next(stream_windows(mapped, 4, 5))
    assert batch.inputs[:, 0].tolist() == [0, 1, 2, 3, 4]
    batch.inputs[0, 0] = 7  # a copy: the file stays as it is
    assert int(mapped[0]) == 0


# --- single windows ---


@given(lengths, small, st.integers(1, 20), st.integers(0, 5), st.integers(0, 2))
@settings(deadline=None, max_examples=200)
def test_each_window_once_an_epoch(length: int, batch_size: int, window: int, seed: int, epoch: int) -> None:
    count = length - window
    if count < 1:
        return
    batches = epoch_of(single_windows(text_of(length), batch_size, window, seed, Cursor(epoch)), Cursor(epoch))
    starts: Counter[int] = Counter()
    for batch in batches:
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.shape == (window, batch.items)
        assert batch.targets.shape == (batch.items,)
        assert batch.resets
        assert torch.equal(batch.inputs, batch.inputs[0] + torch.arange(window)[:, None])  # oldest first
        assert torch.equal(batch.targets, batch.inputs[-1] + 1)
        starts.update(batch.inputs[0].tolist())
    assert starts == Counter(range(count))
    sizes = [batch.items for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sizes[-1] == (count - 1) % batch_size + 1  # the last batch is kept, however small
    assert len(sizes) == math.ceil(count / batch_size)


def order_of(seed: int, epoch: int, batch_size: int = 8) -> list[int]:
    batches = epoch_of(single_windows(text_of(200), batch_size, 3, seed, Cursor(epoch)), Cursor(epoch))
    return [start for batch in batches for start in batch.inputs[0].tolist()]


def test_the_order_comes_from_the_seed_and_the_epoch_alone() -> None:
    assert order_of(1, 0) == order_of(1, 0) == order_of(1, 0, batch_size=31)
    orders = [tuple(order_of(seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    assert tuple(range(197)) not in orders
    stream = single_windows(text_of(200), 8, 3, 1)
    epoch_of(stream)
    following = epoch_of(stream, Cursor(1))
    assert [start for batch in following for start in batch.inputs[0].tolist()] == order_of(1, 1)


def test_the_order_leaves_the_global_generators_alone() -> None:
    np_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    order_of(1, 0)
    assert np.array_equal(np_before, np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(torch_before, torch.get_rng_state())


@given(st.integers(2, 60), small, st.integers(1, 20), st.integers(0, 3), st.integers(0, 25))
@settings(deadline=None, max_examples=200)
def test_single_windows_resume_anywhere(length: int, batch_size: int, window: int, epoch: int, steps: int) -> None:
    if length <= window:
        return
    tokens = text_of(length)
    whole = list(itertools.islice(single_windows(tokens, batch_size, window, 5, Cursor(epoch)), steps + 5))
    cursor = whole[steps - 1].cursor if steps else Cursor(epoch)
    resumed = itertools.islice(single_windows(tokens, batch_size, window, 5, cursor), 5)
    assert all(same(one, two) for one, two in zip(whole[steps:], resumed, strict=True))


# --- windows for evaluation ---


@given(lengths, windows_up_to, small)
@settings(deadline=None, max_examples=200)
@example(2, 40, 1)
def test_every_target_is_evaluated_once(length: int, window: int, batch_size: int) -> None:
    found = list(reset_windows(text_of(length), window, batch_size))
    targets = [t for _, wanted in found for t in wanted.T.flatten().tolist()]
    assert targets == list(range(1, length))
    for inputs, wanted in found:
        assert inputs.dtype == wanted.dtype == torch.int64
        assert inputs.shape == wanted.shape
        assert torch.equal(wanted, inputs + 1)
        assert inputs.shape[0] <= window
        assert inputs.shape[1] <= batch_size
    whole = found if (length - 1) % window == 0 else found[:-1]
    assert all(inputs.shape[0] == window for inputs, _ in whole)


# --- too little text ---


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_without_a_target(length: int) -> None:
    for windows in (stream_windows(text_of(length), 4, 5), reset_windows(text_of(length), 5, 4)):
        with pytest.raises(
            InputError, match="too few tokens: it must hold at least a token to read and one to predict"
        ):
            next(iter(windows))


@pytest.mark.parametrize("length", [0, 4, 5])
def test_a_text_without_a_window(length: int) -> None:
    with pytest.raises(InputError, match="at least a window of 5 tokens and one to predict"):
        next(single_windows(text_of(length), 4, 5, 0))


def test_the_shortest_texts() -> None:
    assert next(stream_windows(text_of(2), 4, 5)).targets.tolist() == [[1]]
    assert next(single_windows(text_of(6), 4, 5, 0)).targets.tolist() == [5]
    assert [t.tolist() for _, t in reset_windows(text_of(2), 5, 4)] == [[[1]]]
