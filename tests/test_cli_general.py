"""The command line as a whole: help, misspellings, exit codes, imports, pipes, signals and third-party plugins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli import (
    HARBOUR,
    KITCHEN,
    assert_no_leftovers,
    call,
    entries,
    fail,
    forget_plugins,
    installed,
    python,
    settings,
    spawn,
    start,
    succeed,
    write_plugin,
)

import rnnpipe
from rnnpipe.cli import COMMANDS, byte_progress
from rnnpipe.text import native

ONE = ("--workers", 1)
GROUPS = {"dict": ("show", "stats", "explain"), "plugins": ("list", "show")}
if find_spec("rnnpipe.cli.bench"):
    GROUPS["bench"] = ("corpus", "train")
EVERY_COMMAND = [(name,) for name, (module, _) in COMMANDS.items() if find_spec(f"rnnpipe.cli.{module}")] + [
    (group, name) for group, names in GROUPS.items() for name in names
]
HEAVY = ("torch", "numpy", "tqdm", "safetensors", "matplotlib")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small trained run, to read."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    succeed("train", KITCHEN, "-o", folder, *settings())
    return folder


# --- help and version ---


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag: str):
    text = succeed(flag).out
    assert "Usage: rnnpipe" in text
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in text
        assert line in text


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...]):
    text = succeed(*words, "--help").out
    assert text.startswith(f"Usage: rnnpipe {' '.join(words)} ")
    assert "-h, --help" in text


@pytest.mark.parametrize("words", [(), ("dict",), ("plugins",)], ids=" ".join)
def test_without_a_command_the_help_can_be_read(words: tuple[str, ...]):
    result = call(*words)
    assert result.code in (0, 2)
    assert len((result.out + result.err).splitlines()) > 5


def test_version():
    assert succeed("--version").out == f"rnnpipe {rnnpipe.__version__}\n"
    assert spawn("--version").out == f"rnnpipe {rnnpipe.__version__}\n"


def test_version_in_full(monkeypatch: pytest.MonkeyPatch):
    for words in (("--version", "--verbose"), ("--verbose", "--version")):
        lines = succeed(*words).out.splitlines()
        assert lines[0] == f"rnnpipe {rnnpipe.__version__}"
        assert [line.split()[0] for line in lines[1:]] == ["Python", "torch", "numpy", "C"]
        assert lines[-1].startswith(f"C extension: {'in use' if native.NATIVE else 'not in use: '}")
    monkeypatch.setenv("RNNPIPE_NATIVE", "0")
    assert spawn("--version", "--verbose").out.endswith(
        "C extension: not in use: RNNPIPE_NATIVE=0 puts it out of use\n"
    )


def test_bytes_done_are_said_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    clock = [0.0]
    monkeypatch.setattr(byte_progress.time, "monotonic", lambda: clock[0])
    with byte_progress.byte_progress("count") as progress:
        progress.expect(33_000_000)
        for clock[0], done in ((5.0, 1_000_000), (11.0, 10_000_000), (12.0, 1_000_000), (22.0, 21_000_000)):
            progress(done)
    assert capsys.readouterr().err.splitlines() == [
        "count: 11 MB of 33 MB (33%), 1.0 MB/s, ETA 0:00:22",
        "count: 33 MB of 33 MB (100%), 1.5 MB/s, ETA 0:00:00",
    ]


def test_the_console_script_is_the_module():
    script = Path(sys.executable).with_name("rnnpipe")
    if not script.is_file():
        pytest.skip("the console script is not installed")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rnnpipe {rnnpipe.__version__}\n"


# --- misspellings ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian",), "Did you mean 'train'?"),
        (("evaluate",), "Did you mean 'eval'?"),
        (("build_dict",), "Did you mean 'build-dict'?"),
        (("xyzzy",), "Commands: "),
        (("--verison",), "'--version'"),
        (("dict", "stat"), "'stats'"),
        (("plugins", "lst"), "'list'"),
        (("plugins", "list", "--knid", "cell"), "'--kind'"),
        (("plugins", "list", "--kind", "cel"), "Did you mean 'cell'?"),
        (("plugins", "show", "lstn"), "Did you mean 'lstm'?"),
        (("plugins", "show", "lstm", "--kind", "optimizer"), "unknown optimizer 'lstm'"),
        (("plugins", "show"), "NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_misspelt_word_gets_the_nearest_one(words: tuple[str, ...], said: str):
    result = call(*words)
    assert result.code == 2
    assert said in result.error


def test_a_wrong_kind_of_plugin_is_said_as_such():
    assert "kind" in fail("plugins", "show", "lstm", "--kind", "cel", code=2)


def test_debug_shows_a_traceback_wherever_it_stands():
    for words in (("--debug", "train", "nofile.toml"), ("train", "nofile.toml", "--debug")):
        result = call(*words)
        assert result.code == 1
        assert "Traceback (most recent call last)" in result.err
        assert result.err.splitlines()[-1].startswith("Error: nofile.toml")
    assert "Traceback" not in call("train", "nofile.toml").err


def test_a_defect_is_one_line_too(monkeypatch: pytest.MonkeyPatch):
    def broken(path: Path) -> None:
        raise ZeroDivisionError("of\nours")

    monkeypatch.setattr("rnnpipe.text.vocabulary.load_vocabulary", broken)
    result = call("dict", "show", "x")
    assert result.code == 1
    assert result.err == "Error: unexpected ZeroDivisionError: of ours. --debug shows where.\n"


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch):
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rnnpipe.text.vocabulary.load_vocabulary", interrupted)
    assert "interrupted" in fail("dict", "show", "x", code=130)


# --- imports ---


def test_no_help_imports_what_is_heavy():
    code = f"""
