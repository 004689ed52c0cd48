"""What a package requires of rnnpipe, and whether this rnnpipe is that.

An installer sees to this too, but a package may be older than an upgrade of rnnpipe, or installed without its
dependencies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_REQUIREMENT = re.compile(r"rnnpipe(?![\w.-])\s*(?:\[[^\]]*\])?\s*\(?([^;()]*)\)?\s*$", re.IGNORECASE)
_CLAUSE = re.compile(r"(~=|==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?$")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")


def requirement_on_rnnpipe(requirements: Iterable[str]) -> str:
    """Return the version specifiers of rnnpipe among a distribution's requirements, "" if it states none.

    A requirement with a marker (of an extra, of a platform) is left to the installer.
    """
    found = (_REQUIREMENT.match(requirement.strip()) for requirement in requirements)
    return ",".join(match[1].strip() for match in found if match and match[1].strip())


def accepts(specifiers: str, version: str) -> bool:
    """Say whether a version is within specifiers such as ">=0.1,<0.2" (PEP 440), by its release numbers alone.

    A development or pre-release version counts as the release that it leads to. A clause of another form than an
    operator and release numbers is left to the installer.
    """
    match = _RELEASE.match(version)
    own = _numbers(match[0]) if match else ()
    return all(_clause_accepts(clause.strip(), own) for clause in specifiers.split(",") if clause.strip())


def _clause_accepts(clause: str, own: tuple[int, ...]) -> bool:
    match = _CLAUSE.match(clause)
    if match is None:
        return True
    operator, wanted, wildcard = match[1], _numbers(match[2]), match[3]
    width = max(len(own), len(wanted))
    ours, theirs = _padded(own, width), _padded(wanted, width)
    begins_alike = ours[: len(wanted)] == wanted
    if operator == "~=":  # at least this, and the same up to its last number but one
        return ours >= theirs and ours[: len(wanted) - 1] == wanted[:-1]
    if operator in ("==", "!="):
        return (begins_alike if wildcard else ours == theirs) == (operator == "==")
    return {"<": ours < theirs, "<=": ours <= theirs, ">": ours > theirs, ">=": ours >= theirs}[operator]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))
