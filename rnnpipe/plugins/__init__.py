"""Finding plugins and looking things up by name.

A plugin is a module that implements hooks of `rnnpipe.hookspecs`. The built-ins are one, `rnnpipe.builtin`; the others
come from two entry-point groups (`rnnpipe.text` for what needs no torch, `rnnpipe` for everything else) and from
folders of single files. Commands are apart: entry points of the group `rnnpipe.commands`. Each is loaded under guard:
one that fails is quarantined with its reason, and everything that does not need it works.

`discovery` finds them, `registry` loads them and keeps their names, `commands` finds commands, `versions` reads what a
package requires of rnnpipe.
"""

from __future__ import annotations

import functools

from rnnpipe.plugins.discovery import MAIN_GROUP, TEXT_GROUP, installed_points
from rnnpipe.plugins.registry import GIVEN, HOOKS, SUPPLIED, Entry, Quarantined, Registry

__all__ = [
    "GIVEN",
    "HOOKS",
    "MAIN_GROUP",
    "SUPPLIED",
    "TEXT_GROUP",
    "Entry",
    "Quarantined",
    "Registry",
    "forget",
    "full_registry",
    "text_registry",
]


@functools.cache
def text_registry() -> Registry:
    """Return the registry with the built-ins and the plugins that need no torch: all that the corpus commands need.

    The others are loaded once a name is asked for that is not among these.
    """
    registry = Registry()
    registry.load_text()
    return registry


@functools.cache
def full_registry() -> Registry:
    """Return the registry with the built-ins and all plugins."""
    registry = text_registry()
    registry.load_all()
    return registry


def forget() -> None:
    """Forget what was found: the next look-up finds and loads plugins anew."""
    for cached in (text_registry, full_registry, installed_points):
        cached.cache_clear()
