"""Commands that plugins bring: entry points of the group `rnnpipe.commands`, each naming a click command.

They are no hook, since a plugin's module would have to be imported to learn that it has one; an entry point tells the
name and the distribution without that.
"""

from __future__ import annotations

from collections.abc import Collection

from rnnpipe.errors import UsageError
from rnnpipe.plugins.discovery import COMMANDS_GROUP, installed
from rnnpipe.plugins.registry import Entry, Quarantined, wrong_version


def find_commands(reserved: Collection[str]) -> tuple[dict[str, list[Entry]], list[Quarantined]]:
    """Return the commands of plugins by name, none of them imported, and those that cannot be used, with the reason.

    reserved: the names of rnnpipe's own commands, which no plugin can take.
    """
    found: dict[str, list[Entry]] = {}
    quarantined = []
    for source in installed(COMMANDS_GROUP):
        reason = wrong_version(source)
        if source.name in reserved:
            reason = f"rnnpipe has a command '{source.name}' of its own"
        if reason:
            quarantined.append(Quarantined(source.name, source.distribution, source.version, reason))
            continue
        entry = Entry("command", source.name, source.value, source.distribution, source.version)
        found.setdefault(source.name, []).append(entry)
    return found, quarantined


def only_command(claims: list[Entry]) -> Entry:
    """Return the one command of a name; raise UsageError if several distributions claim it."""
    if len(claims) > 1:
        owners = " and ".join(claim.owner for claim in claims)
        raise UsageError(
            f"command '{claims[0].name}' is claimed by {owners}. Uninstall one, or choose with RNNPIPE_PLUGINS."
        )
    return claims[0]
