"""Every built-in cell against its paper's equations, written out anew in NumPy, one sequence at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.cells.base import Cell, GatedCell, LinearCell
from rnnpipe.cells.echo_state import EchoState
from rnnpipe.cells.gru import GRUResetBefore
from rnnpipe.cells.hopfield import Hopfield
from rnnpipe.cells.layernorm_lstm import LayerNormLSTM
from rnnpipe.cells.lru import LRU
from rnnpipe.cells.minlstm import MinLSTM
from rnnpipe.cells.qrnn import QRNN
from rnnpipe.cells.slstm import SLSTM
from rnnpipe.cells.sru import SRU
from rnnpipe.errors import UsageError
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.plugins import full_registry

Array = np.ndarray
tanh, exp = np.tanh, np.exp


def sigmoid(x: Array) -> Array:
    return 1 / (1 + exp(-x))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


class Parts:
    """The parameters of a cell, cut into gates: W_f x + b is `parts.x("f", x)`, R_f h + b is `parts.h("f", h)`."""

    def __init__(self, cell: Cell, gates: str) -> None:
        self.all = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
        self.gates = gates

    def _product(self, name: str, gate: str, v: Array) -> Array:
        place, count = self.gates.index(gate), len(self.gates)
        bias = self.all.get(f"bias_{name}")
        offset = 0.0 if bias is None else np.split(bias, count)[place]
        return np.split(self.all[f"weight_{name}"], count)[place] @ v + offset

    def x(self, gate: str, x: Array) -> Array:
        return self._product("ih", gate, x)

    def h(self, gate: str, h: Array) -> Array:
        return self._product("hh", gate, h)

    def sum(self, gate: str, x: Array, h: Array) -> Array:
        return self.x(gate, x) + self.h(gate, h)


Paper = Callable[[Cell, Array], list[Array]]  # a cell and one sequence [T, I] to its outputs


def cifg(cell: Cell, xs: Array) -> list[Array]:
    p, h, c, ys = Parts(cell, "fgo"), np.zeros(cell.hidden_size), np.zeros(cell.hidden_size), []
    for x in xs:
        f = sigmoid(p.sum("f", x, h))
        i = 1 - f
        c = f * c + i * tanh(p.sum("g", x, h))
        h = sigmoid(p.sum("o", x, h)) * tanh(c)
        ys.append(h)
    return ys


def janet(cell: Cell, xs: Array) -> list[Array]:
    p, c, ys = Parts(cell, "fc"), np.zeros(cell.hidden_size), []
    for x in xs:
        s, candidate = p.sum("f", x, c), tanh(p.sum("c", x, c))
        c = sigmoid(s) * c + (1 - sigmoid(s - cell.beta)) * candidate
        ys.append(c)
    return ys


def light_gru(cell: Cell, xs: Array) -> list[Array]:
    p, h, ys = Parts(cell, "zn"), np.zeros(cell.hidden_size), []
    for x in xs:
        z = sigmoid(p.sum("z", x, h))
        h = z * h + (1 - z) * relu(p.sum("n", x, h))
        ys.append(h)
    return ys


def gru_reset_before(cell: Cell, xs: Array) -> list[Array]:
    p, h, ys = Parts(cell, "rzn"), np.zeros(cell.hidden_size), []
    for x in xs:
        r, z = sigmoid(p.sum("r", x, h)), sigmoid(p.sum("z", x, h))
        h = z * h + (1 - z) * tanh(p.sum("n", x, r * h))
        ys.append(h)
    return ys


def mgu(cell: Cell, xs: Array) -> list[Array]:
    p, h, ys = Parts(cell, "fn"), np.zeros(cell.hidden_size), []
    for x in xs:
        f = sigmoid(p.sum("f", x, h))
        h = (1 - f) * h + f * tanh(p.sum("n", x, f * h))
        ys.append(h)
    return ys


def indrnn(cell: Cell, xs: Array) -> list[Array]:
    p, h, ys = Parts(cell, "n"), np.zeros(cell.hidden_size), []
    for x in xs:
        h = np.array([max(0.0, a + w * b) for a, w, b in zip(p.x("n", x), p.all["recurrent"], h, strict=True)])
        ys.append(h)
    return ys


def slstm(cell: Cell, xs: Array) -> list[Array]:
    """Without the stabilizer: the gates are exponentials as they are."""
    H = cell.hidden_size
    p, h, c, n, ys = Parts(cell, "ifzo"), np.zeros(H), np.zeros(H), np.zeros(H), []
    for x in xs:
        i, f = exp(p.sum("i", x, h)), sigmoid(p.sum("f", x, h))
        c = f * c + i * tanh(p.sum("z", x, h))
        n = f * n + i
        h = sigmoid(p.sum("o", x, h)) * c / n
        ys.append(h)
    return ys


def layernorm_lstm(cell: Cell, xs: Array) -> list[Array]:
    p, h, c, ys = Parts(cell, "ifgo").all, np.zeros(cell.hidden_size), np.zeros(cell.hidden_size), []

    def norm(v: Array) -> Array:
        return (v - v.mean()) / np.sqrt(((v - v.mean()) ** 2).mean() + 1e-5)

    for x in xs:
        gates = p["gain_ih"] * norm(p["weight_ih"] @ x) + p["gain_hh"] * norm(p["weight_hh"] @ h) + p["bias_ih"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(p["gain_c"] * norm(c) + p["bias_c"])
        ys.append(h)
    return ys


def minlstm(cell: Cell, xs: Array) -> list[Array]:
    p, h, ys = Parts(cell, "fig"), np.zeros(cell.hidden_size), []
    for x in xs:
        f, i = sigmoid(p.x("f", x)), sigmoid(p.x("i", x))
        h = f / (f + i) * h + i / (f + i) * p.x("g", x)
        ys.append(h)
    return ys


def lru(cell: Cell, xs: Array) -> list[Array]:
    """The sum over all inputs so far, each with its power of lambda."""
    p, H = Parts(cell, "rid"), cell.hidden_size
    eigenvalues = exp(-exp(p.all["nu"]) + 1j * exp(p.all["theta"]))
    written = [exp(p.all["log_gamma"]) * (p.x("r", x) + 1j * p.x("i", x)) for x in xs]
    C = p.all["weight_out"][:, :H] - 1j * p.all["weight_out"][:, H:]
    hidden = [sum(eigenvalues ** (t - s) * written[s] for s in range(t + 1)) for t in range(len(xs))]
    return [(C @ h).real + p.x("d", x) for h, x in zip(hidden, xs, strict=True)]


def sru(cell: Cell, xs: Array) -> list[Array]:
    wide = cell.input_size != cell.hidden_size
    p, c, ys = Parts(cell, "frgx" if wide else "frg"), np.zeros(cell.hidden_size), []
    for x in xs:
        f, r = sigmoid(p.x("f", x)), sigmoid(p.x("r", x))
        c = f * c + (1 - f) * p.x("g", x)
        shown = tanh(c) if cell.nonlinearity == "tanh" else c
        ys.append(r * shown + (1 - r) * (p.x("x", x) if wide else x))
    return ys


def qrnn(cell: Cell, xs: Array) -> list[Array]:
    """The convolution by torch, over the sequence with a zero before it."""
    now, before = cell.weight_ih.detach().chunk(2)
    padded = F.pad(torch.from_numpy(xs).t()[None], (1, 0))
    u = F.conv1d(padded, torch.stack((before, now), -1), cell.bias_ih.detach())[0].t().numpy()
    c, ys = np.zeros(cell.hidden_size), []
    for z, f, o in (np.split(row, 3) for row in u):
        c = sigmoid(f) * c + (1 - sigmoid(f)) * tanh(z)
        ys.append(sigmoid(o) * c)
    return ys


def mogrifier_lstm(cell: Cell, xs: Array) -> list[Array]:
    p, h, c, ys = Parts(cell, "ifgo"), np.zeros(cell.hidden_size), np.zeros(cell.hidden_size), []
    Q, R = p.all["weight_qh"], p.all["weight_rx"]
    for x in xs:
        for number in range(1, cell.rounds + 1):
            if number % 2:
                x = 2 * sigmoid(Q[(number - 1) // 2] @ h) * x
            else:
                h = 2 * sigmoid(R[number // 2 - 1] @ x) * h
        i, f, o = (sigmoid(p.sum(gate, x, h)) for gate in "ifo")
        c = f * c + i * tanh(p.sum("g", x, h))
        h = o * tanh(c)
        ys.append(h)
    return ys


def linear_recurrent(cell: Cell, xs: Array) -> list[Array]:
    """The sum over all inputs so far, each with its power of the recurrent weight."""
    p = Parts(cell, "u")
    r = p.all["weight_hh"]
    return [sum(r ** (t - s) * p.x("u", xs[s]) for s in range(t + 1)) for t in range(len(xs))]


def jordan(cell: Cell, xs: Array) -> list[Array]:
    """The context as a sum over all outputs so far, each with its power of the decay."""
    p = Parts(cell, "h")
    hidden, out = FUNCTIONS[cell.nonlinearity], FUNCTIONS[cell.output_nonlinearity]
    ys: list[Array] = []
    for t, x in enumerate(xs):
        context = sum((cell.decay ** (t - 1 - s) * y for s, y in enumerate(ys)), np.zeros(cell.output_size))
        h = hidden(p.x("h", x) + p.all["weight_hh"] @ context)
        ys.append(out(p.all["weight_out"] @ h + p.all["bias_out"]))
    return ys


def fully_recurrent(cell: Cell, xs: Array) -> list[Array]:
    """Williams & Zipser's one matrix over z = (1, x, y), unit by unit."""
    p = Parts(cell, "y").all
    w = np.concatenate((p["bias_ih"][:, None], p["weight_ih"], p["weight_hh"]), 1)
    y, ys = np.zeros(cell.hidden_size), []
    for x in xs:
        z = np.concatenate(([1.0], x, y))
        y = np.array([FUNCTIONS[cell.nonlinearity](sum(w[k] * z)) for k in range(cell.hidden_size)])
        ys.append(y[: cell.output_size])
    return ys


