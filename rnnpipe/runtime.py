"""Device, precision, threads and seeds: every `auto` resolved once, before the first step."""

from __future__ import annotations

import contextlib
import platform
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from rnnpipe.errors import UsageError

# Rows that generation computes together are rounded up to a multiple: float32 products of another number of rows run in
# other kernels, which add in another order.
ROW_TILE = 8


@dataclass(frozen=True)
class Numerics:
    """What decides the bits of a run: the record under `[numerics]`.

    elementwise: "compiled" or "plain", how a backend that has the choice runs what is elementwise in training. capture:
    "on" or "off", whether training steps were to be recorded and replayed, to the same bits; None without training.
    row_tile: the number of rows in generation is a multiple of it.
    """

    device: str
    precision: str
    backend: str
    threads: int
    torch: str
    processor: str
    elementwise: str | None = None
    row_tile: int = ROW_TILE
    capture: str | None = None

    def to_table(self) -> dict[str, Any]:
        """Return the record as a TOML table."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def resolve_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "mps"; raise UsageError if it is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if present[name])
    if not present[wanted]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise UsageError(f"device '{wanted}' is not there; torch finds here: {there}. Use --device auto.")
    return torch.device(wanted)


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Return "bfloat16" where the device multiplies it in hardware, otherwise "float32"; a name stays as it is."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        # Without AVX512-BF16 or AMX, bfloat16 products are emulated and slower than float32 ones.
        flags: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bfloat16" if flags.get("avx512_bf16") or flags.get("amx_bf16") else "float32"
    return "float32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which products run in the given precision; weights stay float32."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def processor_name() -> str:
    """Return the processor's name and instruction set, as far as they decide the bits of a product."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for a block, and put them back behind it to where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
