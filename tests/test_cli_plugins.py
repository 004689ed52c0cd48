"""`rnnpipe plugins`, plugins in folders, commands of plugins, and plugins of each kind reached from the shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from cli import KITCHEN, call, fail, forget_plugins, installed, losses, settings, spawn, succeed, write_plugin

from rnnpipe.scaffold import KINDS, check_name, write_package

CLEANER = """
from rnnpipe import Cleaner, Rule, hookimpl

def shout(mark: str = "!"):
    "Capitals, and a mark at each line's end."
    return Cleaner(rules=(Rule("capitals", str.upper), Rule("mark", lambda text: text.replace("\\n", mark + "\\n"))))

@hookimpl
def register_cleaners():
    return {"shout": shout}
"""
PARTS = """
from pathlib import Path

from rnnpipe import fit, hookimpl
from rnnpipe.backends.loop import LoopBackend

class Diary:
    "Writes the step of each evaluation."
    def __init__(self, folder, *, every: int = 1, title: str = "diary"):
        self.path, self.every = folder / f"{title}.txt", every
    def on_start(self, state):
        self.path.write_text("start\\n")
    def on_step(self, state):
        pass
    def on_evaluate(self, state):
        with self.path.open("a") as file:
            file.write(f"{state.step // self.every}\\n")
    def on_end(self, state):
        pass

class Only:
    "One token alone."
    def __init__(self, token: int = 0):
        self.token = token
    def adjust(self, logits, rows):
        import torch
        only = torch.full_like(logits, float("-inf"))
        only[:, self.token] = 0
        return only

def shorter(task, callbacks, should_stop, *, steps: int = 2):
    "Gradient descent for fewer steps."
    from dataclasses import replace
    return fit(replace(task, config=replace(task.config, max_steps=steps)), callbacks, should_stop)

class Broken:
    "A backend that cannot be built."
    def __init__(self):
        raise RuntimeError("no such processor")

class Raising(LoopBackend):
    "A backend whose refusal raises."
    name, priority = "raising", 99
    def refusal(self, cells, x_TBI, lengths):
        raise RuntimeError("no such instruction")

class Nameless(LoopBackend):
    "A backend of another name."

@hookimpl
def register_callbacks():
    return {"diary": Diary}

@hookimpl
def register_samplers():
    return {"only": Only}

@hookimpl
def register_trainers():
    return {"shorter": shorter}

@hookimpl
def register_backends():
    return {"broken": Broken, "raising": Raising, "nameless": Nameless}
"""
COMMAND = """
import click

@click.command("greet")
@click.argument("who")
def command(who):
    "Greet somebody."
    click.echo(f"hello {who}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of single-file plugins; `--plugins-dir` of it is undone behind the test."""
    monkeypatch.setenv("RNNPIPE_PLUGINS_DIR", "")
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "own"
    made.mkdir()
    (made / "shouting.py").write_text(CLEANER)
    (made / "parts.py").write_text(PARTS)
    forget_plugins()
    yield made
    monkeypatch.undo()
    forget_plugins()


# --- folders of plugins ---


def test_a_folder_of_plugins_by_option_anywhere_and_by_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch):
    build = ("build-dict", KITCHEN, "--cleaner", "shout", "-o")
    for before, after in (
        ((), ("--plugins-dir", folder)),
        (("--plugins-dir", folder), ()),
        ((), (f"--plugins-dir={folder}",)),
    ):
        monkeypatch.setenv("RNNPIPE_PLUGINS_DIR", "")
        forget_plugins()
        assert "unknown cleaner 'shout'" in fail(*build, "a.dict", code=2)
        forget_plugins()
        succeed(*before, *build, "a.dict", *after)
    shown = succeed("dict", "show", "a.dict", "-n", "3").out
    assert "THE" in shown
    # By the environment the worker processes get it, too.
    result = spawn(*build, "b.dict", "--workers", "2", environment={"RNNPIPE_PLUGINS_DIR": str(folder)})
    assert result.code == 0, result
    assert Path("b.dict").read_bytes() == Path("a.dict").read_bytes()


def test_a_relative_folder_works_from_everywhere(folder: Path):
    succeed("--plugins-dir", "own", "plugins", "list")
    assert os.environ["RNNPIPE_PLUGINS_DIR"] == str(folder)


