"""`rnnpipe plugins new`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli import COMMANDS, say
from rnnpipe.cli.common import PATH
from rnnpipe.scaffold import KINDS


@click.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the plugin is.")
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write. [rnnpipe-NAME]")
def new(name: str, kind: str, output: Path | None) -> None:
    """Write a package with a small working plugin of a kind, its entry point, its tests and a README.

    Replace the example by your own; the tests hold it to the contract of its kind.
    """
    import rnnpipe
    from rnnpipe.errors import UsageError
    from rnnpipe.scaffold import check_name, write_package

    names = check_name(name, kind)
    taken = _owner(names.name, kind)
    if taken:
        raise UsageError(f"there is a {kind} '{names.name}' already, of {taken}; choose another name.")
    folder = output or Path(names.distribution)
    for path in write_package(names, folder, rnnpipe.__version__):
        click.echo(path)
    say(f"next: pip install -e '{folder}[test]' && pytest {folder} && rnnpipe plugins check {names.name}")


def _owner(name: str, kind: str) -> str:
    """Return the distribution that has this name for a thing of this kind, "" if none has."""
    from rnnpipe.cli.plugins_find import entries

    if kind == "command" and name in COMMANDS:
        return "rnnpipe"
    return next((entry.owner for entry in entries(kind) if entry.name == name), "")
