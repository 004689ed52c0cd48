"""The exceptions that rnnpipe raises on purpose, and the helpers that word them.

Everything a person can cause ends in one of these. Only `cli/` turns them into an `Error:` line and an exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 2000  # characters of a message


class RnnpipeError(Exception):
    """What went wrong, where, with which value, and what to do: one line for a person to read. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:  # it quotes a value that no person would have written
            message = f"{message[: _LONGEST - 400]} ... {message[-400:]}"
        super().__init__(message)


class UsageError(RnnpipeError):
    """A name, option or key that does not exist, or a value that is not accepted. Exit code 2."""

    exit_code = 2


class InputError(RnnpipeError):
    """An input file that cannot be used as it is."""


class PluginError(RnnpipeError):
    """A plugin that cannot be loaded or that breaks its contract."""


class BackendRefusal(UsageError):
    """A backend that was asked for by name and cannot run these cells."""


class SlowBackend(RnnpipeError):
    """Training would run in the plain loop over time, and was told not to."""


class DivergedError(RnnpipeError):
    """The loss or a gradient is not a number any more."""


class Interrupted(RnnpipeError):
    """A signal asked the work to stop; what was promised is saved."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(name: str, accepted: Iterable[str]) -> str:
    """Return " Did you mean 'X'?" for the accepted name nearest to `name`, or an empty string if none is near."""
    near = difflib.get_close_matches(name, list(accepted), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def unknown_name(kind: str, name: str, accepted: Iterable[str]) -> UsageError:
    """Return the error for a `name` that is not among the `accepted` ones of its `kind`."""
    names = sorted(accepted)
    return UsageError(f"unknown {kind} '{name}'.{did_you_mean(name, names)} Accepted: {', '.join(names) or 'none'}.")
