"""`rnnpipe plugins check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.cli import COMMANDS
from rnnpipe.cli.common import json_option, print_json
from rnnpipe.cli.plugins_find import entries, find, not_loaded

if TYPE_CHECKING:
    from rnnpipe.plugins import Entry
    from rnnpipe.testing import Finding


@click.command("check")
@click.argument("targets", nargs=-1, required=True, metavar="NAME|PACKAGE|FILE...")
@click.option("--kind", help="Only this kind, such as cell.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the plugin, as in k=3.")
@json_option
def check(targets: tuple[str, ...], kind: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Check that plugins keep their contract: one by its name, all of a package, or all of a single file.

    The same checks are `rnnpipe.testing.check_cell` and so on, for a plugin's own tests. Exit code 1 if one fails.
    """
    from rnnpipe.config import options_from_text
    from rnnpipe.errors import PluginError, UsageError

    options = options_from_text(settings)
    chosen = [entry for target in targets for entry in _entries(target, kind)]
    if options and len(chosen) > 1:
        names = ", ".join(f"{entry.kind} '{entry.name}'" for entry in chosen)
        raise UsageError(f"--set goes with one plugin, and these are {names}; choose one by its name or --kind.")
    report: list[tuple[Entry, Finding]] = []
    alone = len(chosen) == 1
    for entry in chosen:
        if not as_json:
            click.echo(f"{entry.kind} {entry.name}, from {entry.owner}")
        for finding in _findings(entry, options, alone):
            report.append((entry, finding))
            if not as_json:
                outcome = finding.outcome.upper() if finding.outcome == "failed" else finding.outcome
                click.echo(f"  {outcome:8}{finding.check}: {finding.detail}")
    if as_json:
        print_json([{"kind": entry.kind, "name": entry.name, **vars(finding)} for entry, finding in report])
    count = {which: sum(f.outcome == which for _, f in report) for which in ("passed", "failed", "skipped")}
    if not as_json:
        seconds = sum(finding.seconds for _, finding in report)
        click.echo(", ".join(f"{number} {which}" for which, number in count.items() if number) + f" in {seconds:.1f} s")
    if count["failed"]:
        failed = ", ".join(
            dict.fromkeys(f"{entry.kind} '{entry.name}'" for entry, f in report if f.outcome == "failed")
        )
        raise PluginError(f"{failed}: {count['failed']} of {len(report)} checks failed.")


def _findings(entry: Entry, options: Mapping[str, Any], alone: bool) -> Iterator[Finding]:
    from rnnpipe.errors import PluginError, UsageError
    from rnnpipe.testing import Finding, checks_for, findings

    try:
        thing = entry.load()
    except PluginError as error:
        yield Finding("import", "failed", str(error), 0.0)
        return
    if entry.kind == "command":
        options = {**options, "name": entry.name, "reserved": COMMANDS}
    elif missing := _missing(entry, thing, options):
        words = f"{entry} needs the option '{missing}'; give it with --set {missing}=VALUE"
        if alone:
            raise UsageError(f"{words}.")
        yield Finding("all checks", "skipped", f"{words}, checked alone (--kind {entry.kind})", 0.0)
        return
    yield from findings(checks_for(entry.kind, thing, options))


def _missing(entry: Entry, thing: Any, options: Mapping[str, Any]) -> str:
    """Return an option without a default that was not given, "" if there is none."""
    from inspect import Parameter

    from rnnpipe.options import list_options
    from rnnpipe.plugins import GIVEN, SUPPLIED

    needed = list_options(thing, GIVEN.get(entry.kind, 0), set(SUPPLIED.get(entry.kind, ())))
    return next((o.name for o in needed if o.default is Parameter.empty and o.name not in options), "")


def _entries(target: str, kind: str | None) -> list[Entry]:
    """Return the entries that a name, a distribution or a single file stands for."""
    from rnnpipe.errors import PluginError, UsageError
    from rnnpipe.plugins.discovery import normalize

    path = Path(target)
    if target.endswith(".py") or path.is_file():
        return _of_kind(_load_file(path), kind, target)
    every = entries(None)
    if of_package := [entry for entry in every if normalize(entry.distribution) == normalize(target)]:
        return _of_kind(of_package, kind, target)
    broken = [
        str(plugin)
        for plugin in not_loaded()
        if normalize(target) in map(normalize, (plugin.plugin, plugin.distribution))
    ]
    if broken:
        raise PluginError("; ".join(broken))
    if path.is_dir():
        raise UsageError(f"{target}: is a folder; install the package (pip install -e {target}) and give its name.")
    return find(target, kind)


def _load_file(path: Path) -> list[Entry]:
    from rnnpipe.errors import InputError, PluginError
    from rnnpipe.plugins import Registry
    from rnnpipe.plugins.discovery import file_source

    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    registry = Registry()
    found = registry.load(file_source(path))
    if registry.quarantined:
        raise PluginError(str(registry.quarantined[0]))
    return found


def _of_kind(found: list[Entry], kind: str | None, target: str) -> list[Entry]:
    from rnnpipe.cli.plugins_find import kinds
    from rnnpipe.errors import UsageError

    chosen = [entry for entry in found if entry.kind in kinds(kind)]
    if not chosen:
        names = ", ".join(f"{entry.kind} '{entry.name}'" for entry in found) or "nothing"
        raise UsageError(f"{target}: has no {kind or 'plugin'}; it has {names}.")
    return chosen
