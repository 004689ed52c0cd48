"""The contract of a backend, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from rnnpipe.cells.base import Cell, State
from rnnpipe.errors import BackendRefusal


class Backend(Protocol):
    """A way to run a stack of cells over time. `priority` orders the automatic choice: the highest that accepts."""

    name: str
    priority: int

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Return why this backend cannot run these cells on this input, in words, or None if it can."""
        ...

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Return the last layer's outputs [T, B, output_size] and each layer's final state.

        x_TBI is [T, B, I], or [T, B] of int64 for one-hot input given by its classes. Past its length a sequence's
        state holds and its output is 0.
        """
        ...


@runtime_checkable
class Compiling(Protocol):
    """A backend that can compile what is elementwise in a cell, and do without."""

    compile: Literal["auto", "never", "always"]

    def elementwise(self, cells: Sequence[Cell], steps: int, batch: int, *, ready: bool) -> tuple[str, str | None]:
        """Return "compiled" or "plain", how training on windows [steps, batch] will run, and why it is plain.

        ready: compile now, which tells whether the compiler works.
        """
        ...


@runtime_checkable
class Selective(Protocol):
    """A backend that is not the fastest of those that accept wherever it accepts."""

    def drawback(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Return why the automatic choice is to pass over this backend, in words, or None; asked if it accepts."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A backend of which only measuring tells where it is the fastest. Training measures it once for what it trains."""

    def to_be_measured(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> bool:
        """Return whether it may be the fastest here; asked if it accepts."""
        ...


class Unavailable:
    """Stands for a backend that cannot be built: it refuses everything, with the reason.

    It is asked first, so that the reason is told wherever the choice is.
    """

    priority = 1 << 30

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str:
        """Return the reason."""
        return self.reason

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Raise BackendRefusal."""
        raise BackendRefusal(f"backend '{self.name}' refuses: {self.reason}")


def choose(
    backends: Sequence[Backend], wanted: str, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None
) -> tuple[Backend, dict[str, str]]:
    """Return the backend to use and the refusals of those that were asked before it, by name.

    With `wanted` a name, that backend is used or BackendRefusal raised; with "auto", the one of highest priority that
    accepts and sees no drawback.
    """
    refusals: dict[str, str] = {}
    for backend in sorted(backends, key=lambda backend: -backend.priority):
        if wanted not in ("auto", backend.name):
            continue
        reason = refusal_of(backend, cells, x_TBI, lengths)
        if reason is None and wanted == "auto" and isinstance(backend, Selective):
            reason = backend.drawback(cells, x_TBI, lengths)
        if reason is None:
            return backend, refusals
        refusals[backend.name] = reason
    names = ", ".join(sorted(backend.name for backend in backends))
    if wanted in refusals:
        raise BackendRefusal(f"backend '{wanted}' refuses: {refusals[wanted]}. Use --set runtime.backend=auto.")
    causes = "; ".join(f"{name}: {reason}" for name, reason in refusals.items()) or f"there is only {names}"
    raise BackendRefusal(f"no backend '{wanted}' for this network ({causes}).")


def refusal_of(backend: Backend, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
    """Return why a backend refuses, or None; one that raises, against its contract, refuses for that reason."""
    try:
        return backend.refusal(cells, x_TBI, lengths)
    except Exception as error:  # a plugin's fault: the other backends serve
        return f"its refusal raised {type(error).__name__}: {error}"
