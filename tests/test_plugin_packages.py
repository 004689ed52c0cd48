"""Every worked package of `plugins/` and a package begun by `plugins new` of every kind, built as wheels, installed
into one fresh environment beside rnnpipe, and used from the shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_readme import blocks

from rnnpipe.scaffold import KINDS, check_name, write_package

ROOT = Path(__file__).resolve().parent.parent
HARBOUR = ROOT / "corpora" / "harbour-year.txt"
JAPANESE = ROOT / "corpora" / "kawabe-no-machi.txt"
WORKED = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml"))
BEGUN = [f"begun-{kind}" for kind in KINDS]
WITH_DEPENDENCIES = ("aozora", "huggingface")
# The checks of these take a moment; those of the others are what their own tests run too.
QUICK_CHECKS = ("aozora", "huggingface", "lion", "zipf", "begun-cleaner", "begun-command", "begun-initializer")
ALL_CHECKS = pytest.param((*WORKED, *BEGUN), marks=pytest.mark.slow)
SMALL = (
    *("--set", "training.max_steps=6", "--set", "training.batch_size=4", "--set", "training.bptt=8"),
    *("--set", "model.hidden_size=12", "--set", "training.evaluate_every=3", "--set", "text.unknown_threshold=0"),
)
# What `pip wheel --no-build-isolation` runs for each folder, in one process for all: pip starts three for each.
BUILD = """
import os, sys
from setuptools import build_meta
wheels, *folders = sys.argv[1:]
for folder in folders:
    os.chdir(folder)
    build_meta.build_wheel(wheels)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with everything installed, and why what is of others may be missing there."""

    folder: Path
    sources: Path
    offline: str

    def run(self, *words: object, cwd: Path, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; it must end with an exit code."""
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        program = self.folder / "bin" / str(words[0])
        done = subprocess.run(
            [str(program), *map(str, words[1:])],
            cwd=cwd,
            env={**variables, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done


def pip(*words: object, python: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run pip, for this interpreter or for that of another environment."""
    target = ["--python", str(python)] if python else []
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *target, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Build all wheels and install them into a fresh environment, which borrows torch and pytest from this one."""
    pytest.importorskip("setuptools", "77", reason="setuptools 77 or later builds the packages")
    folder = tmp_path_factory.mktemp("environment")
    sources = folder / "sources"
    junk = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "*.so")
    for name in WORKED:
        shutil.copytree(ROOT / "plugins" / name, sources / name, ignore=junk)
    for kind, name in zip(KINDS, BEGUN, strict=True):
        write_package(check_name(name, kind), sources / name, "0.1.0")
    own = sources / "rnnpipe"
    shutil.copytree(ROOT / "rnnpipe", own / "rnnpipe", ignore=junk)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, own)
    wheels = folder / "wheels"
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(wheels), *map(str, sources.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert len(list(wheels.glob("*.whl"))) == len(WORKED) + len(KINDS) + 1

    place = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    borrowed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "borrowed.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in dict.fromkeys(borrowed))
    )
    # Compiled is what is imported, when it is: the packages of others have thousands of files that are not.
    installed = pip("install", "-q", "--no-deps", "--no-index", "--no-compile", *wheels.glob("*.whl"), python=python)
    assert installed.returncode == 0, installed.stderr
    offline = ""
    if pip("download", "-q", "--no-deps", "-d", folder / "probe", "tqdm").returncode:
        offline = "the package index cannot be reached, and this package has a dependency of its own"
    else:
        wanted = ("rnnpipe-aozora[words]", "rnnpipe-huggingface")
        fetched = pip("install", "-q", "--no-compile", "--find-links", wheels, *wanted, python=python)
        assert fetched.returncode == 0, fetched.stderr
    return Environment(place, sources, offline)


def test_rnnpipe_itself_is_the_wheel(environment: Environment, tmp_path: Path) -> None:
    where = environment.run("python", "-c", "import rnnpipe; print(rnnpipe.__file__)", cwd=tmp_path).stdout
    assert where.startswith(str(environment.folder))


def test_every_package_is_listed(environment: Environment, tmp_path: Path) -> None:
    listed = environment.run("rnnpipe", "plugins", "list", "--json", cwd=tmp_path)
    report = json.loads(listed.stdout)
    assert listed.stderr == ""
    assert report["not_loaded"] == report["warnings"] == []
    found = {row["distribution"] for row in report["plugins"]}
    assert found == {"rnnpipe", *(f"rnnpipe-{name}" for name in (*WORKED, *BEGUN))}
    begun = {(row["kind"], row["name"]) for row in report["plugins"] if row["name"].startswith("begun-")}
    assert begun == {(kind, f"begun-{kind}") for kind in KINDS}


@pytest.mark.parametrize("packages", [QUICK_CHECKS, ALL_CHECKS], ids=["quick", "all"])
def test_the_packages_pass_their_checks_from_the_shell(
    packages: tuple[str, ...], environment: Environment, tmp_path: Path
) -> None:
    packages = tuple(name for name in packages if not (environment.offline and name in WITH_DEPENDENCIES))
    names = [f"rnnpipe-{name}" for name in packages]
    done = environment.run("rnnpipe", "plugins", "check", *names, "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert {row["outcome"] for row in rows} == {"passed", "skipped"}
    passed = {row["name"] for row in rows if row["outcome"] == "passed"}
    # What has an option without a default is left to the package's own tests, which have a text to give it.
    needs_options = {row["name"] for row in rows if row["check"] == "all checks"}
    assert needs_options == set(packages) & set(WITH_DEPENDENCIES)
    assert passed >= set(packages) - {"huggingface"}


@pytest.mark.parametrize("name", [*WORKED, "all that were begun"])
def test_the_packages_pass_their_own_tests(name: str, environment: Environment, tmp_path: Path) -> None:
    """Where they are installed, with nothing of their source beside the tests; a cell's are run by the guide."""
    if environment.offline and name in WITH_DEPENDENCIES:
        pytest.skip(environment.offline)
    begun = [each for each in BEGUN if each != "begun-cell"]
    for source in [name] if name in WORKED else begun:
        shutil.copytree(environment.sources / source / "tests", tmp_path / "tests", dirs_exist_ok=True)
    words = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests")
    done = environment.run("python", *words, cwd=tmp_path)
    assert " passed" in done.stdout
    if name not in WORKED:
        assert f"{2 * len(begun)} passed" in done.stdout


def test_begun_packages_of_all_kinds_train_and_generate(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_text(
        """
        [data]
        dataset = { name = "begun-dataset", highest = 20 }
        [text]
        cleaner = "begun-cleaner"
        tokenizer = "begun-tokenizer"
        [model]
        name = "begun-model"
        cell = "begun-cell"
        encoder = { name = "begun-encoder", size = 8 }
        initializers = { recurrent = { name = "begun-initializer", scale = 0.5 } }
        [training]
        trainer = "begun-trainer"
        optimizer = "begun-optimizer"
        callbacks = [{ name = "begun-callback", digits = 3 }]
        [runtime]
        backend = "begun-backend"
        """
    )
    trained = environment.run("rnnpipe", "train", "all.toml", "-o", "run", *SMALL, cwd=tmp_path)
    assert "backend begun-backend" in trained.stderr
    assert (tmp_path / "run" / "begun-callback.csv").read_text().startswith("step,parameter,norm\n3,")
    words = ("generate", "run", "0 + 0", "--sampler", "begun-sampler:p=0.2", "--max-tokens", "5")
    assert environment.run("rnnpipe", *words, cwd=tmp_path).stdout.startswith("0 + 0")
    assert "nats a token  run" in environment.run("rnnpipe", "begun-command", "run", cwd=tmp_path).stdout
    missing = environment.run("rnnpipe", "generate", "run", "0", cwd=tmp_path, code=2, RNNPIPE_PLUGINS="")
    assert missing.stderr.splitlines()[-1].startswith("Error: unknown ")


@pytest.mark.parametrize("cell", ["mingru", pytest.param("peephole-lstm", marks=pytest.mark.slow)])
def test_the_worked_cells(cell: str, environment: Environment, tmp_path: Path) -> None:
    shown = environment.run("rnnpipe", "plugins", "show", cell, cwd=tmp_path).stdout
    assert f"cell {cell}, from rnnpipe-{cell} 0.1.0" in shown
    assert "backend loop: takes it" in shown
    words = ("train", HARBOUR, "--level", "char", "--cell", cell, "--optimizer", "lion", "-o", "run", *SMALL)
    trained = environment.run("rnnpipe", *words, cwd=tmp_path)
    assert "is not one of torch's own layers" in trained.stderr
    generated = environment.run("rnnpipe", "generate", "run", "The ", "--max-tokens", "20", cwd=tmp_path)
    assert generated.stdout.startswith("The ")
    missing = environment.run("rnnpipe", "generate", "run", "The ", cwd=tmp_path, code=2, RNNPIPE_PLUGINS="")
    assert missing.stderr.splitlines()[-1].startswith(f"Error: unknown cell '{cell}'.")


def test_the_shell_blocks_of_the_authors_guide_run(environment: Environment, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "corpora", tmp_path / "corpora")
    # What the guide calls pip: this interpreter's, which installs into the environment and builds with what is here.
    script = tmp_path / "bin" / "pip"
    script.parent.mkdir()
    words = f'--disable-pip-version-check --python "{environment.folder}/bin/python" "$@" --no-build-isolation -q'
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip {words}\n')
    script.chmod(0o755)
    runner = environment.folder / "bin" / "pytest"
    if not runner.exists():
        runner.write_text(f'#!/bin/sh\nexec "{environment.folder}/bin/python" -m pytest "$@"\n')
        runner.chmod(0o755)
    path = f"{script.parent}:{environment.folder / 'bin'}:{os.environ['PATH']}"
    for block in blocks(ROOT / "plugins" / "README.md", "sh"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_the_worked_command(environment: Environment, tmp_path: Path) -> None:
    environment.run("rnnpipe", "build-dict", HARBOUR, "-o", "words.dict", cwd=tmp_path)
    report = json.loads(environment.run("rnnpipe", "zipf", "words.dict", "--json", cwd=tmp_path).stdout)
    assert 0.5 < report["exponent"] < 1.5
