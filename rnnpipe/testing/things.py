"""What the checks of every kind share: things by name, built with checked options, and global state left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rnnpipe.options import bind_options, list_options
from rnnpipe.plugins import full_registry
from rnnpipe.testing.randomness import put_back
from rnnpipe.testing.report import Check, Failure, Skipped


def resolve(kind: str, thing: Any) -> tuple[Any, str]:
    """Return the thing itself and its name; a string is looked up among the registered names of that kind.

    Raises UsageError for an unknown name.
    """
    if isinstance(thing, str):
        return full_registry().get(kind, thing), thing
    return thing, str(getattr(thing, "__name__", type(thing).__name__))


def build(kind: str, thing: Any, options: Mapping[str, Any], *given: Any, **supplied: Any) -> Any:
    """Call a factory with what rnnpipe supplies and the person's `options`, checked against its signature.

    Raises UsageError for an unknown option, a value of another type, or a missing one.
    """
    owner = f"{kind} '{resolve(kind, thing)[1]}'"
    bound = bind_options(thing, options, owner, reserved=len(given), supplied=set(supplied))
    return thing(*given, **supplied, **bound)


def require_reachable(thing: Any, reserved: int = 0) -> None:
    """Raise Failure if a factory has an option that no configuration can give: its key `name` names the thing."""
    if any(option.name == "name" for option in list_options(thing, reserved)):
        raise Failure("options that a configuration can give", "an option called 'name'", "its signature")


def in_order(first: Check, rest: Iterable[Check]) -> list[Check]:
    """Return all the checks; those of `rest` are skipped once `first`, which builds the thing, has failed."""
    failed = False

    def run_first() -> str:
        nonlocal failed
        failed = True  # until it has passed
        measured = first.run()
        failed = False
        return measured

    def guarded(check: Check) -> Check:
        def run() -> str:
            if failed:
                raise Skipped(f"'{first.name}' failed, so there is nothing to look at")
            return check.run()

        return Check(check.name, run)

    return [Check(first.name, run_first), *map(guarded, rest)]


@contextlib.contextmanager
def attempt(expected: str, case: str) -> Iterator[None]:
    """Turn whatever is raised inside into a Failure that names the case; Failure and Skipped pass as they are."""
    try:
        yield
    except (Failure, Skipped):
        raise
    except Exception as error:  # the plugin's own: anything may come out of code that is not ours
        reason = str(error).strip().partition("\n")[0]
        raise Failure(expected, f"{type(error).__name__}: {reason}", case) from error


def seeded_check(name: str, function: Callable[..., str], *given: Any) -> Check:
    """Return the check that calls `function` on what is given, with every generator seeded and put back."""

    def run() -> str:
        with seeded():
            return function(*given)

    return Check(name, run)


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch, and put all three and the default dtype back behind it."""
    from rnnpipe.runtime import seed_everything  # inside: the checks of cleaners and tokenizers need no torch

    with put_back():
        seed_everything(seed)
        yield