def test_wrong_folders_of_plugins(folder: Path):
    assert "nowhere: no such folder of plugins" in fail("plugins", "list", "--plugins-dir", "nowhere", code=2)
    assert "--plugins-dir needs the name of a folder" in fail("plugins", "list", "--plugins-dir", code=2)
    assert succeed("--plugins-dir", "nowhere", "--help").err == ""


def test_behind_two_dashes_words_are_words(folder: Path):
    assert "--plugins-dir" in fail("plugins", "show", "--", "--plugins-dir", code=2)


# --- plugins of each kind, with options, from the shell ---


def test_parts_of_a_plugin_with_options(folder: Path):
    train = ("--plugins-dir", folder, "train", KITCHEN, "-o", "run", *settings(training__evaluate_every=2))
    callbacks = 'training.callbacks=[{name="diary", every=2, title="log"}]'
    succeed(*train, "--set", callbacks, "--set", "training.trainer={name='shorter', steps=4}")
    assert (Path("run") / "log.txt").read_text() == "start\n1\n2\n"
    assert losses(Path("run"))[-1]["step"] == 4
    texts = [succeed("generate", "run", "the", "--max-tokens", "3", "--sampler", f"only:token={n}").out for n in (1, 2)]
    dictionary = succeed("dict", "show", "run/dictionary.txt", "--json", "-n", "3").json()
    assert [text.split()[1:] for text in texts] == [[dictionary[n]["token"]] * 3 for n in (1, 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--set", "training.trainer={name='shorter', stepz=4}"),
            "trainer 'shorter' has no option 'stepz'. Did you mean 'steps'?",
        ),
        (
            ("--set", 'training.callbacks=[{name="diary", evry=2}]'),
            "Did you mean 'every'? Accepted: every=1, title='diary'.",
        ),
        (
            ("--set", 'training.callbacks=[{name="diary", every="x"}]'),
            "it takes a whole number. Accepted: every=1, title='diary'.",
        ),
        (
            ("--set", "model.cell.forget_bias=much"),
            "it takes a number. Accepted: bias=True, forget_bias=0.0, peepholes=False.",
        ),
    ],
)
def test_wrong_options_list_the_accepted_ones(words: tuple[str, ...], message: str, folder: Path):
    assert message in fail("--plugins-dir", folder, "train", KITCHEN, "-o", "run", *settings(), *words, code=2)
    assert not Path("run").exists() or not (Path("run") / "checkpoints").exists()


def test_an_option_of_a_sampler_that_is_not_there(folder: Path):
    succeed("train", KITCHEN, "-o", "run", *settings(training__max_steps=1))
    forget_plugins()
    message = fail("--plugins-dir", folder, "generate", "run", "the", "--sampler", "only:tok=1", code=2)
    assert "sampler 'only' has no option 'tok'. Did you mean 'token'? Accepted: token=0." in message
    assert "unknown sampler 'onyl'. Did you mean 'only'?" in fail("generate", "run", "--sampler", "onyl", code=2)


def test_backends_that_fail_are_passed_over_and_told(folder: Path):
    result = succeed("--plugins-dir", folder, "train", KITCHEN, "-o", "run", *settings(training__max_steps=1))
    assert "broken refuses: backend 'broken' of" in result.err
    assert "cannot be built: RuntimeError: no such processor" in result.err
    assert "raising refuses: its refusal raised RuntimeError: no such instruction" in result.err
    assert "nameless refuses: calls itself 'loop', but is registered as 'nameless'" in result.err
    assert "backend cudnn" in result.err
    wanted = ("--set", "runtime.backend=broken")
    assert "no such processor" in fail("train", KITCHEN, "-o", "other", *settings(), *wanted, code=2)
    assert "backend broken: backend 'broken' of" in succeed("plugins", "show", "lstm").out


# --- commands ---


def command(folder: Path, distribution: str, module: str, code: str, name: str, **more: str) -> None:
    write_plugin(folder, distribution, module, code, group="rnnpipe.commands", **more)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    (info / "entry_points.txt").write_text(f"[rnnpipe.commands]\n{name} = {module}:command\n")


