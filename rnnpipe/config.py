"""The configuration: frozen dataclasses, read from TOML, changed by `--set key=value`, written back resolved.

A plugin is named by a string, or by a table of its name and options: `cell = "lstm"`, or
`cell = { name = "lstm", forget_bias = 1.0 }`, which `--set model.cell.forget_bias=1.0` reaches as well.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from rnnpipe.durable import read_toml
from rnnpipe.errors import UsageError, did_you_mean
from rnnpipe.options import convert
from rnnpipe.text.rules import Level, Named

_LIMIT_BYTES = 1 << 20
# By level: cleaner, tokenizer, and unknown threshold (-1: every token of a learnt model has an id).
DEFAULTS: dict[Level, tuple[str, str, int]] = {
    "word": ("unicode-words", "whitespace", 3),
    "char": ("none", "characters", 0),
    "subword": ("none", "bpe", -1),
}
TEXT_BPTT = 64  # timesteps of a window of text, unless training.bptt says otherwise


@dataclass(frozen=True)
class DataConfig:
    """What is read: a token folder, or else a cleaned corpus, or else a dataset, which is then cleaned."""

    dataset: Named = Named("text-files")
    corpus: str | None = None
    split_at: Literal["line", "character"] | None = None  # where files may be parted; by level if not given
    tokens: str | None = None
    dictionary: str | None = None  # use this dictionary instead of building one


@dataclass(frozen=True)
class TextConfig:
    """How text becomes tokens. What is not given follows from the level (see `resolve`)."""

    level: Level | None = None
    cleaner: Named | None = None
    tokenizer: Named | None = None
    unknown_threshold: int | None = None
    max_size: int | None = None
    workers: int | None = None
    joint: bool = False  # pairs: one dictionary for both sides


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: Named = Named("auto")  # by what the dataset gives: `language-model` or `sequence-model`
    cell: Named = Named("lstm")
    hidden_size: int = 256
    num_layers: int = 1
    bias: bool = True
    encoder: Named = Named("embedding")  # of tokens
    input_layer: int | None = None  # of sequences: the width of a linear layer in front of the recurrent stack
    dropout: float = 0.0
    tied: bool = False
    bidirectional: bool = False
    initializers: dict[str, Named] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingConfig:
    """The fitting. Training ends at the first of `epochs`, `max_steps` and `max_seconds` (0: no such limit)."""

    trainer: Named = Named("gradient-descent")
    batch_size: int = 32  # 0: all sequences of a dataset at once
    bptt: int | None = None  # timesteps of a window, whose state is carried to the next; text: 64, sequences: whole
    window: int | None = None  # text: predict from windows of this many tokens instead of carrying the state along
    draw: Literal["shuffled", "with-replacement", "in-order"] = (
        "shuffled"  # sequences: how an epoch's batches are drawn
    )
    reduction: Literal["mean", "sequence-sum", "sum"] = "mean"  # sequences: of the losses of a batch's target numbers
    tolerance: float | None = None  # sequences, squared error: an error below it is a hit; by the dataset if not given
    label_smoothing: float = 0.0  # pairs: this share of each target's probability is spread over all tokens
    scheduled_sampling: float = 0.0  # pairs: how often the decoder reads its own token instead of the true one
    scheduled_sampling_epochs: int = 5  # ... reached in equal steps over so many epochs
    epochs: int = 10
    max_steps: int = 0
    max_seconds: float = 0.0  # of training; evaluation and saving are not counted
    optimizer: Named = Named("adamw", {"lr": 0.003})
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup_steps: int = 0
    final_lr: float = 0.0  # cosine: the learning rate at the end, as a share of the first
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    clip_norm: float = 1.0  # 0: no clipping
    average: float = 0.0  # of the weights over steps, each worth this share of the next: evaluated and saved; 0: off
    patience: int = 0  # stop after this many evaluations without improvement (1: as Keras's 0); 0: never
    evaluate_every: int = 0  # steps; 0: at the end of each epoch
    evaluation_window: int = 256
    log_every: int = 50
    save_every_seconds: float = 600.0  # of training, at most, between checkpoints; 0: only with evaluations
    nonfinite: Literal["stop", "skip"] = "stop"  # what to do with a step whose loss or gradient is not finite
    callbacks: tuple[Named, ...] = ()

    @property
    def text_window(self) -> int:
        """Return how many tokens a window of text has."""
        return self.window or self.bptt or TEXT_BPTT


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how it runs. `auto` is resolved before the first step and recorded under `[numerics]`."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    backend: str = "auto"
    require_fast: bool = False  # refuse to train in the plain loop over time
    capture: Literal["auto", "on", "off"] = "auto"  # record training steps once, as CUDA graphs, and replay them
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Config:
    """Everything that decides a run. `numerics` records how each `auto` was resolved."""

    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    target_text: TextConfig = TextConfig()  # pairs: of the target side, where it differs from `text`
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    numerics: dict[str, Any] = field(default_factory=dict)


def load_config(path: Path) -> Config:
    """Read a configuration file; raise InputError or UsageError naming the file and the key that is wrong."""
    return config_from_table(read_toml(Path(path), _LIMIT_BYTES), str(path))


def config_from_table(table: Mapping[str, Any], source: str) -> Config:
    """Return the configuration in a nested table; `source` names it in errors."""
    config: Config = _read(Config, table, (), source)
    check(config, source)
    return config


def apply_settings(config: Config, settings: Iterable[str]) -> Config:
    """Return the configuration with each `key=value` of `--set` applied; values are TOML, or else plain text."""
    table = to_table(config)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected KEY=VALUE, as in --set model.hidden_size=512.")
        _set(table, key.strip().split("."), _value(text.strip()), setting)
    return config_from_table(table, "--set")


def plugin_from_text(text: str) -> Named:
    """Return the name and options in `NAME` or `NAME:key=value,key=value`, the form for command-line options.

    A comma in quotes or brackets belongs to the value.
    """
    name, _, options = text.partition(":")
    words = _OPTION.findall(options)
    if not name or not all("=" in word for word in words):
        raise UsageError(
            f"'{text}': expected NAME or NAME:key=value,key=value; a text with a comma, or of digits, stands in quotes."
        )
    return Named(name, options_from_text(words))


_OPTION = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\[[^\]]*\]|\{[^}]*\}|[^,])+""")


