"""The generated tables of README.md. Run this file to write them anew: `python tests/readme_tables.py`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

from rnnpipe import hookspecs
from rnnpipe.cli import COMMANDS, cli
from rnnpipe.plugins import HOOKS, MAIN_GROUP, TEXT_GROUP, full_registry

README = Path(__file__).resolve().parent.parent / "README.md"
TEXT_KINDS = ("dataset", "cleaner", "tokenizer")


def commands() -> str:
    """Return the table of commands with their arguments."""
    lines = ["| command | what it does |", "|---|---|"]
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        subcommands = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, each in subcommands.items():
            metavars = (p.make_metavar(click.Context(each)) for p in each.params if isinstance(p, click.Argument))
            arguments = " ".join(metavars).replace("|", "\\|")
            help_text = inspect.getdoc(each.callback) if sub else None
            does = help_text.splitlines()[0] if help_text else line
            lines.append(f"| `{' '.join(filter(None, ('rnnpipe', name, sub, arguments)))}` | {does} |")
    return "\n".join(lines)


def hooks() -> str:
    """Return the table of hooks with the built-ins of each."""
    registry = full_registry()
    lines = ["| hook | what it does | entry-point group | built in |", "|---|---|---|---|"]
    for kind, hook in HOOKS.items():
        does = inspect.getdoc(getattr(hookspecs, hook))
        names = ", ".join(f"`{e.name}`" for e in registry.entries(kind) if e.distribution == "rnnpipe")
        group = TEXT_GROUP if kind in TEXT_KINDS else MAIN_GROUP
        lines.append(f"| `{hook}` | {does} | `{group}` | {names} |")
    return "\n".join(lines)


TABLES = {"commands": commands, "hooks": hooks}


def with_tables(text: str) -> str:
    """Return a README with every generated table in its place."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        text, count = re.subn(pattern, lambda m, make=make: m[1] + make() + "\n" + m[2], text, flags=re.DOTALL)
        assert count == 1, f"README.md has no place for the table '{name}'"
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
