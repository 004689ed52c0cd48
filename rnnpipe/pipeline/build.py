"""From a configuration to a model and an optimizer: names become objects here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from rnnpipe.backends.base import Compiling
from rnnpipe.backends.loop import LoopBackend
from rnnpipe.config import Config, ModelConfig, TrainingConfig
from rnnpipe.data.pairs import PairSizes
from rnnpipe.data.sequences import SequenceSizes
from rnnpipe.errors import BackendRefusal, SlowBackend, UsageError, did_you_mean
from rnnpipe.models.base import Model
from rnnpipe.models.initializers import KINDS, initialize
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.pair_model import PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.models.sequence_model import SequenceModel
from rnnpipe.options import bind_options
from rnnpipe.pipeline.common import Report, load_rules, no_report
from rnnpipe.pipeline.fastest import Circumstances, Load, fastest
from rnnpipe.pipeline.kind import MODELS, Kind, check_has_cell, named_model
from rnnpipe.plugins import full_registry
from rnnpipe.runtime import ROW_TILE, Numerics, autocast, processor_name, resolve_device, resolve_precision
from rnnpipe.text.rules import Named
from rnnpipe.training.optimizers import with_fused
from rnnpipe.training.pair_objective import PairObjective
from rnnpipe.training.sequence_objective import differing


def build_model(config: Config, vocab_size: int) -> LanguageModel:
    """Return the language model that a configuration describes, drawn from torch's global generator."""
    registry = full_registry()
    model = config.model
    encoder = registry.build("encoder", model.encoder.name, model.encoder.options, vocab_size)
    name = named_model(config, "text")
    _check_reads(name, "text")
    built: LanguageModel = registry.build(
        "model",
        name.name,
        name.options,
        encoder,
        _build_recurrent(config, encoder.output_size),
        vocab_size,
        dropout=model.dropout,
        tied=model.tied,
        window=config.training.window,
    )
    initialize(built, _initializers(model))
    return built


def build_sequence_model(config: Config, sizes: SequenceSizes) -> SequenceModel:
    """Return the sequence model that a configuration and a dataset's sizes describe, drawn as `build_model` draws."""
    model = config.model
    _check_windows(config, sizes)
    input_layer = None if model.input_layer is None else nn.Linear(sizes.input_size, model.input_layer)
    name = named_model(config, "sequences")
    _check_reads(name, "sequences")
    built: SequenceModel = full_registry().build(
        "model",
        name.name,
        name.options,
        input_layer,
        _build_recurrent(config, model.input_layer or sizes.input_size),
        sizes.output_size,
        target=sizes.target,
        dropout=model.dropout,
    )
    initialize(built, _initializers(model))
    return built


def build_pair_model(config: Config, sizes: PairSizes, source_ids: Mapping[str, int]) -> PairModel:
    """Return the model of pairs that a configuration and the sizes of both sides describe, drawn as others are.

    source_ids: of the source's tokens, in which a model may look its own ones up.
    """
    registry = full_registry()
    model = config.model
    name = named_model(config, "pairs")
    _check_reads(name, "pairs")
    parts = PairParts(
        source_size=sizes.source_size,
        target_size=sizes.target_size,
        joint=sizes.joint,
        source_id=source_ids.get,
        embed=lambda size: registry.build("encoder", model.encoder.name, model.encoder.options, size),
        recur=lambda inputs, hidden, both: _build_recurrent(
            replace(config, model=replace(model, hidden_size=hidden or model.hidden_size, bidirectional=both)), inputs
        ),
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        dropout=model.dropout,
        tied=model.tied,
    )
    built: PairModel = registry.build("model", name.name, name.options, parts)
    if not isinstance(built, PairModel):
        raise UsageError(f"model.name={name.name} is no model of pairs.")
    initialize(built, _initializers(model))
    return built


def _check_reads(name: Named, kind: Kind) -> None:
    """Raise UsageError for a model that says of itself that it reads data of another kind."""
    reads = getattr(full_registry().get("model", name.name), "reads", kind)
    if reads != kind:
        raise UsageError(f"model.name={name.name} reads {reads}, and this is a task of {kind}; use {MODELS[kind]}.")


