"""`rnnpipe plugins list|show`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli.common import json_option, print_json, print_table, report_quarantined

if TYPE_CHECKING:
    from rnnpipe.plugins import Entry


@click.group("plugins")
def command() -> None:
    """List and show plugins: cells, datasets, cleaners, optimizers and all other parts by name."""


@command.command("list")
@click.option("--kind", help="Only one kind, such as cell.")
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """Print every name, its kind and the distribution that it comes from."""
    from rnnpipe.errors import unknown_name
    from rnnpipe.plugins import HOOKS, full_registry

    registry = full_registry()
    if kind is not None and kind not in HOOKS:
        raise unknown_name("kind of plugin", kind, HOOKS)
    entries = [entry for each in HOOKS if kind in (None, each) for entry in registry.entries(each)]
    if as_json:
        print_json(
            {
                "plugins": [
                    {"kind": e.kind, "name": e.name, "distribution": e.distribution, "version": e.version}
                    for e in entries
                ],
                "not_loaded": [vars(plugin) for plugin in registry.quarantined],
            }
        )
        return
    report_quarantined(registry)
    print_table([("kind", "name", "from"), *((e.kind, e.name, f"{e.distribution} {e.version}") for e in entries)])


@command.command("show")
@click.argument("name")
@click.option("--kind", help="The kind, if several things have this name.")
@json_option
def show(name: str, kind: str | None, as_json: bool) -> None:
    """Print what a plugin is: its description, options with defaults, and where it comes from."""
    from rnnpipe.errors import UsageError, unknown_name
    from rnnpipe.plugins import HOOKS, full_registry

    registry = full_registry()
    report_quarantined(registry)
    if kind is not None and kind not in HOOKS:
        raise unknown_name("kind of plugin", kind, HOOKS)
    found = [entry for each in HOOKS if kind in (None, each) for entry in registry.entries(each) if entry.name == name]
    if not found:
        error = unknown_name(
            kind or "plugin", name, {e.name for k in HOOKS if kind in (None, k) for e in registry.entries(k)}
        )
        causes = "; ".join(map(str, registry.quarantined))
        raise UsageError(f"{error} ({causes})") if causes else error
    described = [_describe(entry) for entry in found]
    if as_json:
        print_json(described)
        return
    for number, facts in enumerate(described):
        if number:
            click.echo()
        click.echo(f"{facts['kind']} {facts['name']}, from {facts['distribution']} {facts['version']}")
        click.echo(facts["description"])
        click.echo(f"options: {', '.join(facts['options']) or 'none'}")
        if facts["state"]:
            click.echo(f"state: {facts['state']}")
        for backend, reason in facts["backends"].items():
            click.echo(f"backend {backend}: {reason or 'takes it'}")


def _describe(entry: Entry) -> dict[str, Any]:
    from rnnpipe.options import list_options

    thing = entry.load()
    reserved = {"cell": 2, "optimizer": 1, "encoder": 1, "initializer": 1, "callback": 1, "model": 3, "trainer": 3}
    supplied = {"dropout", "tied", "window"} if entry.kind == "model" else set()
    try:
        options = list_options(thing, reserved.get(entry.kind, 0), supplied)
    except ValueError:  # a builtin without a signature
        options = []
    facts: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "description": _description(thing),
        "options": [str(option) for option in options],
        "state": "",
        "backends": {},
    }
    if entry.kind == "cell":
        facts |= _describe_cell(thing)
    return facts


def _description(thing: Any) -> str:
    """Return a thing's docstring; of torch's, which are typeset for a web page, the first paragraph."""
    text = inspect.getdoc(thing) or "no description"
    return text.split("\n\n")[0] if getattr(thing, "__module__", "").startswith("torch.") else text


def _describe_cell(cell: Any) -> dict[str, Any]:
    import torch

    from rnnpipe.plugins import full_registry

    registry = full_registry()
    built = cell(3, 4)
    names = {4: "H", 3: "I"}
    shapes = {
        name: "[B, " + ", ".join(names.get(size, str(size)) for size in shape) + "]"
        for name, shape in built.state_shape.items()
    }
    x = torch.zeros(2, 1, 3)
    return {
        "state": ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
        "backends": {
            name: registry.build("backend", name, {}).refusal([built], x, None) for name in registry.names("backend")
        },
    }