def test_a_command_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    command(tmp_path, "greeter", "greeter", COMMAND, "greet")
    with installed(tmp_path, monkeypatch):
        assert "Commands of plugins:\n  greet  from greeter 1.0\n" in succeed("--help").out
        assert succeed("greet", "you").out == "hello you\n"
        assert "Greet somebody." in succeed("greet", "--help").out
        assert "No such option '--loud'" in fail("greet", "--loud", code=2)
        assert "Did you mean 'greet'?" in fail("gret", "you", code=2)
        rows = succeed("plugins", "list", "--kind", "command", "--json").json()["plugins"]
        assert rows == [{"kind": "command", "name": "greet", "distribution": "greeter", "version": "1.0"}]
        shown = succeed("plugins", "show", "greet").out
        assert shown.startswith("command greet, from greeter 1.0\nGreet somebody.\n")
        monkeypatch.setenv("RNNPIPE_PLUGINS", "")
        forget_plugins()
        assert "no command 'greet'" in fail("greet", "you", code=2)


def test_commands_that_cannot_be_used_harm_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    command(tmp_path, "first", "first", COMMAND, "greet")
    command(tmp_path, "second", "second", COMMAND, "greet")
    command(tmp_path, "taker", "taker", COMMAND, "train")
    command(tmp_path, "raiser", "raiser", "raise SystemExit(0)", "raise")
    command(tmp_path, "number", "number", "command = 3", "number")
    command(tmp_path, "dated", "dated", COMMAND, "dated", requires="rnnpipe>=7")
    with installed(tmp_path, monkeypatch):
        assert succeed("--help").err == ""
        assert "Train a network" in succeed("train", "--help").out
        claimed = fail("greet", "you", code=2)
        assert "command 'greet' is claimed by first 1.0 and second 1.0. Uninstall one" in claimed
        assert "command 'raise' of raiser 1.0: cannot import 'raiser:command': SystemExit: 0" in fail("raise", code=1)
        assert "command 'number' of number 1.0 is of the type int, no click command" in fail("number", code=1)
        assert "dated 1.0 is not loaded: needs rnnpipe >=7; this is 0.1.0" in fail("dated", code=2)
        listed = succeed("plugins", "list").err.splitlines()
        assert listed == [
            "warning: plugin 'dated' of dated 1.0 is not loaded: needs rnnpipe >=7; this is 0.1.0",
            "warning: plugin 'train' of taker 1.0 is not loaded: rnnpipe has a command 'train' of its own",
        ]


