"""Every backend on a CUDA device: `pytest -m gpu` runs these, and the tests of the kernels, on the device itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli import KITCHEN, settings, succeed

from rnnpipe.config import load_config
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.plugins import full_registry
from rnnpipe.testing import check_backend

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CELLS = {"cudnn": "lstm", "fused": "lstm", "hoisted": "lstm", "loop": "lstm", "scan": "minlstm"}


@pytest.mark.parametrize("name", full_registry().names("backend"))
def test_conformance(name: str) -> None:
    """The checks of a backend run on the CPU and on the device; what it refuses on both is skipped."""
    x = torch.randn(3, 2, 4, device="cuda")
    backend = full_registry().build("backend", name, {})
    cells = Recurrent(CELLS[name], 4, 5).cuda().cells()
    assert backend.refusal(cells, x, None) is None, "it is not skipped on the device"
    assert {finding.outcome for finding in check_backend(name)} == {"passed"}


@pytest.mark.parametrize("name", CELLS)
def test_training_in_bfloat16_is_near_the_loop(name: str) -> None:
    """Outputs and gradients of a window of a useful size, under autocast, beside the loop's."""
    torch.manual_seed(0)
    x = torch.randn(64, 32, 48, device="cuda")
    found = []
    for backend in ("loop", name):
        torch.manual_seed(1)
        rnn = Recurrent(CELLS[name], 48, 96, 2, backend=backend).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            y = rnn(x)[0]
        found.append([y.detach(), *torch.autograd.grad(y.float().square().mean(), list(rnn.parameters()))])
    for reference, ours in zip(*found, strict=True):
        assert (ours.double() - reference.double()).norm() <= 0.05 * reference.double().norm()


def test_training_measures_the_backends_and_replays_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "cache"))
    words = ["train", KITCHEN, "--device", "cuda", *settings(training__max_steps=12)]
    said = succeed(*words, "-o", "run", "--capture", "on").err
    assert "a window forward and backward takes" in said
    assert "without capture" not in said
    assert load_config(Path("run/config.toml")).numerics["capture"] == "on"
    for name in ("hoisted", "fused"):
        assert f"backend {name}" in succeed(*words, "-o", name, "--backend", name).err
