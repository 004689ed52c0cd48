"""The gradient probe against gradients that are known in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sequences import config, data

from rnnpipe.pipeline.build import build_sequence_model
from rnnpipe.pipeline.probe import Probe, probe_run
from rnnpipe.pipeline.runs import SequenceRun


def run(name: str, **options: Any) -> SequenceRun:
    """Return a run of a linear recurrence of one unit without readout, or of a small GRU for bits."""
    linear = name != "parity"
    settings = config(
        model__cell={"name": "elman", "nonlinearity": "identity"} if linear else "gru",
        model__hidden_size=1 if linear else 5,
        model__bias=False,
        model__name={"name": "sequence-model", "readout": not linear},
    )
    loaded = data(name, **options)
    torch.manual_seed(0)
    nothing: Any = None
    return SequenceRun(Path("run"), settings, loaded, build_sequence_model(settings, loaded.sizes), nothing, nothing)


def set_weights(model: torch.nn.Module, w: float, r: float) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(w if name.endswith("weight_ih") else r)


@pytest.mark.parametrize("name", ["ones", "wave"])
@pytest.mark.parametrize("r", [0.5, 1.0, 1.3])
def test_a_linear_recurrence(name: str, r: float) -> None:
    """s' = w x + r s: the gradient of the last state with respect to the input of lag k is w r^k, at any length."""
    probed = run(name, ragged=True)
    set_weights(probed.model, 0.7, r)
    found = probe_run(probed)
    assert found.sequences == 20
    np.testing.assert_allclose(found.norms, [0.7 * r**lag for lag in range(8)], rtol=1e-5)
    assert found.factor == pytest.approx(r, rel=1e-4)
    assert len(probe_run(probed, length=15, count=3).norms) == 15


def test_several_outputs_make_a_frobenius_norm() -> None:
    probed = run("parity")
    found = probe_run(probed, count=1)
    sequences = probed.data.parts["test"]
    length = int(sequences.lengths[0])
    x = torch.from_numpy(sequences.inputs[0, :length, None])
    jacobian = torch.autograd.functional.jacobian(lambda x: probed.model(x)[0][-1, 0], x)  # [O, T, 1, I]
    expected = jacobian.square().sum((0, 2, 3)).sqrt().flip(0)
    np.testing.assert_allclose(found.norms, expected, rtol=1e-4)


def test_what_cannot_be_fitted_has_no_factor() -> None:
    assert Probe([1.0], 1, "").factor is None
    assert Probe([1.0, 0.0], 1, "").factor is None
    assert Probe([1.0, 0.5, 0.25], 1, "").factor == pytest.approx(0.5)
    assert math.isfinite(Probe([1.0, 0.0, 0.25], 1, "").factor or math.nan)