def options_from_text(words: Iterable[str]) -> dict[str, Any]:
    """Return a plugin's options from `key=value` words; values are TOML, or else plain text."""
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word}: expected KEY=VALUE.")
        options[key.strip()] = _value(value.strip())
    return options


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set(table: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    """Put a value at a dotted path. A step below a plugin's name makes a table of name and options of it."""
    *parents, last = path
    for depth, name in enumerate(parents):
        below = table.get(name)
        if isinstance(below, str):
            below = {"name": below}
        elif below is None:
            below = {}
        elif not isinstance(below, dict):
            raise UsageError(f"--set {setting}: {'.'.join(path[: depth + 1])} is a value, not a table of settings.")
        table[name] = dict(below)
        table = table[name]
    was = table.get(last)
    if isinstance(was, dict) and "name" in was and isinstance(value, str) and value == was["name"]:
        return  # the same plugin named again keeps its options
    table[last] = value


def _read(kind: type[Any], table: Any, path: tuple[str, ...], source: str) -> Any:
    if not isinstance(table, Mapping):
        raise UsageError(f"{source}: [{'.'.join(path)}] is {table!r}; it is a table of settings.")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in table.items():
        place = ".".join((*path, name))
        if name not in hints:
            nearest = did_you_mean(name, hints) or _elsewhere(name)
            raise UsageError(f"{source}: unknown key '{place}'.{nearest} Accepted: {', '.join(sorted(hints))}.")
        values[name] = _convert(value, hints[name], (*path, name), source)
    return kind(**values)


def _elsewhere(name: str) -> str:
    """Return " Did you mean 'X'?" for a key of that name or nearly so in another table."""
    keys = {
        f.name: f"{section.name}.{f.name}"
        for section in dataclasses.fields(Config)
        if dataclasses.is_dataclass(section.default)
        for f in dataclasses.fields(section.default)
    }
    return f" Did you mean '{keys[name]}'?" if name in keys else ""


def _convert(value: Any, hint: Any, path: tuple[str, ...], source: str) -> Any:
    place = f"{source}: {'.'.join(path)}"
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if dataclasses.is_dataclass(hint) and hint is not Named:
        assert isinstance(hint, type)
        return _read(hint, value, path, source)
    if Named in members:
        if value is None and type(None) in members:
            return None
        return _named(value, place)
    if typing.get_origin(hint) is tuple and Named in typing.get_args(hint):
        if not isinstance(value, list | tuple):
            raise UsageError(f"{place}: {value!r} is not accepted; it takes a list of names, or of tables.")
        return tuple(_named(item, f"{place}[{number}]") for number, item in enumerate(value))
    if typing.get_origin(hint) is dict and typing.get_args(hint)[1] is Named:
        if not isinstance(value, Mapping):
            raise UsageError(f"{place}: {value!r} is not accepted; it is a table of names.")
        return {name: _named(item, f"{place}.{name}") for name, item in value.items()}
    if typing.get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{place}: {value!r} is not accepted; it is a table.")
        return dict(value)
    return convert(value, hint, place)


def _named(value: Any, place: str) -> Named:
    if isinstance(value, Named):
        return value
    if isinstance(value, str) and value:
        return Named(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Named(value["name"], {key: option for key, option in value.items() if key != "name"})
    raise UsageError(f"{place}: {value!r} is not accepted; it takes a name, or a table of name and options.")


def to_table(config: Config) -> dict[str, Any]:
    """Return the configuration as nested tables, as TOML has them: nothing that is None, plugins by name."""

    def table(value: Any) -> Any:
        if isinstance(value, Named):
            return {"name": value.name, **value.options} if value.options else value.name
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            items = ((f.name, table(getattr(value, f.name))) for f in dataclasses.fields(value))
            return {name: item for name, item in items if item is not None and item != {}}
        if isinstance(value, dict):
            return {name: table(item) for name, item in value.items()}
        return [table(item) for item in value] if isinstance(value, tuple) else value

    result: dict[str, Any] = table(config)
    return result


def dump_config(config: Config) -> bytes:
    """Return the configuration as a TOML file."""
    return tomli_w.dumps(to_table(config)).encode()


def resolve(config: Config) -> Config:
    """Return the configuration with what follows from the text's level, word if not given, filled in.

    What each level gives is in DEFAULTS. Files are parted at line ends, but for characters anywhere. All: windows of 64
    timesteps.
    """
    level = config.text.level or "word"
    cleaner, tokenizer, unknown_threshold = DEFAULTS[level]
    text = dataclasses.replace(
        config.text,
        level=level,
        cleaner=config.text.cleaner or Named(cleaner),
        tokenizer=config.text.tokenizer or Named(tokenizer),
        unknown_threshold=_first(config.text.unknown_threshold, unknown_threshold),
    )
    split_at: Literal["line", "character"] = "character" if level == "char" else "line"
    data = dataclasses.replace(config.data, split_at=config.data.split_at or split_at)
    training = dataclasses.replace(config.training, bptt=config.training.bptt or TEXT_BPTT)
    return dataclasses.replace(config, text=text, data=data, training=training)


def resolve_pairs(config: Config) -> Config:
    """Return the configuration of a dataset of pairs with the rules of both sides filled in.

    The cleaner is `none`, as pairs come cleaned; the unknown threshold of words is 1, as there are few. The target
    side follows the source side where it does not say otherwise.
    """
    text = _resolve_side(config.text, TextConfig())
    return dataclasses.replace(config, text=text, target_text=_resolve_side(config.target_text, text))


def _resolve_side(text: TextConfig, other: TextConfig) -> TextConfig:
    level = text.level or other.level or "word"
    same = level == other.level  # then the other side's choices fit
    _, tokenizer, unknown_threshold = DEFAULTS[level]
    return dataclasses.replace(
        text,
        level=level,
        cleaner=text.cleaner or other.cleaner or Named("none"),
        tokenizer=text.tokenizer or (other.tokenizer if same else None) or Named(tokenizer),
        unknown_threshold=_first(
            text.unknown_threshold if text.unknown_threshold is not None or not same else other.unknown_threshold,
            1 if level == "word" else unknown_threshold,
        ),
        max_size=text.max_size or (other.max_size if same else None),
    )


def _first(value: int | None, default: int) -> int:
    return default if value is None else value


def check(config: Config, source: str) -> None:
    """Raise UsageError for a number outside its range."""
    model, training, text, threads = config.model, config.training, config.text, config.runtime.threads
    ranges: list[tuple[str, Any, bool, str]] = [
        (
            "text.unknown_threshold",
            text.unknown_threshold,
            (text.unknown_threshold or 0) >= -1,
            "-1 (none) or more",
        ),
        ("text.max_size", text.max_size, text.max_size is None or text.max_size >= 1, "1 or more"),
        ("text.workers", text.workers, text.workers is None or text.workers >= 1, "1 or more"),
        ("model.hidden_size", model.hidden_size, model.hidden_size >= 1, "1 or more"),
        ("model.num_layers", model.num_layers, model.num_layers >= 1, "1 or more"),
        ("model.input_layer", model.input_layer, model.input_layer is None or model.input_layer >= 1, "1 or more"),
        ("model.dropout", model.dropout, 0 <= model.dropout < 1, "a number from 0 to below 1"),
        ("training.batch_size", training.batch_size, training.batch_size >= 0, "0 (all sequences) or more"),
        ("training.bptt", training.bptt, training.bptt is None or training.bptt >= 1, "1 or more"),
        ("training.window", training.window, training.window is None or training.window >= 1, "1 or more"),
        ("training.tolerance", training.tolerance, training.tolerance is None or training.tolerance > 0, "above 0"),
        (
            "training.label_smoothing",
            training.label_smoothing,
            0 <= training.label_smoothing < 1,
            "a number from 0 to below 1",
        ),
        (
            "training.scheduled_sampling",
            training.scheduled_sampling,
            0 <= training.scheduled_sampling <= 1,
            "a number from 0 to 1",
        ),
        (
            "training.scheduled_sampling_epochs",
            training.scheduled_sampling_epochs,
            training.scheduled_sampling_epochs >= 0,
            "0 or more",
        ),
        ("training.epochs", training.epochs, training.epochs >= 0, "0 or more"),
        ("training.max_steps", training.max_steps, training.max_steps >= 0, "0 or more"),
        ("training.max_seconds", training.max_seconds, training.max_seconds >= 0, "0 or more"),
        ("training.warmup_steps", training.warmup_steps, training.warmup_steps >= 0, "0 or more"),
        ("training.final_lr", training.final_lr, 0 <= training.final_lr <= 1, "a number from 0 to 1"),
        ("training.plateau_factor", training.plateau_factor, 0 < training.plateau_factor < 1, "between 0 and 1"),
        ("training.plateau_patience", training.plateau_patience, training.plateau_patience >= 0, "0 or more"),
        ("training.clip_norm", training.clip_norm, training.clip_norm >= 0, "0 (no clipping) or more"),
        ("training.average", training.average, 0 <= training.average < 1, "a number from 0 (off) to below 1"),
        ("training.patience", training.patience, training.patience >= 0, "0 (never stop early) or more"),
        ("training.evaluate_every", training.evaluate_every, training.evaluate_every >= 0, "0 (each epoch) or more"),
        ("training.evaluation_window", training.evaluation_window, training.evaluation_window >= 1, "1 or more"),
        ("training.log_every", training.log_every, training.log_every >= 1, "1 or more"),
        ("training.save_every_seconds", training.save_every_seconds, training.save_every_seconds >= 0, "0 or more"),
        ("runtime.seed", config.runtime.seed, 0 <= config.runtime.seed < 2**63, "0 to 2^63 - 1"),
        ("runtime.threads", threads, threads is None or threads >= 1, "1 or more"),
    ]
    for key, value, good, accepted in ranges:
        if not good:
            raise UsageError(f"{source}: {key}={value!r} is not accepted; it takes {accepted}.")
    _check_numerics(config.numerics, source)
    if not (training.epochs or training.max_steps or training.max_seconds):
        raise UsageError(f"{source}: training.epochs, max_steps and max_seconds are all 0: nothing would end training.")


def _check_numerics(numerics: Mapping[str, Any], source: str) -> None:
    """Raise UsageError unless the record of an earlier run's numerics is one that can be obeyed."""
    accepted: dict[str, Any] = {
        "device": Literal["cpu", "cuda", "mps"],
        "precision": Literal["float32", "bfloat16"],
        "backend": str,
        "threads": int,
        "torch": str,
        "processor": str,
        "elementwise": Literal["compiled", "plain"],
        "capture": Literal["on", "off"],
        "row_tile": int,
    }
    for name, value in numerics.items():
        if name not in accepted:
            raise UsageError(
                f"{source}: unknown key 'numerics.{name}'.{did_you_mean(name, accepted)} "
                f"Accepted: {', '.join(sorted(accepted))}."
            )
        convert(value, accepted[name], f"{source}: numerics.{name}")
    for name in ("threads", "row_tile"):
        if numerics.get(name, 1) < 1:
            raise UsageError(f"{source}: numerics.{name}={numerics[name]!r} is not accepted; it takes 1 or more.")
