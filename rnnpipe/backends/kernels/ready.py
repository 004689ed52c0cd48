"""Whether Triton is there, and what it can run on."""

from __future__ import annotations

import functools
import importlib.util

import torch


@functools.cache
def no_triton() -> str | None:
    """Return why there is no Triton, in words, or None if it is there."""
    if importlib.util.find_spec("triton") is None:
        return "there is no Triton; pip install 'rnnpipe[triton]'"
    return None


def no_kernels(device: torch.device) -> str | None:
    """Return why no kernel can run on a device, in words, or None: CUDA, or a CPU under Triton's interpreter."""
    if (missing := no_triton()) is not None:
        return missing
    if device.type == "cuda":
        return None
    import triton

    if device.type == "cpu" and triton.knobs.runtime.interpret:
        return None
    return f"its kernels need a CUDA device, and the tensors are on {device.type}"
