"""Torch's own fused recurrent layers: cuDNN on a GPU, oneDNN or ATen on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnpipe.cells.base import Cell, GatedCell, State

_MAX_STEPS = 65_535  # cuDNN refuses more in one call

_FUNCTIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


class CudnnBackend:
    """Runs cells that are torch's RNN, LSTM or GRU, with their own parameters, in one call for the whole stack."""

    name = "cudnn"
    priority = 10

    def refusal(self, cells: Sequence[Cell], x_TBI: Tensor, lengths: Tensor | None) -> str | None:
        """Accept stacks of one kind of cell that declares itself, itself and not by inheritance, to be torch's."""
        for cell in cells:
            if _mode(cell) is None:
                return f"{type(cell).__name__} is not one of torch's own layers (it declares no cudnn_mode)"
        if len({(_mode(cell), cell.hidden_size, cell.has_bias) for cell in cells}) > 1:
            return "the layers differ in cell, hidden size or bias"
        if not x_TBI.is_floating_point():
            return "one-hot input is gathered, which torch's layers cannot do; encode with a size to use them"
        return None

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Run all layers in one call, in more where there are more timesteps than it takes; pack what ends early."""
        weights = _weights(cells)
        # Torch wants the initial state in the type it will compute in.
        device = x_TBI.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_TBI.dtype
        leaves = [torch.stack(leaf).to(dtype) for leaf in zip(*states, strict=True)]
        outputs = []
        for start in range(0, x_TBI.shape[0], _MAX_STEPS):
            x = x_TBI[start : start + _MAX_STEPS]
            left = None if lengths is None else (lengths.cpu() - start).clamp(0, len(x))
            y, leaves = _run_rows(cells, weights, x, leaves, left)
            outputs.append(y)
        y_TBH = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return y_TBH, list(zip(*(leaf.unbind(0) for leaf in leaves), strict=True))


def _run_rows(
    cells: Sequence[Cell], weights: list[Tensor], x: Tensor, leaves: list[Tensor], lengths: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Return outputs [T, B, H] and the last states, each leaf [layers, B, H]; those of length 0 cannot be packed."""
    if lengths is None or bool((lengths > 0).all()):
        return _call(cells, weights, x, leaves, lengths)
    rows = lengths.nonzero().flatten()
    on_device = rows.to(x.device)
    y = leaves[0].new_zeros(*x.shape[:2], cells[0].hidden_size)
    if len(rows) == 0:
        return y, leaves
    some = [leaf.index_select(1, on_device) for leaf in leaves]
    found, some = _call(cells, weights, x.index_select(1, on_device), some, lengths[rows])
    finals = [leaf.index_copy(1, on_device, ran) for leaf, ran in zip(leaves, some, strict=True)]
    return y.index_copy(1, on_device, found), finals


def _call(
    cells: Sequence[Cell], weights: list[Tensor], x: Tensor, leaves: list[Tensor], lengths: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Do one call of torch's function; lengths [B] are above 0."""
    mode = _mode(cells[0]) or ""
    settings = (cells[0].has_bias, len(cells), 0.0, torch.is_grad_enabled(), False)
    if lengths is None:
        y, *finals = _FUNCTIONS[mode](x, leaves if mode == "LSTM" else leaves[0], weights, *settings, False)
        return y, finals
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None, "packing without enforce_sorted sorts"
    leaves = [leaf.index_select(1, order) for leaf in leaves]
    hidden = leaves if mode == "LSTM" else leaves[0]
    data, *finals = _FUNCTIONS[mode](packed.data, packed.batch_sizes, hidden, weights, *settings)
    y, _ = pad_packed_sequence(packed._replace(data=data), total_length=len(x))
    return y, [leaf.index_select(1, back) for leaf in finals]


def _mode(cell: Cell) -> str | None:
    # From the class's own vars: a subclass that changes `pointwise` must not silently be trained as its parent.
    if "cudnn_mode" not in vars(type(cell)):
        return None
    mode: str | None = cell.cudnn_mode  # type: ignore[assignment]
    return mode


def _weights(cells: Sequence[Cell]) -> list[Tensor]:
    """Return the parameters of all layers in torch's order, on a GPU moved into one chunk of memory, once."""
    weights: list[Tensor] = []
    for cell in cells:
        assert isinstance(cell, GatedCell)
        weights += [cell.weight_ih, cell.recurrent_weight()]
        weights += [bias for bias in (cell.bias_ih, cell.bias_hh) if bias is not None]
    first = weights[0]
    if first.is_cuda and len({weight.untyped_storage().data_ptr() for weight in weights}) > 1:
        modes = {"RNN_RELU": 0, "RNN_TANH": 1, "LSTM": 2, "GRU": 3}
        cell = cells[0]
        with torch.no_grad():
            torch._cudnn_rnn_flatten_weight(
                weights,
                4 if cell.has_bias else 2,
                cell.input_size,
                modes[_mode(cell) or ""],
                cell.hidden_size,
                0,
                len(cells),
                False,
                False,
            )
    return weights
