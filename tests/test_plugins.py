"""The worked packages under `plugins/`, installed for real; guarded discovery; the registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rnnpipe import hookspecs
from rnnpipe.errors import PluginError, UsageError
from rnnpipe.plugins import HOOKS, Registry, full_registry

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str, site: Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process that sees the packages installed in `site`."""
    environment = {**os.environ, "PYTHONPATH": str(site), **more}
    return subprocess.run(
        [sys.executable, "-m", "rnnpipe", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def mingru(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which the package was built and installed."""
    pytest.importorskip("setuptools", "77", reason="setuptools 77 or later builds the package")
    source = tmp_path_factory.mktemp("source") / "mingru"
    shutil.copytree(ROOT / "plugins" / "mingru", source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    return site


def test_the_worked_cell_is_found_described_trained_and_generated_with(mingru: Path, tmp_path: Path) -> None:
    listed = json.loads(run("plugins", "list", "--kind", "cell", "--json", site=mingru, cwd=tmp_path).stdout)
    assert {"kind": "cell", "name": "mingru", "distribution": "rnnpipe-mingru", "version": "0.1.0"} in listed["plugins"]
    shown = run("plugins", "show", "mingru", site=mingru, cwd=tmp_path)
    assert "h' = (1 - z) h + z h~" in shown.stdout
    assert "state: h [B, H]" in shown.stdout
    assert "backend loop: takes it" in shown.stdout
    settings = ["training.max_steps=30", "model.hidden_size=16", "training.evaluate_every=15"]
    words = ["train", str(ROOT / "corpora" / "harbour-year.txt"), "--level", "char", "--cell", "mingru", "-o", "run"]
    trained = run(*words, *(word for s in settings for word in ("--set", s)), site=mingru, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "cudnn refuses: MinGRU is not one of torch's own layers" in trained.stderr
    generated = run("generate", "run", "The ", "--max-tokens", "20", site=mingru, cwd=tmp_path)
    assert generated.stdout.startswith("The ")
    missing = run("generate", "run", "The ", site=mingru, cwd=tmp_path, RNNPIPE_PLUGINS="")
    assert missing.returncode == 2
    assert missing.stderr.splitlines()[-1].startswith("Error: unknown cell 'mingru'.")


def test_the_worked_packages_own_tests_pass(mingru: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "plugins" / "mingru" / "tests", tmp_path / "tests")
    environment = {**os.environ, "PYTHONPATH": str(mingru)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def install(site: Path, name: str, module: str, group: str = "rnnpipe") -> None:
    """Install a distribution of one module by hand."""
    (site / f"{name}.py").write_text(module)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}\n")


IMPORT = "from rnnpipe import hookimpl\n"
BROKEN = {
    "raises": "raise ValueError('no such thing')",
    "exits": "raise SystemExit(3)",
    "misspelt": IMPORT + "@hookimpl\ndef register_cels():\n    return {}\n",
    "wrong": IMPORT + "@hookimpl\ndef register_cells():\n    return ['mine']\n",
    "syntax": "def (",
    "hookraises": IMPORT + "@hookimpl\ndef register_cells():\n    raise KeyError('x')\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_quarantined(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, name, BROKEN[name])
    install(site, "good", IMPORT + "@hookimpl\ndef register_cells():\n    return {'mine': 'good:nothing'}\n")
    monkeypatch.syspath_prepend(str(site))
    registry = Registry()
    registry.load_group("rnnpipe", None)
    sys.modules.pop(name, None)
    sys.modules.pop("good", None)
    (quarantined,) = registry.quarantined
    assert (quarantined.distribution, quarantined.version) == (name, "1.0")
    assert "mine" in registry.names("cell")
    with pytest.raises(UsageError, match=f"unknown cell 'another'.*plugin '{name}' of {name} 1.0 is not loaded"):
        registry.entry("cell", "another")
    with pytest.raises(PluginError, match=r"cell 'mine' of good 1\.0: cannot import 'good:nothing'"):
        registry.get("cell", "mine")


def test_two_that_claim_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        install(
            tmp_path, name, IMPORT + "@hookimpl\ndef register_cells():\n    return {'mine': 'x:y', 'lstm': 'x:y'}\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry()
    registry.load_group("rnnpipe", None)
    with pytest.raises(UsageError, match=r"'mine' is claimed by (first|second) 1\.0 and (first|second) 1\.0"):
        registry.entry("cell", "mine")
    with pytest.raises(UsageError, match="'lstm' is claimed by rnnpipe"):
        registry.entry("cell", "lstm")
    assert registry.entry("cell", "gru").distribution == "rnnpipe"
    chosen = Registry()
    chosen.load_group("rnnpipe", frozenset({"second"}))
    assert chosen.entry("cell", "mine").distribution == "second"
    for name in ("first", "second"):
        sys.modules.pop(name, None)


def test_every_hook_is_documented_and_has_an_example() -> None:
    registry = full_registry()
    specified = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert specified == set(HOOKS.values())
    for kind, hook in HOOKS.items():
        documentation = getattr(hookspecs, hook).__doc__
        assert documentation and documentation.endswith("."), hook
        assert registry.entries(kind), f"no built-in {kind} shows what {hook} is for"


@pytest.mark.parametrize("kind", HOOKS)
def test_every_builtin_can_be_imported_and_is_documented(kind: str) -> None:
    for entry in full_registry().entries(kind):
        thing = entry.load()
        assert callable(thing)
        assert thing.__doc__, f"{kind} {entry.name}"
