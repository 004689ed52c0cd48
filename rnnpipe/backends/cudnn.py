"""Torch's own fused recurrent layers: cuDNN on a GPU, oneDNN or ATen on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnpipe.cells.base import Cell, GatedCell, State

_MAX_STEPS = 65_535  # cuDNN refuses more in one call

_FUNCTIONS = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}


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
        if x_TBI.is_cuda and x_TBI.shape[0] > _MAX_STEPS:
            return f"{x_TBI.shape[0]} timesteps; cuDNN takes at most {_MAX_STEPS} a call"
        if lengths is not None and int(lengths.min()) < 1:
            return "a sequence of length 0, which cannot be packed"
        return None

    def run(
        self, cells: Sequence[Cell], x_TBI: Tensor, states: Sequence[State], lengths: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """Run all layers in one call; sequences of different length are packed."""
        mode = _mode(cells[0])
        weights = _weights(cells)
        # Torch wants the initial state in the type it will compute in.
        device = x_TBI.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_TBI.dtype
        initial = tuple(torch.stack(leaf).to(dtype) for leaf in zip(*states, strict=True))
        settings = (cells[0].has_bias, len(cells), 0.0, torch.is_grad_enabled(), False)
        function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}[
            mode or ""
        ]
        if lengths is None:
            hidden = initial if mode == "LSTM" else initial[0]
            y_TBH, *final = function(x_TBI, hidden, weights, *settings, False)  # type: ignore[operator]
            return y_TBH, _by_layer(final)
        packed = pack_padded_sequence(x_TBI, lengths.cpu(), enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        assert order is not None and back is not None, "packing without enforce_sorted sorts"
        initial = tuple(leaf.index_select(1, order) for leaf in initial)
        hidden = initial if mode == "LSTM" else initial[0]
        data, *final = function(packed.data, packed.batch_sizes, hidden, weights, *settings)  # type: ignore[operator]
        y_TBH, _ = pad_packed_sequence(packed._replace(data=data), total_length=x_TBI.shape[0])
        return y_TBH, _by_layer([leaf.index_select(1, back) for leaf in final])


def _mode(cell: Cell) -> str | None:
    # From the class's own vars: a subclass that changes `pointwise` must not silently be trained as its parent.
    if "cudnn_mode" not in vars(type(cell)):
        return None
    mode: str | None = cell.cudnn_mode  # type: ignore[assignment]
    return mode


def _by_layer(leaves: Sequence[Tensor]) -> list[State]:
    return list(zip(*(leaf.unbind(0) for leaf in leaves), strict=True))


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