def test_with_twenty_plugins_the_help_imports_none(tmp_path: Path):
    for number in range(20):
        name = f"plugin{number}"
        write_plugin(tmp_path, name, name, f"open({str(tmp_path / name)!r} + '.seen', 'w').close()")
        points = "".join(f"[{g}]\n{name} = {name}\n" for g in ("rnnpipe", "rnnpipe.text"))
        points += f"[rnnpipe.commands]\n{name} = {name}:command\n"
        (tmp_path / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(points)
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONPROFILEIMPORTTIME": "1"}
    for words in (
        ("--help",),
        ("train", "--help"),
        ("plugins", "--help"),
        ("plugins", "check", "--help"),
        ("--version",),
    ):
        result = spawn(*words, environment=environment)
        assert result.code == 0, result
        imported = {line.rpartition("|")[2].strip() for line in result.err.splitlines()}
        assert "rnnpipe.cli" in imported
        assert not {name for name in imported if name.startswith("plugin1") or name.split(".")[0] == "torch"}
    assert list(tmp_path.glob("*.seen")) == []
    spawn("plugins", "list", environment=environment)
    assert len(list(tmp_path.glob("*.seen"))) == 20


def test_bad_packages_installed_together_cost_a_person_nothing(tmp_path: Path):
    """Three broken, two that clash, one entry-point name twice; each command in a process of its own."""
    cell = (
        "from rnnpipe import hookimpl\n@hookimpl\ndef register_cells():\n    return {NAME: 'rnnpipe.cells.gru:GRU'}\n"
    )
    site = tmp_path / "site"
    write_plugin(site, "no-import", "no_import", "import flux_capacitor")
    write_plugin(site, "leaver", "leaver", "raise SystemExit(0)")
    write_plugin(site, "misspelt", "misspelt", cell.replace("register_cells", "register_cels"))
    write_plugin(site, "clash-one", "clash_one", cell.replace("NAME", "'flux'"))
    write_plugin(site, "clash-two", "clash_two", cell.replace("NAME", "'flux'"))
    write_plugin(site, "same-one", "same_one", cell.replace("NAME", "'first'"), point="same")
    write_plugin(site, "same-two", "same_two", cell.replace("NAME", "'second'"), point="same")
    environment = {"PYTHONPATH": str(site)}
    listed = spawn("plugins", "list", environment=environment)
    assert listed.code == 0
    warnings = listed.err.splitlines()
    assert len(warnings) == 4, listed.err
    for reason in (
        "'same' is declared by same-one 1.0 and by same-two 1.0; all are loaded",
        "plugin 'leaver' of leaver 1.0 is not loaded: SystemExit: 0",
        "plugin 'misspelt' of misspelt 1.0 is not loaded: implements 'register_cels', which is no hook. Did you mean",
        "plugin 'no_import' of no-import 1.0 is not loaded: ModuleNotFoundError: No module named 'flux_capacitor'",
    ):
        assert reason in listed.err
    train = ("train", KITCHEN, "-o", tmp_path / "run", *settings(training__max_steps=1), "--cell")
    for name, code, message in (
        ("lstm", 0, ""),
        ("second", 0, ""),
        ("flux", 2, "cell 'flux' is claimed by clash-one 1.0 and clash-two 1.0. Uninstall one"),
        ("warp", 2, "(plugin 'leaver' of leaver 1.0 is not loaded: SystemExit: 0; plugin 'misspelt'"),
    ):
        result = spawn(*train, name, "--overwrite", environment=environment)
        assert result.code == code, result
        assert [line for line in result.err.splitlines() if line.startswith("warning: ")] == warnings
        assert message in result.err
    assert spawn("clean", KITCHEN, "-o", tmp_path / "corpus", environment=environment).err.count("warning") == 0


# --- check ---


def test_check_reports_each_finding(folder: Path):
    result = succeed("plugins", "check", folder / "shouting.py")
    lines = result.out.splitlines()
    assert lines[0] == f"cleaner shout, from {folder / 'shouting.py'}"
    assert all(line.startswith(("  passed  ", "  skipped ")) for line in lines[1:-1]), result
    assert lines[-1].split()[1].startswith("passed")


def test_check_of_one_that_breaks_its_contract(folder: Path):
    code = CLEANER.replace("return Cleaner(", "return Cleaner(idempotent=True, ")
    (folder / "shouting.py").write_text(code)
    result = call("plugins", "check", folder / "shouting.py")
    assert result.code == 1
    assert result.error.startswith("Error: cleaner 'shout': 1 of ")
    (line,) = (line for line in result.out.splitlines() if line.startswith("  FAILED"))
    for word in ("expected", "received", "smallest case"):
        assert word in line
    report = call("plugins", "check", folder / "shouting.py", "--json")
    assert report.code == 1
    assert [row["outcome"] for row in report.json()].count("failed") == 1
    assert {"kind", "name", "check", "outcome", "detail", "seconds"} == set(report.json()[0])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("lstn",), 2, "unknown plugin 'lstn'. Did you mean 'lstm'?"),
        (("lstm", "--kind", "cel"), 2, "unknown kind of plugin 'cel'. Did you mean 'cell'?"),
        (("lstm", "--kind", "optimizer"), 2, "unknown optimizer 'lstm'."),
        (("nothing.py",), 1, "nothing.py: no such file."),
        (("own",), 2, "own: is a folder; install the package (pip install -e own) and give its name."),
        (("own/broken.py",), 1, "plugin 'broken' of own/broken.py is not loaded: SyntaxError"),
        (("own/shouting.py", "--kind", "cell"), 2, "own/shouting.py: has no cell; it has cleaner 'shout'."),
        (("none", "--set", "x"), 2, "--set x: expected KEY=VALUE."),
        (
            ("none", "whitespace", "--set", "x=1"),
            2,
            "--set goes with one plugin, and these are cleaner 'none', tokenizer",
        ),
    ],
)
def test_what_cannot_be_checked(words: tuple[str, ...], code: int, message: str, folder: Path):
    (folder / "broken.py").write_text("def (")
    assert message in fail("plugins", "check", *words, code=code)


