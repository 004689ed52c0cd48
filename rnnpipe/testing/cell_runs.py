"""A cell over time: every backend against the loop, gradients, and what a sequence must not depend on."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import functional_call

from rnnpipe.backends.base import refusal_of
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.models.recurrent import Recurrent, States
from rnnpipe.testing.cell_subject import Subject
from rnnpipe.testing.report import Skipped
from rnnpipe.testing.running import Inputs, Sizes, draw_inputs, run
from rnnpipe.testing.tensors import Pair, expect_near
from rnnpipe.testing.things import attempt

# From the smallest to the largest, so that the first to fail is the smallest that shows it.
CASES = [
    Sizes(T, B, H, layers, padded, zeros=not padded and layers == 1)
    for T, B, H, layers in [
        *((T, B, H, 1) for T, B, H in itertools.product((1, 7, 33), (1, 3), (5, 33))),
        (7, 3, 5, 2),
        (33, 3, 33, 2),
    ]
    for padded in (False, True)
]
GARBAGE = 100.0  # in the padding: far from any input, and yet its exponential is finite


def backends_equal_loop(subject: Subject) -> str:
    """Every backend that takes the cell gives the loop's outputs, final states and gradients."""
    return _against_loop(subject, "cpu")


def gpu_equals_cpu(subject: Subject) -> str:
    """Every backend that takes the cell on a GPU, the loop among them, gives what the loop gives on the CPU."""
    if not torch.cuda.is_available():
        raise Skipped("torch finds no GPU here")
    return _against_loop(subject, "cuda")


def _against_loop(subject: Subject, device: str) -> str:
    refusals: dict[str, str] = {}
    largest: dict[str, float] = {}
    runs = 0
    for sizes in CASES:
        rnn = subject.stack(sizes)
        cells = rnn.cells()
        inputs = draw_inputs(cells, sizes)
        with attempt("a run in the loop", str(sizes)):
            expected = run(LoopBackend(), cells, inputs)
        rnn.to(device)
        for backend in rnn.backends:
            if isinstance(backend, LoopBackend) and device == "cpu":
                continue
            if reason := refusal_of(backend, cells, inputs.x.to(device), inputs.lengths):
                refusals[backend.name] = reason
                continue
            case = f"backend {backend.name}, {device}, {sizes}"
            with attempt("a run of what is not refused", case):
                pairs = run(backend, cells, inputs, device).pairs(expected)
            off = expect_near(pairs, "the loop's", case)
            largest[backend.name] = max(largest.get(backend.name, 0.0), off)
            runs += 1
    if not largest:
        raise Skipped("; ".join(f"{name} refuses: {reason}" for name, reason in refusals.items()))
    found = ", ".join(f"{name} {off:.1e}" for name, off in largest.items())
    return f"largest difference: {found}; {runs} runs with all gradients"


def gradients(subject: Subject) -> str:
    """Autograd's gradients through a whole sequence are the slopes of its outputs and final state (gradcheck)."""
    checked = sum(_check_slopes(subject.stack(sizes, "loop"), sizes) for sizes in (Sizes(1, 1, 2), Sizes(3, 2, 3)))
    return f"slopes by {checked} numbers: input, state and parameters"


def _check_slopes(rnn: Recurrent, sizes: Sizes) -> int:
    inputs = draw_inputs(rnn.cells(), sizes)
    state = inputs.states[0]
    parameters = dict(rnn.named_parameters())

    def outputs(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(parameters, rest[len(state) :], strict=True))
        y, final = functional_call(rnn, given, (x, (rest[: len(state)],)))
        return (y, *final[0])

    arguments = [tensor.detach().clone().requires_grad_() for tensor in (inputs.x, *state, *parameters.values())]
    with attempt("the gradients that finite differences give", str(sizes)):
        gradcheck(outputs, arguments)
    return sum(argument.numel() for argument in arguments)


