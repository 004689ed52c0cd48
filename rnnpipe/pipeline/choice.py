"""Which backend a cell gets on a device, told without training, and without the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rnnpipe.backends.base import Compiling, choose
from rnnpipe.cells.base import Cell
from rnnpipe.errors import UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.fastest import Load, to_be_measured
from rnnpipe.runtime import autocast, resolve_device, resolve_precision


@dataclass(frozen=True)
class Choice:
    """The backend that training of one layer gets, and what became of the others.

    here: the device is there; if not, this is told for one with its compiler. backend: its name, and how it runs what
    is elementwise if it has the choice. answers: by name, None for a backend that takes the cell, otherwise why not.
    passed_over: why those that take it are not the automatic choice, as far as they have been asked. measured: those of
    which training takes the fastest; `backend` alone if there is nothing to measure.
    """

    device: str
    here: bool
    precision: str
    shape: str
    backend: str
    answers: dict[str, str | None]
    passed_over: dict[str, str]
    measured: tuple[str, ...]


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """Return timesteps, batch, input and hidden size of "TxBxIxH"; raise UsageError for anything else."""
    parts = text.split("x")
    if len(parts) != 4 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"shape '{text}' is not accepted; it takes TxBxIxH, four whole numbers, as in 64x64x128x256.")
    T, B, I, H = map(int, parts)  # noqa: E741 - the input size
    return T, B, I, H


def backend_choice(cell: type[Cell], device: str, shape: str) -> Choice:
    """Return the choice for a layer of I inputs and H hidden units on windows of T timesteps: shape "TxBxIxH"."""
    T, B, I, H = parse_shape(shape)  # noqa: E741 - the input size
    device, here = _find(device)
    # Autocast is only to be had where the device is.
    precision = resolve_precision("auto", torch.device(device)) if here else "float32"
    stack = Recurrent(cell, I, H)
    with torch.no_grad(), _placed(stack, device, here):
        x = torch.empty(T, B, I, device=device)
    if not here:
        for backend in stack.backends:
            if isinstance(backend, Compiling):
                backend.compile = "always"
    with torch.no_grad(), autocast(torch.device(device), precision):
        answers = stack.answers(x)
        chosen, refusals = choose(stack.backends, "auto", stack.cells(), x, None)
        name = chosen.name
        measured = to_be_measured([Load(stack, x, None)], name)
        if isinstance(chosen, Compiling):
            name += f" ({chosen.elementwise(stack.cells(), T, B, ready=False)[0]})"
    passed = {other: why for other, why in refusals.items() if answers[other] is None and other not in measured}
    return Choice(device, here, precision, shape, name, answers, passed, tuple(measured))


def _find(device: str) -> tuple[str, bool]:
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return (resolve_device("auto").type, True) if device == "auto" else (device, present[device])


@contextlib.contextmanager
def _placed(stack: Recurrent, device: str, here: bool) -> Iterator[None]:
    """Move a stack to a device; to one that is not there as tensors without values, and so what is made inside."""
    if here:
        stack.to(device)
        yield
        return
    with FakeTensorMode(allow_non_fake_inputs=True):

        def away(tensor: Tensor) -> Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

        for module in stack.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(away(parameter)))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, away(buffer))
        yield
