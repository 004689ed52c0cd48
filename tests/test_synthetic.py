"""The datasets that are computed: right targets, parts that share nothing, and the published data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.data.base import PARTS, Sequences
from rnnpipe.data.synthetic.binary_addition import BinaryAddition
from rnnpipe.data.synthetic.counting_ones import CountingOnes
from rnnpipe.data.synthetic.sine import Sine, SineWindows
from rnnpipe.data.synthetic.variable_sum import VariableSum
from rnnpipe.errors import UsageError
from rnnpipe.testing import check_dataset

SMALL = {"train": 40, "valid": 10, "test": 10}


def keys(sequences: Sequences) -> set[bytes]:
    pairs = zip(sequences.inputs, sequences.lengths, strict=True)
    return {inputs[:length].tobytes() for inputs, length in pairs}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("counting-ones", {**SMALL, "min_length": 3, "max_length": 9}),
        ("counting-ones", {**SMALL, "draw": "independent", "max_length": 4, "min_length": 4}),
        ("counting-ones", {**SMALL, "draw": "numpy-legacy"}),
        ("variable-sum", SMALL),
        ("binary-addition", {**SMALL, "width": 5}),
        ("binary-addition", {**SMALL, "width": 3, "all_pairs": True, "loss": "mse"}),
        ("sine", SMALL),
        ("sine", {**SMALL, "min_length": 2, "noise": 0.1}),
        ("sine", {**SMALL, "min_length": 2, "target": "last"}),
        ("sine-windows", {"points": 60}),
        ("sine-windows", {"points": 60, "apart": False, "split": "4:1", "target": "every", "window": 5}),
    ],
)
def test_conformance(name: str, options: dict[str, Any]) -> None:
    check_dataset(name, **options)


@pytest.mark.parametrize("kind", [CountingOnes, VariableSum])
@given(low=st.integers(1, 6), more=st.integers(0, 5), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_sums(kind: Any, low: int, more: int, seed: int) -> None:
    """Targets are sums over the valid timesteps; lengths are those asked for; parts of many sequences share none."""
    dataset = kind(**SMALL, min_length=low + 6, max_length=low + 6 + more, seed=seed)
    parts = [dataset.sequences(part) for part in PARTS]
    for found, size in zip(parts, SMALL.values(), strict=True):
        assert len(found.lengths) == size
        assert low + 6 <= found.lengths.min() <= found.lengths.max() <= low + 6 + more
        for inputs, target, length in zip(found.inputs, found.targets, found.lengths, strict=True):
            assert target.tolist() == [sum(inputs[:length, 0].tolist())]
            assert not inputs[length:].any()
    first, second, third = map(keys, parts)
    assert not first & second and not first & third and not second & third


def test_two_parts_of_few_sequences_share_none_and_are_of_their_size() -> None:
    """Of the 336 sequences, some belong to each part, which holds them many times over."""
    dataset = VariableSum()
    parts = [keys(dataset.sequences(part)) for part in PARTS]
    assert [len(dataset.sequences(part).lengths) for part in PARTS] == [1620, 180, 200]
    assert sum(map(len, parts)) == len(set.union(*parts)) <= 336
    assert sum(map(len, parts)) > 300


def test_too_few_sequences_for_a_part() -> None:
    with pytest.raises(UsageError, match=r"too few different sequences for a part '(valid|test|train)' of its own"):
        for seed in range(9):
            for part in PARTS:
                CountingOnes(min_length=1, max_length=1, seed=seed).sequences(part)


def test_independent_parts_share_what_chance_has_it() -> None:
    """Of 10 bits, 1 - exp(-1000 / 1024) = 62 % of the test part is in the training part, as in the published data."""
    dataset = CountingOnes(test=5000, draw="independent")
    train = keys(dataset.sequences("train"))
    test = dataset.sequences("test").inputs
    assert np.mean([row.tobytes() in train for row in test]) == pytest.approx(0.62, abs=0.03)
    assert dataset.overlap
    assert not hasattr(CountingOnes(), "overlap")


def test_the_published_data_of_two_weights() -> None:
    """Data first, then the weights, from one generator: 0.0900 and 0.0113."""
    generator = np.random.RandomState(1)
    rows = [np.around(generator.rand(10)) for _ in range(20)]
    weights = generator.uniform(-0.1, 0.1, 2)
    assert np.round(weights, 4).tolist() == [0.09, 0.0113]
    found = CountingOnes(train=20, valid=0, test=0, seed=1, draw="numpy-legacy").sequences("train")
    assert found.inputs[:, :, 0].tolist() == np.array(rows).tolist()
    assert found.targets[:, 0].tolist() == np.sum(rows, 1).tolist()


def test_legacy_parts_follow_one_another() -> None:
    whole = CountingOnes(train=9, valid=0, test=0, seed=3, draw="numpy-legacy").sequences("train")
    parts = CountingOnes(train=4, valid=3, test=2, seed=3, draw="numpy-legacy")
    assert np.concatenate([parts.sequences(part).inputs for part in PARTS]).tolist() == whole.inputs.tolist()
    with pytest.raises(UsageError, match="takes one length"):
        CountingOnes(min_length=3, draw="numpy-legacy")


def numbers(bits: np.ndarray) -> list[int]:
    return [sum(int(bit) << place for place, bit in enumerate(row)) for row in bits]


@pytest.mark.parametrize("width", [1, 7, 64])
def test_binary_addition(width: int) -> None:
    dataset = BinaryAddition(**SMALL, width=width, draw="independent" if width == 1 else "apart")
    for found in (*(dataset.sequences(part) for part in PARTS), dataset.at_length(width + 1, 20, seed=5)):
        assert found.inputs.shape[1:] == (width + 1, 2)
        assert not found.inputs[:, -1].any()
        a, b, total = (numbers(bits) for bits in (found.inputs[..., 0], found.inputs[..., 1], found.targets[..., 0]))
        assert total == [x + y for x, y in zip(a, b, strict=True)]


def test_all_pairs() -> None:
    found = BinaryAddition(**SMALL, width=4, all_pairs=True).sequences("test")
    pairs = set(zip(numbers(found.inputs[..., 0]), numbers(found.inputs[..., 1]), strict=True))
    assert pairs == {(a, b) for a in range(16) for b in range(16)}
    assert len(found.lengths) == 256
    with pytest.raises(UsageError, match="all_pairs=true with width=11 would be 4"):
        BinaryAddition(width=11, all_pairs=True)


def test_sine() -> None:
    dataset = Sine(**SMALL, min_length=7, max_length=7, step=0.5, phases=(1.0, 1.25))
    found = dataset.sequences("train")
    phases = np.arcsin(found.inputs[:, 0, 0].astype(np.float64))
    assert 1.0 - 1e-3 < phases.min() < phases.max() < 1.25 + 1e-3
    expected = np.sin(phases[:, None] + 0.5 * np.arange(8))
    np.testing.assert_allclose(found.inputs[..., 0], expected[:, :-1], atol=1e-5)
    np.testing.assert_allclose(found.targets[..., 0], expected[:, 1:], atol=1e-5)
    ragged = Sine(**SMALL, min_length=2, max_length=7, step=0.5, target="last").sequences("train")
    assert set(ragged.lengths.tolist()) == {2, 3, 4, 5, 6, 7}
    for inputs, target, length in zip(ragged.inputs[..., 0], ragged.targets[:, 0], ragged.lengths, strict=True):
        expected = 2 * math.cos(0.5) * inputs[length - 1] - inputs[length - 2]
        assert target == pytest.approx(expected, abs=1e-5)
    last = Sine(**SMALL, min_length=7, max_length=7, step=0.5, phases=(1.0, 1.25), target="last").sequences("train")
    assert last.targets[:, 0].tolist() == found.targets[:, -1, 0].tolist()
    noisy = Sine(**SMALL, min_length=7, max_length=7, step=0.5, phases=(1.0, 1.25), noise=0.1).sequences("train")
    assert np.std(noisy.inputs - found.inputs) == pytest.approx(0.1, rel=0.2)
    assert noisy.targets.tolist() == found.targets.tolist()


def test_the_published_windows() -> None:
    """500 points, windows of 2: 398 of the 498 to train on."""
    published = SineWindows(split="4:1", apart=False)
    assert [len(published.sequences(part).lengths) for part in PARTS] == [398, 100, 0]
    values = np.sin(np.linspace(0, 10 * math.pi, 500)).astype(np.float32)
    rows = {(*x[:, 0].tolist(), y[0]) for x, y in zip(*arrays(published, "train", "valid"), strict=True)}
    assert rows == set(zip(values.tolist(), values[1:].tolist(), values[2:].tolist(), strict=False))


def arrays(dataset: SineWindows, *parts: Any) -> tuple[np.ndarray, np.ndarray]:
    found = [dataset.sequences(part) for part in parts]
    return np.concatenate([f.inputs for f in found]), np.concatenate([f.targets for f in found])


def test_windows_apart_share_no_point() -> None:
    dataset = SineWindows(points=100, span=1.0, window=3)  # rising: every value is a point of its own
    points = []
    for part in PARTS:
        found = dataset.sequences(part)
        points.append({*found.inputs.flatten().tolist(), *found.targets.flatten().tolist()})
    assert list(map(len, points)) == [80, 10, 10]
    assert len(set.union(*points)) == 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CountingOnes(train=0), "train=0 is not accepted; it is from 1"),
        (lambda: VariableSum(valid=-1), "valid=-1 is not accepted"),
        (lambda: VariableSum(min_length=5), "min_length=5, max_length=4"),
        (lambda: VariableSum(digits=1), "digits=1 is not accepted"),
        (lambda: BinaryAddition(width=0), "width=0 is not accepted"),
        (lambda: BinaryAddition().at_length(1, 1, 0), "the length 1 is not accepted"),
        (lambda: Sine(phases=(1.0, 1.0)), r"phases=\[1.0, 1.0\]"),
        (lambda: SineWindows(points=9), "9 points split 8:1:1 leave no window of 3 points"),
        (lambda: SineWindows(window=0), "window=0 is not accepted"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
