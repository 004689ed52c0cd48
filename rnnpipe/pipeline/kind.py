"""Whether a configuration trains on text or on sequences of numbers, and that its settings fit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal

from rnnpipe.config import Config, DataConfig, ModelConfig, TextConfig, TrainingConfig
from rnnpipe.data.base import PairDataset, SequenceDataset, TextDataset
from rnnpipe.errors import UsageError
from rnnpipe.plugins import text_registry
from rnnpipe.text.rules import Named

Kind = Literal["text", "sequences"]
MODELS: dict[Kind, str] = {"text": "language-model", "sequences": "sequence-model"}

_ONLY_TEXT: dict[str, tuple[str, ...]] = {
    "data": ("split_at",),
    "text": tuple(field.name for field in fields(TextConfig)),
    "model": ("encoder", "tied"),
    "training": ("window", "evaluation_window"),
}
_ONLY_SEQUENCES: dict[str, tuple[str, ...]] = {
    "model": ("input_layer",),
    "training": ("draw", "reduction", "tolerance"),
}
_DEFAULTS: dict[str, Any] = {
    "data": DataConfig(),
    "text": TextConfig(),
    "model": ModelConfig(),
    "training": TrainingConfig(),
}


def task_kind(config: Config) -> Kind:
    """Return what a configuration trains on. Raises UsageError for a dataset of neither kind."""
    data = config.data
    if data.tokens is not None or data.corpus is not None:
        return "text"
    found = _kind_of(text_registry().get("dataset", data.dataset.name)) or _kind_of(build_dataset(data.dataset))
    if found is None:
        raise UsageError(
            f"dataset '{data.dataset.name}' has neither documents nor sequences; a dataset of pairs is not trained on."
        )
    return found


def _kind_of(dataset: Any) -> Kind | None:
    """Return the kind of a dataset, or of a class of them by its methods; None for a function that makes one."""
    if isinstance(dataset, TextDataset) or hasattr(dataset, "documents"):
        return "text"
    if isinstance(dataset, SequenceDataset) or hasattr(dataset, "sequences"):
        return "sequences"
    return None


def build_dataset(named: Named) -> TextDataset | SequenceDataset | PairDataset:
    """Return the dataset of a name and options."""
    built: TextDataset | SequenceDataset | PairDataset = text_registry().build("dataset", named.name, named.options)
    return built


def named_model(config: Config, kind: Kind) -> Named:
    """Return the name and options of the configured model, with `auto` resolved."""
    name = config.model.name
    return Named(MODELS[kind], name.options) if name.name == "auto" else name


def with_kind(config: Config) -> tuple[Config, Kind]:
    """Return the configuration with its model named, and its kind; raise UsageError for settings of the other kind."""
    kind = task_kind(config)
    what = "text" if kind == "text" else f"dataset '{config.data.dataset.name}', which gives sequences of numbers"
    if kind == "sequences" and config.data.dictionary is not None:
        raise UsageError(f"data.dictionary is of no use with {what}; leave it out.")
    for section, names in (_ONLY_SEQUENCES if kind == "text" else _ONLY_TEXT).items():
        for key in names:
            if getattr(getattr(config, section), key) != getattr(_DEFAULTS[section], key):
                raise UsageError(f"{section}.{key} is of no use with {what}; leave it out.")
    if kind == "text" and config.training.batch_size < 1:
        raise UsageError("training.batch_size=0 is for sequences; for text it takes 1 or more.")
    name = named_model(config, kind)
    other = MODELS["sequences" if kind == "text" else "text"]
    if name.name == other:
        raise UsageError(f"model.name={other} does not fit {what}; use {MODELS[kind]}, or leave it out.")
    return replace(config, model=replace(config.model, name=name)), kind