def echo_state(cell: Cell, xs: Array) -> list[Array]:
    p = {name: buffer.numpy() for name, buffer in cell.named_buffers()}
    h, ys = np.zeros(cell.hidden_size), []
    for x in xs:
        update = tanh(p["weight_ih"] @ x + p["bias_ih"] + p["weight_hh"] @ h)
        h = (1 - cell.leak) * h + cell.leak * update
        ys.append(h)
    return ys


def hopfield(cell: Cell, xs: Array) -> list[Array]:
    """Each unit in turn sums over the others, pair by pair."""
    p, H = Parts(cell, "s").all, cell.hidden_size
    s, ys = np.zeros(H), []
    for x in xs:
        cue = np.sign(p["weight_ih"] @ x)
        s = np.where(cue != 0, cue, s)
        for i in range(H):
            total = p["bias"][i] + sum(
                (p["weight_hh"][i, j] + p["weight_hh"][j, i]) / 2 * s[j] for j in range(H) if j != i
            )
            s[i] = np.sign(total) if total else s[i]
        ys.append(s.copy())
    return ys


def peephole_lstm(cell: Cell, xs: Array) -> list[Array]:
    p, h, c, ys = Parts(cell, "ifgo"), np.zeros(cell.hidden_size), np.zeros(cell.hidden_size), []
    p_i, p_f, p_o = p.all["peepholes"]
    for x in xs:
        i, f = sigmoid(p.sum("i", x, h) + p_i * c), sigmoid(p.sum("f", x, h) + p_f * c)
        c = f * c + i * tanh(p.sum("g", x, h))
        h = sigmoid(p.sum("o", x, h) + p_o * c) * tanh(c)
        ys.append(h)
    return ys


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": tanh, "relu": relu, "sigmoid": sigmoid, "identity": lambda x: x
}  # fmt: skip
PAPERS: dict[str, tuple[Paper, dict[str, Any]]] = {
    "cifg": (cifg, {}),
    "echo-state": (echo_state, {}),
    "echo-state leaky": (echo_state, {"leak": 0.3, "density": 1.0}),
    "fully-recurrent": (fully_recurrent, {}),
    "fully-recurrent visible": (fully_recurrent, {"visible": 2, "nonlinearity": "tanh"}),
    "gru-reset-before": (gru_reset_before, {}),
    "hopfield": (hopfield, {}),
    "indrnn": (indrnn, {}),
    "janet": (janet, {}),
    "janet beta": (janet, {"beta": 0.3}),
    "jordan": (jordan, {}),
    "jordan outputs": (jordan, {"outputs": 2, "output_nonlinearity": "sigmoid", "decay": 0.7}),
    "layernorm-lstm": (layernorm_lstm, {}),
    "light-gru": (light_gru, {}),
    "linear-recurrent": (linear_recurrent, {}),
    "lru": (lru, {}),
    "lstm peepholes": (peephole_lstm, {"peepholes": True}),
    "lru ring": (lru, {"r_min": 0.9, "r_max": 0.99, "max_phase": 0.3}),
    "mgu": (mgu, {}),
    "minlstm": (minlstm, {}),
    "mogrifier-lstm": (mogrifier_lstm, {}),
    "mogrifier-lstm rounds": (mogrifier_lstm, {"rounds": 2}),
    "qrnn": (qrnn, {}),
    "slstm": (slstm, {}),
    "sru": (sru, {}),
    "sru tanh": (sru, {"nonlinearity": "tanh"}),
}
IN_TORCH = {"elman", "gru", "lstm"}  # as they are by default: compared with torch's own in test_backends.py


