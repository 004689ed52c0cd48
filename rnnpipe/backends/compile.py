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
from torch._subclasses.fake_tensor import FakeTensorMode
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
        from torch._guards import TracingContext, tracing
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.cpu_vec_isa import valid_vec_isa_list
        from torch._inductor.decomposition import select_decomp_table
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        # Without something that knows of symbolic shapes, of which there are none, inductor keeps no graph on disk.
        fake = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
        with torch.no_grad():
            inputs = _inputs(graph, fake)
            lowered = make_fx(graph, select_decomp_table(), tracing_mode="fake")(*inputs)
        # In this process: a pool of workers takes longer to start than two kernels to compile.
        with config.patch(compile_threads=1), tracing(TracingContext(fake)):
            try:
                # Inductor tries the compiler on each vector instruction set first, which takes a second in every
                # process, even where all is on disk: the processor's own word is taken for it.
                with config.patch({"cpp.vec_isa_ok": True}):
                    compiled = compile_fx_inner(lowered, inputs)
            except Exception:  # as of a compiler that is older than the processor
                valid_vec_isa_list.cache_clear()
                compiled = compile_fx_inner(lowered, inputs)
    return lambda *tensors: compiled(list(tensors))


def _inputs(graph: GraphModule, mode: FakeTensorMode) -> list[Tensor]:
    known = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    with mode:
        return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in known]
