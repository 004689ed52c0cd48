"""The command line: one file a command, imported when that command is used."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from rnnpipe.errors import PluginError, RnnpipeError

if TYPE_CHECKING:
    from rnnpipe.plugins import Entry

# name: (module, one line for --help)
COMMANDS = {
    "train": ("train", "Train a recurrent network."),
    "run": ("run", "Run all stages of a configuration."),
    "clean": ("clean", "Clean texts and divide them into parts."),
    "build-dict": ("build_dict", "Count words or characters; write a dictionary."),
    "dict": ("dictionary", "Show, explain, merge, prune, export and import dictionaries."),
    "encode": ("encode", "Turn texts into token files."),
    "eval": ("evaluate", "Measure the loss of a run on its test part, or on a text."),
    "predict": ("predict", "Show the likely next tokens of texts."),
    "score": ("score", "Print the log-probability and perplexity of texts."),
    "generate": ("generate", "Continue prompts with a run."),
    "replay": ("replay", "Generate the text of an answer again."),
    "translate": ("translate", "Translate texts with a run of pairs."),
    "serve": ("serve", "Serve a run over HTTP, as OpenAI's API does."),
    "export": ("export", "Write a run as one file for ONNX Runtime."),
    "forecast": ("forecast", "Continue a series with a run of sequences."),
    "probe": ("probe", "Show how far back a run sees, by its gradients."),
    "embed": ("embed", "Train word vectors on token files."),
    "vectors": ("vectors", "Neighbours, analogies and other formats of word vectors."),
    "plot": ("plot", "Draw the loss curves of a run."),
    "reproduce": ("reproduce", "Run the published experiments again and compare."),
    "verify": ("verify", "Check a run or another output against its digests."),
    "corpus": ("corpus", "List, fetch or audit corpora."),
    "plugins": ("plugins", "List, show, check and begin plugins."),
    "bench": ("bench", "Measure speed on this machine."),
}


class ReaderGone(Exception):
    """Whoever read our output has had enough, as in `rnnpipe ... | head`."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used, so that `--help` costs next to nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which people meet them, those of plugins last."""
        return [*COMMANDS, *_commands_of_plugins()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name in COMMANDS:
            module = importlib.import_module(f"rnnpipe.cli.{COMMANDS[name][0]}")
            command: click.Command = module.command
            return command
        claims = _commands_of_plugins().get(name)
        return _load_plugin_command(claims) if claims else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS and args[0] not in _commands_of_plugins():
            names = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0], names, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            why = _not_loaded(args[0])
            raise click.UsageError(f"no command '{args[0]}'.{hint} Commands: {', '.join(names)}.{why}")
        return super().resolve_command(ctx, args)

    # A reader that has gone away is told apart from a failure, which click would not do.
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the words of the command line (and print the help, if that is asked for)."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            raise ReaderGone from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        if of_plugins := _commands_of_plugins():
            with formatter.section("Commands of plugins"):
                rows = [(name, f"from {' and '.join(c.owner for c in claims)}") for name, claims in of_plugins.items()]
                formatter.write_dl(rows)


def _commands_of_plugins() -> dict[str, list[Entry]]:
    from rnnpipe.plugins.commands import find_commands

    return find_commands(COMMANDS)[0]


def _load_plugin_command(claims: list[Entry]) -> click.Command:
    from rnnpipe.plugins.commands import only_command

    entry = only_command(claims)
    command = entry.load()
    if not isinstance(command, click.Command):
        raise PluginError(f"{entry} is of the type {type(command).__name__}, no click command.")
    return command


def _not_loaded(name: str) -> str:
    """Return why a plugin's command of that name is not there, "" if there is none."""
    from rnnpipe.plugins.commands import find_commands

    return "".join(f" ({plugin})" for plugin in find_commands(COMMANDS)[1] if plugin.plugin == name)