def test_every_builtin_is_compared() -> None:
    registry = full_registry()
    builtin = {entry.name for entry in registry.entries("cell") if entry.distribution == "rnnpipe"}
    assert {name.split()[0] for name in PAPERS} | IN_TORCH == builtin


@pytest.mark.parametrize("case", PAPERS)
@pytest.mark.parametrize(("I", "H"), [(3, 4), (5, 5)])
def test_cell_is_its_papers(case: str, I: int, H: int) -> None:  # noqa: E741 - the input size
    paper, options = PAPERS[case]
    torch.manual_seed(I)
    rnn = Recurrent(case.split()[0], I, H, backend="loop", **options).double()
    (cell,) = rnn.cells()
    with torch.no_grad():  # also what starts at 0 or 1 is to be seen
        for parameter in cell.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    x = torch.randn(6, 2, I, dtype=torch.float64)
    y, _ = rnn(x)
    for row in range(2):
        expected = np.stack(paper(cell, x[:, row].numpy()))
        np.testing.assert_allclose(y[:, row].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted({case.split()[0] for case in PAPERS}))
def test_without_bias(name: str) -> None:
    torch.manual_seed(0)
    options = {"nonlinearity": "tanh"} if name == "fully-recurrent" else {}  # the logistic function of 0 is 1/2
    rnn = Recurrent(name, 3, 4, 2, bias=False, **options).double()
    assert not [weight for weight in rnn.state_dict() if "bias" in weight]
    y, _ = rnn(torch.zeros(5, 2, 3, dtype=torch.float64))
    assert not y.any(), "from nothing comes nothing"


