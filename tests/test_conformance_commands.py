"""The checks of commands: rnnpipe's own pass, and for each check there is a wrong command that it catches."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from rnnpipe.cli import COMMANDS
from rnnpipe.errors import UsageError
from rnnpipe.plugins import forget
from rnnpipe.testing import ConformanceError, Finding, checks_for, findings
from rnnpipe.testing.commands import check_command

RESERVED = {"reserved": tuple(COMMANDS)}


def outcomes(thing: Any, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(checks_for("command", thing, options))}


def failed(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.outcome == "failed"}


@pytest.mark.parametrize("name", COMMANDS)
def test_our_own_commands_pass(name: str) -> None:
    command = importlib.import_module(f"rnnpipe.cli.{COMMANDS[name][0]}").command
    assert not failed(outcomes(command, name=name))


@click.command("tally")
@click.argument("words", nargs=-1)
@click.option("--top", default=3, show_default=True, help="How many.")
@click.option("--secret", hidden=True)
def right(words: tuple[str, ...], top: int, secret: str | None) -> None:
    """Count words."""


@click.group("many")
def group() -> None:
    """Count many things."""


group.add_command(right)


@click.command("train")
def taken() -> None:
    """Has the name of one of ours."""


@click.command("two words")
def untypeable() -> None:
    """Has a blank in its name."""


@click.command("mute")
def mute() -> None:
    pass


@click.group("half")
def half_mute() -> None:
    """A group with a command that says nothing."""


half_mute.add_command(mute)


@click.command("vague")
@click.option("--top", default=3)
def vague(top: int) -> None:
    """Has an option that nobody explains."""


@click.command("lenient", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def lenient(words: tuple[str, ...]) -> None:
    """Take anything."""


@click.command("greedy", context_settings={"ignore_unknown_options": True})
@click.argument("first")
@click.argument("second")
def greedy(first: str, second: str) -> None:
    """Take an unknown option for the first word, and then miss the second."""


class Loads(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        importlib.import_module("torch")
        return super().get_help(ctx)


@click.command("heavy", cls=Loads)
def heavy() -> None:
    """Load torch to print its help."""


class Refuses(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        ctx.exit(1)


@click.command("helpless", cls=Refuses)
def helpless() -> None:
    """Have no help to give."""


WRONG: dict[str, list[Any]] = {
    "a click command": [outcomes],
    "name": [taken, untypeable],
    "help": [mute, half_mute],
    "parameters": [vague],
    "unknown options": [lenient, greedy],
    "help without torch": [heavy],
}


@pytest.mark.parametrize(
    ("check", "wrong"),
    [(check, thing) for check, things in WRONG.items() for thing in things],
    ids=lambda value: getattr(value, "name", None),
)
def test_wrong_commands_are_caught(check: str, wrong: Any) -> None:
    found = outcomes(wrong, **RESERVED)
    assert failed(found) == {check}, found
    assert re.fullmatch(r"expected .+; received .+; smallest case: .+", found[check].detail)


def test_help_that_fails_is_caught() -> None:
    found = outcomes(helpless)["help without torch"]
    assert found.detail == "expected --help ends with exit code 0; received 1; smallest case: --help"


def test_each_check_has_a_wrong_command() -> None:
    assert {check.name for check in checks_for("command", right, {})} == set(WRONG)


@pytest.mark.parametrize("command", [right, group], ids=lambda command: command.name)
def test_right_commands_pass(command: click.Command) -> None:
    assert {finding.outcome for finding in check_command(command, **RESERVED)} == {"passed"}


def test_a_subcommand_is_shown_by_its_path() -> None:
    assert outcomes(half_mute)["help"].detail.endswith("smallest case: half mute")


def test_a_command_that_another_process_cannot_find_is_skipped() -> None:
    @click.command("inside")
    def inside() -> None:
        """Stand in a function."""

    assert outcomes(inside)["help without torch"].outcome == "skipped"
    assert outcomes(click.Group("bare", help="Have no function."))["help without torch"].outcome == "skipped"


def test_nothing_is_run_by_the_checks() -> None:
    ran = []

    @click.command("dangerous", context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    def dangerous(words: tuple[str, ...]) -> None:
        """Do something that cannot be undone."""
        ran.append(words)

    outcomes(dangerous)
    assert not ran


def test_a_command_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tally.py").write_text(
        'import click\n@click.command("tally")\ndef command():\n    """Count words."""\n'
    )
    info = tmp_path / "tally-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tally\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rnnpipe.commands]\ntally = tally:command\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    try:
        assert {finding.outcome for finding in check_command("tally", **RESERVED)} == {"passed"}
        with pytest.raises(UsageError, match="unknown command 'taly'"):
            check_command("taly")
    finally:
        sys.modules.pop("tally", None)
        monkeypatch.undo()
        forget()


def test_the_error_shows_the_failure() -> None:
    with pytest.raises(ConformanceError) as error:
        check_command(taken, **RESERVED)
    assert str(error.value).splitlines() == [
        "command 'train' fails 1 of 6 checks:",
        "  name: expected a name that rnnpipe has no command of; received 'train'; smallest case: its name",
    ]
    assert "takes no option 'nam' here" in outcomes(taken, nam="x")["a click command"].detail
