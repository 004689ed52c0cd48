"""Where counting and encoding are done: in processes of this machine, or on a cluster that Dask holds together.

An engine gives the same bytes as any other. It has a folder for what lasts as long as the work, and functions with the
contracts of `digests`, `count_tokens` and `encode_texts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

from rnnpipe.data.encode import encode_texts
from rnnpipe.data.text_files import temporary_folder
from rnnpipe.data.tokens import Ids
from rnnpipe.errors import UsageError
from rnnpipe.pipeline.common import Report, digests, no_report
from rnnpipe.text.counting import Counts, count_tokens
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.rules import LoadRules
from rnnpipe.text.runs import Spill

EngineName = Literal["local", "dask"]


class Engine(Protocol):
    """What counts and encodes texts."""

    def folder(self, out: Path | None) -> AbstractContextManager[Path]:
        """Return a folder for copies and counts on the way to the output `out`."""
        ...

    def digests(self, texts: Sequence[TextFile]) -> Sequence[str]:
        """Return the SHA-256 of each text."""
        ...

    def count(
        self,
        texts: Sequence[TextFile],
        load_rules: LoadRules,
        *,
        errors: Errors,
        workers: int,
        spill: Spill,
        progress: Callable[[int], None],
    ) -> Counts:
        """Count tokens as `count_tokens` does."""
        ...

    def encode(
        self,
        texts: Sequence[TextFile],
        load_rules: LoadRules,
        dictionary: Path,
        *,
        errors: Errors,
        workers: int,
        progress: Callable[[int], None],
        mended: Callable[[int], object],
    ) -> Iterator[Iterator[Ids]]:
        """Encode texts as `encode_texts` does."""
        ...


class LocalEngine:
    """Threads and processes of this machine."""

    digests = staticmethod(digests)
    count = staticmethod(count_tokens)
    encode = staticmethod(encode_texts)

    def folder(self, out: Path | None) -> AbstractContextManager[Path]:
        """Return a temporary folder."""
        return temporary_folder()


LOCAL = LocalEngine()


def open_engine(name: EngineName, scheduler: str | None, report: Report = no_report) -> Engine:
    """Return an engine by its name; raise UsageError if `scheduler`, the address of a cluster, does not go with it."""
    if (name == "dask") != (scheduler is not None):
        raise UsageError("--engine dask needs --scheduler ADDRESS, as in tcp://10.0.0.1:8786; no other takes one.")
    if scheduler is None:
        return LOCAL
    from rnnpipe.pipeline.dask_engine import DaskEngine

    return DaskEngine(scheduler, report)
