"""Hostile files: mutations of real ones as hypothesis draws them, and what reading them may cost."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

# What makes readers stumble: sizes, signs, nesting, ends of lines and of strings, other types, half characters.
PIECES = [
    b"-1",
    b"0",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551616",
    b"9" * 5000,
    b"1e999",
    b"-0.0",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b'"\\u0000"',
    b"[" * 3000,
    b'{"a":' * 3000,
    b"a." * 300,
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\n\n",
    b"\t",
    b"\\",
    b'"',
    b"'''",
    b",",
    b"]",
    b"}",
    b"=",
    b"../../",
    b"/etc/passwd",
    b"\xe2\x80\xa8",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
]
Edit = tuple[str, float, Any]
_place = st.floats(0, 1, exclude_max=True)
_edit = st.one_of(
    st.tuples(st.just("flip"), _place, st.integers(0, 7)),
    st.tuples(st.just("insert"), _place, st.sampled_from(PIECES) | st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("delete"), _place, st.integers(1, 64)),
    st.tuples(st.just("double"), _place, st.integers(1, 200)),
    st.tuples(st.just("cut"), _place, st.none()),
    st.tuples(st.just("value"), _place, st.sampled_from(PIECES)),
)
mutations = st.lists(_edit, min_size=1, max_size=4)
_VALUE = re.compile(rb'"[^"\n]*"|-?[0-9][0-9.e]*|true|false|null|\[\]|\{\}')


def mutate(data: bytes, edits: list[Edit]) -> bytes:
    """Return bytes after some edits: flipped, inserted, deleted, doubled or cut, or a value replaced by another one."""
    for kind, place, argument in edits:
        at = int(place * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ 1 << argument]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + argument + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + argument :]
        elif kind == "double":
            data = data[:at] + data[at : at + argument] + data[at:]
        elif kind == "cut":
            data = data[:at]
        elif kind == "value" and (value := _VALUE.search(data, at)):
            data = data[: value.start()] + argument + data[value.end() :]
    return data


_SEAL = re.compile(rb'(,\n?(?:  )? ?"sha256": ")[0-9a-f]{64}("\n?}\n\Z)')


def sealed_again(record: bytes) -> bytes:
    """Return a record of rnnpipe (JSON that ends with its own digest) with the digest of what it holds now."""
    seal = _SEAL.search(record)
    if seal is None:
        return record
    digest = hashlib.sha256(record[: seal.start()] + b"\n}\n").hexdigest()
    return record[: seal.start()] + seal[1] + digest.encode() + seal[2]


@dataclass
class Cost:
    """The most that one reading took: seconds of processor time, and growth of the resident memory in bytes."""

    seconds: float = 0.0
    resident_bytes: int = 0


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) << 10


@contextmanager
def resident(cost: Cost) -> Iterator[None]:
    """Measure by how much the resident memory grew at its peak in the block."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("this system does not tell the peak of resident memory")
    clear.write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    yield
    cost.resident_bytes = max(cost.resident_bytes, _status("VmHWM") - before)