import sys
from rnnpipe.cli import _run
for words in {[[*words, "--help"] for words in EVERY_COMMAND] + [["--help"], ["--version"]]!r}:
    assert _run(words, debug=True) == 0, words
    assert not set({HEAVY!r}) & set(sys.modules), (words, set({HEAVY!r}) & set(sys.modules))
"""
    result = python(code)
    assert result.code == 0, result.err


def test_the_package_itself_imports_nothing_heavy():
    result = python(f"import sys, rnnpipe, rnnpipe.cli; print(sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert result.out == "[]\n", result


def test_a_usage_error_imports_no_torch():
    code = "import sys; from rnnpipe.cli import _run; print(_run(['trian'], False), 'torch' in sys.modules)"
    assert python(code).out == "2 False\n"


def test_the_corpus_commands_do_not_import_torch():
    code = """
import sys
from rnnpipe.cli import _run
text = sys.argv[1]
for words in (
    ["clean", text, "-o", "corpus", "--split", "8:1:1"],
    ["build-dict", "corpus", "-o", "a.dict", "--workers", "1"],
    ["build-dict", text, "-o", "c.dict", "--level", "char", "--workers", "1"],
    ["dict", "show", "a.dict"],
    ["dict", "stats", "a.dict", "--json"],
    ["dict", "explain", "a.dict", "word"],
    ["encode", "corpus", "--dict", "a.dict", "-o", "tokens", "--workers", "1"],
):
    assert _run(words, debug=True) == 0, words
    assert "torch" not in sys.modules, words
"""
    result = python(code, KITCHEN)
    assert result.code == 0, result.err


def test_the_first_stages_of_run_do_not_import_torch():
    Path("a.toml").write_text(f"[data.dataset]\nname = 'text-files'\ninputs = ['{KITCHEN}']\n", encoding="utf-8")
    code = """
