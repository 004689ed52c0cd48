"""The hooks that a plugin may implement. Each returns a mapping from names to the things they name.

A value is the thing itself, or a string `"module:attribute"` that is imported when the name is used (the built-ins do
this, so that listing names imports nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.optim import Optimizer

    from rnnpipe.backends.base import Backend
    from rnnpipe.cells.base import Cell
    from rnnpipe.data.base import Dataset
    from rnnpipe.generation.samplers import Sampler
    from rnnpipe.text.cleaning import Cleaner
    from rnnpipe.text.tokenizing import Tokenizer
    from rnnpipe.training.callbacks import Callback
    from rnnpipe.training.trainers import Trainer

PROJECT = "rnnpipe"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# --- what needs no torch: entry-point group `rnnpipe.text` ---


@hookspec
def register_datasets() -> Mapping[str, Callable[..., Dataset] | str]:  # type: ignore[empty-body]
    """Name the datasets: factories of text, sequence or pair datasets."""


@hookspec
def register_cleaners() -> Mapping[str, Callable[..., Cleaner] | str]:  # type: ignore[empty-body]
    """Name the cleaners: factories of ordered lists of text rules."""


@hookspec
def register_tokenizers() -> Mapping[str, Callable[..., Tokenizer] | str]:  # type: ignore[empty-body]
    """Name the tokenizers: factories of text-to-tokens splitters and joiners."""


# --- everything else: entry-point group `rnnpipe` ---


@hookspec
def register_cells() -> Mapping[str, type[Cell] | str]:  # type: ignore[empty-body]
    """Name the recurrent cells: subclasses of `rnnpipe.Cell`."""


@hookspec
def register_encoders() -> Mapping[str, Callable[..., nn.Module] | str]:  # type: ignore[empty-body]
    """Name the encoders: modules from token ids to the network's input."""


@hookspec
def register_models() -> Mapping[str, Callable[..., nn.Module] | str]:  # type: ignore[empty-body]
    """Name the models: modules from encoded input to logits."""


@hookspec
def register_initializers() -> Mapping[str, Callable[..., object] | str]:  # type: ignore[empty-body]
    """Name the initializers: functions that fill a parameter in place."""


@hookspec
def register_optimizers() -> Mapping[str, Callable[..., Optimizer] | str]:  # type: ignore[empty-body]
    """Name the optimizers: factories that take the parameters first."""


@hookspec
def register_samplers() -> Mapping[str, Callable[..., Sampler] | str]:  # type: ignore[empty-body]
    """Name the samplers: factories of row-by-row adjustments of logits."""


@hookspec
def register_backends() -> Mapping[str, Callable[..., Backend] | str]:  # type: ignore[empty-body]
    """Name the backends: ways to run a stack of cells over time."""


@hookspec
def register_callbacks() -> Mapping[str, Callable[..., Callback] | str]:  # type: ignore[empty-body]
    """Name the callbacks: observers of training."""


@hookspec
def register_trainers() -> Mapping[str, Callable[..., Trainer] | str]:  # type: ignore[empty-body]
    """Name the trainers: fitting procedures."""
