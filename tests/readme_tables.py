"""The generated tables of README.md and plugins/README.md; `python tests/readme_tables.py` writes them anew."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

from rnnpipe import hookspecs
from rnnpipe.cli import COMMANDS, cli
from rnnpipe.plugins import HOOKS, full_registry
from rnnpipe.scaffold import KINDS, Names

README = Path(__file__).resolve().parent.parent / "README.md"
GUIDE = README.parent / "plugins" / "README.md"

# kind: what an author writes, and the worked packages that show it
CONTRACTS = {
    "dataset": ("a class with `documents(split)`, `sequences(split)` or `pairs(split)`", "aozora", "huggingface"),
    "cleaner": ("a function that returns a `Cleaner` of named rules from text to text", "aozora"),
    "tokenizer": ("a function that returns a `Tokenizer`: `split` and `join`", "aozora"),
    "cell": ("a subclass of `GatedCell`, `LinearCell` or `Cell`: one timestep", "mingru", "peephole-lstm"),
    "encoder": ("a module `(vocab_size, **options)` from ids [T, B] to [T, B, output_size]",),
    "model": (
        "a module `(encoder, recurrent, vocab_size, *, dropout, tied, window, **options)`, or for sequences "
        "`(input_layer, recurrent, output_size, *, target, dropout, **options)`, or for pairs a `PairModel` "
        "`(parts, **options)`",
    ),
    "initializer": ("a function `(tensor, **options)` that fills it in place",),
    "optimizer": ("a `torch.optim.Optimizer` or a function that returns one: `(params, **options)`", "lion"),
    "sampler": ("a class with `adjust(logits, rows)`, pure, row by row",),
    "backend": ("a class with `name`, `priority`, `refusal` and `run`",),
    "callback": ("a class `(folder, **options)` with `on_start`, `on_step`, `on_evaluate`, `on_end`",),
    "trainer": ("a function `(task, callbacks, should_stop, **options)` that fits the task's model",),
    "command": ("a click command", "zipf"),
}


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
    """Return the table of hooks with the built-ins of each, and the commands, which have a group but no hook."""
    registry = full_registry()
    lines = ["| hook | what it does | entry-point group | built in | worked packages |", "|---|---|---|---|---|"]
    for kind, hook in HOOKS.items():
        does = inspect.getdoc(getattr(hookspecs, hook))
        names = ", ".join(f"`{e.name}`" for e in registry.entries(kind) if e.distribution == "rnnpipe")
        lines.append(f"| `{hook}` | {does} | `{Names('x', kind).group}` | {names} | {examples(kind, 'plugins/')} |")
    lines.append(
        f"| (none) | A command, named by its entry point. | `rnnpipe.commands` | | {examples('command', 'plugins/')} |"
    )
    return "\n".join(lines)


def kinds() -> str:
    """Return the table of kinds for plugin authors: what to write, where to name it, and what checks it."""
    lines = [
        "| `--kind` | what you write | named by | in the group | checked by | worked packages |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        hook = f"`{HOOKS[kind]}`" if kind in HOOKS else "its entry point"
        group = Names("x", kind).group
        worked = examples(kind, "")
        lines.append(f"| `{kind}` | {CONTRACTS[kind][0]} | {hook} | `{group}` | `check_{kind}` | {worked} |")
    return "\n".join(lines)


def examples(kind: str, prefix: str) -> str:
    """Return links to the worked packages of a kind."""
    return ", ".join(f"[{name}]({prefix}{name})" for name in CONTRACTS[kind][1:])


TABLES = {README: {"commands": commands, "hooks": hooks}, GUIDE: {"kinds": kinds}}


def with_tables(path: Path) -> str:
    """Return a file with every generated table in its place."""
    text = path.read_text(encoding="utf-8")
    for name, make in TABLES[path].items():
        pattern = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        text, count = re.subn(pattern, lambda m, make=make: m[1] + make() + "\n" + m[2], text, flags=re.DOTALL)
        assert count == 1, f"{path} has no place for the table '{name}'"
    return text


if __name__ == "__main__":
    for path in TABLES:
        path.write_text(with_tables(path), encoding="utf-8")
