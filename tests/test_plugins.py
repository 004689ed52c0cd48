"""Discovery of plugins, each loaded under guard, and the registry that keeps their names."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import write_plugin

from rnnpipe import hookspecs, testing
from rnnpipe.errors import PluginError, UsageError
from rnnpipe.plugins import HOOKS, Registry, forget, full_registry, text_registry
from rnnpipe.plugins.discovery import file_source
from rnnpipe.scaffold import KINDS as SCAFFOLDS
from rnnpipe.testing import KINDS

ROOT = Path(__file__).resolve().parent.parent

IMPORT = "from rnnpipe import hookimpl\n"
CLEANER = IMPORT + "@hookimpl\ndef register_cleaners():\n    return {'mine': 'rnnpipe.text.cleaning:none'}\n"
CELL = IMPORT + "@hookimpl\ndef register_cells():\n    return {'mine': 'rnnpipe.cells.gru:GRU'}\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder whose distributions are found as if they were installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)
    forget()


def loaded() -> Registry:
    """Return a registry of its own with all plugins that are installed now."""
    forget()
    registry = Registry()
    registry.load_all()
    return registry


# --- what is wrong with one plugin harms nothing else ---

BROKEN = {
    "raises": ("raise ValueError('no such thing')", "ValueError: no such thing"),
    "no_import": ("import flux_capacitor", "ModuleNotFoundError: No module named 'flux_capacitor'"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "stops": ("raise GeneratorExit", "GeneratorExit"),
    "syntax": ("def (", "SyntaxError: invalid syntax"),
    "misspelt": (
        IMPORT + "@hookimpl\ndef register_cels():\n    return {}\n",
        "implements 'register_cels', which is no hook. Did you mean 'register_cells'?",
    ),
    "argument": (
        IMPORT + "@hookimpl\ndef register_cells(config):\n    return {}\n",
        "PluginValidationError: .*Argument.*config.*declared in the hookimpl but can not be found in the hookspec",
    ),
    "undecorated": ("def register_cells():\n    return {}\n", "implements no hook; is the decorator .* missing"),
    "list": (
        IMPORT + "@hookimpl\ndef register_cells():\n    return ['mine']\n",
        "register_cells returned list, not a mapping from names to cells",
    ),
    "numbers": (
        IMPORT + "@hookimpl\ndef register_cells():\n    return {'a': 3}\n",
        "register_cells returned 'a': 3; names are strings, values callables",
    ),
    "unnamed": (IMPORT + "@hookimpl\ndef register_cells():\n    return {'': print}\n", "names are strings"),
    "hook": (IMPORT + "@hookimpl\ndef register_cells():\n    raise KeyError('x')\n", "KeyError: 'x'"),
    "long": ("raise ValueError('x' * 9999)", r"ValueError: x{300}\.\.\.$"),
    "lines": ("raise ValueError('one\\ntwo')", "ValueError: one two$"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_quarantined(name: str, site: Path) -> None:
    code, reason = BROKEN[name]
    write_plugin(site, f"{name}-dist", f"broken_{name}", code)
    write_plugin(site, "good", "good", CELL.replace("rnnpipe.cells.gru:GRU", "good:nothing"))
    registry = loaded()
    (quarantined,) = registry.quarantined
    assert (quarantined.distribution, quarantined.version) == (f"{name}-dist", "1.0")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(quarantined.reason)
    assert {"elman", "gru", "lstm", "mine"} <= set(registry.names("cell"))
    with pytest.raises(UsageError, match=f"unknown cell 'another'.*plugin 'broken_{name}' of {name}-dist 1.0 is not"):
        registry.entry("cell", "another")
    with pytest.raises(PluginError, match=r"cell 'mine' of good 1\.0: cannot import 'good:nothing': AttributeError"):
        registry.get("cell", "mine")


def test_an_interruption_is_no_fault_of_a_plugin(site: Path) -> None:
    write_plugin(site, "slow", "slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loaded()


def test_what_is_named_by_a_string_may_raise_anything_when_it_is_used(site: Path) -> None:
    write_plugin(site, "lazy", "lazy", CELL.replace("rnnpipe.cells.gru:GRU", "lazy_part:Cell"))
    (site / "lazy_part.py").write_text("raise SystemExit(3)")
    registry = loaded()
    assert registry.quarantined == []
    with pytest.raises(PluginError, match=r"cell 'mine' of lazy 1\.0: cannot import 'lazy_part:Cell': SystemExit: 3"):
        registry.get("cell", "mine")


def test_what_a_factory_raises_names_its_distribution(site: Path) -> None:
    code = "def bad(): raise ValueError('boom')\n" + CLEANER.replace("'rnnpipe.text.cleaning:none'", "bad")
    write_plugin(site, "bad", "bad", code, group="rnnpipe.text")
    with pytest.raises(PluginError, match=r"cleaner 'mine' of bad 1\.0 cannot be built: ValueError: boom"):
        loaded().build("cleaner", "mine", {})


def test_a_hook_of_another_rnnpipe_may_be_optional(site: Path) -> None:
    code = CELL + "@hookimpl(optionalhook=True)\ndef register_wonders():\n    return {}\n"
    write_plugin(site, "optional", "optional", code)
    registry = loaded()
    assert registry.quarantined == []
    assert "mine" in registry.names("cell")


@pytest.mark.parametrize(("requirement", "good"), [("rnnpipe>=0.1,<0.2", True), ("rnnpipe>=0.2", False)])
def test_a_plugin_for_another_rnnpipe_is_not_loaded(requirement: str, good: bool, site: Path) -> None:
    write_plugin(site, "dated", "dated", CELL, requires=requirement)
    registry = loaded()
    assert ("mine" in registry.names("cell")) == good
    reasons = [quarantined.reason for quarantined in registry.quarantined]
    assert reasons == ([] if good else ["needs rnnpipe >=0.2; this is 0.1.0"])


# --- names ---


def test_two_that_claim_one_name(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = IMPORT + "@hookimpl\ndef register_cells():\n    return {'mine': 'x:y', 'lstm': 'x:y'}\n"
    for name in ("first", "second"):
        write_plugin(site, name, name, code)
    registry = loaded()
    with pytest.raises(UsageError, match=r"cell 'mine' is claimed by first 1\.0 and second 1\.0\. Uninstall one, or"):
        registry.entry("cell", "mine")
    with pytest.raises(UsageError, match="'lstm' is claimed by rnnpipe"):
        registry.entry("cell", "lstm")
    assert registry.entry("cell", "gru").distribution == "rnnpipe"
    monkeypatch.setenv("RNNPIPE_PLUGINS", "second")
    assert loaded().entry("cell", "mine").distribution == "second"


def test_one_entry_point_name_in_two_distributions_is_reported_and_both_are_loaded(site: Path) -> None:
    write_plugin(site, "first", "first", CELL, point="same")
    write_plugin(site, "second", "second", CELL.replace("mine", "other"), point="same")
    registry = loaded()
    (warning,) = registry.warnings
    assert warning.startswith("the plugin name 'same' is declared by first 1.0 and by second 1.0; all are loaded")
    assert {"mine", "other"} <= set(registry.names("cell"))
    assert registry.quarantined == []


def test_one_module_under_two_entry_points_is_loaded_once(site: Path) -> None:
    write_plugin(site, "both", "both", CELL + CLEANER.removeprefix(IMPORT))
    points = "[rnnpipe]\nboth = both\n[rnnpipe.text]\nboth = both\n"
    (site / "both-1.0.dist-info" / "entry_points.txt").write_text(points)
    registry = loaded()
    assert registry.quarantined == []
    assert registry.entry("cell", "mine").distribution == registry.entry("cleaner", "mine").distribution == "both"


def test_a_cleaner_in_the_group_of_what_needs_torch_is_found_all_the_same(site: Path) -> None:
    write_plugin(site, "elsewhere", "elsewhere", CLEANER)
    forget()
    assert "mine" not in text_registry().names("cleaner")
    assert text_registry().build("cleaner", "mine", {}).rules == ()


def test_a_choice_is_of_plugins_or_of_distributions(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(site, "my-dist", "my_module", CELL)
    for choice, there in (("my_module", True), ("my-module", True), ("My.Dist", True), ("gru", False), ("", False)):
        monkeypatch.setenv("RNNPIPE_PLUGINS", choice)
        registry = loaded()
        assert ("mine" in registry.names("cell")) == there, choice
        unknown = ["RNNPIPE_PLUGINS names 'gru', and no plugin of that name is installed."] if choice == "gru" else []
        assert registry.warnings == unknown


# --- single files ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder of single-file plugins."""
    made = tmp_path / "plugins"
    made.mkdir()
    monkeypatch.setenv("RNNPIPE_PLUGINS_DIR", str(made))
    yield made
    forget()