def _note_verbose(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    ctx.meta["rnnpipe.verbose"] = value


def _print_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import version

    click.echo(f"rnnpipe {version('rnnpipe')}")
    if ctx.meta["rnnpipe.verbose"]:
        from rnnpipe.text.native import WHY_NOT

        click.echo(f"Python {platform.python_version()}")
        for package in ("torch", "numpy"):
            click.echo(f"{package} {version(package)}")
        click.echo(f"C extension: {f'not in use: {WHY_NOT}' if WHY_NOT else 'in use'}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.option("--plugins-dir", multiple=True, metavar="DIR", help="Also load the plugins DIR/*.py; may be repeated.")
@click.option("--version", is_flag=True, expose_value=False, callback=_print_version, help="Show the version and exit.")
@click.option(
    "--verbose",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_verbose,
    help="With --version: also Python, the main packages, and whether the C extension is in use.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool, plugins_dir: tuple[str, ...]) -> None:
    """From raw text to a trained recurrent network and its predictions.

    \b
    rnnpipe train --demo                       a minute, no data needed
    rnnpipe train book.txt --level char        on a text of yours
    rnnpipe generate runs/book "Once upon"     and what it has learnt
    """
    ctx.obj = {"debug": debug}
    if plugins_dir:  # by the environment, so that worker processes load them too
        os.environ["RNNPIPE_PLUGINS_DIR"] = os.pathsep.join(str(Path(folder).absolute()) for folder in plugins_dir)


class Terminated(BaseException):
    """A signal that asks the process to end: cleanup runs, nothing else is done."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def run(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage, 128 + n by signal n."""
    words = sys.argv[1:] if args is None else args
    # Torch's threads wait for each other at every timestep by spinning. While another program holds a core, they spin
    # for whole time slices, and a step takes 20 to 80 times as long; a bounded spin costs nothing otherwise.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    _open_closed_streams()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), _terminate)
    sys.exit(_run(words, debug="--debug" in words))


def _open_closed_streams() -> None:
    """Open to nowhere what was closed of standard input, output and error.

    Else the next file to be opened would have such a number, and be written to by whoever means the stream.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _run(words: list[str], debug: bool) -> int:
    try:
        code = cli.main(_globals_first(words), prog_name="rnnpipe", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _fail(_click_message(error), error, error.exit_code, debug)
    except RnnpipeError as error:
        return _fail(str(error), error, error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort) as error:
        return _fail("interrupted; nothing half-written was left behind.", error, 130, debug)
    except Terminated as error:
        return _fail(f"ended by {signal.Signals(error.number).name}.", error, 128 + error.number, debug)
    except (ReaderGone, BrokenPipeError):
        _silence(sys.stdout)
        return 0
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(f"{name}{error.strerror or error}.", error, 1, debug)
    except RecursionError as error:
        return _fail("the input is nested too deeply.", error, 1, debug)
    except Exception as error:  # a defect of ours or of a plugin: a person gets one line all the same
        # Torch raises RuntimeError for memory that a CPU does not have, and a subclass of it for a GPU's.
        if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
            return _fail("out of memory; use a smaller batch, model or text.", error, 1, debug)
        return _fail(f"unexpected {type(error).__name__}: {error}. --debug shows where.", error, 1, debug)


def _globals_first(words: list[str]) -> list[str]:
    """Return the words with --plugins-dir DIR in front and without --debug: people type them behind the command."""
    words = [word for word in words if word != "--debug"]
    front: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word == "--plugins-dir":
            if (folder := next(left, None)) is None:
                raise click.UsageError("--plugins-dir needs the name of a folder.")
            front += [word, folder]
        elif word.startswith("--plugins-dir="):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def _click_message(error: click.ClickException) -> str:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None and context.command_path != "rnnpipe":
        message = f"{message} See `{context.command_path} --help`."
    return message


def _fail(message: str, error: BaseException, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    line = " ".join(message.split())
    say(f"Error: {line}")
    return code


def say(message: str, **style: Any) -> None:
    """Tell a person something on standard error. That nobody listens any more is no reason to end the work."""
    try:
        click.echo(message, err=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: Any) -> None:
    """Send the rest to nowhere: Python flushes once more when it exits, and would complain of a closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
