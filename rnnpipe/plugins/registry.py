"""Loading plugins under guard, and looking up what they named."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

import rnnpipe.builtin
from rnnpipe import hookspecs
from rnnpipe.errors import PluginError, RnnpipeError, UsageError, did_you_mean, unknown_name
from rnnpipe.options import bind_options
from rnnpipe.plugins.discovery import (
    MAIN_GROUP,
    TEXT_GROUP,
    Source,
    duplicates,
    installed,
    single_files,
    unknown_choices,
)
from rnnpipe.plugins.versions import accepts

_LONGEST = 300  # characters of a plugin's own error that a warning repeats

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


# What rnnpipe itself passes to a factory, and is therefore no option of a person's: how many positional arguments, and
# which keywords (those of a cell and a model come from other keys of the configuration).
GIVEN = {"cell": 2, "encoder": 1, "model": 3, "initializer": 1, "optimizer": 1, "callback": 1, "trainer": 3}
SUPPLIED = {"cell": ("bias",), "model": ("dropout", "tied", "window", "target")}


@dataclass(frozen=True)
class Entry:
    """One name that a plugin gave to one thing."""

    kind: str
    name: str
    value: Any
    distribution: str
    version: str

    @property
    def owner(self) -> str:
        """Return the distribution with its version, or the path of a single file."""
        return f"{self.distribution} {self.version}".strip()

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of {self.owner}"

    def load(self) -> Any:
        """Return the thing itself, imported now if it was named by a string; raise PluginError if that fails."""
        if not isinstance(self.value, str):
            return self.value
        module, _, attribute = self.value.partition(":")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # results alone go to standard output
                return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit too, and must not end the command
            raise PluginError(f"{self}: cannot import '{self.value}': {in_one_line(error)}") from error


@dataclass(frozen=True)
class Quarantined:
    """A plugin that could not be loaded, and why."""

    plugin: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        owner = f"{self.distribution} {self.version}".strip()
        return f"plugin '{self.plugin}' of {owner} is not loaded: {self.reason}"


class Registry:
    """Every name that the loaded plugins gave, by kind; the plugins that could not be loaded; other warnings."""

    def __init__(self) -> None:
        self.quarantined: list[Quarantined] = []
        self.warnings: list[str] = []
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in HOOKS}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._has_text = self._has_all = False
        self._register(
            rnnpipe.builtin,
            Source("built-in", "rnnpipe", _own_version(), "rnnpipe.builtin", "", lambda: rnnpipe.builtin),
        )

    def load_text(self) -> None:
        """Load the plugins that need no torch."""
        if not self._has_text:
            self._has_text = True
            self.warnings += unknown_choices()
            self._load([*installed(TEXT_GROUP), *single_files(with_text_hooks=True)])

    def load_all(self) -> None:
        """Load all plugins."""
        self.load_text()
        if not self._has_all:
            self._has_all = True
            self._load([*installed(MAIN_GROUP), *single_files(with_text_hooks=False)])

    def _load(self, sources: Sequence[Source]) -> None:
        self.warnings += duplicates(sources)
        for source in sources:
            self.load(source)

    def load(self, source: Source) -> list[Entry]:
        """Load one plugin and return what it named; if anything is wrong with it, quarantine it and return nothing."""
        try:
            if reason := wrong_version(source):
                raise PluginError(reason)
            with contextlib.redirect_stdout(sys.stderr):  # results alone go to standard output
                return self._register(source.load(), source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit too, and must not end the command
            self.quarantined.append(Quarantined(source.name, source.distribution, source.version, in_one_line(error)))
            return []

    def _register(self, plugin: Any, source: Source) -> list[Entry]:
        """Register a plugin and read its hooks; leave no trace of it if anything is wrong."""
        if self._manager.is_registered(plugin):
            return []  # one module under two entry points
        try:
            self._manager.register(plugin, name=f"{source.owner}:{source.name}:{id(plugin)}")
            self._check_hooks(plugin)
            found = [entry for kind in HOOKS for entry in self._read_hook(plugin, kind, source)]
        except BaseException:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        for entry in found:
            self._entries[entry.kind].setdefault(entry.name, []).append(entry)
        return found

    def _check_hooks(self, plugin: Any) -> None:
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise PluginError("implements no hook; is the decorator `rnnpipe.hookimpl` missing?")
        for caller in callers:
            needed = any(i.plugin is plugin and not i.optionalhook for i in caller.get_hookimpls())
            if not caller.has_spec() and needed:
                known = sorted(HOOKS.values())
                nearest = did_you_mean(caller.name, known)
                raise PluginError(f"implements '{caller.name}', which is no hook.{nearest} Hooks: {', '.join(known)}")

    def _read_hook(self, plugin: Any, kind: str, source: Source) -> list[Entry]:
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
                if not isinstance(name, str) or not name or not (callable(value) or isinstance(value, str)):
                    raise PluginError(f"{hook} returned {name!r}: {value!r}; names are strings, values callables")
                entries.append(Entry(kind, name, value, source.distribution, source.version))
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
        if name not in self._entries[kind]:
            self.load_all()  # a cleaner may stand in a plugin of the other group
        claims = self._entries[kind].get(name, [])
        if len(claims) == 1:
            return claims[0]
        if claims:
            owners = " and ".join(claim.owner for claim in claims)
            raise UsageError(f"{kind} '{name}' is claimed by {owners}. Uninstall one, or choose with RNNPIPE_PLUGINS.")
        error = unknown_name(kind, name, self.names(kind))
        if self.quarantined:  # one of these might have had it
            error = UsageError(f"{error} ({'; '.join(map(str, self.quarantined))})")
        raise error

    def get(self, kind: str, name: str) -> Any:
        """Return the thing of that kind and name, imported."""
        return self.entry(kind, name).load()

    def bind(self, kind: str, name: str, options: Mapping[str, Any], *, given: int = 0) -> functools.partial[Any]:
        """Return the thing of that kind and name with the person's `options`, checked; it takes `given` arguments."""
        factory: Callable[..., Any] = self.get(kind, name)
        return functools.partial(factory, **bind_options(factory, options, f"{kind} '{name}'", reserved=given))

    def build(self, kind: str, name: str, options: Mapping[str, Any], *given: Any, **supplied: Any) -> Any:
        """Call the factory of that kind and name with what rnnpipe supplies and the person's `options`, checked.

        Whatever a plugin's factory raises becomes a PluginError that names the distribution.
        """
        entry = self.entry(kind, name)
        factory: Callable[..., Any] = entry.load()
        bound = bind_options(factory, options, f"{kind} '{name}'", reserved=len(given), supplied=set(supplied))
        try:
            return factory(*given, **supplied, **bound)
        except RnnpipeError:
            raise
        except Exception as error:
            raise PluginError(f"{entry} cannot be built: {in_one_line(error)}") from error


def _own_version() -> str:
    return importlib.metadata.version("rnnpipe")


def wrong_version(source: Source) -> str:
    """Return why a plugin is not for this rnnpipe, "" if it is."""
    own = _own_version()
    return "" if accepts(source.requires, own) else f"needs rnnpipe {source.requires}; this is {own}"


def in_one_line(error: BaseException) -> str:
    """Return an exception's type and what it says, in one line of bounded length."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if isinstance(error, RnnpipeError) else f"{type(error).__name__}: {text}"
