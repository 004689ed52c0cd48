"""The cell against its equations and against itself cut in two, and the conformance checks."""

import torch
from rnnpipe_mingru import MinGRU

from rnnpipe import Recurrent
from rnnpipe.testing import check_cell


def test_equations():
    torch.manual_seed(0)
    rnn = Recurrent(MinGRU, 3, 4).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    cell = rnn.cells()[0]
    h = torch.zeros(2, 4, dtype=torch.float64)
    expected = []
    for x_t in x:
        z_input, candidate = (x_t @ cell.weight_ih.T + cell.bias_ih).chunk(2, -1)
        z = 1 / (1 + torch.exp(-z_input))
        h = (1 - z) * h + z * candidate
        expected.append(h)
    torch.testing.assert_close(rnn(x)[0], torch.stack(expected))


def test_two_halves_equal_the_whole():
    torch.manual_seed(0)
    rnn = Recurrent("mingru", 3, 4, num_layers=2).double()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    whole, _ = rnn(x)
    first, state = rnn(x[:3])
    second, _ = rnn(x[3:], state)
    torch.testing.assert_close(torch.cat((first, second)), whole)


def test_conformance():
    check_cell(MinGRU)
