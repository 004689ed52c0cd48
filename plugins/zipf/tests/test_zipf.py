"""The fit against laws of known exponents and against a search, the command, and the conformance checks."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from rnnpipe_zipf import command, fit_exponent

from rnnpipe.errors import InputError
from rnnpipe.testing import check_command
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import build_vocabulary


def law(exponent: float, types: int, total: float) -> np.ndarray:
    shares = np.array([rank**-exponent for rank in range(1, types + 1)])
    return total * shares / shares.sum()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.37, 3.0])
def test_the_exponent_of_a_law_is_found(exponent):
    assert fit_exponent(law(exponent, 1000, 1e6)) == pytest.approx(exponent, abs=1e-9)


def test_no_other_exponent_is_more_likely():
    counts = np.sort(np.random.default_rng(0).zipf(1.8, 300))[::-1]

    def log_likelihood(s: float) -> float:
        return float(counts @ np.log(law(s, len(counts), 1.0)))

    fitted = fit_exponent(counts)
    grid = np.linspace(0, 4, 4001)
    assert fitted == pytest.approx(max(grid, key=log_likelihood), abs=0.001)
    assert all(log_likelihood(fitted) >= log_likelihood(fitted + step) for step in (-1e-4, 1e-4))


def test_two_types_and_large_counts():
    assert fit_exponent([2**40, 1]) == pytest.approx(40)  # r^-40 is 2^-40 at rank 2


@pytest.fixture
def dictionary(tmp_path):
    counts = {f"word{rank}".encode(): round(count) for rank, count in enumerate(law(1.1, 50, 5000), 1)}
    path = tmp_path / "words.dict"
    build_vocabulary(counts, TextRules(Named("none"), Named("whitespace")), unknown_threshold=30).save(path)
    return path


def run(*words):
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)


def test_json(dictionary):
    answer = json.loads(run(dictionary, "--json", "--ranks", "5").output)
    assert answer["exponent"] == pytest.approx(1.1, abs=0.01)
    assert (answer["types"], answer["once"]) == (50, 0)  # those under the threshold too
    assert answer["tokens"] == pytest.approx(5000, abs=25)
    assert [row["rank"] for row in answer["ranks"]] == [1, 3, 7, 19, 50]
    for row in answer["ranks"]:
        assert row["token"] == f"word{row['rank']}"
        assert row["predicted"] == pytest.approx(row["count"], rel=0.03)


def test_table(dictionary):
    lines = run(dictionary, "--ranks", "3").output.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["rank", "1", "7", "50"]
    assert lines[1].split()[-1] == "'word1'"
    assert lines[4].startswith("exponent 1.1")
    assert len(run(dictionary, "--ranks", "1000").output.splitlines()) <= 53


def test_errors(tmp_path):
    with pytest.raises(InputError, match="no such dictionary"):
        run(tmp_path / "missing")
    path = tmp_path / "one"
    build_vocabulary({b"only": 9}, TextRules(Named("none"), Named("whitespace"))).save(path)
    with pytest.raises(InputError, match="has 1 types"):
        run(path)
    assert run(path, "--ranks", "0").exit_code == 2


def test_conformance():
    check_command(command)
