"""Lines that are read as they arrive, and worked on in blocks."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnpipe.errors import InputError
from rnnpipe.generation.blocks import blocks
from rnnpipe.text.arriving import LineReader


class Drip(io.BytesIO):
    """Gives a few bytes at a time, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


@given(st.lists(st.sampled_from([b"", b"a", b"bcdefg", b"\r", b"\n"])), st.integers(-1, 5))
def test_lines_are_those_of_a_file(pieces: list[bytes], limit: int) -> None:
    data = b"".join(pieces)
    plain, dripping = io.BytesIO(data), LineReader(Drip(data))
    while True:
        line = plain.readline(limit)
        assert dripping.readline(limit) == line
        if not line:
            break


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
        os.close(write_end)
        assert not lines.waits()
        assert (lines.readline(), lines.readline()) == (b"c", b"")
        assert not lines.waits()
    assert not LineReader(io.BytesIO(b"")).waits()


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 5))
def test_a_block_ends_where_the_next_item_would_be_waited_for(waits: list[bool], size: int) -> None:
    asked = iter(waits)
    expected: list[list[int]] = [[]]
    for number, waited in enumerate(waits):
        expected[-1].append(number)
        if len(expected[-1]) == size or waited:
            expected.append([])
    items = iter(range(len(waits)))
    found = blocks(items, size, lambda: next(asked))
    # The answer of `waits` is not asked for where a block is full.
    full = [number for block in expected if len(block) == size for number in block[-1:]]
    asked = iter([waited for number, waited in enumerate(waits) if number not in full])
    assert list(found) == [block for block in expected if block]


def test_an_error_comes_behind_what_was_made_before_it() -> None:
    def items() -> object:
        yield from range(5)
        raise InputError("bad")

    found = blocks(items(), 3)  # type: ignore[arg-type]
    assert [next(found), next(found)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(InputError, match="bad"):
        next(found)
