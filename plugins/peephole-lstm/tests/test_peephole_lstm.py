"""The cell against the equations of the papers, unit by unit, and the conformance checks."""

import math

import pytest
import torch
from rnnpipe_peephole_lstm import PeepholeLSTM

from rnnpipe import Recurrent
from rnnpipe.errors import UsageError
from rnnpipe.testing import check_cell


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(weights: list[float], values: list[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True))


def unit_by_unit(cell: PeepholeLSTM, x: list[list[float]]) -> list[list[float]]:
    """Return the outputs for one sequence in plain numbers: Gers et al. 2002, with tanh to squash."""
    size, from_input, recurrent = cell.hidden_size, cell.weight_ih.tolist(), cell.weight_hh.tolist()
    b = (cell.bias_ih + cell.bias_hh).tolist()
    p_i, p_f, p_o = (p.tolist() for p in (cell.peephole_i, cell.peephole_f, cell.peephole_o))
    h, c = [0.0] * size, [0.0] * size
    outputs = []
    for x_t in x:
        net = [b[k] + dot(from_input[k], x_t) + dot(recurrent[k], h) for k in range(4 * size)]
        for j in range(size):
            write = sigmoid(net[j] + p_i[j] * c[j])
            keep = sigmoid(net[size + j] + p_f[j] * c[j])
            c[j] = keep * c[j] + write * math.tanh(net[2 * size + j])
            h[j] = sigmoid(net[3 * size + j] + p_o[j] * c[j]) * math.tanh(c[j])
        outputs.append(list(h))
    return outputs


def test_equations():
    torch.manual_seed(0)
    rnn = Recurrent(PeepholeLSTM, 3, 4).double()
    cell = rnn.cells()[0]
    for peephole in (cell.peephole_i, cell.peephole_f, cell.peephole_o):
        torch.nn.init.uniform_(peephole, 1, 3)  # large, so that one that looks at the wrong cell is seen
    x = torch.randn(6, 1, 3, dtype=torch.float64)
    expected = torch.tensor(unit_by_unit(cell, x[:, 0].tolist()), dtype=torch.float64)
    torch.testing.assert_close(rnn(x)[0][:, 0], expected)


def test_without_peepholes_it_is_torchs_lstm():
    torch.manual_seed(0)
    rnn, reference = Recurrent(PeepholeLSTM, 3, 4), torch.nn.LSTM(3, 4)
    cell = rnn.cells()[0]
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(getattr(reference, f"{name}_l0"))
        for name in "ifo":
            getattr(cell, f"peephole_{name}").zero_()
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(rnn(x)[0], reference(x)[0])


def test_every_parameter_is_drawn_and_the_forget_bias_added():
    torch.manual_seed(0)
    plain = PeepholeLSTM(3, 400)
    torch.manual_seed(0)
    biased = PeepholeLSTM(3, 400, forget_bias=1.0)
    for name, parameter in plain.named_parameters():
        assert 0.04 < parameter.abs().max() <= 0.05, name  # 1/sqrt(400), nearly reached
        shift = torch.zeros_like(parameter)
        if name == "bias_ih":
            shift[400:800] = 1.0
        torch.testing.assert_close(dict(biased.named_parameters())[name], parameter + shift)
    with pytest.raises(UsageError, match=r"forget_bias=1\.0 needs bias=true"):
        PeepholeLSTM(3, 4, bias=False, forget_bias=1.0)


def test_conformance():
    check_cell(PeepholeLSTM)
