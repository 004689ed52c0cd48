"""Compile kernels for GPUs, without one: `TRITON_INTERPRET=0 python tests/compile_kernels.py scan|fused`.

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


def fused() -> None:
    """Compile the kernels of some cells, in each type of product, with and without all that is optional."""
    from rnnpipe.backends import fused as backend
    from rnnpipe.backends.derive import trace_pointwise
    from rnnpipe.backends.kernels import gated
    from rnnpipe.backends.kernels.product_kernels import product_back
    from rnnpipe.cells.gru import GRU
    from rnnpipe.cells.lstm import LSTM
    from rnnpipe.cells.slstm import SLSTM

    for kind, wide, number in scan_types():
        product = torch.bfloat16 if kind == "bf16" else number
        sizes = dict.fromkeys(("B", "H", "K", "LENGTH"), "i32")
        tile = backend.tiles(64, product, "backward")
        blocks = {"ROWS": tile.rows, "COLS": tile.cols, "DEPTH": tile.depth, "STAGES": tile.stages}
        types = sizes | {"dpre": f"*{kind}", "weight": f"*{kind}", "parts": f"*{wide.name}"}
        constants = {"SUM": wide, "WIDEN": False, **blocks}
        report(product_back, types, constants, f"product_back {kind}", tile.warps)
        for cell in (LSTM(16, 64), GRU(16, 64), SLSTM(16, 64)):
            dtypes = [number] * len(cell.state_names)
            pointwise = trace_pointwise(cell.to(number), 64, product, product, dtypes)
            module = gated.load(gated.source(pointwise))
            for name, options in (
                ("forward", {"BIASED": not pointwise.summed, "KEEP": True, "NARROW": kind == "bf16", "WIDEN": False}),
                ("backward", {"PARTS": 4}),
            ):
                kernel = getattr(module, name)
                tile = backend.tiles(64, product, name)
                blocks = {"ROWS": tile.rows, "COLS": tile.cols, "DEPTH": tile.depth, "STAGES": tile.stages}
                for masked in (False, True):
                    constants = {"MASKED": masked, **options, **blocks}
                    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
                    types = dict.fromkeys(kernel.arg_names, f"*{wide.name}") | sizes | {"mask": "*i8"}
                    types |= dict.fromkeys(("h", "weight", "bias", "u", "pre", "narrow", "dpre", "du"), f"*{kind}")
                    label = f"{name} {type(cell).__name__} {kind}{' masked' if masked else ''}"
                    report(kernel, types, constants, label, tile.warps)


if __name__ == "__main__":
    {"scan": scan, "fused": fused}[sys.argv[1]]()
