"""`rnnpipe plugins list|show|check|new`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import json_option, print_json, print_table, report_quarantined
from rnnpipe.cli.plugins_check import check
from rnnpipe.cli.plugins_find import entries, find, not_loaded
from rnnpipe.cli.plugins_new import new

if TYPE_CHECKING:
    from rnnpipe.plugins import Entry


@click.group("plugins")
def command() -> None:
    """List, show, check and begin plugins: cells, datasets, cleaners, optimizers and all other parts by name."""


command.add_command(check)
command.add_command(new)


@command.command("list")
@click.option("--kind", help="Only one kind, such as cell.")
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """Print every name, its kind and the distribution that it comes from."""
    from rnnpipe.plugins import full_registry

    found = entries(kind)
    warnings = full_registry().warnings
    for warning in (*warnings, *not_loaded()):
        say(f"warning: {warning}")
    if as_json:
        print_json(
            {
                "plugins": [
                    {"kind": e.kind, "name": e.name, "distribution": e.distribution, "version": e.version}
                    for e in found
                ],
                "not_loaded": [vars(plugin) for plugin in not_loaded()],
                "warnings": warnings,
            }
        )
        return
    print_table([("kind", "name", "from"), *((e.kind, e.name, e.owner) for e in found)])


@command.command("show")
@click.argument("name")
@click.option("--kind", help="The kind, if several things have this name.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Cells: tell the backend that training gets there, whether or not it is there.",
)
@click.option("--shape", default="64x64x128x256", show_default=True, metavar="TxBxIxH", help="Cells: of one layer.")
@json_option
def show(name: str, kind: str | None, device: str, shape: str, as_json: bool) -> None:
    """Print what a plugin is: its description, options with defaults, and where it comes from."""
    from rnnpipe.plugins import full_registry

    report_quarantined(full_registry())
    described = [_describe(entry, device, shape) for entry in find(name, kind)]
    if as_json:
        print_json(described)
        return
    for number, facts in enumerate(described):
        if number:
            click.echo()
        _print(facts)


# How a person gives an option of a kind of plugin.
_REACHED = {
    "dataset": "--set data.dataset.OPTION=VALUE",
    "cleaner": "--set text.cleaner.OPTION=VALUE, or --cleaner NAME:OPTION=VALUE",
    "tokenizer": "--set text.tokenizer.OPTION=VALUE, or --tokenizer NAME:OPTION=VALUE",
    "cell": "--set model.cell.OPTION=VALUE",
    "encoder": "--set model.encoder.OPTION=VALUE",
    "model": "--set model.name.OPTION=VALUE",
    "initializer": "--set model.initializers.recurrent.OPTION=VALUE",
    "optimizer": "--set training.optimizer.OPTION=VALUE",
    "sampler": "--sampler NAME:OPTION=VALUE",
    "backend": "none can be given",
    "callback": "--set 'training.callbacks=[{name=\"NAME\", OPTION=VALUE}]'",
    "trainer": "--set training.trainer.OPTION=VALUE",
    "command": "on its command line",
}


def _print(facts: dict[str, Any]) -> None:
    click.echo(f"{facts['kind']} {facts['name']}, from {facts['distribution']} {facts['version']}".rstrip())
    click.echo(facts["description"])
    click.echo(f"source: {facts['source']}")
    if not facts["options"]:
        click.echo("options: none")
    else:
        click.echo(f"options ({_REACHED[facts['kind']]}):")
        print_table([(f"  {o['name']}", o["takes"], f"default {o['default']}") for o in facts["options"]])
    if facts["kind"] == "cell":
        click.echo(f"base class: {facts['base']}")
        click.echo(f"state: {facts['state']}")
    for backend, reason in facts["backends"].items():
        click.echo(f"backend {backend}: {reason or 'takes it'}")
    if choice := facts["choice"]:
        away = "" if choice["here"] else " (none is here: told for one with its compiler)"
        click.echo(f"on {choice['device']}{away}, {choice['precision']}, {choice['shape']}: {choice['backend']}")
        if len(choice["measured"]) > 1:
            click.echo(f"  training measures {', '.join(choice['measured'])} and takes the fastest")
        for backend, reason in choice["passed_over"].items():
            click.echo(f"  {backend} is passed over: {reason}")


def _describe(entry: Entry, device: str, shape: str) -> dict[str, Any]:
    thing = entry.load()
    facts: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "description": _description(thing),
        "source": _source(entry, thing),
        "options": [] if entry.kind == "command" else _options(entry, thing),
        "base": "",
        "state": "",
        "backends": {},
        "choice": None,
    }
    if entry.kind == "command":
        facts["description"] = thing.get_short_help_str(limit=200) if isinstance(thing, click.Command) else ""
        facts["options"] = [
            {"name": max(p.opts, key=len), "takes": p.type.name, "default": "none" if p.default is None else p.default}
            for p in getattr(thing, "params", [])
            if isinstance(p, click.Option)
        ]
    if entry.kind == "cell":
        facts |= _describe_cell(thing, device, shape)
    return facts


def _options(entry: Entry, thing: Any) -> list[dict[str, str]]:
    from rnnpipe.options import describe, list_options
    from rnnpipe.plugins import GIVEN, SUPPLIED

    try:
        options = list_options(thing, GIVEN.get(entry.kind, 0), set(SUPPLIED.get(entry.kind, ())))
    except ValueError:  # a builtin without a signature
        return []
    return [
        {
            "name": option.name,
            "takes": "anything" if option.annotation is None else describe(option.annotation),
            "default": "none: it must be given" if option.default is inspect.Parameter.empty else repr(option.default),
        }
        for option in options
    ]


def _description(thing: Any) -> str:
    """Return a thing's docstring; of torch's, which are typeset for a web page, the first paragraph."""
    text = inspect.getdoc(thing) or "no description"
    return text.split("\n\n")[0] if getattr(thing, "__module__", "").startswith("torch.") else text


def _source(entry: Entry, thing: Any) -> str:
    """Return where a thing is defined: module:name, and the file with its line."""
    place = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', entry.name)}"
    try:
        return f"{place} ({inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]})"
    except (TypeError, OSError):  # an object without a source of its own
        return place


_INPUT_SIZE, _HIDDEN_SIZE = 7, 16  # of the cell that is built to read its state's shape off


def _describe_cell(cell: Any, device: str, shape: str) -> dict[str, Any]:
    from rnnpipe.errors import UsageError
    from rnnpipe.models.recurrent import Recurrent
    from rnnpipe.pipeline.choice import backend_choice

    ours = [each.__name__ for each in cell.__mro__ if each.__module__ == "rnnpipe.cells.base"]
    base = next((name for name in ours if not name.startswith("_")), "none of rnnpipe's")
    try:
        stack = Recurrent(cell, _INPUT_SIZE, _HIDDEN_SIZE)
    except UsageError as error:  # an option without a default
        return {"base": base, "state": f"depends on its options ({error})"}
    shapes = _shapes(stack.cells()[0].state_shape.items())
    choice = asdict(backend_choice(cell, device, shape))
    return {"base": base, "state": shapes, "backends": choice.pop("answers"), "choice": choice}


def _shapes(leaves: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """Return the shapes of a state by name, in the letters of the cell's contract."""
    letters = {_HIDDEN_SIZE: "H", _INPUT_SIZE: "I"}
    return ", ".join(f"{name} [{', '.join(['B', *(letters.get(n, str(n)) for n in shape)])}]" for name, shape in leaves)
