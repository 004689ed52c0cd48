"""sLSTM: an LSTM with exponential gates."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from rnnpipe.cells.base import GatedCell, Gates, State

_NOTHING_YET = -1e30  # a logarithm of 0 that can be subtracted


class SLSTM(GatedCell):
    """i, f, g, o = W x + b_ih + R h + b_hh, and with the gates exp(i) and sigmoid(f):

        m' = max(log sigmoid(f) + m, i)                     the stabilizer
        F = exp(log sigmoid(f) + m - m'), I = exp(i - m')   the gates, scaled by exp(-m')
        c' = F c + I tanh(g)    n' = F n + I                the cell state and its normalizer
        h' = sigmoid(o) c' / n'

    Beck et al. 2024, "xLSTM", eq. 8 to 17, one head. The scale cancels in c' / n'. Before the first timestep m is so
    low that F is 0 there, which is their first step without their branch for it; from then on n is at least 1. c, n and
    m are sums over many timesteps and stay float32 or wider.
    """

    input_gates = 4
    recurrent_gates = 4
    state_names = ("h", "c", "n", "m")
    state_dtype: ClassVar[dict[str, torch.dtype]] = dict.fromkeys("cnm", torch.float32)

    def initial_state(self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype) -> State:
        """Return zeros, and for m the logarithm of nothing."""
        h, c, n, m = super().initial_state(batch_size, device=device, dtype=dtype)
        return h, c, n, torch.full_like(m, _NOTHING_YET)

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        i, f, g, o = (from_input + recurrent for from_input, recurrent in zip(u, r, strict=True))
        h, c, n, m = state
        kept = F.logsigmoid(f) + m
        top = torch.maximum(kept, i)
        keep, write = torch.exp(kept - top), torch.exp(i - top)
        c = keep * c + write * torch.tanh(g)
        n = keep * n + write
        return (torch.sigmoid(o) * c / n).to(h.dtype), c, n, top
