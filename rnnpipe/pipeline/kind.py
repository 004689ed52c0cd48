"""Whether a configuration trains on text or on sequences of numbers, and that its settings fit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal

from rnnpipe.config import Config, DataConfig, ModelConfig, TextConfig, TrainingConfig
from rnnpipe.data.base import PairDataset, SequenceDataset, TextDataset
from rnnpipe.errors import UsageError
from rnnpipe.plugins import full_registry, text_registry
from rnnpipe.text.rules import Named

Kind = Literal["text", "sequences", "pairs"]
MODELS: dict[Kind, str] = {"text": "language-model", "sequences": "sequence-model", "pairs": "encoder-decoder"}

_TEXT = tuple(field.name for field in fields(TextConfig))
# Settings that are of use with some kinds only.
_USED_BY: dict[tuple[Kind, ...], dict[str, tuple[str, ...]]] = {
    ("text",): {
        "data": ("split_at", "dictionary"),
        "text": ("workers",),
        "training": ("window", "evaluation_window"),
    },
    ("sequences",): {"model": ("input_layer",), "training": ("draw", "reduction", "tolerance")},
    ("pairs",): {
        "text": ("joint",),
        "target_text": _TEXT,
        "training": ("label_smoothing", "scheduled_sampling", "scheduled_sampling_epochs"),
    },
    ("text", "pairs"): {
        "text": tuple(name for name in _TEXT if name not in ("workers", "joint")),
        "model": ("encoder", "tied"),
    },
    ("text", "sequences"): {"model": ("bidirectional",), "training": ("bptt",)},
}
_DEFAULTS: dict[str, Any] = {
    "data": DataConfig(),
    "text": TextConfig(),
    "target_text": TextConfig(),
    "model": ModelConfig(),
    "training": TrainingConfig(),
}


def task_kind(config: Config) -> Kind:
    """Return what a configuration trains on. Raises UsageError for a dataset of no kind."""
    data = config.data
    if data.tokens is not None or data.corpus is not None:
        return "text"
    found = _kind_of(text_registry().get("dataset", data.dataset.name)) or _kind_of(build_dataset(data.dataset))
    if found is None:
        raise UsageError(f"dataset '{data.dataset.name}' has neither documents nor sequences nor pairs to train on.")
    return found


def _kind_of(dataset: Any) -> Kind | None:
    """Return the kind of a dataset, or of a class of them by its methods; None for a function that makes one."""
    if isinstance(dataset, TextDataset) or hasattr(dataset, "documents"):
        return "text"
    if isinstance(dataset, SequenceDataset) or hasattr(dataset, "sequences"):
        return "sequences"
    if isinstance(dataset, PairDataset) or hasattr(dataset, "pairs"):
        return "pairs"
    return None


def build_dataset(named: Named) -> TextDataset | SequenceDataset | PairDataset:
    """Return the dataset of a name and options."""
    built: TextDataset | SequenceDataset | PairDataset = text_registry().build("dataset", named.name, named.options)
    return built


def named_model(config: Config, kind: Kind) -> Named:
    """Return the name and options of the configured model, with `auto` resolved."""
    name = config.model.name
    return Named(MODELS[kind], name.options) if name.name == "auto" else name


def has_cell(config: Config) -> bool:
    """Say whether the configured model has a recurrent cell; other models than the usual ones are looked at for it."""
    name = config.model.name.name
    return name in ("auto", *MODELS.values()) or bool(getattr(full_registry().get("model", name), "has_cell", True))


def check_has_cell(config: Config) -> None:
    """Raise UsageError if a cell is named for a model that has none."""
    if not has_cell(config):
        cell, name = config.model.cell.name, config.model.name.name
        raise UsageError(f"model.cell={cell} is of no use with model.name={name}, which has no cell; leave it out.")


def with_kind(config: Config) -> tuple[Config, Kind]:
    """Return the configuration with its model named, and its kind; raise UsageError for settings of other kinds."""
    kind = task_kind(config)
    what = {
        "text": "text",
        "sequences": f"dataset '{config.data.dataset.name}', which gives sequences of numbers",
        "pairs": f"dataset '{config.data.dataset.name}', which gives pairs",
    }[kind]
    for kinds, sections in _USED_BY.items():
        if kind in kinds:
            continue
        for section, names in sections.items():
            for key in names:
                if getattr(getattr(config, section), key) != getattr(_DEFAULTS[section], key):
                    raise UsageError(f"{section}.{key} is of no use with {what}; leave it out.")
    if kind == "text" and config.training.batch_size < 1:
        raise UsageError("training.batch_size=0 is for sequences; for text it takes 1 or more.")
    name = named_model(config, kind)
    if name.name in MODELS.values() and name.name != MODELS[kind]:
        raise UsageError(f"model.name={name.name} does not fit {what}; use {MODELS[kind]}, or leave it out.")
    return replace(config, model=replace(config.model, name=name)), kind
