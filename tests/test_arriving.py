"""Lines that are read as they arrive, and worked on in blocks."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnpipe.errors import InputError
from rnnpipe.generation.blocks import blocks
from rnnpipe.text.arriving import LineReader
from rnnpipe.text.transcoding import open_bytes


class Drip(io.BytesIO):
    """Gives a few bytes at a time, as a pipe may."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(3)


@given(st.lists(st.sampled_from([b"", b"a", b"bcdefg", b"\r", b"\n"])), st.integers(-1, 5))
def test_lines_are_those_of_a_file(pieces: list[bytes], limit: int) -> None:
    data = b"".join(pieces)
    plain, dripping = io.BytesIO(data), LineReader(Drip(data))
    while True:
        line = plain.readline(limit)
        assert dripping.readline(limit) == line
        if not line:
            break


def test_what_stands_before_damage_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"a\nb\nc\n")[:-4])
    with pytest.raises(InputError, match="damaged"), open_bytes(path) as file:
        lines = LineReader(file)
        assert [lines.readline() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
        lines.readline()


def test_it_is_told_whether_a_line_has_arrived() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as file:  # noqa: PTH123 - a pipe has no path
        lines = LineReader(file)
        assert lines.waits()
        os.write(write_end, b"a\nb\nc")
        assert not lines.waits()
        assert lines.readline() == b"a\n"
        assert not lines.waits(), "the next one was read with it"
        assert lines.readline() == b"b\n"
        assert lines.waits(), "the next one has no end as yet"
        os.write(write_end, b"d")
        assert lines.waits(), "nor now"
        os.close(write_end)
        assert not lines.waits()
        assert (lines.readline(), lines.readline()) == (b"cd", b"")
        assert not lines.waits()
    assert not LineReader(io.BytesIO(b"")).waits()


def test_a_pipe_that_does_not_block_has_not_ended() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.write(write_end, b"a\n")

    def write_more() -> None:
        os.write(write_end, b"b\n")
        os.close(write_end)

    with open(read_end, "rb") as file:  # noqa: PTH123 - a pipe has no path
        lines = LineReader(file)
        assert lines.readline() == b"a\n"
        assert lines.waits()
        later = threading.Timer(0.2, write_more)
        later.start()
        assert [lines.readline(), lines.readline()] == [b"b\n", b""]
        later.join()


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 5))
def test_a_block_ends_where_the_next_item_would_be_waited_for(waits: list[bool], size: int) -> None:
    asked = iter(waits)
    found = list(blocks(range(len(waits)), size, lambda: next(asked)))
    assert [item for block in found for item in block] == list(range(len(waits)))
    asked = iter(waits)
    for block in found[:-1]:
        told = [next(asked) for _ in block[: size - 1]]  # behind a full block nothing is asked
        assert told == [len(block) < size and item == block[-1] for item in block[: size - 1]]


def test_an_error_comes_behind_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise InputError("bad")

    found = blocks(items(), 3)
    assert [next(found), next(found)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(InputError, match="bad"):
        next(found)
