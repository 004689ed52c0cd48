"""Fixtures that several test files use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Tests run side by side, a process a core, and start processes of their own: more threads would only be in their way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a GPU Triton can only interpret, which it is told before it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Under `nohup` or behind `&` the programs that are tested would ignore these, as they should, and never end.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def data_dir() -> Path:
    """Return the folder of real text for tests, or skip."""
    folder = Path(os.environ.get("RNNPIPE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real text at {folder}; set RNNPIPE_TEST_DATA to a folder that has it")
    return folder


@pytest.fixture
def corpora() -> Path:
    """Return the folder of the small corpora that are part of the repository."""
    return ROOT / "corpora"


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Let torch fill what it allocates without values with NaN, so that what is not written is seen."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
