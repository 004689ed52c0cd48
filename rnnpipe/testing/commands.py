"""Checks of commands that plugins bring: click commands that behave as rnnpipe's own do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from rnnpipe.errors import UsageError, unknown_name
from rnnpipe.plugins.commands import find_commands, only_command
from rnnpipe.testing.child import elsewhere
from rnnpipe.testing.report import Check, Failure, Finding, Skipped, require
from rnnpipe.testing.things import in_order

_NO_OPTION = "--no-such-option"


def check_command(thing: Any, **options: Any) -> list[Finding]:
    """Check a command, a click command or a registered name; raise ConformanceError with every check that failed.

    name: what it is called on the command line, if not what it calls itself. reserved: names it must not have.
    """
    if isinstance(thing, str):
        found, _ = find_commands(())
        if thing not in found:
            raise unknown_name("command", thing, found)
        options = {"name": thing, **options}
        thing = only_command(found[thing]).load()
    return require(f"command '{options.get('name') or getattr(thing, 'name', thing)}'", checks(thing, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a command; options: `name` and `reserved`, as of `check_command`."""
    return in_order(
        Check("a click command", lambda: _click_command(thing, options)),
        [
            Check("name", lambda: _name(thing, options)),
            Check("help", lambda: _help(thing)),
            Check("parameters", lambda: _parameters(thing)),
            Check("unknown options", lambda: _unknown_options(thing)),
            Check("help without torch", lambda: _help_without_torch(thing)),
        ],
    )


def _click_command(thing: Any, options: Mapping[str, Any]) -> str:
    if unknown := sorted(set(options) - {"name", "reserved"}):
        raise UsageError(f"a command takes no option '{unknown[0]}' here; accepted: name, reserved.")
    if not isinstance(thing, click.Command):
        raise Failure("a click.Command", type(thing).__name__, "what the entry point names")
    return type(thing).__name__


def _name(thing: click.Command, options: Mapping[str, Any]) -> str:
    name, reserved = options.get("name") or thing.name, options.get("reserved", ())
    if not isinstance(name, str) or not name or name.startswith("-") or name.split() != [name]:
        raise Failure("a name that can be typed", repr(name), "its name")
    if name in reserved:
        raise Failure("a name that rnnpipe has no command of", f"'{name}'", "its name")
    return f"'{name}'"


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and those below it, with what is typed to reach them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            if (below := command.get_command(context, name)) is None:
                raise Failure("every command that the group lists", f"none for '{name}'", path)
            yield from _commands(below, f"{path} {name}")


def _help(thing: click.Command) -> str:
    lines = 0
    for path, command in _commands(thing, thing.name or "command"):
        if not (command.help or "").strip():
            raise Failure("a help text", "none", path)
        # As below `rnnpipe`: a command keeps the help option that it was first asked for.
        context = click.Context(command, info_name=path, help_option_names=["-h", "--help"])
        lines += len(command.get_help(context).splitlines())
    return f"{lines} lines"


def _parameters(thing: click.Command) -> str:
    number = 0
    for path, command in _commands(thing, thing.name or "command"):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden and not (parameter.help or "").strip():
                raise Failure("a help text for each option", "none", f"{path} {parameter.opts[-1]}")
            number += 1
    return f"{number} parameters, each option with a help text"


def _unknown_options(thing: click.Command) -> str:
    """Parse a command line with an option that there is not; nothing is run."""
    for path, command in _commands(thing, thing.name or "command"):
        expected = "a click.UsageError, which ends with exit code 2"
        try:
            command.make_context(path, [_NO_OPTION])
        except click.MissingParameter as error:  # it was taken for something else, and only then was one missed
            raise Failure(expected, f"{type(error).__name__}", f"{path} {_NO_OPTION}") from None
        except click.UsageError as error:
            if error.exit_code != 2:
                raise Failure(expected, f"exit code {error.exit_code}", f"{path} {_NO_OPTION}") from None
        except click.exceptions.Exit as error:
            raise Failure(expected, f"exit code {error.exit_code}", f"{path} {_NO_OPTION}") from None
        else:
            raise Failure(expected, "no error", f"{path} {_NO_OPTION}")
    return "refused with exit code 2"


def ask_help(thing: click.Command, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exit code of --help, and whether torch is loaded behind it."""
    code = thing.main(["--help"], prog_name=thing.name, standalone_mode=False)
    return {"code": code or 0, "torch": "torch" in sys.modules}


def _help_without_torch(thing: click.Command) -> str:
    if thing.callback is None:
        raise Skipped("another process cannot import it: it has no function that says where it stands")
    answer = elsewhere(f"{__name__}:ask_help", thing, {}, thing.callback.__module__)
    if answer["code"]:
        raise Failure("--help ends with exit code 0", str(answer["code"]), "--help")
    if answer["torch"]:
        raise Failure("--help without loading torch", "torch loaded", "--help")
    return "--help ends with exit code 0 and loads no torch"
