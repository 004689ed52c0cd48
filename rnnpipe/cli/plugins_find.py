"""What the commands of `rnnpipe plugins` share: entries by kind and by name, commands among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnnpipe.cli import COMMANDS

if TYPE_CHECKING:
    from rnnpipe.plugins import Entry, Quarantined


def kinds(kind: str | None) -> list[str]:
    """Return the kind that was asked for, or all; raise UsageError for one that is none."""
    from rnnpipe.errors import unknown_name
    from rnnpipe.plugins import HOOKS

    every = [*HOOKS, "command"]
    if kind is not None and kind not in every:
        raise unknown_name("kind of plugin", kind, every)
    return every if kind is None else [kind]


def entries(kind: str | None) -> list[Entry]:
    """Return the entries of a kind, or of all kinds, by name; commands are a kind here, though no hook."""
    from rnnpipe.plugins import full_registry
    from rnnpipe.plugins.commands import find_commands

    commands = [claim for claims in find_commands(COMMANDS)[0].values() for claim in claims]
    registry = full_registry()
    return [entry for each in kinds(kind) for entry in (commands if each == "command" else registry.entries(each))]


def not_loaded() -> list[Quarantined]:
    """Return every plugin that is not loaded, and every command that cannot be used, with the reasons."""
    from rnnpipe.plugins import full_registry
    from rnnpipe.plugins.commands import find_commands

    return [*full_registry().quarantined, *find_commands(COMMANDS)[1]]


def find(name: str, kind: str | None) -> list[Entry]:
    """Return the entries of a name; raise UsageError if there is none, with the nearest and with what is not loaded."""
    from rnnpipe.errors import UsageError, unknown_name

    every = entries(kind)
    found = [entry for entry in every if entry.name == name]
    if found:
        return found
    error = unknown_name(kind or "plugin", name, {entry.name for entry in every})
    causes = "; ".join(map(str, not_loaded()))
    raise UsageError(f"{error} ({causes})") if causes else error
