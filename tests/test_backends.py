"""Every backend against the plain loop in float64: outputs, final states and every gradient, odd sizes included."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rnnpipe.backends import cudnn
from rnnpipe.backends.base import Backend, choose
from rnnpipe.backends.cudnn import CudnnBackend
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.cells.base import Cell, GatedCell, State
from rnnpipe.cells.elman import Elman
from rnnpipe.cells.gru import GRU
from rnnpipe.cells.lstm import LSTM
from rnnpipe.errors import BackendRefusal, UsageError
from rnnpipe.models.recurrent import Recurrent, flip
from rnnpipe.plugins import full_registry

CELLS = [*full_registry().names("cell")]
FAST: list[Backend] = [
    full_registry().build("backend", name, {}) for name in full_registry().names("backend") if name != "loop"
]


def run_with_gradients(
    backend: Backend, cells: Sequence[Cell], x: Tensor, states: Sequence[State], lengths: Tensor | None
) -> list[Tensor]:
    """Return outputs, final states, and the gradients of a random projection of both with respect to everything."""
    x = x.clone().requires_grad_()
    states = [tuple(leaf.clone().requires_grad_() for leaf in state) for state in states]
    y, finals = backend.run(cells, x, states, lengths)
    outputs = [y, *itertools.chain(*finals)]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    total = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    inputs = [x, *itertools.chain(*states), *itertools.chain(*(cell.parameters() for cell in cells))]
    return [*outputs, *torch.autograd.grad(total, inputs)]


@pytest.mark.parametrize("backend", FAST, ids=lambda b: b.name)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("T", "B", "H", "layers"), [(1, 1, 5, 1), (7, 3, 33, 2), (63, 3, 5, 3)])
@pytest.mark.parametrize("padded", [False, True])
def test_backend_equals_loop(backend: Backend, name: str, T: int, B: int, H: int, layers: int, padded: bool) -> None:
    torch.manual_seed(T)
    cells = Recurrent(name, 4, H, layers).double().cells()
    x = torch.randn(T, B, 4, dtype=torch.float64)
    states = [tuple(torch.randn(B, *s, dtype=torch.float64) for s in c.state_shape.values()) for c in cells]
    lengths = torch.randint(1, T + 1, (B,)) if padded else None
    if backend.refusal(cells, x, lengths) is not None:
        pytest.skip(f"{backend.name} does not take {name}: {backend.refusal(cells, x, lengths)}")
    expected = run_with_gradients(LoopBackend(), cells, x, states, lengths)
    for ours, reference in zip(run_with_gradients(backend, cells, x, states, lengths), expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
def test_cudnn_without_bias(bias: bool) -> None:
    torch.manual_seed(0)
    for name in ("elman", "lstm", "gru"):
        cells = Recurrent(name, 3, 4, 2, bias=bias).double().cells()
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        states = [cell.initial_state(2, dtype=torch.float64) for cell in cells]
        expected = run_with_gradients(LoopBackend(), cells, x, states, None)
        for ours, reference in zip(run_with_gradients(CudnnBackend(), cells, x, states, None), expected, strict=True):
            torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize(("name", "peer"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("elman", nn.RNN)])
def test_weights_load_from_torch(name: str, peer: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    theirs = peer(3, 4, 2).double()
    ours = Recurrent(name, 3, 4, 2, backend="loop").double()
    for layer, cell in enumerate(ours.cells()):
        cell.load_state_dict({n: getattr(theirs, f"{n}_l{layer}") for n, _ in cell.named_parameters()})
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("name", CELLS)
def test_gradcheck(name: str) -> None:
    torch.manual_seed(0)
    rnn = Recurrent(name, 2, 3, backend="loop").double()
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rnn(x)[0], (x,))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("backend", ["auto", "loop"])
def test_split_sequence_equals_whole(name: str, backend: str) -> None:
    torch.manual_seed(0)
    rnn = Recurrent(name, 3, 5, 2, backend=backend).double()
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    whole, final = rnn(x)
    first, state = rnn(x[:4])
    second, end = rnn(x[4:], state)
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(end, final)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_and_batch_independence(name: str, bidirectional: bool) -> None:
    """A sequence's outputs and state are the same alone as in a batch with others and with padding behind it."""
    torch.manual_seed(0)
    rnn = Recurrent(name, 3, 5, 2, bidirectional=bidirectional).double()
    x = torch.randn(8, 3, 3, dtype=torch.float64)
    lengths = torch.tensor([8, 3, 1])
    poisoned = x.clone()
    for row, length in enumerate(lengths):
        poisoned[length:, row] = 1e6
    y, state = rnn(poisoned, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, final = rnn(x[:length, row : row + 1])
        torch.testing.assert_close(y[:length, row : row + 1], alone)
        assert not y[length:, row].any(), "outputs past the end are 0"
        for ours, single in zip(itertools.chain(*state), itertools.chain(*final), strict=True):
            torch.testing.assert_close(ours[row : row + 1], single)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("encoding", ["ids", "size"])
def test_one_hot_equals_explicit_product(name: str, encoding: str) -> None:
    """The gathered form gives the numbers, and the gradients, of a product with explicit one-hot rows."""
    torch.manual_seed(0)
    V = 7
    rnn = Recurrent(name, V, 5).double()
    ids = torch.randint(V, (6, 3))
    dense = nn.functional.one_hot(ids, V).double()
    if encoding == "size":
        from rnnpipe.models.encoders import OneHot

        encoder = OneHot(V, size=4).double()
        assert encoder.linear is not None
        torch.testing.assert_close(encoder(ids), encoder.linear(dense))
        return
    gathered, _ = rnn(ids)
    assert rnn.backend_used != "cudnn", "it would multiply"
    explicit, _ = rnn(dense)
    torch.testing.assert_close(gathered, explicit)
    if name == "echo-state":
        return  # it has nothing to train
    ours = torch.autograd.grad(gathered.square().sum(), list(rnn.parameters()))
    theirs = torch.autograd.grad(explicit.square().sum(), list(rnn.parameters()))
    torch.testing.assert_close(ours, theirs)


def test_bidirectional_equals_torch() -> None:
    torch.manual_seed(0)
    theirs = nn.LSTM(3, 4, 2, bidirectional=True).double()
    ours = Recurrent("lstm", 3, 4, 2, bidirectional=True).double()
    names = [f"_l{layer}{direction}" for layer in range(2) for direction in ("", "_reverse")]
    for suffix, cell in zip(names, ours.cells(), strict=True):
        cell.load_state_dict({n: getattr(theirs, n + suffix) for n, _ in cell.named_parameters()})
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    y, (h, c) = theirs(x)
    output, state = ours(x)
    torch.testing.assert_close(output, y)
    torch.testing.assert_close(torch.stack([layer[0] for layer in state]), h)
    torch.testing.assert_close(torch.stack([layer[1] for layer in state]), c)


def test_flip_reverses_within_lengths() -> None:
    x = torch.arange(8).view(4, 2)
    assert flip(x, None).tolist() == [[6, 7], [4, 5], [2, 3], [0, 1]]
    assert flip(x, torch.tensor([2, 4])).tolist() == [[2, 7], [0, 5], [4, 3], [6, 1]]


def test_dropout_only_between_layers_and_in_training() -> None:
    torch.manual_seed(0)
    one, two = Recurrent("lstm", 3, 8, 1, dropout=0.5), Recurrent("lstm", 3, 8, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(one(x)[0], one(x)[0])
    assert not torch.equal(two(x)[0], two(x)[0])
    two.eval()
    torch.testing.assert_close(two(x)[0], two(x)[0])


@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_is_near_float32(name: str) -> None:
    torch.manual_seed(0)
    rnn = Recurrent(name, 16, 32)
    x = torch.randn(20, 4, 16)
    exact = rnn(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = rnn(x)[0].float()
    assert (rounded - exact).norm() / exact.norm() < 0.02


class Half(LSTM):
    """A subclass with another pointwise: torch's LSTM must not be used for it."""

    def pointwise(self, u: tuple[Tensor, ...], r: tuple[Tensor, ...], state: State) -> State:
        h, c = super().pointwise(u, r, state)
        return h / 2, c


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    rnn = Recurrent(Half, 3, 4)
    y, _ = rnn(torch.randn(2, 1, 3))
    assert rnn.backend_used != "cudnn"
    assert y.abs().max() <= 0.5
    with pytest.raises(BackendRefusal, match="Half is not one of torch's own layers"):
        Recurrent(Half, 3, 4, backend="cudnn")(torch.randn(2, 1, 3))


@pytest.mark.parametrize("name", ["lstm", "gru", "elman"])
@pytest.mark.parametrize("lengths", [None, [17, 4, 9, 0], [0, 0, 0, 0]], ids=str)
def test_cudnn_in_chunks(name: str, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More timesteps than one call takes; sequences that end in an earlier call, or have no timestep at all."""
    monkeypatch.setattr(cudnn, "_MAX_STEPS", 5)
    torch.manual_seed(0)
    cells = Recurrent(name, 4, 5, 2).double().cells()
    x = torch.randn(17, 4, 4, dtype=torch.float64)
    states = [tuple(torch.randn(4, *s, dtype=torch.float64) for s in c.state_shape.values()) for c in cells]
    given = None if lengths is None else torch.tensor(lengths)
    if lengths == [0, 0, 0, 0]:  # nothing runs: outputs are zeros and the state is the one before
        y, finals = CudnnBackend().run(cells, x, states, given)
        assert not y.any()
        assert all(
            a.equal(b) for final, state in zip(finals, states, strict=True) for a, b in zip(final, state, strict=True)
        )
        return
    expected = run_with_gradients(LoopBackend(), cells, x, states, given)
    for ours, reference in zip(run_with_gradients(CudnnBackend(), cells, x, states, given), expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


def test_refusals_are_in_words() -> None:
    backend = CudnnBackend()
    x = torch.randn(3, 2, 4)
    mixed = [LSTM(4, 5), GRU(5, 5)]
    assert "differ" in str(backend.refusal(mixed, x, None))
    assert "one-hot" in str(backend.refusal([LSTM(4, 5)], torch.zeros(3, 2, dtype=torch.int64), None))
    assert "Elman is not one of torch's own" in str(backend.refusal([Elman(4, 5, nonlinearity="sigmoid")], x, None))
    chosen, refused = choose([LoopBackend(), backend], "auto", mixed, x, None)
    assert chosen.name == "loop"
    assert list(refused) == ["cudnn"]
    with pytest.raises(BackendRefusal, match="no backend 'cuda'"):
        choose([LoopBackend(), backend], "cuda", mixed, x, None)


def test_forget_bias() -> None:
    torch.manual_seed(0)
    plain = LSTM(3, 4)
    torch.manual_seed(0)
    biased = LSTM(3, 4, forget_bias=0.8)
    assert plain.bias_ih is not None and biased.bias_ih is not None
    difference = biased.bias_ih - plain.bias_ih
    torch.testing.assert_close(difference, torch.tensor([0.0] * 4 + [0.8] * 4 + [0.0] * 8))
    with pytest.raises(UsageError, match="needs bias=true"):
        LSTM(3, 4, bias=False, forget_bias=1.0)


def test_recurrent_names_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="Did you mean 'lstm'"):
        Recurrent("lstmm", 3, 4)
    with pytest.raises(UsageError, match=r"no option 'forget_bais'.*Did you mean 'forget_bias'"):
        Recurrent("lstm", 3, 4, forget_bais=1.0)
    with pytest.raises(UsageError, match=r"dropout=1\.0"):
        Recurrent("lstm", 3, 4, dropout=1.0)
    with pytest.raises(UsageError, match="one-hot"):

        class Bare(Cell):
            """A cell that defines nothing."""

        Recurrent(Bare, 3, 4, bias=True)(torch.zeros(2, 1, dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CELLS)
def test_gpu_equals_cpu(name: str) -> None:
    torch.manual_seed(0)
    rnn = Recurrent(name, 4, 33, 2).double()
    x = torch.randn(17, 3, 4, dtype=torch.float64)
    lengths = torch.tensor([17, 4, 9])
    expected = rnn(x, lengths=lengths)[0]
    torch.testing.assert_close(rnn.cuda()(x.cuda(), lengths=lengths)[0].cpu(), expected)


def test_a_cell_with_its_own_projection_refuses_bare_one_hot_input() -> None:
    class Scaled(LSTM):
        """Projects its input in a way of its own."""

        def project(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(2 * gate for gate in super().project(x))

    with pytest.raises(UsageError, match="cannot take one-hot input directly"):
        Recurrent(Scaled, 3, 4)(torch.zeros(2, 1, dtype=torch.int64))


@pytest.mark.parametrize("name", CELLS)
def test_wrong_shapes_are_refused(name: str) -> None:
    rnn = Recurrent(name, 8, 16)
    _, state = rnn(torch.randn(5, 3, 8))
    for x in (torch.randn(5, 3, 9), torch.randn(5, 3, 7), torch.randn(5, 8), torch.zeros(5, dtype=torch.int64)):
        with pytest.raises(UsageError, match="x has the shape"):
            rnn(x)
    for batch in (2, 4):
        with pytest.raises(UsageError, match="state: it takes"):
            rnn(torch.randn(5, batch, 8), state)
    for lengths in (torch.tensor([5, 2]), torch.tensor([5, 2, 9]), torch.tensor([5, 2, -1]), [5, 2, 1]):
        with pytest.raises(UsageError, match="lengths"):
            rnn(torch.randn(5, 3, 8), lengths=lengths)


def test_gated_cell_is_a_dozen_lines() -> None:
    """A cell of one's own runs, by its equation alone, in `Recurrent`."""

    class Light(GatedCell):
        input_gates = 2
        recurrent_gates = 2

        def pointwise(self, u: tuple[Tensor, ...], r: tuple[Tensor, ...], state: State) -> State:
            z = torch.sigmoid(u[0] + r[0])
            return (z * state[0] + (1 - z) * torch.tanh(u[1] + r[1]),)

    rnn = Recurrent(Light, 3, 4, num_layers=2)
    y, state = rnn(torch.randn(5, 2, 3))
    assert y.shape == (5, 2, 4)
    assert torch.equal(state[-1][0], y[-1])
