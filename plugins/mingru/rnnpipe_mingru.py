"""The minGRU cell, as a plugin for rnnpipe."""

import torch

from rnnpipe import LinearCell, hookimpl


class MinGRU(LinearCell):
    """h' = (1 - z) h + z h~; z = sigmoid(Wz x), h~ = Wh x (Feng et al. 2024, arXiv:2410.01201)."""

    projections = 2

    def coefficients(self, u):
        z, candidate = u
        z = torch.sigmoid(z)
        return 1 - z, z * candidate


@hookimpl
def register_cells():
    return {"mingru": MinGRU}
