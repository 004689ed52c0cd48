"""The kernels of a gated cell, written from its `pointwise`: the source text, and the module that Triton takes.

Forward, one kernel a timestep: the recurrent product with the cell's elementwise part behind it. Backward, the
vector-Jacobian product of that part; the transposed product is the same for all cells, in `product_kernels`.

Shapes: B batch, H hidden size, G gates; pre [B, G H], u [B, G H], states [B, H].
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import vjp
from torch.fx import GraphModule

from rnnpipe.backends.derive import Pointwise
from rnnpipe.backends.kernels.emit import TYPES, Unfusible, emit, trace_elements
from rnnpipe.durable import atomic_file, cache_folder

_HEAD = '''"""Written by rnnpipe from the pointwise of a cell; it is written anew if it is changed or removed."""

import triton
import triton.language as tl

from rnnpipe.backends.kernels.functions_kernels import add_product, expm1, log1p, sigmoid, tanh

'''

_PLACE = """\
row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
col = tl.program_id(0) * COLS + tl.arange(0, COLS)
in_rows, in_cols = (row < B)[:, None], (col < H)[None, :]
inside = in_rows & in_cols
at = row[:, None] * H + col[None, :]"""


def source(pointwise: Pointwise) -> str:
    """Return the text of a module with the kernels `forward` and `backward`; raise Unfusible for what none can do."""
    # As it is: what crosses rows or hidden units is none of the operations that are known, and is named.
    graph = _on_cpu(pointwise.graph)
    inputs = [_fake(like.shape, like.dtype) for like in _inputs(graph)]
    emit(trace_elements(graph, inputs), ["_"] * len(inputs), "v")
    for like in pointwise.constants.values():
        if like.numel() != 1 and tuple(like.shape) != (pointwise.hidden_size,):
            raise Unfusible("its pointwise reads a parameter that is neither a vector [H] nor a number")
        if like.dtype not in TYPES:
            raise Unfusible(f"its pointwise reads a parameter in {like.dtype}, which cannot be fused")
    cell = _Cell(replace(pointwise, graph=graph))
    return _HEAD + "\n\n".join(("\n".join(cell.forward()), "\n".join(cell.backward()))) + "\n"


def load(text: str) -> ModuleType:
    """Return the module of a source text.

    Triton compiles a function from the file in which it stands, so the text is written into the cache folder, under its
    digest, and imported as any module is. It is made of the operations of a graph and of numbers; no text of a user
    stands in it.
    """
    name = f"rnnpipe_kernels_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    if name in sys.modules:
        return sys.modules[name]
    path = cache_folder() / "kernels" / f"{name}.py"
    if not path.is_file() or path.read_bytes() != text.encode():
        with atomic_file(path) as file:
            file.write(text.encode())
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a path with the suffix .py has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def _on_cpu(graph: GraphModule) -> GraphModule:
    """Return a graph that makes its tensors on the CPU: torch without CUDA differentiates no fake tensors of CUDA."""
    nodes = copy.deepcopy(graph.graph)
    for node in nodes.nodes:
        if node.kwargs.get("device") is not None:
            node.update_kwarg("device", torch.device("cpu"))
    return GraphModule(graph, nodes)


def _inputs(graph: GraphModule) -> list[Tensor]:
    return [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]


def _fake(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    with _fake_mode():
        return torch.empty(shape, dtype=dtype)


@functools.cache
def _fake_mode() -> FakeTensorMode:
    return FakeTensorMode()  # the first one imports torch's compiler, which takes a second


class _Cell:
    """What the kernels of a cell take and give, by the names that they have in the text."""

    def __init__(self, pointwise: Pointwise) -> None:
        self.pointwise = pointwise
        self.pre = [f"p{i}" for i in range(pointwise.recurrent_gates)]
        self.u = [f"u{i}" for i in range(0 if pointwise.summed else pointwise.input_gates)]
        self.states = [f"s{i}" for i in range(len(pointwise.state_dtypes))]
        self.constants = [f"c{i}" for i in range(len(pointwise.constants))]
        self.floating = [
            name
            for name, like in zip(self.constants, pointwise.constants.values(), strict=True)
            if like.is_floating_point()
        ]
        product = pointwise.r_dtype
        self.sum = "tl.float64" if product == torch.float64 else "tl.float32"

    def forward(self) -> Iterator[str]:
        """Yield the lines of the kernel of a timestep: new states n, from h, which is s0 in the type of products."""
        lines, results = emit(self._graph(), self._arguments(), "v")
        given = ["h", "weight", *(["u"] if self.pointwise.summed else ["bias", "u"]), *self.states, *self.constants]
        new = [f"n{i}" for i in range(len(self.states))]
        sizes = "B, H, BIASED: tl.constexpr, MASKED: tl.constexpr, KEEP: tl.constexpr, NARROW: tl.constexpr"
        tiles = "ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr, WIDEN: tl.constexpr"
        yield "@triton.jit"
        yield f"def forward({', '.join([*given, 'mask', 'pre', *new, 'narrow'])}, {sizes}, {tiles}):"
        yield from _indented(_PLACE.splitlines())
        for p in self.pre:
            yield f"    {p} = tl.zeros((ROWS, COLS), {self.sum})"
        yield "    for k in tl.range(0, H, DEPTH, num_stages=STAGES):"
        yield "        depth = k + tl.arange(0, DEPTH)"
        yield "        known = (depth < H)[:, None] & in_cols"
        yield "        from_h = h + row[:, None] * H + depth[None, :]"
        yield "        h_k = tl.load(from_h, mask=in_rows & (depth < H)[None, :], other=0.0)"
        for gate, p in enumerate(self.pre):
            yield f"        from_w = weight + ({gate} * H + col[None, :]) * H + depth[:, None]"
            yield "        w = tl.load(from_w, mask=known, other=0.0)"
            yield f"        {p} = add_product({p}, h_k, w, WIDEN)"
        gates, own = len(self.pre), len(self.u)
        for gate, p in enumerate(self.pre):
            if self.pointwise.summed:
                yield f"    {p} += {_loaded('u', gate, gates, self.sum)}"
            else:
                yield "    if BIASED:"
                yield f"        own = tl.load(bias + {gate} * H + col, mask=col < H, other=0.0)"
                yield f"        {p} += own.to({self.sum})[None, :]"
            yield "    if KEEP:"
            yield f"        tl.store({_gate('pre', gate, gates)}, {p}.to(pre.dtype.element_ty), mask=inside)"
        for gate, u in enumerate(self.u):
            yield f"    {u} = {_loaded('u', gate, own, self._wide(self.pointwise.u_dtype))}"
        yield from self._read(self.states)
        yield from _indented(lines)
        yield from self._masked(results, self.states, new)
        for name in new:
            yield f"    tl.store({name} + at, {name}_.to({name}.dtype.element_ty), mask=inside)"
        yield "    if NARROW:"
        yield "        tl.store(narrow + at, n0_.to(narrow.dtype.element_ty), mask=inside)"

    def backward(self) -> Iterator[str]:
        """Yield the lines of the kernel that goes one timestep back.

        The gradient of state 0 is the sum of the output's, the product's in PARTS parts, and its own; d0, d1 ...
        [B, H] hold those of the new states, and then those of the states before. What constants get of each element
        is added to e0, e1 ... [B, H].
        """
        ds = [f"d{i}" for i in range(len(self.states))]
        es = [f"e{i}" for i in range(len(self.floating))]
        lines, results = emit(self._graph_of_gradients(), [*self._arguments(), *(f"{d}_" for d in ds)], "v")
        given = ["pre", *(["u"] if self.u else []), *self.states, *self.constants, "mask", "dy", "parts", *ds]
        wanted = ["dpre", *(["du"] if self.u else []), *es]
        yield "@triton.jit"
        yield f"def backward({', '.join([*given, *wanted])}, B, H, PARTS: tl.constexpr, MASKED: tl.constexpr,"
        yield "             ROWS: tl.constexpr, COLS: tl.constexpr):"
        yield from _indented(_PLACE.splitlines())
        gates, own = len(self.pre), len(self.u)
        for gate, p in enumerate(self.pre):
            yield f"    {p} = {_loaded('pre', gate, gates, self._wide(self.pointwise.r_dtype))}"
        for gate, u in enumerate(self.u):
            yield f"    {u} = {_loaded('u', gate, own, self._wide(self.pointwise.u_dtype))}"
        yield from self._read(self.states)
        for d, wide in zip(ds, self._state_types(), strict=True):
            yield f"    {d}_ = tl.load({d} + at, mask=inside, other=0.0).to({wide})"
        first = self._state_types()[0]
        yield f"    d0_ += tl.load(dy + at, mask=inside, other=0.0).to({first})"
        yield "    for part in tl.static_range(PARTS):"
        yield f"        d0_ += tl.load(parts + part * B * H + at, mask=inside, other=0.0).to({first})"
        yield from _indented(lines)
        names = iter(results)
        yield "    if MASKED:"
        yield "        valid = (tl.load(mask + row, mask=row < B, other=0) != 0)[:, None]"
        yield "    else:"
        yield "        valid = in_rows"
        for buffer, count in (("dpre", gates), ("du", own)):
            for gate in range(count):
                value = f"tl.where(valid, {next(names)}, 0.0)"
                yield f"    tl.store({_gate(buffer, gate, count)}, {value}.to({buffer}.dtype.element_ty), mask=inside)"
        for d in ds:
            yield f"    tl.store({d} + at, tl.where(valid, {next(names)}, {d}_).to({d}.dtype.element_ty), mask=inside)"
        for e in es:
            value = f"tl.load({e} + at, mask=inside, other=0.0) + tl.where(valid, {next(names)}, 0.0)"
            yield f"    tl.store({e} + at, ({value}).to({e}.dtype.element_ty), mask=inside)"

    def _read(self, states: Sequence[str]) -> Iterator[str]:
        """Yield the lines that load states and constants as blocks."""
        for name, wide in zip(states, self._state_types(), strict=True):
            yield f"    {name}_ = tl.load({name} + at, mask=inside, other=0.0).to({wide})"
        for name, like in zip(self.constants, self.pointwise.constants.values(), strict=True):
            vector = like.numel() == self.pointwise.hidden_size and like.dim() == 1
            loaded = f"tl.load({name} + col, mask=col < H, other=0)[None, :]" if vector else f"tl.load({name})"
            cast = f"({loaded} != 0)" if like.dtype == torch.bool else f"{loaded}.to({TYPES[like.dtype]})"
            yield f"    {name}_ = tl.broadcast_to({cast}, (ROWS, COLS))"

    def _masked(self, results: Sequence[str], states: Sequence[str], new: Sequence[str]) -> Iterator[str]:
        """Yield the lines that hold the states of sequences which have ended."""
        yield "    if MASKED:"
        yield "        valid = (tl.load(mask + row, mask=row < B, other=0) != 0)[:, None]"
        for name, result, state in zip(new, results, states, strict=True):
            yield f"        {name}_ = tl.where(valid, {result}, {state}_)"
        yield "    else:"
        for name, result in zip(new, results, strict=True):
            yield f"        {name}_ = {result}"

    def _arguments(self) -> list[str]:
        return [*self.pre, *self.u, *(f"{name}_" for name in (*self.states, *self.constants))]

    def _state_types(self) -> list[str]:
        return [self._wide(dtype) for dtype in self.pointwise.state_dtypes]

    @staticmethod
    def _wide(dtype: torch.dtype) -> str:
        return TYPES[torch.promote_types(dtype, torch.float32)]

    def _blocks(self) -> list[Tensor]:
        """Return fake blocks [N, H] for all arguments: constants too, whose gradients are of each element then."""
        p = self.pointwise
        dtypes = [p.r_dtype] * len(self.pre) + [p.u_dtype] * len(self.u) + [*p.state_dtypes]
        dtypes = [torch.promote_types(dtype, torch.float32) for dtype in dtypes]
        dtypes += [like.dtype for like in p.constants.values()]
        return [_fake((len(_inputs(p.graph)[0]), p.hidden_size), dtype) for dtype in dtypes]

    def _following(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the new states from blocks, without a cast to the types in which they are stored."""
        p, r, own = self.pointwise, len(self.pre), len(self.u)
        pre, u, rest = given[:r], given[r : r + own], given[r + own :]
        # Where u and r are summed, the graph looks at the first alone.
        return tuple(p.graph(*(u or pre), *pre, *rest))

    def _graph(self) -> GraphModule:
        return trace_elements(lambda *given: self._following(given), self._blocks())

    def _graph_of_gradients(self) -> GraphModule:
        """Return the graph (blocks, gradients of the new states) -> gradients of all blocks that are no integers."""
        blocks, count = self._blocks(), len(self.states)
        cotangents = [_fake(block.shape, block.dtype) for block in blocks[len(self.pre) + len(self.u) :][:count]]
        sources = [i for i, block in enumerate(blocks) if block.is_floating_point()]

        def gradients(*given: Tensor) -> tuple[Tensor, ...]:
            known, weights = list(given[:-count]), given[-count:]

            def following(*chosen: Tensor) -> tuple[Tensor, ...]:
                everything = list(known)
                for i, block in zip(sources, chosen, strict=True):
                    everything[i] = block
                states = self._following(everything)
                return tuple(state.to(weight.dtype) for state, weight in zip(states, weights, strict=True))

            found: tuple[Tensor, ...] = vjp(following, *(known[i] for i in sources))[1](tuple(weights))
            return found

        return trace_elements(gradients, [*blocks, *cotangents])


def _indented(lines: Sequence[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _gate(buffer: str, gate: int, gates: int) -> str:
    """Return the pointers to a gate's block of [B, G H]."""
    return f"{buffer} + row[:, None] * ({gates} * H) + ({gate} * H + col[None, :])"


def _loaded(buffer: str, gate: int, gates: int, dtype: str) -> str:
    return f"tl.load({_gate(buffer, gate, gates)}, mask=inside, other=0.0).to({dtype})"