def _check_windows(config: Config, sizes: SequenceSizes) -> None:
    """Raise UsageError where training in windows of timesteps would learn nothing, or see the future."""
    bptt = config.training.bptt
    if bptt is None or bptt >= sizes.timesteps:
        return
    if sizes.target == "last":
        raise UsageError(
            f"training.bptt={bptt}: only the last of {sizes.timesteps} timesteps has a target, so that the windows "
            "before it have nothing to learn from; leave it out."
        )
    if config.model.bidirectional:
        raise UsageError(
            f"training.bptt={bptt}, model.bidirectional=true: a window ends before the sequence does, and the reverse "
            "direction begins there; leave out one of them."
        )


def _build_recurrent(config: Config, input_size: int) -> Recurrent:
    model = config.model
    if reserved := {"bias", "dropout", "bidirectional", "backend", "backends", "num_layers"} & set(model.cell.options):
        raise UsageError(f"model.cell.{min(reserved)} is not an option of a cell; see model.* and runtime.*.")
    return Recurrent(
        model.cell.name,
        input_size,
        model.hidden_size,
        model.num_layers,
        bias=model.bias,
        dropout=model.dropout,
        bidirectional=model.bidirectional,
        backend=config.runtime.backend,
        **model.cell.options,
    )


def check_names(config: Config, sizes: SequenceSizes | None = None) -> None:
    """Raise UsageError for any name, option or combination in a configuration that training would refuse.

    A network of the configured kind is built to find out: for sequences of these sizes, or for a tiny vocabulary.
    """
    if sizes is None:
        assert config.text.cleaner is not None and config.text.tokenizer is not None, "the configuration is resolved"
        load_rules(config.text.cleaner, config.text.tokenizer)
    check_training_names(config)
    model: Model = build_model(config, vocab_size=16) if sizes is None else build_sequence_model(config, sizes)
    build_optimizer(config.training.optimizer, model)
    varying = None if sizes is None else differing(sizes)
    resolve_capture(config, resolve_numerics(config, model, sizes)[0].device, varying)


def check_pair_names(config: Config, sizes: PairSizes, source_ids: Mapping[str, int]) -> None:
    """Raise UsageError where `check_names` does, for a dataset of pairs."""
    check_training_names(config)
    if config.model.cell != ModelConfig().cell:
        check_has_cell(config)
    model = build_pair_model(config, sizes, source_ids)
    if config.training.scheduled_sampling and model.variational:
        raise UsageError(
            f"training.scheduled_sampling={config.training.scheduled_sampling}: model.name={config.model.name.name} "
            "learns its latent variable from the whole target, which the decoder would not read then; it takes 0."
        )
    build_optimizer(config.training.optimizer, model)
    resolve_capture(config, resolve_pair_numerics(config, model, 1)[0].device, PairObjective.varying)


def check_training_names(config: Config) -> None:
    """Raise UsageError for a trainer or callback, or an option of one, that there is not."""
    registry = full_registry()
    registry.bind("trainer", config.training.trainer.name, config.training.trainer.options, given=3)
    for named in config.training.callbacks:
        registry.bind("callback", named.name, named.options, given=1)


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


