"""The minimal LSTM, whose gates do not see the past."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.cells.base import Gates, LinearCell


class MinLSTM(LinearCell):
    """f, i = sigmoid, g of W x + b_ih; h' = f / (f + i) h + i / (f + i) g.

    Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024, "Were RNNs all we needed?", section 3.2. The shares f / (f + i) and
    i / (f + i) are taken as sigmoids of the logarithm of f / i, as in their log-space code: f and i may both vanish.
    Gate order f, i, g.
    """

    projections = 3

    def coefficients(self, u: Gates) -> tuple[Tensor, Tensor]:
        f, i, candidate = u
        ratio = F.logsigmoid(f) - F.logsigmoid(i)
        return torch.sigmoid(ratio), torch.sigmoid(-ratio) * candidate