def test_single_files_are_plugins(folder: Path) -> None:
    (folder / "json.py").write_text(CELL)  # not to be taken for the module of that name
    (folder / "_helper.py").write_text("raise ValueError")
    (folder / "notes.txt").write_text("not Python")
    (folder / "broken.py").write_text("def (")
    registry = loaded()
    assert registry.entry("cell", "mine").distribution == str(folder / "json.py")
    assert registry.entry("cell", "mine").owner == str(folder / "json.py")
    (quarantined,) = registry.quarantined
    assert str(quarantined).startswith(f"plugin 'broken' of {folder / 'broken.py'} is not loaded: SyntaxError")
    import json

    assert json.loads("1") == 1


def test_the_corpus_commands_load_only_the_files_with_hooks_of_text(folder: Path) -> None:
    (folder / "cells.py").write_text("import torch\n" + CELL)
    (folder / "cleaners.py").write_text(CLEANER)
    forget()
    registry = text_registry()
    assert "mine" in registry.names("cleaner")
    assert "mine" not in registry.names("cell")
    assert "mine" in full_registry().names("cell")
    assert registry.quarantined == []


def test_a_file_may_hold_a_dataclass_and_a_class_of_its_own(folder: Path) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n" + IMPORT + "@dataclass\n"
        "class Mine:\n    size: int = 3\n    def documents(self, split):\n        yield 'x' * self.size\n"
        "@hookimpl\ndef register_datasets():\n    return {'mine': Mine}\n"
    )
    (folder / "data.py").write_text(code)
    registry = loaded()
    assert registry.quarantined == []
    assert list(registry.build("dataset", "mine", {"size": 2}).documents("train")) == ["xx"]
    with pytest.raises(UsageError, match="option 'size' of dataset 'mine': 'x' is not accepted; it takes a whole numb"):
        registry.build("dataset", "mine", {"size": "x"})