def build_optimizer(named: Named, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a name and options over all parameters of a model."""
    factory = full_registry().get("optimizer", named.name)
    parameters = list(model.parameters())
    options = bind_options(factory, named.options, f"optimizer '{named.name}'", reserved=1)
    try:
        optimizer: torch.optim.Optimizer = factory(parameters, **with_fused(factory, parameters, options))
    except ValueError as error:  # torch checks ranges itself
        raise UsageError(f"optimizer '{named.name}': {error}.") from None
    return optimizer


def resolve_numerics(
    config: Config,
    model: Model,
    sizes: SequenceSizes | None = None,
    *,
    ready: bool = False,
    report: Report = no_report,
) -> tuple[Numerics, dict[str, str]]:
    """Return how device, precision, backend and threads are decided here, and why faster backends refuse.

    A record of an earlier run in `config.numerics` is obeyed where it says more than the configuration. sizes: of the
    sequences, if it is these that the model reads; errors of theirs are not to be those of bfloat16. ready: what
    training needs compiled is compiled now, and backends that ask for it are measured, which is reported. Raises
    SlowBackend if only the plain loop is left and `runtime.require_fast` forbids it.
    """
    recorded = config.numerics
    device = resolve_device(_recorded(config.runtime.device, recorded.get("device")))
    wanted = _recorded(config.runtime.precision, recorded.get("precision"))
    precision = "float32" if wanted == "auto" and sizes is not None else resolve_precision(wanted, device)
    if config.runtime.threads or recorded.get("threads"):
        torch.set_num_threads(config.runtime.threads or int(recorded["threads"]))
    stack = model.recurrent
    stack.backend = wanted = _recorded(config.runtime.backend, recorded.get("backend"))
    steps, lengths = config.training.text_window, None
    if sizes is not None:
        steps = min(config.training.bptt or sizes.timesteps, sizes.timesteps)
        # In windows, a sequence that has ended has the length 0.
        lengths = torch.tensor([steps if steps == sizes.timesteps else 0]) if sizes.ragged else None
    with _moved([stack], device) as place:
        asking = partial(_asking, place, device, precision)
        with asking():
            x = model.example_input(steps).to(place)
            name, refusals = stack.refusals(x, lengths)
        batch = config.training.batch_size  # 0, all at once: how many those are is not known here
        if ready and wanted == "auto" and batch:
            varying = None if sizes is None else differing(sizes)
            captured = resolve_capture(config, device.type, varying)[0] == "on"
            rows = None if lengths is None else torch.full((batch,), steps, device=place)
            load = Load(stack, x.expand(-1, batch, *x.shape[2:]).contiguous(), rows)
            name = fastest([load], name, Circumstances(place, precision, captured), report)
            refusals.pop(name, None)  # what made the choice by priority pass over it
        with asking():
            elementwise, why = _elementwise(config, stack, name, steps, ready and place.type == device.type)
    if why is not None:
        refusals[f"{name}, compiled,"] = why
    _check_fast(config, name, refusals)
    record = Numerics(
        device.type,
        precision,
        name,
        torch.get_num_threads(),
        torch.__version__,
        processor_name(),
        elementwise,
        int(recorded.get("row_tile", ROW_TILE)),
    )
    return record, refusals


@contextmanager
def _moved(stacks: Sequence[Recurrent], device: torch.device) -> Iterator[torch.device]:
    """Have stacks on a CUDA device, where backends are to be asked about them; for others the CPU answers."""
    place = device if device.type == "cuda" else torch.device("cpu")
    firsts = [next(itertools.chain(stack.parameters(), stack.buffers()), None) for stack in stacks]
    were = [place if first is None else first.device for first in firsts]
    for stack in stacks:
        stack.to(place)
    yield place
    for stack, was in zip(stacks, were, strict=True):
        stack.to(was)


@contextmanager
def _asking(place: torch.device, device: torch.device, precision: str) -> Iterator[None]:
    """Be in the precision of training, as far as the place where backends are asked is where it will be."""
    with torch.no_grad(), autocast(place, precision if place.type == device.type else "float32"):
        yield


def _elementwise(
    config: Config, recurrent: Recurrent, name: str, steps: int, ready: bool
) -> tuple[str | None, str | None]:
    """Return how the backend runs what is elementwise, None if it has no choice, and why it does not compile it."""
    backend = next(backend for backend in recurrent.backends if backend.name == name)
    if not isinstance(backend, Compiling):
        return None, None
    if config.numerics.get("elementwise") == "plain":
        backend.compile = "never"
    return backend.elementwise(recurrent.cells(), steps, config.training.batch_size, ready=ready)


def resolve_capture(config: Config, device: str, varying: str | None) -> tuple[Literal["on", "off"], str | None]:
    """Return whether training steps on a device are recorded and replayed, and why not if that was left open.

    varying: what differs from batch to batch, in words. Raises UsageError where `runtime.capture` asks for it in vain.
    """
    wanted, trainer = config.runtime.capture, config.training.trainer.name
    if wanted == "off" or (wanted == "auto" and config.numerics.get("capture") == "off"):
        return "off", None
    why = varying
    if trainer != TrainingConfig().trainer.name:
        why = f"the trainer '{trainer}' takes no steps that could be recorded"
    if device != "cuda":
        why = "CUDA graphs need a CUDA device"
    if why is not None and wanted == "on":
        raise UsageError(f"runtime.capture=on: {why}. Use auto or off.")
    return ("on", None) if why is None else ("off", why)


def describe(numerics: Numerics) -> str:
    """Return the backend in words: its name, how it runs what is elementwise if it has the choice, what is replayed."""
    name = numerics.backend if numerics.elementwise is None else f"{numerics.backend} ({numerics.elementwise})"
    return f"{name}, steps to be replayed as CUDA graphs" if numerics.capture == "on" else name


def resolve_pair_numerics(
    config: Config, model: Model, timesteps: int, *, ready: bool = False, report: Report = no_report
) -> tuple[Numerics, dict[str, str]]:
    """Return what `resolve_numerics` returns, for a model of pairs: one backend that all its stacks accept.

    timesteps: of the longest source.
    """
    recorded = config.numerics
    device = resolve_device(_recorded(config.runtime.device, recorded.get("device")))
    precision = resolve_precision(_recorded(config.runtime.precision, recorded.get("precision")), device)
    if config.runtime.threads or recorded.get("threads"):
        torch.set_num_threads(config.runtime.threads or int(recorded["threads"]))
    stacks = model.recurrents()
    wanted = _recorded(config.runtime.backend, recorded.get("backend"))
    with _moved(stacks, device) as place:
        asking = partial(_asking, place, device, precision)
        with asking():
            name, refusals = _common_backend(stacks, wanted, max(1, timesteps), place)
        batch = config.training.batch_size
        if ready and wanted == "auto" and stacks and batch:
            # Without lengths, as models call their encoders: see `Recurrent.outputs`.
            shape = max(1, timesteps), batch
            loads = [Load(stack, torch.zeros(*shape, stack.input_size, device=place), None) for stack in stacks]
            name = fastest(loads, name, Circumstances(place, precision, captured=False), report)
        now = ready and place.type == device.type
        with asking():
            elementwise = {_elementwise(config, stack, name, timesteps, now)[0] for stack in stacks}
            if len(elementwise) > 1:  # what one stack cannot, none does, so that one word says it of all
                plain = replace(config, numerics={**recorded, "elementwise": "plain"})
                elementwise = {_elementwise(plain, stack, name, timesteps, now)[0] for stack in stacks}
    for stack in stacks:
        stack.backend = name
    _check_fast(config, name, refusals)
    threads, how = torch.get_num_threads(), next(iter(elementwise), None)
    return Numerics(device.type, precision, name, threads, torch.__version__, processor_name(), how), refusals


def _check_fast(config: Config, name: str, refusals: Mapping[str, str]) -> None:
    """Raise SlowBackend if `runtime.require_fast` forbids the backend that was chosen."""
    if config.runtime.require_fast and name == LoopBackend.name:
        causes = "; ".join(f"{other}: {reason}" for other, reason in refusals.items()) or "it was asked for by name"
        raise SlowBackend(f"only the plain loop over time is left, and runtime.require_fast forbids it ({causes}).")


def _common_backend(
    stacks: Sequence[Recurrent], wanted: str, timesteps: int, device: torch.device
) -> tuple[str, dict[str, str]]:
    """Return the backend of highest priority that all stacks accept, "none" for no stack, and the reasons of others."""
    refusals: dict[str, str] = {}
    if not stacks:
        return "none", refusals
    inputs = [torch.zeros(timesteps, 1, stack.input_size, device=device) for stack in stacks]
    if wanted != "auto":
        for stack, x in zip(stacks, inputs, strict=True):
            stack.backend = wanted
            stack.refusals(x)
        return wanted, refusals
    answers = [stack.answers(x) for stack, x in zip(stacks, inputs, strict=True)]
    for backend in sorted(stacks[0].backends, key=lambda backend: -backend.priority):
        reasons = [reason for answer in answers if (reason := answer[backend.name])]
        if not reasons:
            return backend.name, refusals
        refusals[backend.name] = reasons[0]
    raise BackendRefusal("; ".join(f"{name}: {reason}" for name, reason in refusals.items()))


def _recorded(wanted: str, recorded: str | None) -> str:
    return recorded if wanted == "auto" and recorded else wanted


def with_numerics(config: Config, numerics: Numerics) -> Config:
    """Return the configuration with the record of its numerics."""
    return replace(config, numerics=numerics.to_table())
