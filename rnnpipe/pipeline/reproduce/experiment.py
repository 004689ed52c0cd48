"""Experiments as they are written in `rnnpipe/experiments/reference/NAME.toml`: settings, rows to measure, targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from rnnpipe.durable import read_toml
from rnnpipe.errors import InputError, UsageError, unknown_name
from rnnpipe.options import convert

Figure = Literal["wave", "surface"]
Texts = Literal["any", "built-in", "given"]


@dataclass(frozen=True)
class Target:
    """What a measured number is to be: `<= 0.22`, `>= 1`, `< 1e-8`, `1 ± 0.001`, or `= 0.2677` to its own decimals."""

    text: str

    def met(self, value: float) -> bool:
        """Say whether a number is as it is to be."""
        sign, _, number = self.text.partition(" ")
        if sign in ("<=", ">=", "<", ">"):
            limit = float(number)
            return {"<=": value <= limit, ">=": value >= limit, "<": value < limit, ">": value > limit}[sign]
        if sign == "=":
            return round(value, len(number.partition(".")[2])) == float(number)
        center, _, width = self.text.partition(" ± ")
        return abs(value - float(center)) <= float(width)

    def check(self, place: str) -> None:
        """Raise UsageError for a text that is no target."""
        try:
            self.met(0.0)
        except ValueError:
            raise UsageError(
                f"{place}: the target {self.text!r} is not accepted; write <= 1, < 1, >= 1, > 1, = 1.00 or 1 ± 0.1."
            ) from None


@dataclass(frozen=True)
class Row:
    """A number of a run: its name, how it is measured (see `measures`), what was published, and what it is to be."""

    label: str
    measure: Mapping[str, Any]
    published: str | None = None
    target: Target | None = None


@dataclass(frozen=True)
class Variant:
    """One configuration of an experiment and the rows that are measured of it.

    settings: in words. seeded: whether anything depends on the seed. part: what it is evaluated on; if None, the test
    part. texts: whether it is for an experiment's built-in text, for texts that are given in its place, or for both.
    """

    name: str
    settings: str
    config: Mapping[str, Any]
    rows: tuple[Row, ...]
    seeded: bool
    part: str | None
    texts: Texts

    @property
    def improved(self) -> bool:
        """Say whether it is a recipe of ours and not a published one."""
        return self.name.startswith("improved")


@dataclass(frozen=True)
class Sentence:
    """A text that is translated: its published translation, and the reference that stands in the data."""

    text: str
    published: str
    reference: str


@dataclass(frozen=True)
class Experiment:
    """A reference experiment: its task, what was published, remarks, figures to draw.

    predict: a text behind which words are predicted. translate: one that is translated.
    """

    name: str
    task: str
    published: str
    notes: str
    figures: tuple[Figure, ...]
    predict: str | None
    translate: Sentence | None
    variants: tuple[Variant, ...]

    @property
    def takes_texts(self) -> bool:
        """Say whether a folder of texts, or of files of pairs, can be given to it."""
        return self.predict is not None or self.translate is not None

    @property
    def needs_texts(self) -> bool:
        """Say whether there is nothing to train on unless it is given one."""
        return all(variant.texts == "given" for variant in self.variants)


def experiment_names() -> list[str]:
    """Return the names of the experiments that rnnpipe has."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def _folder() -> Traversable:
    return files("rnnpipe.experiments") / "reference"


def load_experiment(name: str) -> Experiment:
    """Return an experiment by name; raise UsageError if there is none."""
    if name not in experiment_names():
        raise unknown_name("experiment", name, experiment_names())
    with as_file(_folder() / f"{name}.toml") as path:
        return read_experiment(path)


def read_experiment(path: Path) -> Experiment:
    """Read an experiment's file; raise InputError or UsageError naming the file and what is wrong in it."""
    table = read_toml(path)
    fields = _fields(
        table,
        {
            "task": str,
            "published": str,
            "notes": str,
            "figures": tuple[Figure, ...],
            "predict": str,
            "translate": dict,
            "variant": list[dict[str, Any]],
        },
        {"notes": "", "figures": (), "predict": None, "translate": None},
        str(path),
    )
    variants: dict[str, Variant] = {}
    for entry in fields.pop("variant"):
        variant = _variant(entry, variants, str(path))
        if variant.name in variants:
            raise InputError(f"{path}: two variants are called '{variant.name}'.")
        variants[variant.name] = variant
    sentence = fields.pop("translate")
    if sentence is not None:
        texts = dict.fromkeys(("text", "published", "reference"), str)
        sentence = Sentence(**_fields(sentence, texts, {}, f"{path}: translate"))
    return Experiment(name=path.stem, variants=tuple(variants.values()), translate=sentence, **fields)


def _variant(table: Any, earlier: Mapping[str, Variant], place: str) -> Variant:
    fields = _fields(
        table,
        {
            "name": str,
            "settings": str,
            "config": dict,
            "row": list[dict[str, Any]],
            "seeded": bool,
            "part": str,
            "texts": Texts,
            "like": str,
        },
        {"seeded": True, "part": None, "texts": "any", "like": None},
        f"{place}: variant",
    )
    here = f"{place}: variant '{fields['name']}'"
    like = fields.pop("like")
    if like is not None and like not in earlier:
        raise unknown_name(f"variant before '{fields['name']}' in {place}:", like, earlier)
    base = earlier[like].config if like else {}
    config = fields.pop("config")
    sections = {name: {**base.get(name, {}), **config.get(name, {})} for name in {**base, **config}}
    rows = tuple(_row(entry, here) for entry in fields.pop("row"))
    return Variant(config=sections, rows=rows, **fields)


def _row(table: Any, place: str) -> Row:
    fields = _fields(
        table,
        {"label": str, "measure": dict, "published": str, "target": str},
        {"published": None, "target": None},
        f"{place}: row",
    )
    text = fields.pop("target")
    target = None if text is None else Target(text)
    if target is not None:
        target.check(f"{place}: row '{fields['label']}'")
    return Row(target=target, **fields)


def _fields(table: Any, kinds: Mapping[str, Any], defaults: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the entries of a table, checked and completed."""
    if not isinstance(table, Mapping):
        raise InputError(f"{place}: {table!r} is not a table.")
    for name in table:
        if name not in kinds:
            raise unknown_name(f"key of {place}:", str(name), kinds)
    for name in kinds:
        if name not in table and name not in defaults:
            raise InputError(f"{place}: has no '{name}'.")
    given = {name: convert(value, kinds[name], f"{place}: {name}") for name, value in table.items()}
    return {**defaults, **given}
