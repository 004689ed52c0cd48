"""The echo state network: a random reservoir, of which only the readout is fitted."""

from __future__ import annotations

import torch

from rnnpipe.cells.base import GatedCell, Gates, State
from rnnpipe.errors import UsageError


class EchoState(GatedCell):
    """h' = (1 - leak) h + leak tanh(W x + b_ih + R h), with W, R and b_ih drawn once and never trained.

    R [H, H] has `density` H connections a unit, at least one, and is scaled to the `spectral_radius`; W is uniform from
    ±`input_scaling`, b_ih from ±`bias_scaling`. All three are buffers: they are saved, and no optimizer sees them. The
    trainer `ridge` fits the readout in closed form.

    Jaeger 2001, "The 'echo state' approach to analysing and training recurrent neural networks", GMD report 148;
    Jaeger, Lukoševičius, Popovici & Siewert 2007, Neural Networks 20, and Lukoševičius 2012, "A practical guide to
    applying echo state networks", eq. 2 and 3, for the leak.
    """

    input_gates = 1
    recurrent_gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        spectral_radius: float = 0.9,
        density: float = 0.1,
        leak: float = 1.0,
        input_scaling: float = 1.0,
        bias_scaling: float = 0.2,
    ) -> None:
        if not 0 < leak <= 1 or not 0 < density <= 1:
            raise UsageError(f"cell 'echo-state': leak={leak}, density={density}: both are above 0 and at most 1.")
        if min(spectral_radius, input_scaling, bias_scaling) < 0:
            raise UsageError(
                f"cell 'echo-state': spectral_radius={spectral_radius}, input_scaling={input_scaling}, "
                f"bias_scaling={bias_scaling}: each is 0 or more."
            )
        self.spectral_radius, self.density, self.leak = spectral_radius, density, leak
        self.input_scaling, self.bias_scaling = input_scaling, bias_scaling
        super().__init__(input_size, hidden_size, bias=bias)
        drawn = dict(self.named_parameters())
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            delattr(self, name)
            tensor = drawn[name].detach() if name in drawn and name != "bias_hh" else None
            self.register_buffer(name, tensor)

    def reset_parameters(self) -> None:
        """Draw the reservoir; its spectral radius is that of the largest eigenvalue."""
        H = self.hidden_size
        with torch.no_grad():
            self.weight_ih.uniform_(-self.input_scaling, self.input_scaling)
            if self.bias_ih is not None:
                self.bias_ih.uniform_(-self.bias_scaling, self.bias_scaling)
            # As many connections for each unit: with one at least there is a cycle, so that the radius is not 0.
            connections = max(1, round(self.density * H))
            places = torch.rand(H, H).topk(connections).indices
            values = torch.rand(H, connections) * 2 - 1
            reservoir = torch.zeros(H, H).scatter_(1, places, values)
            radius = torch.linalg.eigvals(reservoir.double()).abs().max()
            self.weight_hh.copy_(reservoir * (self.spectral_radius / radius))

    def pointwise(self, u: Gates, r: Gates, state: State) -> State:
        h = state[0]
        return (h + self.leak * (torch.tanh(u[0] + r[0]) - h),)
