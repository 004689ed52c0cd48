"""Finding plugins and looking things up by name.

A plugin is a module that implements hooks of `rnnpipe.hookspecs`. The built-ins are one, `rnnpipe.builtin`; the others
come from two entry-point groups: `rnnpipe.text` for what needs no torch, and `rnnpipe` for everything else. Each is
loaded under guard: one that fails is quarantined with its reason, and everything that does not need it works.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

import rnnpipe.builtin
from rnnpipe import hookspecs
from rnnpipe.errors import PluginError, UsageError, unknown_name
from rnnpipe.options import bind_options

TEXT_GROUP = "rnnpipe.text"
MAIN_GROUP = "rnnpipe"

HOOKS = {
    "dataset": "register_datasets",
    "cleaner": "register_cleaners",
    "tokenizer": "register_tokenizers",
    "cell": "register_cells",
    "encoder": "register_encoders",
    "model": "register_models",
    "initializer": "register_initializers",
    "optimizer": "register_optimizers",
    "sampler": "register_samplers",
    "backend": "register_backends",
    "callback": "register_callbacks",
    "trainer": "register_trainers",
}


@dataclass(frozen=True)
class Entry:
    """One name that a plugin gave to one thing."""

    kind: str
    name: str
    value: Any
    distribution: str
    version: str

    def load(self) -> Any:
        """Return the thing itself, imported now if it was named by a string."""
        if not isinstance(self.value, str):
            return self.value
        module, _, attribute = self.value.partition(":")
        try:
            return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            owner = f"{self.kind} '{self.name}' of {self.distribution} {self.version}"
            raise PluginError(f"{owner}: cannot import '{self.value}': {error}") from error


@dataclass(frozen=True)
class Quarantined:
    """A plugin that could not be loaded, and why."""

    plugin: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' of {self.distribution} {self.version} is not loaded: {self.reason}"


class Registry:
    """Every name that the loaded plugins gave, by kind, and the plugins that could not be loaded."""

    def __init__(self) -> None:
        self.quarantined: list[Quarantined] = []
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in HOOKS}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._register(rnnpipe.builtin, "built-in", "rnnpipe", importlib.metadata.version("rnnpipe"))

    def load_group(self, group: str, chosen: frozenset[str] | None) -> None:
        """Load the plugins of an entry-point group; of those, only the `chosen` names if a choice is given."""
        seen: dict[str, str] = {}
        for point in importlib.metadata.entry_points(group=group):
            distribution = point.dist.name if point.dist else "unknown distribution"
            version = point.dist.version if point.dist else "unknown version"
            if chosen is not None and not chosen & {point.name, distribution}:
                continue
            if point.name in seen and seen[point.name] != distribution:
                reason = f"the entry point '{point.name}' is also declared by {seen[point.name]}, which was loaded"
                self.quarantined.append(Quarantined(point.name, distribution, version, reason))
                continue
            seen[point.name] = distribution
            try:
                with contextlib.redirect_stdout(sys.stderr):  # results alone go to standard output
                    self._register(point.load(), point.name, distribution, version)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a plugin may raise anything, SystemExit too, and must not end the command
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self.quarantined.append(Quarantined(point.name, distribution, version, reason))

    def _register(self, plugin: Any, name: str, distribution: str, version: str) -> None:
        """Register a plugin and read its hooks; leave no trace of it if anything is wrong."""
        unique = f"{distribution}:{name}:{id(plugin)}"
        self._manager.register(plugin, name=unique)
        try:
            self._manager.check_pending()
            found = [entry for kind in HOOKS for entry in self._read_hook(plugin, kind, distribution, version)]
        except BaseException:
            self._manager.unregister(plugin)
            raise
        for entry in found:
            self._entries[entry.kind].setdefault(entry.name, []).append(entry)

    def _read_hook(self, plugin: Any, kind: str, distribution: str, version: str) -> list[Entry]:
        hook = HOOKS[kind]
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        entries = []
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            names = implementation.function()
            if not isinstance(names, Mapping):
                raise PluginError(f"{hook} returned {type(names).__name__}, not a mapping from names to {kind}s")
            for name, value in names.items():
                if not isinstance(name, str) or not (callable(value) or isinstance(value, str)):
                    raise PluginError(f"{hook} returned {name!r}: {value!r}; names are strings, values callables")
                entries.append(Entry(kind, name, value, distribution, version))
        return entries

    def entries(self, kind: str) -> list[Entry]:
        """Return all entries of a kind, by name; a name that two plugins claim stands twice."""
        return [entry for name in sorted(self._entries[kind]) for entry in self._entries[kind][name]]

    def names(self, kind: str) -> list[str]:
        """Return the sorted names of a kind."""
        return sorted(self._entries[kind])

    def entry(self, kind: str, name: str) -> Entry:
        """Return the one entry of that kind and name.

        Raises UsageError for an unknown name (with the nearest, and with the plugins that failed to load) and for a
        name that two plugins claim.
        """
        claims = self._entries[kind].get(name, [])
        if len(claims) == 1:
            return claims[0]
        if claims:
            owners = " and ".join(f"{claim.distribution} {claim.version}" for claim in claims)
            raise UsageError(f"{kind} '{name}' is claimed by {owners}. Uninstall one, or choose with RNNPIPE_PLUGINS.")
        error = unknown_name(kind, name, self.names(kind))
        if self.quarantined:
            causes = "; ".join(map(str, self.quarantined))
            error = UsageError(f"{error} ({causes})")
        raise error

    def get(self, kind: str, name: str) -> Any:
        """Return the thing of that kind and name, imported."""
        return self.entry(kind, name).load()

    def build(self, kind: str, name: str, options: Mapping[str, Any], *given: Any, **supplied: Any) -> Any:
        """Call the factory of that kind and name with what rnnpipe supplies and the person's `options`, checked."""
        factory: Callable[..., Any] = self.get(kind, name)
        bound = bind_options(factory, options, f"{kind} '{name}'", reserved=len(given), supplied=set(supplied))
        return factory(*given, **supplied, **bound)

    def signature(self, kind: str, name: str) -> inspect.Signature:
        """Return the signature of a factory: its option schema."""
        return inspect.signature(self.get(kind, name))


def _chosen() -> frozenset[str] | None:
    choice = os.environ.get("RNNPIPE_PLUGINS")
    return None if choice is None else frozenset(filter(None, (name.strip() for name in choice.split(","))))


@functools.cache
def text_registry() -> Registry:
    """Return the registry of the built-ins and the `rnnpipe.text` plugins: all that the corpus commands need."""
    registry = Registry()
    registry.load_group(TEXT_GROUP, _chosen())
    return registry


@functools.cache
def full_registry() -> Registry:
    """Return the registry of the built-ins and of both groups of plugins."""
    registry = Registry()
    registry.load_group(TEXT_GROUP, _chosen())
    registry.load_group(MAIN_GROUP, _chosen())
    return registry
