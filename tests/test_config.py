"""The configuration: TOML there and back, `--set`, and what is said of a key or value that is wrong."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rnnpipe
from rnnpipe.config import (
    Config,
    DataConfig,
    ModelConfig,
    RuntimeConfig,
    TextConfig,
    TrainingConfig,
    apply_settings,
    config_from_table,
    dump_config,
    load_config,
    plugin_from_text,
    resolve,
    to_table,
)
from rnnpipe.errors import InputError, UsageError
from rnnpipe.text.rules import Named


def read(text: str) -> Config:
    return config_from_table(tomllib.loads(text), "run.toml")


def set_all(*settings: str) -> Config:
    return apply_settings(Config(), settings)


# --- there and back ---

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
words = st.text("abcdefgh-_ .\u00e9", min_size=1, max_size=8)
value = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
named = st.builds(Named, words, st.dictionaries(words.filter(lambda key: key != "name"), value, max_size=2))
maybe = st.none()
configs = st.builds(
    Config,
    data=st.builds(
        DataConfig, dataset=named, corpus=maybe | text, split_at=maybe | st.sampled_from(["line", "character"])
    ),
    text=st.builds(
        TextConfig,
        level=st.sampled_from(["word", "char"]),
        cleaner=maybe | named,
        unknown_threshold=maybe | st.integers(0, 9),
        max_size=maybe | st.integers(1, 9),
    ),
    model=st.builds(
        ModelConfig,
        cell=named,
        hidden_size=st.integers(1, 2**40),
        tied=st.booleans(),
        dropout=st.floats(0, 1, exclude_max=True),
        initializers=st.dictionaries(words, named, max_size=2),
    ),
    training=st.builds(
        TrainingConfig,
        optimizer=named,
        max_seconds=st.floats(0, allow_infinity=True),
        clip_norm=st.floats(0, 9),
        callbacks=st.lists(named, max_size=2).map(tuple),
    ),
    runtime=st.builds(RuntimeConfig, seed=st.integers(0, 2**63 - 1), threads=maybe | st.integers(1, 9)),
    numerics=st.fixed_dictionaries({}, optional={"device": st.sampled_from(["cpu", "cuda"]), "backend": words}),
)


@given(configs)
@settings(deadline=None, max_examples=100)
@example(Config())
def test_a_dumped_configuration_comes_back(config: Config) -> None:
    assert config_from_table(tomllib.loads(dump_config(config).decode()), "x") == config
    assert apply_settings(config, []) == config


def test_a_file_comes_back(tmp_path: Path) -> None:
    config = set_all("model.cell.forget_bias=2.0", "training.callbacks=['tensorboard']", "text.max_size=99")
    path = tmp_path / "config.toml"
    path.write_bytes(dump_config(config))
    assert load_config(path) == config
    assert dump_config(load_config(path)) == path.read_bytes()


def test_what_is_not_given_stays_at_its_default() -> None:
    config = read('[model]\ncell = "gru"\n[training]\nbatch_size = 7\n')
    assert config == Config(model=ModelConfig(cell=Named("gru")), training=TrainingConfig(batch_size=7))
    assert read("") == Config()
    assert "corpus" not in to_table(config)["data"]
    assert "numerics" not in to_table(config)
    assert to_table(config)["model"]["cell"] == "gru"
    assert to_table(config)["training"]["optimizer"] == {"name": "adamw", "lr": 0.003}


@pytest.mark.parametrize(
    "path", sorted((Path(rnnpipe.__file__).parent / "experiments").glob("*.toml")), ids=lambda p: p.stem
)
def test_the_configurations_of_the_package_can_be_read(path: Path) -> None:
    config = load_config(path)
    assert config_from_table(to_table(config), "again") == config


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model = ModelConfig()  # type: ignore[misc]
    config = Config()
    apply_settings(config, ["training.optimizer.lr=1.0", "numerics.backend=loop", "model.initializers.x=normal"])
    assert config == Config()
    assert Config().numerics == {}


# --- --set ---


@pytest.mark.parametrize(
    ("setting", "section", "key", "expected"),
    [
        ("model.hidden_size=512", "model", "hidden_size", 512),
        (" model.hidden_size = 512 ", "model", "hidden_size", 512),
        ("model.dropout=0.5", "model", "dropout", 0.5),
        ("training.clip_norm=2", "training", "clip_norm", 2.0),
        ("model.tied=true", "model", "tied", True),
        ("text.level=char", "text", "level", "char"),
        ('text.level="char"', "text", "level", "char"),
        ("data.corpus=a b/c=d.txt", "data", "corpus", "a b/c=d.txt"),
        ("data.corpus='12'", "data", "corpus", "12"),
        ("training.callbacks=['a', 'b']", "training", "callbacks", (Named("a"), Named("b"))),
        ("training.callbacks=[{name='a', every=3}]", "training", "callbacks", (Named("a", {"every": 3}),)),
        ("training.max_seconds=inf", "training", "max_seconds", float("inf")),
        ("model.cell=gru", "model", "cell", Named("gru")),
        ("model.cell.forget_bias=1.5", "model", "cell", Named("lstm", {"forget_bias": 1.5})),
        ("model.cell={name='gru', bias=false}", "model", "cell", Named("gru", {"bias": False})),
        ("training.optimizer.lr=0.1", "training", "optimizer", Named("adamw", {"lr": 0.1})),
        ("training.optimizer=sgd", "training", "optimizer", Named("sgd")),
        ("training.optimizer=adamw", "training", "optimizer", Named("adamw", {"lr": 0.003})),
        ("text.cleaner.punctuation=true", "text", "cleaner", None),
        ("data.dataset.inputs=['a.txt']", "data", "dataset", Named("text-files", {"inputs": ["a.txt"]})),
        ("model.initializers.weight_hh=orthogonal", "model", "initializers", {"weight_hh": Named("orthogonal")}),
        ("runtime.seed=9223372036854775807", "runtime", "seed", 2**63 - 1),
    ],
)
def test_a_setting(setting: str, section: str, key: str, expected: Any) -> None:
    if expected is None:  # an option of a plugin that has no name yet
        with pytest.raises(UsageError, match="takes a name, or a table of name and options"):
            set_all(setting)
        return
    assert getattr(getattr(set_all(setting), section), key) == expected


def test_settings_are_applied_in_order() -> None:
    config = set_all("model.cell=gru", "model.cell.reset_after=false", "model.hidden_size=1", "model.hidden_size=2")
    assert config.model.cell == Named("gru", {"reset_after": False})
    assert config.model.hidden_size == 2
    assert set_all("model.cell.forget_bias=2.0", "model.cell=lstm").model.cell == Named("lstm", {"forget_bias": 2.0})
    assert set_all("model.cell.forget_bias=2.0", "model.cell=gru").model.cell == Named("gru")
    assert set_all("model.cell.forget_bias=2.0", "model.cell.name=gru").model.cell == Named("gru", {"forget_bias": 2.0})


def test_settings_change_a_file_s_configuration() -> None:
    config = apply_settings(
        read('[model]\ncell = {name = "lstm", forget_bias = 1.0}\nhidden_size = 9'), ["model.bias=false"]
    )
    assert config.model == ModelConfig(cell=Named("lstm", {"forget_bias": 1.0}), hidden_size=9, bias=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.hidden_size", r"--set model\.hidden_size: expected KEY=VALUE, as in --set model\.hidden_size=512"),
        (
            "model.hiden_size=5",
            r"--set: unknown key 'model\.hiden_size'\. Did you mean 'hidden_size'\? Accepted: bias, ",
        ),
        ("modle.hidden_size=5", r"unknown key 'modle'\. Did you mean 'model'\?"),
        ("hidden_size=5", r"unknown key 'hidden_size'\. Did you mean 'model\.hidden_size'\?"),
        ("model.seed=5", r"unknown key 'model\.seed'\. Did you mean 'runtime\.seed'\?"),
        ("=5", "unknown key ''"),
        ("model.=5", r"unknown key 'model\.'"),
        ("model.hidden_size.x=5", r"--set model\.hidden_size\.x=5: model\.hidden_size is a value, not a table"),
        ("model=5", r"\[model\] is 5; it is a table of settings"),
        ("model.hidden_size=big", r"--set: model\.hidden_size: 'big' is not accepted; it takes a whole number"),
        ("model.hidden_size=1.5", r"model\.hidden_size: 1\.5 is not accepted; it takes a whole number"),
        ("model.hidden_size=true", "True is not accepted; it takes a whole number"),
        ("model.hidden_size=", "'' is not accepted; it takes a whole number"),
        ("model.dropout=[1]", r"\[1\] is not accepted; it takes a number"),
        ("model.tied=1", "1 is not accepted; it takes true or false"),
        ("model.cell=5", r"model\.cell: 5 is not accepted; it takes a name, or a table of name and options"),
        ("model.cell=", "'' is not accepted; it takes a name"),
        ("model.cell={forget_bias=1}", "takes a name, or a table of name and options"),
        ("model.initializers=normal", "'normal' is not accepted; it is a table of names"),
        ("model.initializers.weight=3", r"model\.initializers\.weight: 3 is not accepted; it takes a name"),
        ("data.corpus=12", "12 is not accepted; it takes text or nothing"),
        ("text.level=words", "'words' is not accepted; it takes 'word' or 'char'"),
        ("runtime.device.name=cpu", r"runtime\.device: .* is not accepted; it takes 'auto' or 'cpu'"),
        ("training.callbacks=tensorboard", "'tensorboard' is not accepted; it takes a list of names"),
        ("training.schedule=linear", "'linear' is not accepted; it takes 'constant' or 'cosine' or 'plateau'"),
    ],
)
def test_a_wrong_setting(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        set_all(setting)


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("text.unknown_threshold", ["-2"], ["-1", "0", "9"]),
        ("text.max_size", ["0", "-1"], ["1"]),
        ("text.workers", ["0"], ["1"]),
        ("model.hidden_size", ["0", "-5"], ["1"]),
        ("model.num_layers", ["0"], ["1"]),
        ("model.dropout", ["1", "-0.1", "nan", "inf"], ["0", "0.999"]),
        ("training.batch_size", ["-1"], ["0"]),
        ("training.bptt", ["0"], ["1"]),
        ("training.window", ["0"], ["1"]),
        ("training.epochs", ["-1"], ["1"]),
        ("training.max_steps", ["-1"], ["0"]),
        ("training.max_seconds", ["-0.5", "nan"], ["0.5"]),
        ("training.warmup_steps", ["-1"], ["0"]),
        ("training.final_lr", ["-0.1", "1.1", "nan"], ["0", "1"]),
        ("training.plateau_factor", ["0", "1", "nan"], ["0.5"]),
        ("training.plateau_patience", ["-1"], ["0"]),
        ("training.clip_norm", ["-1", "nan"], ["0", "inf"]),
        ("training.average", ["1", "-0.1", "nan"], ["0", "0.999"]),
        ("training.patience", ["-1"], ["0"]),
        ("training.evaluate_every", ["-1"], ["0"]),
        ("training.evaluation_window", ["0"], ["1"]),
        ("training.log_every", ["0"], ["1"]),
        ("runtime.seed", ["-1", "9223372036854775808"], ["0"]),
        ("runtime.threads", ["-1"], ["1"]),
    ],
)
def test_ranges(key: str, wrong: list[str], right: list[str]) -> None:
    for text in right:
        set_all(f"{key}={text}")
    for text in wrong:
        with pytest.raises(UsageError, match=rf"--set: {key}=.* is not accepted; it takes "):
            set_all(f"{key}={text}")


def test_no_thread_is_out_of_range() -> None:
    with pytest.raises(UsageError, match=r"runtime\.threads=0 is not accepted; it takes 1 or more"):
        set_all("runtime.threads=0")


def test_something_must_end_training() -> None:
    with pytest.raises(UsageError, match="nothing would end training"):
        set_all("training.epochs=0")
    assert set_all("training.epochs=0", "training.max_steps=5").training.max_steps == 5


@pytest.mark.parametrize("value", ["5", "'loop'", "[1]"])
def test_numerics_are_a_table(value: str) -> None:
    with pytest.raises(UsageError, match="numerics"):
        read(f"numerics = {value}")


def test_callbacks_are_names() -> None:
    with pytest.raises(UsageError, match=r"training\.callbacks\[1\]: 3 is not accepted; it takes a name"):
        set_all("training.callbacks=['a', 3]")


# --- files ---


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"[model\n", InputError, r"c\.toml: not valid TOML: .*line 1"),
        (b"a = 1\na = 2\n", InputError, "not valid TOML: .*line 2"),
        (b'[model]\ncell = "caf\xe9"\n', InputError, r"c\.toml: byte 19 is not UTF-8"),
        (b"a = " + b"[" * 50_000, InputError, "not valid TOML"),
        (
            b"#" * (1 << 20) + b"\n",
            InputError,
            r"c\.toml: 1048577 bytes, more than the 1048576 that",
        ),
        (b"[modell]\n", UsageError, r"c\.toml: unknown key 'modell'\. Did you mean 'model'\?"),
        (b"[model]\nhidden_size = '9'\n", UsageError, r"c\.toml: model\.hidden_size: '9' is not accepted"),
        (b"model = 3\n", UsageError, r"c\.toml: \[model\] is 3; it is a table of settings"),
        (b"[[model]]\ncell = 'lstm'\n", UsageError, r"\[model\] is \[.*\]; it is a table"),
        (b"[training]\nbptt = 0\n", UsageError, r"c\.toml: training\.bptt=0 is not accepted; it takes 1 or more"),
    ],
    ids=range(10),
)
def test_a_wrong_file(tmp_path: Path, data: bytes, error: type[Exception], message: str) -> None:
    (tmp_path / "c.toml").write_bytes(data)
    with pytest.raises(error, match=message):
        load_config(tmp_path / "c.toml")


def test_a_very_long_number(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[model]\nhidden_size = " + "9" * 5000)
    with pytest.raises(InputError, match="not valid TOML"):
        load_config(tmp_path / "c.toml")


@given(st.binary(max_size=40) | st.text(st.sampled_from("[]model.cell=\"{}\n=1,#'a"), max_size=40).map(str.encode))
@settings(deadline=None)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    try:
        assert isinstance(load_config(path), Config)
    except (InputError, UsageError) as error:
        assert str(path) in str(error)


# --- plugins in one word ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lstm", Named("lstm")),
        ("lstm:", Named("lstm")),
        ("lstm:forget_bias=1.0", Named("lstm", {"forget_bias": 1.0})),
        ("x:a=1,b=true, c = text ,d='q'", Named("x", {"a": 1, "b": True, "c": "text", "d": "q"})),
        ("x:path=a=b", Named("x", {"path": "a=b"})),
    ],
)
def test_a_plugin_in_one_word(text: str, expected: Named) -> None:
    assert plugin_from_text(text) == expected


@pytest.mark.parametrize("text", ["x:a", "x:a=1,b", ":a=1"])
def test_a_plugin_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected NAME or NAME:key=value,key=value"):
        plugin_from_text(text)


# --- what follows from the level ---


def test_the_level_decides_what_is_not_given() -> None:
    word, char = resolve(Config()), resolve(set_all("text.level=char"))
    assert (word.text.cleaner, word.text.tokenizer) == (Named("unicode-words"), Named("whitespace"))
    assert (word.text.unknown_threshold, word.data.split_at) == (3, "line")
    assert (char.text.cleaner, char.text.tokenizer) == (Named("none"), Named("characters"))
    assert (char.text.unknown_threshold, char.data.split_at) == (0, "character")


def test_what_is_given_stays() -> None:
    config = set_all("text.cleaner=ascii-words", "text.unknown_threshold=0", "data.split_at=character")
    resolved = resolve(config)
    assert (resolved.text.cleaner, resolved.text.unknown_threshold) == (Named("ascii-words"), 0)
    assert resolved.data.split_at == "character"
    assert resolved.text.tokenizer == Named("whitespace")
    assert resolve(resolved) == resolved
    assert resolve(set_all("text.level=char", "text.unknown_threshold=2")).text.unknown_threshold == 2
