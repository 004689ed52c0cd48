"""Every backend of every cell against `nn.LSTM` of the same sizes, in turns, in the same process."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn

from rnnpipe.backends.base import Backend, Compiling, refusal_of
from rnnpipe.bench.products import bare_products
from rnnpipe.errors import UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.choice import parse_shape
from rnnpipe.plugins import full_registry
from rnnpipe.runtime import autocast, resolve_device, resolve_precision
from rnnpipe.training.captured import CudaGraphs, Recorder

Report = Callable[[str], None]

PEER = "nn.LSTM"


@dataclass(frozen=True)
class CellRow:
    """One backend of one cell at one shape: forward and backward, medians over the rounds.

    form: "compiled" or "plain" where a backend has the choice. first_seconds: of the first call, which compiles.
    ratio: its tokens a second by those of nn.LSTM; of_bound: the time of its matrix products alone by its own, None
    where they are unknown; both the median of the ratios round by round. captured: all of these ran recorded, and only
    their replays were timed.
    """

    cell: str
    backend: str
    form: str
    shape: str
    precision: str
    tokens_per_second: float
    microseconds_per_step: float
    first_seconds: float
    ratio: float
    of_bound: float | None
    captured: bool

    @property
    def label(self) -> str:
        """The backend, its form where it has the choice, and whether it was captured."""
        return f"{self.backend} {self.form}".rstrip() + (", captured" if self.captured else "")


@dataclass(frozen=True)
class Refused:
    """A backend that does not take a cell, and why."""

    cell: str
    backend: str
    shape: str
    reason: str


def bench_cells(
    names: Sequence[str],
    shapes: Sequence[str],
    rounds: int,
    precisions: Sequence[str],
    report: Report,
    recorder: Recorder | None = None,
) -> tuple[list[CellRow], list[Refused]]:
    """Measure forward and backward of one layer of each cell (all that are registered if none is named).

    recorder: have everything recorded and time the replays.
    """
    device = resolve_device("auto")
    sizes = [parse_shape(shape) for shape in shapes]
    cases = list(itertools.product(zip(shapes, sizes, strict=True), [resolve_precision(p, device) for p in precisions]))
    rows: list[CellRow] = []
    refused: list[Refused] = []
    for (shape, (T, B, I, H)), precision in cases:  # noqa: E741
        x = torch.randn(T, B, I, device=device)
        peer = _ready(_pass(nn.LSTM(I, H).to(device), x, precision), recorder)
        peer()
        for name in names or full_registry().names("cell"):
            stack = Recurrent(name, I, H).to(device)
            taken: list[_Candidate] = []
            with torch.no_grad(), autocast(device, precision):
                for backend in _forms(stack.backends):
                    if reason := refusal_of(backend, stack.cells(), x, None):
                        refused.append(Refused(name, backend.name, shape, reason))
                    elif (form := _form(backend, stack, T, B)) is not None:
                        taken.append(_Candidate(backend, form))
            rows += _measure(name, shape, stack, taken, peer, x, rounds, precision, report, recorder, refused)
    return rows, refused


def graphs() -> Recorder:
    """Return what records as CUDA graphs; raise UsageError where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise UsageError("--captured: CUDA graphs need a CUDA device, and there is none here.")
    return CudaGraphs()


@dataclass(frozen=True)
class _Candidate:
    backend: Backend
    form: str


def _forms(backends: Sequence[Backend]) -> list[Backend]:
    """Return the backends; one that compiles is there a second time, told never to."""
    found = list(backends)
    for backend in backends:
        if isinstance(backend, Compiling):
            plain: Backend = full_registry().build("backend", backend.name, {})
            assert isinstance(plain, Compiling)
            plain.compile = "never"
            found.append(plain)
    return found


