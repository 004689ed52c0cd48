"""From a configuration to a model and an optimizer: names become objects here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from rnnpipe.config import Config, ModelConfig
from rnnpipe.errors import UsageError, did_you_mean
from rnnpipe.models.initializers import KINDS, initialize
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.options import bind_options
from rnnpipe.pipeline.common import load_rules
from rnnpipe.plugins import full_registry
from rnnpipe.runtime import Numerics, processor_name, resolve_device, resolve_precision
from rnnpipe.text.rules import Named
from rnnpipe.training.optimizers import with_fused


def build_model(config: Config, vocab_size: int) -> LanguageModel:
    """Return the model that a configuration describes, its parameters drawn from torch's global generator."""
    registry = full_registry()
    model = config.model
    encoder = registry.build("encoder", model.encoder.name, model.encoder.options, vocab_size)
    if reserved := {"bias", "dropout", "bidirectional", "backend", "backends", "num_layers"} & set(model.cell.options):
        raise UsageError(f"model.cell.{min(reserved)} is not an option of a cell; see model.* and runtime.*.")
    recurrent = Recurrent(
        model.cell.name,
        encoder.output_size,
        model.hidden_size,
        model.num_layers,
        bias=model.bias,
        dropout=model.dropout,
        bidirectional=model.bidirectional,
        backend=config.runtime.backend,
        **model.cell.options,
    )
    built: LanguageModel = registry.build(
        "model",
        model.name.name,
        model.name.options,
        encoder,
        recurrent,
        vocab_size,
        dropout=model.dropout,
        tied=model.tied,
        window=config.training.window,
    )
    initialize(built, _initializers(model))
    return built


def check_names(config: Config) -> None:
    """Raise UsageError for any name, option or combination in a configuration that training would refuse.

    A network of the configured kind and of a tiny vocabulary is built to find out.
    """
    registry = full_registry()
    assert config.text.cleaner is not None and config.text.tokenizer is not None, "the configuration is resolved"
    load_rules(config.text.cleaner, config.text.tokenizer)
    registry.bind("trainer", config.training.trainer.name, config.training.trainer.options, given=3)
    for named in config.training.callbacks:
        registry.bind("callback", named.name, named.options, given=1)
    model = build_model(config, vocab_size=16)
    build_optimizer(config.training.optimizer, model)
    resolve_numerics(config, model)


def _initializers(model: ModelConfig) -> Mapping[str, Callable[[Any], object]]:
    registry = full_registry()
    chosen: dict[str, Callable[[Any], object]] = {}
    for kind, named in model.initializers.items():
        if kind not in KINDS:
            raise UsageError(
                f"model.initializers.{kind}: no such kind of parameter.{did_you_mean(kind, KINDS)} "
                f"Accepted: {', '.join(KINDS)}."
            )
        chosen[kind] = registry.bind("initializer", named.name, named.options, given=1)
    return chosen


def build_optimizer(named: Named, model: LanguageModel) -> torch.optim.Optimizer:
    """Return the optimizer of a name and options over all parameters of a model."""
    factory = full_registry().get("optimizer", named.name)
    parameters = list(model.parameters())
    options = bind_options(factory, named.options, f"optimizer '{named.name}'", reserved=1)
    try:
        optimizer: torch.optim.Optimizer = factory(parameters, **with_fused(factory, parameters, options))
    except ValueError as error:  # torch checks ranges itself
        raise UsageError(f"optimizer '{named.name}': {error}.") from None
    return optimizer


def resolve_numerics(config: Config, model: LanguageModel) -> tuple[Numerics, dict[str, str]]:
    """Return how device, precision, backend and threads are decided here, and why faster backends refuse.

    A record of an earlier run in `config.numerics` is obeyed where it says more than the configuration.
    """
    recorded = config.numerics
    device = resolve_device(_recorded(config.runtime.device, recorded.get("device")))
    precision = resolve_precision(_recorded(config.runtime.precision, recorded.get("precision")), device)
    if config.runtime.threads or recorded.get("threads"):
        torch.set_num_threads(config.runtime.threads or int(recorded["threads"]))
    model.recurrent.backend = _recorded(config.runtime.backend, recorded.get("backend"))
    steps = config.training.window or config.training.bptt
    ids = torch.zeros(steps, 1, dtype=torch.int64)
    with torch.no_grad():
        backend, refusals = model.recurrent.refusals(model.encoder(ids))
    numerics = Numerics(device.type, precision, backend, torch.get_num_threads(), torch.__version__, processor_name())
    return numerics, refusals


def _recorded(wanted: str, recorded: str | None) -> str:
    return recorded if wanted == "auto" and recorded else wanted


def with_numerics(config: Config, numerics: Numerics) -> Config:
    """Return the configuration with the record of its numerics."""
    return replace(config, numerics=numerics.to_table())
