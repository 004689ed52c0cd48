"""Whether Triton is there, and what it can run on."""

from __future__ import annotations

import functools
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_CAPABILITY = (8, 0)  # of the oldest GPU that they have been compiled for; below it there is no product in bfloat16


@functools.cache
def no_triton() -> str | None:
    """Return why there is no Triton, in words, or None if it is there."""
    if importlib.util.find_spec("triton") is None:
        return "there is no Triton; pip install 'rnnpipe[triton]'"
    return None


def interpreted() -> bool:
    """Say whether Triton interprets its kernels, on the CPU, as TRITON_INTERPRET=1 tells it."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Make a tensor's GPU the current one, on which Triton starts its kernels."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def no_kernels(device: torch.device, *, interpret: bool) -> str | None:
    """Return why no kernel can run on a device, in words, or None.

    interpret: a CPU will do, if Triton interprets.
    """
    if (missing := no_triton()) is not None:
        return missing
    if device.type == "cuda":
        # Without the device, what is asked about one is told for one that will do.
        if torch.cuda.is_available() and (has := torch.cuda.get_device_capability(device)) < _CAPABILITY:
            return f"its kernels need a GPU of compute capability 8.0 or above, and this one has {has[0]}.{has[1]}"
        return None
    if interpret and device.type == "cpu" and interpreted():
        return None
    return f"its kernels need a CUDA device, and the tensors are on {device.type}"
