"""`rnnpipe bench cells` at a small size: complete rows for what accepts, reasons for what refuses."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from cli import fail, succeed
from tape import Tape

from rnnpipe.bench.cells import bench_cells


def test_rows_and_refusals() -> None:
    words = ("--cell", "lstm", "--cell", "minlstm", "--shapes", "3x2x4x5,2x1x3x4", "--rounds", 3, "--json")
    found = succeed("bench", "cells", *words, "--precision", "float32").json()
    measured = {(row["cell"], row["backend"], row["form"], row["shape"]) for row in found["cells"]}
    expected = {("lstm", "cudnn", ""), ("lstm", "hoisted", "plain"), ("lstm", "loop", "")}
    expected |= {("minlstm", "scan", ""), ("minlstm", "loop", "")}
    assert measured == {(*row, shape) for row in expected for shape in ("3x2x4x5", "2x1x3x4")}
    for row in found["cells"]:
        T, B = map(int, row["shape"].split("x")[:2])
        seconds = row["microseconds_per_step"] * T / 1e6
        assert row["tokens_per_second"] == pytest.approx(T * B / seconds)
        assert row["ratio"] > 0
        assert row["first_seconds"] > 0
    refused = {(row["cell"], row["backend"]) for row in found["refused"]}
    assert {("minlstm", "hoisted"), ("minlstm", "cudnn"), ("lstm", "scan")} <= refused


def test_a_table_and_a_figure_in_files(tmp_path: Path) -> None:
    words = ("--cell", "cifg", "--cell", "mgu", "--shapes", "2x1x3x4", "--rounds", 1)
    table, figure = tmp_path / "cells.csv", tmp_path / "cells.png"
    precisions = ("--precision", "float32", "--precision", "bfloat16")
    found = succeed("bench", "cells", *words, *precisions, "--csv", table, "--plot", figure, "--json").json()["cells"]
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [list(row.values()) for row in rows] == [
        ["" if v is None else str(v) for v in row.values()] for row in found
    ]
    assert {row["precision"] for row in rows} == {"float32", "bfloat16"}
    assert all((row["of_bound"] is None) == (row["cell"] == "mgu") for row in found)  # its products are not of one form
    assert all(row["of_bound"] > 0 for row in found if row["cell"] == "cifg")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_table_for_people() -> None:
    result = succeed("bench", "cells", "--cell", "gru", "--shapes", "2x1x3x4", "--rounds", 1)
    assert "ratio to nn.LSTM" in result.out
    assert "hoisted plain" in result.out
    assert "gru: scan refuses:" in result.err


class _Picky(Tape):
    """Does not record the second pass it is given, that of the first backend behind the peer's."""

    def record(self, work: Any) -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 2:
            raise RuntimeError("no room")
        return super().record(work)


def test_replays_are_timed_in_the_place_of_passes() -> None:
    tape = Tape()
    rows, _ = bench_cells(["cifg"], ["3x2x4x5"], 2, ["float32"], lambda line: None, tape)
    assert {row.label for row in rows} == {"hoisted plain, captured", "loop, captured"}
    assert tape.recorded == 4, "two backends, the peer and the bare products"
    assert tape.replayed == 1 + 2 * 4, "the peer once before the rounds"
    tape = _Picky()
    rows, refused = bench_cells(["cifg"], ["3x2x4x5"], 2, ["float32"], lambda line: None, tape)
    assert [row.backend for row in rows] == ["hoisted"]
    assert ("loop", "it cannot be recorded (RuntimeError: no room)") in {(no.backend, no.reason) for no in refused}
    if not torch.cuda.is_available():
        assert "there is none here" in fail("bench", "cells", "--cell", "cifg", "--captured", code=2)


@pytest.mark.parametrize("shape", ["64x64", "0x1x1x1", "axbxcxd", ""])
def test_a_wrong_shape(shape: str) -> None:
    assert "TxBxIxH" in fail("bench", "cells", "--cell", "lstm", "--shapes", shape, code=2)


def test_an_unknown_cell() -> None:
    assert "unknown cell 'lstmm'" in fail("bench", "cells", "--cell", "lstmm", code=2)