import sys
from rnnpipe.cli import _run
assert _run(["run", "a.toml", "--to", "encode"], debug=True) == 0
assert "torch" not in sys.modules
"""
    result = python(code)
    assert Path("runs/a/tokens/meta.json").is_file()
    assert result.code == 0, result.err


# --- pipes and devices ---


def test_a_reader_that_has_had_enough_ends_it_quietly(run: Path):
    with start("generate", run, "the", "-n", 500, "--max-tokens", 50) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("the ")
        process.stdout.close()
        assert process.wait(timeout=300) == 0
        assert process.stderr.read() == ""


def test_no_reader_at_all_ends_it_quietly(run: Path):
    for words in (("--help",), ("dict", "show", run / "dictionary.txt", "-n", 10_000), ("plugins", "list", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        result = spawn(*words, stdout=writing)
        os.close(writing)
        assert (result.code, result.err) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("--help",), ("dict", "show"), ("dict", "stats", "--json")], ids=" ".join)
def test_a_full_device_is_one_line(words: tuple[str, ...], run: Path):
    more = [run / "dictionary.txt"] if words[0] == "dict" else []
    with Path("/dev/full").open("wb") as full:
        result = spawn(*words[:2], *more, *words[2:], stdout=full)
    assert result.code == 1
    assert result.err == "Error: No space left on device.\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_standard_output_is_no_defect(run: Path):
    command = f'"{sys.executable}" -m rnnpipe dict show "{run / "dictionary.txt"}" >&-'
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert "unexpected" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_standard_input_is_no_defect():
    command = f'"{sys.executable}" -m rnnpipe clean - -o corpus <&-'
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unexpected" not in done.stderr
    assert "standard input" in done.stderr


def test_no_color_codes_reach_a_pipe(run: Path):
    result = spawn("dict", "show", run / "dictionary.txt", environment={"FORCE_COLOR": "", "NO_COLOR": "1"})
    assert "\x1b" not in result.out + result.err


def test_output_is_utf8_in_any_locale():
    Path("a.txt").write_text("川辺の町 " * 5, encoding="utf-8")
    succeed("build-dict", "a.txt", "-o", "a.dict", *ONE)
    result = spawn("dict", "show", "a.dict", environment={"LC_ALL": "C", "LANG": "C"})
    assert result.code == 0
    assert "川辺の町" in result.out


# --- signals ---


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_during_training_saves_and_says_where(name: str, code: int):
    endless = settings(training__max_steps=0, training__epochs=1_000_000_000, training__log_every=1)
    with start("train", HARBOUR, "-o", "run", *endless) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                break
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert out == ""
    assert "stopping after this step and saving" in err
    error = err.splitlines()[-1]
    assert error.startswith("Error: interrupted at step ")
    assert "Traceback" not in err
    step = entries(Path("run/checkpoints"))[-1]
    assert f"run/checkpoints/{step}" in error
    assert not Path("run/run.json").exists()
    assert_no_leftovers(Path())
    assert succeed("eval", "run", "--weights", "last", "--json").json()["step"] == int(step.removeprefix("step-"))


# --- plugins ---


def test_plugins_list_names_kind_and_distribution():
    report = succeed("plugins", "list", "--json").json()
    rows = report["plugins"]
    assert {"cell", "dataset", "cleaner", "tokenizer", "encoder", "optimizer", "sampler", "backend"} <= {
        row["kind"] for row in rows
    }
    assert {"kind": "cell", "name": "lstm", "distribution": "rnnpipe", "version": rnnpipe.__version__} in rows
    table = succeed("plugins", "list").out.splitlines()
    assert table[0].split() == ["kind", "name", "from"]
    assert len(table) == len(rows) + 1


def test_plugins_list_of_one_kind():
    rows = succeed("plugins", "list", "--kind", "cell", "--json").json()["plugins"]
    assert {"elman", "gru", "lstm"} <= {row["name"] for row in rows}
    assert {row["kind"] for row in rows} == {"cell"}


def test_everything_that_is_listed_can_be_shown():
    for row in succeed("plugins", "list", "--json").json()["plugins"]:
        shown = succeed("plugins", "show", row["name"], "--kind", row["kind"], "--json").json()
        assert [(item["kind"], item["name"]) for item in shown] == [(row["kind"], row["name"])]
        assert shown[0]["description"] != "no description", row


def test_plugins_show_describes_a_cell():
    text = succeed("plugins", "show", "lstm").out
    assert re.search(r"options \(--set model.cell.OPTION=VALUE\):\n  forget_bias +a number +default 0.0\n", text)
    assert "c' = f c + i g; h' = o tanh(c')" in text
    assert "source: rnnpipe.cells.lstm:LSTM (" in text
    assert "cell lstm, from rnnpipe 0.1.0\n" in text
    assert "base class: GatedCell" in text
    assert "state: h [B, H], c [B, H]" in text
    assert "backend loop: takes it" in text


BROKEN = "raise ImportError('no module named flux_capacitor')\n"
CELL = """
import torch
from rnnpipe import GatedCell, hookimpl


class Light(GatedCell):
    '''z = sigmoid(u_z + r_z), n = relu(u_n + r_n); h' = z h + (1 - z) n.'''

    input_gates = 2
    recurrent_gates = 2

    def pointwise(self, u, r, state):
        z = torch.sigmoid(u[0] + r[0])
        return (z * state[0] + (1 - z) * torch.relu(u[1] + r[1]),)


@hookimpl
def register_cells():
    return {"light": Light}
"""
CLEANER = """
from rnnpipe import hookimpl
from rnnpipe.text.cleaning import Cleaner, Rule


