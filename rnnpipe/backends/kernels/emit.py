"""A graph of elementwise operations as lines of a Triton kernel.

Every value is a block, of the type that it has in the graph; what is in 16 bits is computed in float32 and rounded, as
torch does. Numbers are written as blocks of one value, in their full precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten

TYPES = {
    torch.float64: "tl.float64",
    torch.float32: "tl.float32",
    torch.bfloat16: "tl.bfloat16",
    torch.float16: "tl.float16",
    torch.bool: "tl.int1",
    torch.uint8: "tl.uint8",
    torch.int8: "tl.int8",
    torch.int16: "tl.int16",
    torch.int32: "tl.int32",
    torch.int64: "tl.int64",
}
_SHAPE = "(ROWS, COLS)"  # names that every kernel has

# Operations by the name of the packet, as a template of their operands.
_ARITHMETIC = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "reciprocal": "1.0 / {0}",
    "abs": "tl.abs({0})",
    "exp": "tl.exp({0})",
    "exp2": "tl.exp2({0})",
    "expm1": "expm1({0})",
    "log": "tl.log({0})",
    "log2": "tl.log2({0})",
    "log1p": "log1p({0})",
    "sqrt": "tl.sqrt({0})",
    "rsqrt": "tl.rsqrt({0})",
    "sin": "tl.sin({0})",
    "cos": "tl.cos({0})",
    "erf": "tl.erf({0})",
    "sigmoid": "sigmoid({0})",
    "tanh": "tanh({0})",
    "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})",
    # What is no number stays none, as in torch.
    "relu": "tl.where({0} <= 0, 0.0, {0})",
    "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0))",
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LOGIC = {
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "logical_xor": "{0} ^ {1}",
    "logical_not": "{0} == 0",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_not": "{0} == 0",
}
# An expansion aligns the hidden units, and as a block every value has its full shape already.
_COPIES = {"alias", "clone", "detach", "lift_fresh_copy", "expand", "_to_copy", "copy"}
_FILLED = {"zeros_like": 0, "ones_like": 1, "new_zeros": 0, "new_ones": 1, "zeros": 0, "ones": 1}


class Unfusible(Exception):
    """Why a graph cannot be made a kernel, in words."""


def trace_elements(function: Callable[..., Any], arguments: Sequence[Tensor]) -> GraphModule:
    """Return a function of fake tensors as a graph, reduced to the operations that `emit` knows where torch can.

    Raises Unfusible where torch cannot trace it, or differentiate what it does.
    """
    reduced = [aten.elu, aten.leaky_relu, aten.gelu, aten.hardtanh, aten.square]
    table = {**core_aten_decompositions(), **get_decompositions(reduced)}
    try:
        with torch.no_grad(), torch.autocast(arguments[0].device.type, enabled=False):
            return make_fx(functionalize(function), decomposition_table=table, tracing_mode="fake")(*arguments)
    except Exception as error:  # a plugin's operations: anything may come out of them
        reason = " ".join(str(error).split())[:200]
        raise Unfusible(f"its pointwise cannot be fused: {type(error).__name__}: {reason}") from None


def emit(graph: GraphModule, inputs: Sequence[str], prefix: str) -> tuple[list[str], list[str]]:
    """Return the lines that compute a graph from named blocks, and the names of its results.

    prefix: of the names of what is computed. Raises Unfusible, naming the operation.
    """
    names: dict[Node, str] = {}
    lines: list[str] = []
    given = iter(inputs)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            names[node] = next(given)
        elif node.op == "output":
            return lines, [_operand(names, result, _value(result).dtype) for result in node.args[0]]
        else:
            names[node] = f"{prefix}{len(lines)}"
            lines.append(f"{names[node]} = {_expression(graph, node, names)}")
    raise AssertionError("every graph has an output")


def _expression(graph: GraphModule, node: Node, names: dict[Node, str]) -> str:
    if node.op == "get_attr":
        constant = getattr(graph, str(node.target))
        if not isinstance(constant, Tensor) or constant.numel() != 1:
            raise Unfusible("its pointwise holds a tensor of its own that is no number: make it a buffer")
        return _full(constant.item(), constant.dtype)
    name = getattr(node.target, "_opname", str(node.target))
    if not isinstance(node.target, OpOverload) or not isinstance(_value(node), Tensor):
        raise Unfusible(f"its pointwise uses {name}, which cannot be fused")
    dtype = _value(node).dtype
    if dtype not in TYPES:
        raise Unfusible(f"its pointwise computes {name} in {dtype}, which cannot be fused")
    found = _computed(name, node, names, dtype)
    if found is None:
        raise Unfusible(f"its pointwise uses {name}, which cannot be fused")
    text, given = found
    return text if given == dtype else f"({text}).to({TYPES[dtype]})"


def _computed(name: str, node: Node, names: dict[Node, str], dtype: torch.dtype) -> tuple[str, torch.dtype] | None:
    """Return the text of an operation and the type that it is in, or None for one that is not known."""
    args, wide = node.args, torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype

    def operands(kind: torch.dtype, *which: Any) -> list[str]:
        return [_operand(names, arg, kind) for arg in which]

    if name in _COPIES:
        return _operand(names, args[-1] if name == "copy" else args[0], dtype), dtype
    if name in _FILLED:
        return _full(_FILLED[name], dtype), dtype
    if name in ("full", "full_like"):
        return _full(args[1], dtype), dtype
    if name == "scalar_tensor":
        return _full(args[0], dtype), dtype
    if name == "pow":
        return _power(node, names, wide)
    if name == "clamp":
        return _clamped(node, names, wide)
    if name == "where":
        condition = _operand(names, args[0], torch.bool)
        return "tl.where({}, {}, {})".format(condition, *operands(wide, *args[1:])), wide
    if name in _COMPARISONS:
        left, right = (arg.meta["val"] if isinstance(arg, Node) else arg for arg in args)
        first, second = operands(torch.result_type(left, right), *args)  # type: ignore[arg-type]
        return f"{first} {_COMPARISONS[name]} {second}", torch.bool
    if name == "isnan":
        return "{0} != {0}".format(*operands(_value(args[0]).dtype, args[0])), torch.bool
    if name in _LOGIC and dtype == torch.bool:
        return _LOGIC[name].format(*operands(torch.bool, *args)), torch.bool
    if name in _ARITHMETIC and wide.is_floating_point and not node.kwargs.get("rounding_mode"):
        given = operands(wide, *args)
        if (alpha := node.kwargs.get("alpha", 1)) != 1:
            given[1] = f"({given[1]} * {_full(alpha, wide)})"
        return _ARITHMETIC[name].format(*given), wide
    return None


def _power(node: Node, names: dict[Node, str], dtype: torch.dtype) -> tuple[str, torch.dtype] | None:
    """Return a power with a small whole or half exponent as products and roots."""
    base, exponent = node.args
    if not isinstance(exponent, int | float) or not isinstance(base, Node) or not dtype.is_floating_point:
        return None
    x = _operand(names, base, dtype)
    half, times = math.modf(abs(exponent))
    if half not in (0.0, 0.5) or times > 8:
        return None
    factors = [x] * int(times) + ([f"tl.sqrt({x})"] if half else [])
    product = " * ".join(factors) or _full(1, dtype)
    return (f"1.0 / ({product})" if exponent < 0 else product), dtype


def _clamped(node: Node, names: dict[Node, str], dtype: torch.dtype) -> tuple[str, torch.dtype]:
    least, most = (*node.args[1:], None, None)[:2]
    least, most = node.kwargs.get("min", least), node.kwargs.get("max", most)
    text = _operand(names, node.args[0], dtype)
    for bound, sign in ((least, "<"), (most, ">")):
        if bound is not None:
            limit = _operand(names, bound, dtype)
            text = f"tl.where({text} {sign} {limit}, {limit}, {text})"
    return text, dtype


def _operand(names: dict[Node, str], arg: Any, dtype: torch.dtype) -> str:
    """Return an operand as a block of a type."""
    if not isinstance(arg, Node):
        return _full(arg, dtype)
    if _value(arg).dtype == dtype:
        return names[arg]
    return f"({names[arg]} != 0)" if dtype == torch.bool else f"{names[arg]}.to({TYPES[dtype]})"


def _value(node: Any) -> Tensor:
    value: Tensor = node.meta["val"]
    return value


def _full(value: Any, dtype: torch.dtype) -> str:
    """Return a block of one number."""
    if dtype.is_floating_point:
        number = float(value)
        text = repr(number) if math.isfinite(number) else f'float("{number}")'
    else:
        text = repr(int(value))
    return f"tl.full({_SHAPE}, {text}, {TYPES[dtype]})"