def split_sequence(subject: Subject) -> str:
    """A sequence in two pieces, the state carried between them, is the sequence in one."""
    largest = 0.0
    for backend, sizes in _both_ways(Sizes(2, 1, 1), Sizes(7, 3, 5, 2), Sizes(33, 3, 33, 2)):
        rnn = subject.stack(sizes, backend)
        inputs = draw_inputs(rnn.cells(), sizes)
        cut = max(1, sizes.T // 3)
        with torch.no_grad(), attempt("a run in two pieces", str(sizes)):
            whole, final = rnn(inputs.x, tuple(inputs.states))
            first, between = rnn(inputs.x[:cut], tuple(inputs.states))
            second, end = rnn(inputs.x[cut:], between)
        pairs = [("output", torch.cat((first, second)), whole), *_states(rnn, end, final)]
        case = f"{sizes}, cut at {cut}, backend {rnn.backend_used}"
        largest = max(largest, expect_near(pairs, "that of the sequence in one", case))
    return f"largest difference {largest:.1e}"


def padding(subject: Subject) -> str:
    """What stands past a sequence's end changes nothing: outputs, final state and gradients are those without it."""
    largest = 0.0
    for backend, sizes in _both_ways(Sizes(2, 1, 1, padded=True), Sizes(7, 3, 5, 2, padded=True)):
        rnn = subject.stack(sizes, backend)
        inputs = draw_inputs(rnn.cells(), sizes)
        lengths = torch.arange(sizes.B) % (sizes.T - 1) + 1
        poisoned = inputs.x.clone()
        for row, length in enumerate(lengths.tolist()):
            poisoned[length:, row] = GARBAGE
        with attempt("a run with lengths", str(sizes)):
            y, state = rnn(poisoned, tuple(inputs.states), lengths=lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, final = rnn(inputs.x[:length, row : row + 1], _row(tuple(inputs.states), row))
            case = f"{sizes}, row {row} of length {length}, {GARBAGE:g} behind it, backend {rnn.backend_used}"
            pairs = [
                ("output", y[:length, row : row + 1], alone),
                ("output past the end", y[length:, row], torch.zeros_like(y[length:, row])),
                *_states(rnn, _row(state, row), final),
            ]
            largest = max(largest, expect_near(pairs, "that of the sequence alone", case))
        largest = max(largest, _padding_without_gradient(rnn, inputs, poisoned, lengths, sizes))
    return f"largest difference {largest:.1e}"


def _padding_without_gradient(rnn: Recurrent, inputs: Inputs, poisoned: Tensor, lengths: Tensor, sizes: Sizes) -> float:
    """Compare the parameters' gradients with garbage in the padding and with the input's own numbers there."""
    if not list(rnn.parameters()):
        return 0.0
    found = []
    for x in (poisoned, inputs.x):
        y, state = rnn(x, tuple(inputs.states), lengths=lengths)
        total = y.sum() + sum(leaf.sum() for layer in state for leaf in layer)
        found.append(torch.autograd.grad(total, list(rnn.parameters()), allow_unused=True, materialize_grads=True))
    names = (f"gradient of {name}" for name, _ in rnn.named_parameters())
    pairs = list(zip(names, *found, strict=True))
    return expect_near(pairs, "that with other padding", f"{sizes}, {GARBAGE:g} behind each row")


def batch_independence(subject: Subject) -> str:
    """Each row of a batch is what it is alone."""
    largest = 0.0
    for backend, sizes in _both_ways(Sizes(1, 2, 1), Sizes(1, 3, 5), Sizes(7, 3, 33, 2)):
        rnn = subject.stack(sizes, backend)
        inputs = draw_inputs(rnn.cells(), sizes)
        with torch.no_grad(), attempt("a run of each row", str(sizes)):
            y, state = rnn(inputs.x, tuple(inputs.states))
            for row in range(sizes.B):
                alone, final = rnn(inputs.x[:, row : row + 1], _row(tuple(inputs.states), row))
                pairs = [("output", y[:, row : row + 1], alone), *_states(rnn, _row(state, row), final)]
                case = f"{sizes}, row {row}, backend {rnn.backend_used}"
                largest = max(largest, expect_near(pairs, "that of the row alone", case))
    return f"largest difference {largest:.1e}"


def _both_ways(*cases: Sizes) -> list[tuple[str, Sizes]]:
    """Return the cases for the loop, which shows what the cell does, and for the backend that will be used."""
    return [(backend, sizes) for sizes in cases for backend in ("loop", "auto")]


def _row(states: States, row: int) -> States:
    return tuple(tuple(leaf[row : row + 1] for leaf in layer) for layer in states)


def _states(rnn: Recurrent, ours: States, theirs: States) -> list[Pair]:
    return [
        (f"layer {i} final state {name}", mine, other)
        for i, (cell, own, others) in enumerate(zip(rnn.cells(), ours, theirs, strict=True))
        for name, mine, other in zip(cell.state_shape, own, others, strict=True)
    ]
