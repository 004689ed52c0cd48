"""The corpora of the repository are what their manifests say, and the manifests of public ones are complete."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rnnpipe.data.corpora.manifest import shipped

FOLDER = Path(__file__).resolve().parent.parent / "corpora"
PUBLIC = {path.stem: path for path in shipped()}
MANIFESTS = [*sorted(FOLDER.glob("*.toml")), *PUBLIC.values()]


def files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return manifest.get("files", [manifest])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_a_manifest_is_complete(path: Path) -> None:
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    assert manifest["name"] == path.stem
    for key in ("language", "title", "description", "licence"):
        assert manifest[key], key
    for record in files(manifest):
        assert len(bytes.fromhex(record["sha256"])) == 32
        assert record["size"] > 0
        assert (FOLDER / record["file"]).is_file() or record["url"].startswith("https://")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda p: p.stem)
def test_a_stored_text_is_what_its_manifest_says(path: Path) -> None:
    manifest = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    data = path.read_bytes()
    assert (manifest["file"], manifest["size"]) == (path.name, len(data))
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    data.decode(manifest["encoding"])
    assert b"\r" not in data
    assert data.endswith(b"\n")


def test_public_corpora_are_those_that_were_measured(data_dir: Path) -> None:
    digests = {
        Path(name).name: digest
        for digest, name in (line.split() for line in (data_dir / "SHA256SUMS").read_text().splitlines())
    }
    for name in ("tinyshakespeare", "small-parallel-enja"):
        for record in files(tomllib.loads(PUBLIC[name].read_text(encoding="utf-8"))):
            assert record["sha256"] == digests[record["file"]], record["file"]
