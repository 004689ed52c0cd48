"""A factory's signature is its option schema: names, defaults and types are read from it and checked here."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnnpipe.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Option:
    """One option of a factory: its name, annotated type (None where there is none) and default."""

    name: str
    annotation: Any
    default: Any

    def __str__(self) -> str:
        return self.name if self.default is inspect.Parameter.empty else f"{self.name}={self.default!r}"


@functools.lru_cache(maxsize=256)
def _parameters(factory: Callable[..., Any]) -> tuple[tuple[inspect.Parameter, Any], ...]:
    """Return the parameters of a factory, each with its type, None where there is none."""
    hints = _type_hints(factory)
    return tuple((each, hints.get(each.name)) for each in inspect.signature(factory).parameters.values())


def list_options(factory: Callable[..., Any], reserved: int = 0, supplied: set[str] | None = None) -> list[Option]:
    """Return the options of `factory`: its parameters less the first `reserved` and those that rnnpipe `supplied`."""
    found = _parameters(factory) if isinstance(factory, Hashable) else _parameters.__wrapped__(factory)
    return [
        Option(parameter.name, annotation, parameter.default)
        for parameter, annotation in found[reserved:]
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in (supplied or set())
    ]


def _type_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a factory that can be resolved; one that only a type checker knows is left out."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    function = getattr(factory, "__init__") if isinstance(factory, type) else factory  # noqa: B009 - mypy: unsound otherwise
    names = getattr(inspect.unwrap(function), "__globals__", {})
    hints = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints[name] = typing.get_type_hints(alone, names)[name]
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
    return hints


def bind_options(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    owner: str,
    reserved: int = 0,
    supplied: set[str] | None = None,
) -> dict[str, Any]:
    """Return `options` as keyword arguments for `factory`, checked against its signature.

    Raises UsageError for an unknown option, a value of another type, or a missing one that has no default; the error
    lists what is accepted.
    """
    accepted = {option.name: option for option in list_options(factory, reserved, supplied)}
    listing = ", ".join(map(str, accepted.values())) or "none"
    bound = {}
    for name, value in options.items():
        if name not in accepted:
            raise UsageError(f"{owner} has no option '{name}'.{did_you_mean(name, accepted)} Accepted: {listing}.")
        try:
            bound[name] = convert(value, accepted[name].annotation, f"option '{name}' of {owner}")
        except UsageError as error:
            raise UsageError(f"{error} Accepted: {listing}.") from None
    missing = [o.name for o in accepted.values() if o.default is inspect.Parameter.empty and o.name not in bound]
    if missing:
        raise UsageError(f"{owner} needs the option '{missing[0]}'. Accepted: {listing}.")
    return bound


def convert(value: Any, annotation: Any, place: str) -> Any:
    """Return `value` as the annotated type; raise UsageError naming the place, the value and what is accepted.

    Whole numbers are accepted where a float is meant and lists where a tuple is; nothing else is converted. An
    annotation that this module does not know accepts anything.
    """
    if annotation is None or annotation is Any or isinstance(annotation, typing.TypeVar):
        return value
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for member in sorted(typing.get_args(annotation), key=lambda member: member is float):
            try:
                return convert(value, type(None) if member is None else member, place)
            except UsageError:
                continue
    elif origin is typing.Literal:
        if value in typing.get_args(annotation):
            return value
    elif annotation is float:
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023
        if whole or isinstance(value, float):
            return float(value)
    elif annotation in (tuple, list) or origin in (tuple, list, Sequence):
        if isinstance(value, list | tuple):
            members = _members(value, annotation, place)
            return tuple(members) if tuple in (annotation, origin) else members
    elif annotation is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif annotation in (bool, str, dict, type(None)):
        if isinstance(value, annotation):
            return value
    elif not isinstance(annotation, type) or not isinstance(value, str | int | float | bool | list | dict):
        return value
    raise UsageError(f"{place}: {value!r} is not accepted; it takes {describe(annotation)}.")


def _members(values: Sequence[Any], annotation: Any, place: str) -> list[Any]:
    """Return the members of a list as its annotation says; raise UsageError if there are too many or too few."""
    kinds = typing.get_args(annotation)
    if not kinds:
        return list(values)
    if kinds[-1] is ... or tuple not in (annotation, typing.get_origin(annotation)):
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise UsageError(f"{place}: {list(values)!r} has {len(values)} members; it takes {len(kinds)}.")
    return [convert(value, kind, place) for value, kind in zip(values, kinds, strict=True)]


def describe(annotation: Any) -> str:
    """Return an annotation in words."""
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        dict: "a table",
        type(None): "nothing",
    }
    if annotation in words:
        return words[annotation]
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        plain = [member for member in members if not isinstance(member, type) or member in words]
        return " or ".join(describe(member) for member in plain or members)
    if origin is typing.Literal:
        return " or ".join(map(repr, members))
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        return (
            "a list of " + ", ".join(dict.fromkeys(describe(m) for m in members if m is not ...))
            if members
            else "a list"
        )
    return getattr(annotation, "__name__", str(annotation))