def test_folders_of_plugins(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "one.py").write_text(CELL)
    second = tmp_path / "second"
    second.mkdir()
    (second / "one.py").write_text(CELL.replace("mine", "other"))
    monkeypatch.setenv("RNNPIPE_PLUGINS_DIR", f"{folder}:{second}")
    registry = loaded()
    assert {"mine", "other"} <= set(registry.names("cell"))
    assert "the plugin name 'one' is declared by" in registry.warnings[0]
    monkeypatch.setenv("RNNPIPE_PLUGINS", "one")
    assert "mine" in loaded().names("cell")
    monkeypatch.setenv("RNNPIPE_PLUGINS", "two")
    assert "mine" not in loaded().names("cell")
    monkeypatch.setenv("RNNPIPE_PLUGINS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere: no such folder of plugins"):
        loaded()


def test_a_file_that_cannot_be_read_is_quarantined(folder: Path) -> None:
    (folder / "bytes.py").write_bytes(b"\xff\x00")
    (folder / "folder.py").mkdir()
    registry = loaded()
    assert {quarantined.plugin for quarantined in registry.quarantined} == {"bytes", "folder"}


def test_a_failed_file_leaves_no_module_behind(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("x = 1\nraise ValueError")
    before = set(sys.modules)
    with pytest.raises(ValueError):
        file_source(tmp_path / "half.py").load()
    assert set(sys.modules) == before


# --- hooks ---


def test_every_hook_is_specified_once() -> None:
    assert {name for name in vars(hookspecs) if name.startswith("register_")} == set(HOOKS.values())
    assert set(KINDS) == {*HOOKS, "command"} == set(SCAFFOLDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_documented_has_an_example_and_is_tested(kind: str) -> None:
    if kind in HOOKS:
        documentation = getattr(hookspecs, HOOKS[kind]).__doc__
        assert documentation and re.fullmatch(r"Name the \w[^\n]*\.", documentation), "one verb phrase"
        annotations = inspect.get_annotations(getattr(hookspecs, HOOKS[kind]))
        assert annotations["return"].startswith("Mapping[str, ") and "Any" not in annotations["return"]
        assert full_registry().entries(kind), f"no built-in {kind} shows what its hook is for"
        assert f"| `{HOOKS[kind]}` |" in (ROOT / "README.md").read_text()
    assert f"| `{kind}` |" in (ROOT / "plugins" / "README.md").read_text()
    templates = ROOT / "rnnpipe" / "scaffold" / "templates"
    assert {f"{kind}.py.txt", f"test_{kind}.py.txt"} <= {path.name for path in templates.iterdir()}
    assert callable(getattr(testing, f"check_{kind}"))
    tested = [
        path.name for path in (ROOT / "tests").glob("test_conformance_*.py") if f"check_{kind}" in path.read_text()
    ]
    assert tested, f"no test gives check_{kind} a plugin that breaks its contract"


@pytest.mark.parametrize("kind", HOOKS)
def test_every_builtin_can_be_imported_and_is_documented(kind: str) -> None:
    for entry in full_registry().entries(kind):
        thing = entry.load()
        assert callable(thing)
        assert thing.__doc__, f"{kind} {entry.name}"
