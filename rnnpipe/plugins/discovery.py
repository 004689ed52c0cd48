"""Finding plugins, without loading any: entry points of installed distributions, and single files in folders."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rnnpipe.errors import UsageError, did_you_mean
from rnnpipe.plugins.versions import requirement_on_rnnpipe

TEXT_GROUP = "rnnpipe.text"
MAIN_GROUP = "rnnpipe"
COMMANDS_GROUP = "rnnpipe.commands"
GROUPS = (TEXT_GROUP, MAIN_GROUP, COMMANDS_GROUP)

CHOICE = "RNNPIPE_PLUGINS"
FOLDERS = "RNNPIPE_PLUGINS_DIR"

TEXT_HOOKS = {"register_datasets", "register_cleaners", "register_tokenizers"}


@dataclass(frozen=True)
class Source:
    """A plugin that could be loaded: its name, where it comes from, and how to load it.

    value: what an entry point names, "module" or "module:attribute". requires: what the distribution requires of
    rnnpipe. A single file has its path for a distribution, and no version.
    """

    name: str
    distribution: str
    version: str
    value: str
    requires: str
    load: Callable[[], Any]

    @property
    def owner(self) -> str:
        """Return the distribution with its version, or the path of a single file."""
        return f"{self.distribution} {self.version}".strip()


@functools.cache
def installed_points(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Return the entry points of a group; to find them, a file of every distribution is read."""
    return tuple(importlib.metadata.entry_points(group=group))


def installed(group: str) -> list[Source]:
    """Return the plugins in an entry-point group, those that RNNPIPE_PLUGINS leaves out not among them."""
    chosen = _chosen()
    return [source for source in _all_installed(group) if chosen is None or _names(source) & chosen]


def _all_installed(group: str) -> list[Source]:
    sources = []
    for point in installed_points(group):
        distribution = point.dist
        sources.append(
            Source(
                point.name,
                distribution.name if distribution else "unknown distribution",
                distribution.version if distribution else "",
                point.value,
                requirement_on_rnnpipe(distribution.requires or ()) if distribution else "",
                point.load,
            )
        )
    return sorted(sources, key=lambda source: (source.distribution, source.name))


def single_files(*, with_text_hooks: bool) -> list[Source]:
    """Return the plugins in the folders of RNNPIPE_PLUGINS_DIR: those that name what is of text, or the others.

    Raises UsageError for a folder that is not there.
    """
    chosen = _chosen()
    sources = [(path, file_source(path)) for path in _plugin_files()]
    return [
        source
        for path, source in sources
        if (chosen is None or _names(source) & chosen) and _has_text_hooks(path) == with_text_hooks
    ]


def _plugin_files() -> Iterator[Path]:
    for name in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        folder = Path(name)
        if not folder.is_dir():
            raise UsageError(f"{name}: no such folder of plugins; --plugins-dir and {FOLDERS} take folders.")
        yield from (path for path in sorted(folder.glob("*.py")) if not path.name.startswith(("_", ".")))


def file_source(path: Path) -> Source:
    """Return the plugin that a single Python file is."""
    return Source(path.stem, str(path), "", str(path), "", functools.partial(_load_file, path))


def _load_file(path: Path) -> ModuleType:
    # A name of its own: a file `json.py` must not stand for, or be hidden by, the module of that name.
    full = path.resolve()
    name = f"rnnpipe_plugins_dir_{path.stem}_{zlib.crc32(os.fsencode(full)):08x}"
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _has_text_hooks(path: Path) -> bool:
    """Say whether a file defines a hook of what needs no torch; what cannot be parsed is loaded early, to say so."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return True
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return bool(defined & TEXT_HOOKS)


def duplicates(sources: Iterable[Source]) -> list[str]:
    """Return a sentence for each name that several of the plugins have: all are loaded, but the name means none."""
    by_name: dict[str, list[Source]] = {}
    for source in sources:
        by_name.setdefault(source.name, []).append(source)
    return [
        f"the plugin name '{name}' is declared by {' and by '.join(source.owner for source in same)}; all are loaded, "
        f"choose one by its distribution with {CHOICE}"
        for name, same in by_name.items()
        if len(same) > 1
    ]


def unknown_choices() -> list[str]:
    """Return a sentence for each name in RNNPIPE_PLUGINS that no plugin has."""
    chosen = os.environ.get(CHOICE)
    if not chosen:
        return []
    sources = [*(source for group in GROUPS for source in _all_installed(group)), *map(file_source, _plugin_files())]
    known = {name for source in sources for name in _names(source)}
    return [
        f"{CHOICE} names '{name}', and no plugin of that name is installed.{did_you_mean(name, known)}"
        for name in _split(chosen)
        if normalize(name) not in known
    ]


def normalize(name: str) -> str:
    """Return a distribution's name in the one form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(source: Source) -> set[str]:
    return {normalize(source.name), normalize(source.distribution)}


def _split(choice: str) -> Sequence[str]:
    return [name.strip() for name in choice.split(",") if name.strip()]


def _chosen() -> frozenset[str] | None:
    choice = os.environ.get(CHOICE)
    return None if choice is None else frozenset(map(normalize, _split(choice)))
