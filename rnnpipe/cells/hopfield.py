"""The network of Hopfield: patterns as the lowest points of an energy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rnnpipe.cells.base import Gates, ProjectedCell, State


class Hopfield(ProjectedCell):
    """Units of -1 or 1, one after the other: s_i' = sign(sum_j S_ij s_j + b_i), and s_i where that sum is 0.

    S is symmetric and has no self-connection: (M + M') / 2 of `weight_hh` M [H, H], its diagonal put to 0. A timestep
    is one sweep over all units, each of which sees those before it as they are now; so the `energy` never increases. An
    input sets units before the sweep: to the sign of W x where that is not 0 (W is `weight_ih` [H, I], at the start
    one input a unit), so that a pattern is given at the first timestep and zeros let the network settle.

    The sign has no gradient: the trainer `hebbian` stores the patterns. Sums are taken in float32 or wider. Hopfield
    1982, "Neural networks and physical systems with emergent collective computational abilities", PNAS 79; his units
    are 0 and 1 and take turns at random.
    """

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, 1, bias=False)  # what goes in sets units; it is not summed
        self.has_bias = bias
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(hidden_size)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw connections and thresholds b uniformly from ±1/sqrt(H); an input goes to the unit of its number."""
        bound = 1 / math.sqrt(self.hidden_size)
        nn.init.eye_(self.weight_ih)
        for parameter in (self.weight_hh, self.bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)

    def connections(self) -> Tensor:
        """Return S [H, H]."""
        symmetric = (self.weight_hh + self.weight_hh.t()) / 2
        return symmetric - torch.diag(symmetric.diagonal())

    def energy(self, states: Tensor) -> Tensor:
        """Return -s' S s / 2 - b' s of states [..., H], in float64."""
        s = states.double()
        pairs = -((s @ self.connections().double()) * s).sum(-1) / 2
        return pairs if self.bias is None else pairs - s @ self.bias.double()

    def clear(self) -> None:
        """Forget everything: no connections, thresholds of 0."""
        with torch.no_grad():
            self.weight_hh.zero_()
            if self.bias is not None:
                self.bias.zero_()

    def store(self, patterns: Tensor) -> None:
        """Add p p' / H for each of the patterns p [P, H], of -1 and 1, to the connections: Hebb's rule."""
        p = patterns.to(self.weight_hh.dtype)
        with torch.no_grad():
            self.weight_hh.add_(p.t() @ p, alpha=1 / self.hidden_size)

    def step(self, u: Gates, state: State) -> tuple[Tensor, State]:
        (s,) = state
        s = torch.where(u[0] != 0, torch.sign(u[0]).to(s.dtype), s)
        # A sign hangs on the last bits of its sum, which bfloat16 has not.
        with torch.autocast(s.device.type, enabled=False):
            wide = torch.promote_types(s.dtype, torch.float32)
            connections = self.connections().to(wide)
            thresholds = None if self.bias is None else self.bias.to(wide)
            units = list(s.to(wide).unbind(-1))
            for i in range(self.hidden_size):
                total = torch.stack(units, -1) @ connections[i]
                if thresholds is not None:
                    total = total + thresholds[i]
                units[i] = torch.where(total != 0, torch.sign(total), units[i])
            s = torch.stack(units, -1).to(s.dtype)
        return s, (s,)
