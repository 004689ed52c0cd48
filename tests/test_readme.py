"""README.md and plugins/README.md: tables are generated, and every block runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from readme_tables import GUIDE, README, TABLES, with_tables

ROOT = README.parent


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def sections(path: Path, language: str) -> dict[str, list[str]]:
    """Return the code blocks of one language under each heading of the second rank that has any."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {
        title: re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {title: code for title, code in found.items() if code}


def test_tables_are_up_to_date() -> None:
    for path in TABLES:
        assert with_tables(path) == path.read_text(encoding="utf-8"), "run `python tests/readme_tables.py`"


def test_the_first_screen_is_two_commands() -> None:
    first, second = blocks(README, "sh")[:2]
    assert "rnnpipe train --demo" in first
    assert "pytest" in second
    for command in (first, second):
        assert len(command.strip().splitlines()) == 1
    assert README.read_text(encoding="utf-8").index(second) < 3000, "they stand on the first screen"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder that looks like the root of the repository, where the README's blocks run."""
    shutil.copytree(ROOT / "corpora", tmp_path / "corpora")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    script = bin_folder / "rnnpipe"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rnnpipe "$@"\n')
    script.chmod(0o755)
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("title", sections(README, "sh"))
def test_every_shell_block_runs(checkout: Path, title: str) -> None:
    """The blocks of a section, in order, in one folder, as a reader would type them."""
    for block in sections(README, "sh")[title]:
        done = run(["bash", "-euo", "pipefail", "-c", block], checkout)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_every_python_block_runs(checkout: Path) -> None:
    for path in (README, GUIDE):
        for block in blocks(path, "python"):
            done = run([sys.executable, "-W", "error", "-c", block], checkout)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
