"""The datasets `csv` and `npy`: windows of a person's series, its scaling, and files that are no series."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.data.base import PARTS
from rnnpipe.data.series import CsvSeries, NpySeries, read_csv
from rnnpipe.errors import InputError, RnnpipeError, UsageError
from rnnpipe.testing import check_dataset


@pytest.fixture
def tides(tmp_path: Path) -> Path:
    """A file of two columns that can be told apart, and one that is no number."""
    path = tmp_path / "tides.csv"
    lines = [f"{0.1 * t},{1000 - t},day {t}" for t in range(100)]
    path.write_text("\n".join(["level,pressure,label", *lines]) + "\n")
    return path


def test_conformance(tides: Path, tmp_path: Path) -> None:
    check_dataset("csv", path=str(tides), columns=["level", 1], window=3)
    np.save(tmp_path / "wave.npy", np.sin(np.arange(200)))
    check_dataset("npy", path=str(tmp_path / "wave.npy"), window=4, target="last", scaling="minmax", split="1:1")


def test_windows_in_the_order_of_time(tides: Path) -> None:
    dataset = CsvSeries(path=str(tides), columns=["pressure", "level"], window=4, horizon=2, stride=3, scaling="none")
    seen: list[float] = []
    for part, size in zip(PARTS, (80, 10, 10), strict=True):
        found = dataset.sequences(part)
        assert len(found.lengths) == (size - 4 - 2) // 3 + 1
        start = 10 * seen[-1] if seen else 0
        for inputs, targets in zip(found.inputs, found.targets, strict=True):
            steps = np.round(inputs[:, 1] * 10)
            assert steps.tolist() == [steps[0] + k for k in range(4)]
            np.testing.assert_allclose(targets[:, 1], inputs[:, 1] + 0.2, rtol=1e-5)
            np.testing.assert_allclose(targets[:, 0], inputs[:, 0] - 2)
            assert steps[0] >= start
        seen.append(float(found.targets[-1, -1, 1]))
    assert seen == sorted(seen)


def test_scaling_is_fitted_on_the_training_part(tides: Path) -> None:
    values = np.stack((0.1 * np.arange(100), 1000.0 - np.arange(100)), 1)
    train = values[:80]
    standard = CsvSeries(path=str(tides), columns=[0, 1], window=2)
    np.testing.assert_allclose(standard.scale(values), (values - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(standard.unscale(standard.scale(values)), values, rtol=1e-5, atol=1e-5)
    ranged = CsvSeries(path=str(tides), columns=[0, 1], window=2, scaling="minmax")
    assert (ranged.scale(train).min(), ranged.scale(train).max()) == (0, 1)
    assert ranged.sequences("test").inputs.max() > 1  # what it learns nothing of does not decide its scale


def test_a_constant_column_is_only_shifted(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.full((50, 1), 7.0))
    dataset = NpySeries(path=str(tmp_path / "flat.npy"), window=2)
    assert not dataset.sequences("train").inputs.any()
    assert dataset.unscale(np.zeros((1, 1))).tolist() == [[7.0]]


def test_some_columns_are_predicted(tides: Path) -> None:
    dataset = CsvSeries(path=str(tides), columns=["level", "pressure"], targets=["pressure"], window=3, scaling="none")
    found = dataset.sequences("train")
    assert found.targets.shape[2] == 1
    np.testing.assert_allclose(found.targets[:, :-1, 0], found.inputs[:, 1:, 1])
    assert not dataset.continues
    assert CsvSeries(path=str(tides), columns=[0, 1], window=3).continues
    assert not CsvSeries(path=str(tides), columns=[0, 1], window=3, horizon=2).continues


def test_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("1;2\n3;4\n" * 20)
    names, values = read_csv(path, ["1"], ";")
    assert names == ["1"]
    assert values[:2].tolist() == [[2.0], [4.0]]
    np.save(tmp_path / "two.npy", np.arange(80).reshape(40, 2))
    one = NpySeries(path=str(tmp_path / "two.npy"), columns=[1], targets=[1], window=2, scaling="none")
    assert one.sequences("train").inputs[0, :, 0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("a,b\n1,2\n3\n", {}, "line 3: 1 cells; line 1 has 2"),
        ("a,b\n1,2\n3,x\n", {}, "line 3, column 'b': 'x' is not a finite number"),
        ("a,b\n1,2\n3,\n", {}, "line 3, column 'b': '' is not a finite number"),
        ("a\n1\nnan\n", {}, "line 3, column 'a': 'nan' is not a finite number"),
        ("a\n1\n1_0\n", {}, "'1_0' is not a finite number"),
        ("a\n1\n\u0661\n", {}, "is not a finite number"),
        ("a,a\n1,2\n", {}, "two columns are called 'a'"),
        ("level\n1\n", {"columns": ["leve"]}, "no column 'leve'. Did you mean 'level'"),
        ("a\n1\n", {"columns": [3]}, "no column 3"),
        ("a\n1\n", {"columns": []}, "name each column once"),
        ("a\n1\n2\n", {}, "2 points split 8:1:1 leave no window of 33 points"),
        ('a\n"1\n', {}, "is no CSV"),
        ("a\n1\n", {"delimiter": ";;"}, "delimiter=';;' is not accepted"),
        ("a\n" + "0\n" * 80 + "1e300\n" * 20, {"window": 2}, "too large for float32"),
    ],
)
def test_what_is_no_series(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text)
    with pytest.raises((InputError, UsageError), match=message):
        CsvSeries(path=str(path), **options)


def test_arrays_that_are_no_series(tmp_path: Path) -> None:
    path = tmp_path / "series.npy"
    for array, message in (
        (np.zeros((2, 2, 2)), "float64 of shape"),
        (np.array(["a"]), "holds <U1"),
        (np.array([1.0, np.inf]), "point 1, column 0: inf is not a finite number"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=message):
            NpySeries(path=str(path))
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"no \.npy file that can be read"):
        NpySeries(path=str(path))
    for data in (b"", b"\x93NUMPY\x01\x00", b"nothing"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"no \.npy file that can be read"):
            NpySeries(path=str(path))
    with pytest.raises(InputError, match="no such file"):
        NpySeries(path=str(tmp_path / "absent.npy"))


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(finite, min_size=n, max_size=n), min_size=1, max_size=9)))
@settings(deadline=None)
def test_numbers_written_are_read(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "series.csv"
    text = io.StringIO()
    csv.writer(text).writerows([[f"c{n}" for n in range(len(rows[0]))], *rows])
    path.write_text(text.getvalue())
    names, values = read_csv(path)
    assert names == [f"c{n}" for n in range(len(rows[0]))]
    assert values.tolist() == rows


@given(st.text(max_size=40) | st.binary(max_size=40))
@settings(deadline=None, max_examples=200)
def test_anything_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.mktemp("csv") / "series.csv"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    try:
        names, values = read_csv(path)
    except RnnpipeError as error:
        assert str(path) in str(error)
    else:
        assert values.shape[1] == len(names) and np.isfinite(values).all()