def test_check_of_an_option(folder: Path):
    assert "passed" in succeed("plugins", "check", folder / "shouting.py", "--set", "mark=?").out
    wrong = call("plugins", "check", folder / "shouting.py", "--set", "marc=?")
    assert wrong.code == 1
    assert "has no option 'marc'. Did you mean 'mark'?" in wrong.out


def test_a_package_that_is_not_loaded_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path, "broken-cells", "broken_cells", "import flux_capacitor")
    with installed(tmp_path, monkeypatch):
        for name in ("broken-cells", "broken_cells"):
            message = fail("plugins", "check", name, code=1)
            assert "broken-cells 1.0 is not loaded: ModuleNotFoundError: No module named 'flux_capacitor'" in message


# --- new ---


def test_new_writes_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = succeed("plugins", "new", "my-cell", "--kind", "cell")
    written = sorted(str(path.relative_to(tmp_path)) for path in Path("rnnpipe-my-cell").absolute().rglob("*.*"))
    assert sorted(result.out.splitlines()) == written
    assert (
        "next: pip install -e 'rnnpipe-my-cell[test]' && pytest rnnpipe-my-cell && rnnpipe plugins check my"
        in result.err
    )
    assert "rnnpipe-my-cell: is there already" in fail("plugins", "new", "my-cell", "--kind", "cell", code=1)
    succeed("plugins", "new", "rnnpipe-my-cell", "--kind", "cell", "-o", "elsewhere/deep")
    assert (tmp_path / "elsewhere" / "deep" / "rnnpipe_my_cell.py").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("My_Cell", "--kind", "cell"),
            "it takes small letters, digits and single hyphens, a letter first. Try 'my-cell'.",
        ),
        (("3", "--kind", "cell"), "'3' is not accepted as a name"),
        (("lambda", "--kind", "cleaner"), "'lambda' is a word of Python's own"),
        (("lstm", "--kind", "cell"), "there is a cell 'lstm' already, of rnnpipe 0.1.0; choose another name."),
        (("train", "--kind", "command"), "there is a command 'train' already, of rnnpipe"),
        (("x", "--kind", "cel"), "'cel' is not one of 'cell'"),
        (("x",), "Missing option '--kind'"),
    ],
)
def test_what_cannot_be_begun(words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert message in fail("plugins", "new", *words, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_author_begins_with_a_few_lines(kind: str, tmp_path: Path):
    names = check_name("my-thing", kind)
    write_package(names, tmp_path / "package", "0.1.0")
    module = (tmp_path / "package" / f"{names.module}.py").read_text()
    own = [line for line in module.splitlines() if line.strip() and not line.startswith(("import ", "from ", '"""'))]
    hook = 3 if kind != "command" else 0  # the decorator, the definition and the mapping
    assert len(own) - hook <= 15, own
    assert "$" not in module


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(
    ("cell", "backend", "measured"),
    [
        ("lstm", "cudnn", {"cudnn", "hoisted"}),
        ("cifg", "hoisted (compiled)", {"hoisted"}),
        ("layernorm-lstm", "hoisted (compiled)", {"hoisted"}),
        ("lru", "scan", {"scan"}),
        ("mgu", "loop", {"loop"}),
    ],
)
def test_the_backend_on_a_device_that_is_not_here(cell: str, backend: str, measured: set[str]):
    facts = succeed("plugins", "show", cell, "--device", "cuda", "--json").json()[0]
    choice = facts["choice"]
    assert (choice["device"], choice["here"], choice["precision"]) == ("cuda", False, "float32")
    assert choice["backend"] == backend
    assert set(choice["measured"]) - {"fused"} == measured, "fused needs Triton"
    assert facts["backends"][backend.split()[0]] is None
    assert (
        "on cuda (none is here: told for one with its compiler), float32"
        in succeed("plugins", "show", cell, "--device", "cuda").out
    )


def test_the_backend_of_small_windows():
    said = succeed("plugins", "show", "cifg", "--device", "cpu", "--shape", "4x2x3x5").out
    assert ", 4x2x3x5: loop\n" in said
    assert (
        "hoisted is passed over: in plain torch it is no faster than the loop on so little at once (windows too" in said
    )
    assert "TxBxIxH" in fail("plugins", "show", "cifg", "--shape", "4x2", code=2)