def _form(backend: Backend, stack: Recurrent, T: int, B: int) -> str | None:
    """Return how a backend runs here, "" if it has no choice; None for one that would repeat the plain form."""
    if not isinstance(backend, Compiling):
        return ""
    form, _ = backend.elementwise(stack.cells(), T, B, ready=False)
    return None if form == "plain" and backend.compile != "never" else form


def _measure(
    name: str,
    shape: str,
    stack: Recurrent,
    taken: list[_Candidate],
    peer: Callable[[], object],
    x: Tensor,
    rounds: int,
    precision: str,
    report: Report,
    recorder: Recorder | None,
    refused: list[Refused],
) -> list[CellRow]:
    """Measure the backends of one cell and the peer in turns; what cannot be recorded is refused."""
    first: list[float] = []
    passes: list[Callable[[], object]] = []
    for candidate in list(taken):
        work = _pass(stack, x, precision, candidate.backend)
        seconds = _timed(work, x)
        try:
            passes.append(_ready(work, recorder))
            first.append(seconds)
        except Exception as error:  # of a cell or backend of any origin: the others are measured
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            refused.append(Refused(name, candidate.backend.name, shape, f"it cannot be recorded ({reason})"))
            taken.remove(candidate)
    bare = bare_products(stack.cells()[0], x, precision)
    products = None if bare is None else _ready(bare, recorder)
    times: list[list[float]] = [[] for _ in taken]
    ratios: list[list[float]] = [[] for _ in taken]
    bounds: list[list[float]] = [[] for _ in taken]
    for _ in range(rounds):
        base = _timed(peer, x)
        bound = None if products is None else _timed(products, x)
        for number, work in enumerate(passes):
            seconds = _timed(work, x)
            times[number].append(seconds)
            ratios[number].append(base / seconds)
            if bound is not None:
                bounds[number].append(bound / seconds)
    rows = []
    T, B = x.shape[:2]
    for number, candidate in enumerate(taken):
        median = statistics.median(times[number])
        row = CellRow(
            cell=name,
            backend=candidate.backend.name,
            form=candidate.form,
            shape=shape,
            precision=precision,
            tokens_per_second=T * B / median,
            microseconds_per_step=median / T * 1e6,
            first_seconds=first[number],
            ratio=statistics.median(ratios[number]),
            of_bound=statistics.median(bounds[number]) if bounds[number] else None,
            captured=recorder is not None,
        )
        rows.append(row)
        report(f"{name}, {row.label}, {shape}, {precision}: {row.ratio:.2f} of {PEER}")
    return rows


def _pass(module: nn.Module, x: Tensor, precision: str, backend: Backend | None = None) -> Callable[[], object]:
    """Return what runs a module forward and backward; a stack with one backend."""

    def work() -> None:
        if isinstance(module, Recurrent) and backend is not None:
            module.backends, module.backend = [backend], backend.name
        module.zero_grad(set_to_none=True)
        with autocast(x.device, precision):
            y = module(x)[0]
        y.float().sum().backward()

    return work


def _ready(work: Callable[[], object], recorder: Recorder | None) -> Callable[[], object]:
    """Return what is timed: the work as it is, or its replay."""
    if recorder is None:
        return work
    for _ in range(3):
        recorder.warm(work)
    return recorder.record(work)[1]


def _timed(work: Callable[[], object], x: Tensor) -> float:
    _wait(x)
    begun = time.perf_counter()
    work()
    _wait(x)
    return time.perf_counter() - begun


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def to_csv(rows: Sequence[CellRow]) -> bytes:
    """Return the rows as a table, one column a field."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(CellRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return table.getvalue().encode()


def by_backend(rows: Sequence[CellRow]) -> dict[str, dict[str, float]]:
    """Return the ratios to nn.LSTM by backend and, within, by cell: what a figure shows."""
    shapes, precisions = {row.shape for row in rows}, {row.precision for row in rows}
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        more = [row.shape] * (len(shapes) > 1) + [row.precision] * (len(precisions) > 1)
        found.setdefault(row.label, {})["\n".join([row.cell, *more])] = row.ratio
    return found
