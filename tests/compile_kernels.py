"""Compile kernels for GPUs, without one: `TRITON_INTERPRET=0 python tests/compile_kernels.py scan`.

One line for each kernel, GPU and type: the bytes of machine code and of shared memory. Triton's own error where one
does not compile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

GPUS = (80, 90)  # A100, H100


def report(kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], label: str, warps: int) -> None:
    """Compile a kernel for every GPU; pointers and sizes are taken to be multiples of 16, as they often are."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in constants}
    for gpu in GPUS:
        source = ASTSource(kernel, signature, constexprs=values, attrs=aligned)
        code = triton.compile(source, target=GPUTarget("cuda", gpu, 32), options={"num_warps": warps})
        size, shared = len(code.asm["cubin"]), code.metadata.shared
        sys.stdout.write(f"sm_{gpu} {label}: {size} bytes, {shared} shared\n")


def scan() -> None:
    """Compile the kernels of the scan, in each type."""
    from rnnpipe.backends.kernels import scan as launches
    from rnnpipe.backends.kernels import scan_kernels

    for kind, wide, number in scan_types():
        constants = {
            "WIDE": wide,
            "BLOCK": launches._BLOCK,
            "STAGES": launches._STAGES,
            "MOST": torch.finfo(number).max,
        }
        for name in ("run", "compose", "run_back", "compose_back"):
            kernel = getattr(scan_kernels, name)
            own = {key: value for key, value in constants.items() if key in kernel.arg_names}
            sizes = {"T", "N", "L", "a_step", "b_step", "d_step"}
            types = {argument: "i32" if argument in sizes else f"*{kind}" for argument in kernel.arg_names}
            report(kernel, types, own, f"{name} {kind}", launches._WARPS)


def scan_types() -> Iterator[tuple[str, Any, torch.dtype]]:
    """Yield what tensors are in, what the kernel computes in, and the same as torch's type."""
    yield "fp32", tl.float32, torch.float32
    yield "fp64", tl.float64, torch.float64
    yield "bf16", tl.float32, torch.float32


if __name__ == "__main__":
    {"scan": scan}[sys.argv[1]]()
