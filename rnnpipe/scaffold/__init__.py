"""Beginning a plugin: a package with a module, an entry point, a test of its contract and a README, from templates.

A template is a file `KIND.py.txt`, with the example that an author replaces, or `test_KIND.py.txt`, its test;
`pyproject.toml.txt` and `README.md.txt` serve all kinds. `$name`, `$thing` and so on stand for what `Names` has.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from rnnpipe.durable import atomic_directory
from rnnpipe.errors import InputError, UsageError

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_TEXT_KINDS = ("dataset", "cleaner", "tokenizer")
_BY_CLASS = ("cell", "dataset", "encoder", "model", "optimizer", "sampler", "backend", "callback")

# kind: the command that uses the example, as a reader would try it first
_USE = {
    "cell": "rnnpipe train TEXT --cell $name",
    "dataset": 'rnnpipe train DATASET.toml    # with [data] dataset = "$name"',
    "cleaner": "rnnpipe build-dict TEXT --cleaner $name -o words.dict",
    "tokenizer": "rnnpipe build-dict TEXT --tokenizer $name -o words.dict",
    "encoder": "rnnpipe train TEXT --set model.encoder=$name",
    "model": "rnnpipe train TEXT --set model.name=$name",
    "initializer": "rnnpipe train TEXT --set 'model.initializers.recurrent=\"$name\"'",
    "optimizer": "rnnpipe train TEXT --optimizer $name",
    "sampler": "rnnpipe generate RUN --sampler $name",
    "backend": "rnnpipe train TEXT --set runtime.backend=$name",
    "callback": "rnnpipe train TEXT --set 'training.callbacks=[\"$name\"]'",
    "trainer": "rnnpipe train TEXT --set training.trainer=$name",
    "command": "rnnpipe $name RUN",
}
KINDS = tuple(_USE)


@dataclass(frozen=True)
class Names:
    """Everything that a plugin is called, from the one name that its author chose."""

    name: str
    kind: str

    @property
    def distribution(self) -> str:
        """Return the name of the package: rnnpipe-NAME."""
        return f"rnnpipe-{self.name}"

    @property
    def module(self) -> str:
        """Return the name of the module: rnnpipe_NAME."""
        return self.distribution.replace("-", "_")

    @property
    def thing(self) -> str:
        """Return the name of the class or function in the module."""
        if self.kind == "command":
            return "command"
        if self.kind in _BY_CLASS:
            return "".join(part.capitalize() for part in self.name.split("-"))
        return self.name.replace("-", "_")

    @property
    def group(self) -> str:
        """Return the entry-point group."""
        if self.kind == "command":
            return "rnnpipe.commands"
        return "rnnpipe.text" if self.kind in _TEXT_KINDS else "rnnpipe"

    @property
    def entry_point(self) -> str:
        """Return what the entry point names: the module with the hooks, or the command itself."""
        return f"{self.module}:command" if self.kind == "command" else self.module


def check_name(name: str, kind: str) -> Names:
    """Return the names of a plugin to be; raise UsageError for a name that is none."""
    short = name.removeprefix("rnnpipe-")
    if not _NAME.fullmatch(short):
        near = re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-")
        hint = f" Try '{near}'." if _NAME.fullmatch(near) else ""
        raise UsageError(
            f"'{name}' is not accepted as a name; it takes small letters, digits and single hyphens, a letter "
            f"first.{hint}"
        )
    names = Names(short, kind)
    if keyword.iskeyword(names.thing):
        raise UsageError(f"'{name}' is not accepted as a name: '{names.thing}' is a word of Python's own.")
    return names


def write_package(names: Names, folder: Path, rnnpipe_version: str) -> list[Path]:
    """Write the package into a folder that is new or empty; return its files.

    Raises InputError for a folder that holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; remove it, or name another folder with -o.")
    major, minor = rnnpipe_version.split(".")[:2]
    words = {
        "name": names.name,
        "kind": names.kind,
        "distribution": names.distribution,
        "module": names.module,
        "thing": names.thing,
        "group": names.group,
        "entry_point": names.entry_point,
        "requirement": f"rnnpipe>={major}.{minor},<{major}.{int(minor) + 1}",
        "use": Template(_USE[names.kind]).substitute(name=names.name),
    }
    templates = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"{names.module}.py": f"{names.kind}.py.txt",
        f"tests/test_{names.module}.py": f"test_{names.kind}.py.txt",
    }
    with atomic_directory(folder) as temporary:
        (temporary / "tests").mkdir()
        for target, source in templates.items():
            text = (files(__name__) / "templates" / source).read_text(encoding="utf-8")
            (temporary / target).write_text(Template(text).substitute(words), encoding="utf-8")
    return [folder / target for target in templates]
