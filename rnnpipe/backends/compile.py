"""Graphs compiled to one kernel by inductor: its C++ on a CPU, Triton on a GPU."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

Kernel = Callable[..., Any]  # takes the graph's tensors, one after the other


@functools.cache
def no_compiler(device: str) -> str | None:
    """Return why nothing can be compiled for a device, in words, or None if a compiler is there."""
    if device == "cpu":
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        return None if shutil.which(compiler) else f"there is no C++ compiler {compiler}"
    if device == "cuda":
        return None if torch.utils._triton.has_triton() else "there is no Triton"
    return f"nothing is compiled for {device}"


def compile_graph(graph: GraphModule) -> Kernel:
    """Return a function that does what a graph does; inductor keeps it on disk for the next process.

    Raises whatever a compiler that fails makes inductor raise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inductor's own, about torch's own
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table

        with torch.no_grad():
            lowered = make_fx(graph, select_decomp_table(), tracing_mode="fake")(*_inputs(graph))
        # In this process: a pool of workers takes longer to start than two kernels to compile.
        with config.patch(compile_threads=1):
            compiled = compile_fx_inner(lowered, _inputs(lowered))
    return lambda *tensors: compiled(list(tensors))


def _inputs(graph: GraphModule) -> list[Tensor]:
    return [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