def test_gru_reset_before_is_another_function() -> None:
    torch.manual_seed(0)
    before, after = GRUResetBefore(3, 4), nn.GRUCell(3, 4)
    before.load_state_dict(after.state_dict())
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    y, _ = before.step(before.project(x), (h,))
    assert (y - after(x, h)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slstm_with_gates_far_out(dtype: torch.dtype) -> None:
    """Exponentials that no float holds: the stabilizer keeps values and gradients finite, and the scale cancels."""
    torch.manual_seed(0)
    cell = SLSTM(1, 4).to(dtype)
    with torch.no_grad():
        cell.weight_ih[: 2 * 4] *= 2000  # i and f
    rnn = Recurrent(SLSTM, 1, 4, backend="loop").to(dtype)
    rnn.layers[0] = cell
    x = torch.randn(300, 3, 1, dtype=dtype, requires_grad=True)
    y, ((_, c, n, m),) = rnn(x)
    gradients = torch.autograd.grad(y.sum() + c.sum(), [x, *rnn.parameters()])
    assert all(tensor.isfinite().all() for tensor in (y, c, n, m, *gradients))
    assert y.abs().max() <= 1
    assert n.min() >= 1
    shifted = cell.initial_state(3, dtype=dtype)
    a, _ = cell.step(cell.project(x[0]), (*shifted[:3], shifted[3]))
    torch.testing.assert_close(a, y[0])


def test_slstm_starts_from_nothing() -> None:
    """Of the first timestep only its own input remains, whatever its gate: c / n is g."""
    cell = SLSTM(2, 3).double()
    with torch.no_grad():
        cell.bias_ih[:3] = torch.tensor([-800.0, 0.0, 800.0])
    x = torch.randn(1, 2, dtype=torch.float64)
    u = cell.project(x)
    y, _ = cell.step(u, cell.initial_state(1, dtype=torch.float64))
    g, o = (gate + bias for gate, bias in zip(u[2:], cell.bias_hh.chunk(4)[2:], strict=True))
    torch.testing.assert_close(y, torch.sigmoid(o) * torch.tanh(g))


def test_long_sums_stay_float32_in_a_bfloat16_network() -> None:
    torch.manual_seed(0)
    for name, wide in (("slstm", {"c", "n", "m"}), ("lru", {"h"}), ("lstm", set())):
        rnn = Recurrent(name, 3, 4, backend="loop").bfloat16()
        (cell,) = rnn.cells()
        types = [torch.float32 if leaf in wide else torch.bfloat16 for leaf in cell.state_shape]
        assert [leaf.dtype for leaf in rnn.initial_state(2, torch.zeros(1))[0]] == types
        y, (state,) = rnn(torch.randn(5, 2, 3, dtype=torch.bfloat16))
        assert [leaf.dtype for leaf in state] == types
        assert y.dtype == torch.bfloat16
    assert {leaf.dtype for leaf in SLSTM(3, 4).initial_state(1, dtype=torch.float64)} == {torch.float64}


def test_minlstm_where_both_gates_vanish() -> None:
    cell = MinLSTM(1, 1).double()
    u = torch.tensor([[-800.0], [-790.0], [0.5]], dtype=torch.float64).unbind(0)
    a, b = cell.coefficients(u)
    share = float(sigmoid(np.float64(-10.0)))
    assert float(a) == pytest.approx(share)
    assert float(b) == pytest.approx((1 - share) * 0.5)


def test_lru_starts_on_its_ring() -> None:
    torch.manual_seed(0)
    cell = LRU(3, 2000, r_min=0.8, r_max=0.9, max_phase=0.5)
    modulus, phase = torch.exp(-torch.exp(cell.nu)), torch.exp(cell.theta)
    assert 0.8 - 1e-5 <= modulus.min() < 0.801 and 0.899 < modulus.max() <= 0.9 + 1e-5
    assert phase.min() > 0 and 0.49 < phase.max() <= 0.5
    torch.testing.assert_close(torch.exp(cell.log_gamma) ** 2, 1 - modulus**2, rtol=1e-3, atol=1e-5)
    inside = (modulus < (0.5 * (0.8**2 + 0.9**2)) ** 0.5).float().mean()
    assert abs(inside - 0.5) < 0.05, "uniform by area"
    whole = LRU(3, 2000)
    assert all(parameter.isfinite().all() for parameter in whole.parameters())
    for options in ({"r_min": 0.9, "r_max": 0.9}, {"r_max": 1.5}, {"r_min": -1.0}, {"max_phase": 0.0}):
        with pytest.raises(UsageError, match="cell 'lru'"):
            LRU(3, 4, **options)


def test_layernorm_lstm_ignores_the_scale_of_its_weights() -> None:
    torch.manual_seed(0)
    rnn = Recurrent(LayerNormLSTM, 3, 5, backend="loop", eps=0.0).double()
    (cell,) = rnn.cells()
    state = ((torch.randn(2, 5, dtype=torch.float64),) * 2,)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    y, _ = rnn(x, state)
    with torch.no_grad():
        cell.weight_ih *= 7
        cell.weight_hh *= 0.2
    torch.testing.assert_close(rnn(x, state)[0], y)
    assert cell.gain_c.tolist() == [1.0] * 5
    cell.reset_parameters()
    assert cell.gain_hh.tolist() == [1.0] * 20
    assert cell.bias_c.tolist() == [0.0] * 5


def test_sru_takes_its_input_as_it_is_where_the_sizes_allow() -> None:
    assert SRU(4, 4).weight_ih.shape == (12, 4)
    assert SRU(3, 4).weight_ih.shape == (16, 3)
    cell = SRU(4, 4).double()
    classes = torch.tensor([[0, 3], [1, 2]])
    for ours, theirs in zip(cell.project_classes(classes), cell.project(F.one_hot(classes, 4).double()), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_qrnn_sees_two_inputs() -> None:
    torch.manual_seed(0)
    cell = QRNN(2, 3).double()
    x = torch.randn(6, 1, 2, dtype=torch.float64, requires_grad=True)
    state = cell.initial_state(1, dtype=torch.float64)
    a, _ = cell.coefficients(cell.delay(cell.project(x), state))
    (gradient,) = torch.autograd.grad(a[3].sum(), x)
    assert gradient.flatten(1).any(1).tolist() == [False, False, True, True, False, False]
    assert cell.bias_ih.shape == (9,)


def test_indrnn_starts_with_memories_of_all_lengths() -> None:
    torch.manual_seed(0)
    cell = full_registry().build("cell", "indrnn", {"nonlinearity": "tanh"}, 3, 500)
    assert 0 <= cell.recurrent.min() < 0.02 and 0.98 < cell.recurrent.max() <= 1
    y, _ = cell.step((torch.full((1, 500), -9.0),), (torch.zeros(1, 500),))
    assert torch.equal(y, torch.full((1, 500), -9.0).tanh())


def test_mogrifier_takes_one_round_or_more() -> None:
    with pytest.raises(UsageError, match="rounds=0 is not accepted; with none it is 'lstm'"):
        Recurrent("mogrifier-lstm", 3, 4, rounds=0)


@pytest.mark.parametrize("base", [GatedCell, LinearCell])
def test_every_cell_has_the_most_telling_base(base: type[Cell]) -> None:
    registry = full_registry()
    names = {name for name in PAPERS if " " not in name and issubclass(registry.get("cell", name), base)}
    gated = {"cifg", "echo-state", "janet", "light-gru", "slstm", "layernorm-lstm"}
    linear = {"linear-recurrent", "lru", "minlstm", "sru", "qrnn"}
    assert names == (gated if base is GatedCell else linear)


def test_delayed_projections_are_carried() -> None:
    """The state holds the last ones, so that a sequence can be cut anywhere."""
    cell = QRNN(2, 3).double()
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    u: list[Tensor] = list(cell.project(x))
    state = cell.initial_state(2, dtype=torch.float64)
    for t in range(4):
        _, state = cell.step(tuple(gate[t] for gate in u), state)
        torch.testing.assert_close(state[1], torch.stack([gate[t] for gate in u[3:]], 1))


def test_the_reservoir_is_as_its_options_say_and_is_never_trained() -> None:
    torch.manual_seed(0)
    rnn = Recurrent(EchoState, 2, 60, spectral_radius=0.7, density=0.05, input_scaling=0.3, bias_scaling=0.1)
    (cell,) = rnn.cells()
    assert not list(rnn.parameters())
    assert set(rnn.state_dict()) == {"layers.0.weight_ih", "layers.0.weight_hh", "layers.0.bias_ih"}
    assert torch.linalg.eigvals(cell.weight_hh.double()).abs().max() == pytest.approx(0.7, rel=1e-5)
    assert (cell.weight_hh != 0).sum(1).tolist() == [3] * 60
    assert 0.29 < cell.weight_ih.abs().max() <= 0.3
    assert 0.09 < cell.bias_ih.abs().max() <= 0.1
    assert EchoState(1, 1, density=0.01).weight_hh.abs().item() == pytest.approx(0.9)


def test_a_reservoir_forgets_where_it_started() -> None:
    """The echo state property: two starts come together with a radius below 1, and not with one far above it."""
    torch.manual_seed(0)
    x = 0.1 * torch.randn(300, 1, 2)
    apart = {}
    for radius in (0.8, 3.0):
        rnn = Recurrent(EchoState, 2, 50, spectral_radius=radius)
        first, _ = rnn(x)
        second, _ = rnn(x, ((torch.ones(1, 50),),))
        apart[radius] = float((first[-1] - second[-1]).abs().max().detach())
    assert apart[0.8] < 1e-5 < 0.1 < apart[3.0]


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("echo-state", {"leak": 0.0}, "leak=0.0"),
        ("echo-state", {"density": 1.5}, "density=1.5"),
        ("echo-state", {"spectral_radius": -1.0}, "spectral_radius=-1.0"),
        ("fully-recurrent", {"visible": 9}, "visible=9 is not accepted; of 4 units"),
        ("jordan", {"decay": 1.0}, "decay=1.0"),
        ("jordan", {"outputs": -1}, "outputs=-1"),
    ],
)
def test_options_out_of_range(cell: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Recurrent(cell, 3, 4, **options)


def test_peepholes_that_are_closed_are_none() -> None:
    torch.manual_seed(0)
    rnn, plain = Recurrent("lstm", 3, 4, peepholes=True), Recurrent("lstm", 3, 4)
    with torch.no_grad():
        rnn.layers[0].peepholes.zero_()
    plain.load_state_dict({k: v for k, v in rnn.state_dict().items() if "peepholes" not in k})
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(rnn(x)[0], plain(x)[0])
    assert (rnn.backend_used, plain.backend_used) == ("loop", "cudnn")


def test_hopfield_energy_never_increases() -> None:
    """From any state, for any connections; where the state settles, no neighbour of it is lower."""
    torch.manual_seed(0)
    rnn = Recurrent(Hopfield, 30, 30).double()
    (cell,) = rnn.cells()
    connections = cell.connections()
    assert torch.equal(connections, connections.t()) and not connections.diagonal().any()
    x = torch.zeros(30, 50, 30, dtype=torch.float64)
    x[0] = torch.randn(50, 30).sign()
    y, ((last,),) = rnn(x)
    energies = torch.cat((cell.energy(x[0])[None], cell.energy(y)))
    assert (energies.diff(dim=0) <= 1e-9).all()
    assert energies[0].mean() > energies[-1].mean() + 1
    settled = (y[-1] == y[-2]).all(1)
    assert settled.sum() > 40
    for unit in range(30):
        flipped = last[settled].clone()
        flipped[:, unit] *= -1
        assert (cell.energy(flipped) >= cell.energy(last[settled]) - 1e-9).all()
    assert set(y.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.slow
def test_hopfield_holds_about_0_138_patterns_a_unit() -> None:
    """Amit, Gutfreund & Sompolinsky 1985: to 0.138 N random patterns stay within a few percent, above it none does."""
    torch.manual_seed(0)
    units, kept = 500, {}
    for load in (0.05, 0.12, 0.16, 0.2):
        cell = Hopfield(units, units, bias=False)
        cell.clear()
        patterns = torch.randn(round(load * units), units).sign()
        cell.store(patterns)
        x = torch.zeros(12, len(patterns), units)
        x[0] = patterns
        with torch.no_grad():
            y, _ = Recurrent(Hopfield, units, units)._run(
                [cell], x, [cell.initial_state(len(patterns), dtype=x.dtype)], None
            )
        kept[load] = float((y[-1] == patterns).float().mean())
    assert kept[0.05] > 0.9999
    assert kept[0.12] > 0.97
    assert kept[0.2] < 0.9
    assert kept[0.05] > kept[0.12] > kept[0.16] > kept[0.2]