def shout(mark: str = "!"):
    '''Upper case, and a mark at the end of each line.'''
    return Cleaner(rules=(Rule("shout", lambda text: text.upper().replace("\\n", mark + "\\n")),))


@hookimpl
def register_cleaners():
    return {"shout": shout}
"""


def test_a_cell_of_a_plugin_trains_like_a_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "light-cells", "light_cells", CELL)
    with installed(tmp_path / "site", monkeypatch):
        rows = succeed("plugins", "list", "--kind", "cell", "--json").json()["plugins"]
        assert {"kind": "cell", "name": "light", "distribution": "light-cells", "version": "1.0"} in rows
        assert "cell light, from light-cells 1.0" in succeed("plugins", "show", "light").out
        result = succeed("train", KITCHEN, "-o", "run", *settings(), "--cell", "light")
        assert "cudnn refuses" in result.err
        succeed("eval", "run")
        assert "Did you mean 'light'?" in fail("train", KITCHEN, *settings(), "--cell", "ligt", "-o", "x", code=2)
    assert "unknown cell 'light'" in fail("eval", "run", code=2)


def test_a_cleaner_of_a_text_plugin_works_in_the_corpus_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "shouting", "shouting", CLEANER, group="rnnpipe.text")
    Path("a.txt").write_text("hey you\n", encoding="utf-8")
    with installed(tmp_path / "site", monkeypatch):
        succeed("clean", "a.txt", "-o", "corpus", "--cleaner", "shout:mark=?")
        words = ("--cleaner", "shout", "--unknown-threshold", 0, *ONE)
        succeed("build-dict", "a.txt", "-o", "a.dict", *words)
        assert "YOU!" in succeed("dict", "show", "a.dict").out
    assert Path("corpus/all.txt").read_text(encoding="utf-8") == "HEY YOU?\n"
    assert "unknown cleaner 'shout'" in fail("encode", "a.txt", "--dict", "a.dict", "-o", "x", *ONE, code=2)


REASONS = {
    "import error": (BROKEN, "ImportError: no module named flux_capacitor"),
    "syntax error": ("def (:\n", "SyntaxError"),
    "exit": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "long message": ("raise ValueError('first line\\nsecond line')\n", "ValueError: first line"),
    "no mapping": (
        "from rnnpipe import hookimpl\n@hookimpl\ndef register_cells():\n    return ['light']\n",
        "register_cells returned list",
    ),
    "unknown hook": (
        "from rnnpipe import hookimpl\n@hookimpl\ndef register_sells():\n    return {}\n",
        "register_sells",
    ),
    "hook raises": (
        "from rnnpipe import hookimpl\n@hookimpl\ndef register_cells():\n    return 1 / 0\n",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_broken_plugin_is_named_and_harms_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code, reason = REASONS[kind]
    write_plugin(tmp_path / "site", "broken-cells", "broken_cells", code)
    with installed(tmp_path / "site", monkeypatch):
        assert succeed("--help").err == ""
        assert succeed("train", "--help").err == ""
        listed = succeed("plugins", "list")
        assert listed.err.count("broken-cells 1.0") == 1
        assert reason in listed.err
        assert len(listed.err.splitlines()) == 1
        report = succeed("plugins", "list", "--json").json()
        assert [item["distribution"] for item in report["not_loaded"]] == ["broken-cells"]
        succeed("clean", KITCHEN, "-o", "corpus")
        succeed("train", KITCHEN, "-o", "run", *settings(training__max_steps=1))
        evaluated = succeed("eval", "run")
        assert evaluated.err.count("broken-cells 1.0") == 1
        error = fail("train", KITCHEN, "-o", "other", *settings(), "--cell", "flux", code=2)
        assert "unknown cell 'flux'" in error
        assert "broken-cells 1.0" in error
        assert reason in error


def test_train_warns_once_of_a_broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "broken-cells", "broken_cells", BROKEN)
    with installed(tmp_path / "site", monkeypatch):
        result = succeed("train", KITCHEN, "-o", "run", *settings(training__max_steps=1))
    warnings = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "broken-cells 1.0" in warnings[0]


def test_a_broken_text_plugin_is_warned_about_by_the_corpus_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "broken-text", "broken_text", BROKEN, group="rnnpipe.text")
    with installed(tmp_path / "site", monkeypatch):
        for words in (("clean", KITCHEN, "-o", "corpus"), ("build-dict", KITCHEN, "-o", "a.dict", *ONE)):
            assert succeed(*words).err.count("warning: plugin 'broken_text' of broken-text 1.0 is not loaded") == 1
        result = succeed("train", KITCHEN, "-o", "run", *settings(training__max_steps=1))
        assert result.err.count("broken-text") == 1
        assert "broken-text 1.0" in fail("clean", KITCHEN, "-o", "x", "--cleaner", "flux", code=2)


def test_two_plugins_that_claim_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("first", "second"):
        write_plugin(tmp_path / "site", f"{name}-cells", f"{name}_cells", CELL)
    with installed(tmp_path / "site", monkeypatch):
        rows = succeed("plugins", "list", "--kind", "cell", "--json").json()["plugins"]
        assert [row["distribution"] for row in rows if row["name"] == "light"] == ["first-cells", "second-cells"]
        error = fail("train", KITCHEN, "-o", "run", *settings(), "--cell", "light", code=2)
        assert "first-cells 1.0" in error
        assert "second-cells 1.0" in error
        assert "RNNPIPE_PLUGINS" in error
        succeed("train", KITCHEN, "-o", "run", *settings(training__max_steps=1), "--overwrite")
        monkeypatch.setenv("RNNPIPE_PLUGINS", "second-cells")
        forget_plugins()
        succeed("train", KITCHEN, "-o", "second", *settings(training__max_steps=1), "--cell", "light")


def test_a_plugin_cannot_take_the_name_of_a_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "my-cells", "my_cells", CELL.replace('"light"', '"lstm"'))
    with installed(tmp_path / "site", monkeypatch):
        error = fail("train", KITCHEN, "-o", "run", *settings(), "--cell", "lstm", code=2)
        assert "my-cells 1.0" in error
        assert "rnnpipe" in error


def test_two_entry_points_of_one_name_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "first-cells", "first_cells", CELL, point="cells")
    write_plugin(tmp_path / "site", "second-cells", "second_cells", CELL, point="cells")
    with installed(tmp_path / "site", monkeypatch):
        warnings = succeed("plugins", "list").err
    assert "first-cells" in warnings
    assert "second-cells" in warnings


def test_a_plugin_that_names_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = CELL.replace('"light": Light', '"flux": "no_such_module:Flux"')
    write_plugin(tmp_path / "site", "flux-cells", "flux_cells", code)
    with installed(tmp_path / "site", monkeypatch):
        error = fail("train", KITCHEN, "-o", "run", *settings(), "--cell", "flux", code=1)
        assert "cell 'flux' of flux-cells 1.0" in error
        assert "no_such_module" in error


def test_rnnpipe_plugins_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "light-cells", "light_cells", CELL)
    write_plugin(tmp_path / "site", "broken-cells", "broken_cells", BROKEN)
    with installed(tmp_path / "site", monkeypatch):
        unknown = "warning: RNNPIPE_PLUGINS names 'light-cell', and no plugin of that name is installed."
        for choice, loaded, warning in (
            ("", False, ""),
            ("light_cells", True, ""),
            ("Light.Cells", True, ""),
            ("light-cell, ", False, f"{unknown} Did you mean 'light-cells'?\n"),
        ):
            monkeypatch.setenv("RNNPIPE_PLUGINS", choice)
            forget_plugins()
            result = succeed("plugins", "list", "--kind", "cell", "--json")
            assert result.err == warning
            assert ("light" in {row["name"] for row in result.json()["plugins"]}) == loaded
            assert result.json()["not_loaded"] == []


def test_a_broken_plugin_in_a_process_of_its_own(tmp_path: Path):
    write_plugin(tmp_path / "site", "broken-cells", "broken_cells", BROKEN)
    path = {"PYTHONPATH": str(tmp_path / "site")}
    assert spawn("--help", environment=path).err == ""
    result = spawn("plugins", "list", environment=path)
    assert result.code == 0
    assert "broken-cells 1.0 is not loaded: ImportError: no module named flux_capacitor" in result.err
    result = spawn("plugins", "list", environment={**path, "RNNPIPE_PLUGINS": ""})
    assert (result.code, result.err) == (0, "")


def test_what_a_plugin_prints_stays_out_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_plugin(tmp_path / "site", "chatty-cells", "chatty_cells", "print('hello from a plugin')\n" + CELL)
    with installed(tmp_path / "site", monkeypatch):
        succeed("plugins", "list", "--json").json()
