"""Texts named by the manifest of their corpus: its encoding, its parts, and files that are not those it names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cli import fail, succeed

TEXT = "川辺の町は静かだ。\n朝の川に霧が立つ。\n"


def write_manifest(folder: Path, files: dict[str, tuple[str, bytes]], encoding: str = "cp932", url: str = "") -> Path:
    """Write files by name, each with its split ("" for none), and their manifest."""
    folder.mkdir(exist_ok=True)
    lines = [f'{key} = "{value}"' for key, value in {"title": "T", "description": "D", "licence": "L"}.items()]
    lines += ['name = "small"', f'encoding = "{encoding}"']
    for name, (split, body) in files.items():
        (folder / name).write_bytes(body)
        lines += ["[[files]]", f'file = "{name}"', f"size = {len(body)}"]
        lines += [f'sha256 = "{hashlib.sha256(body).hexdigest()}"']
        lines += [f'split = "{split}"'] if split else []
        lines += [f'url = "{url}{name}"'] if url else []
    path = folder / "small.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def configuration(manifest: Path) -> Path:
    """Write a configuration that trains on a manifest's texts; `train` takes a TOML file for a configuration."""
    path = manifest.parent / "config.toml"
    path.write_text(f'[data]\ndataset = {{name = "text-files", inputs = ["{manifest}"]}}\n')
    return path


def test_a_manifest_gives_the_encoding(tmp_path: Path) -> None:
    body = TEXT.encode("cp932")
    manifest = write_manifest(tmp_path / "in", {"a.txt": ("", body), "b.dat": ("", body)})
    (tmp_path / "plain.txt").write_text(TEXT)  # beside it, in the encoding that the command line gives
    by_manifest, by_option = tmp_path / "1.dict", tmp_path / "2.dict"
    rules = ("--level", "char", "--unknown-threshold", "0")
    succeed("build-dict", manifest, "-o", by_manifest, *rules)
    succeed(
        "build-dict", *(tmp_path / "in" / n for n in ("a.txt", "b.dat")), "--encoding", "cp932", "-o", by_option, *rules
    )
    assert by_manifest.read_bytes() == by_option.read_bytes()
    succeed("build-dict", manifest, tmp_path / "plain.txt", "-o", tmp_path / "3.dict", *rules)
    header = json.loads((tmp_path / "3.dict").read_text().splitlines()[0])
    assert header["totals"]["characters"] == 3 * len(TEXT)
    succeed("encode", manifest, "--dict", by_manifest, "-o", tmp_path / "tokens")
    assert set(json.loads((tmp_path / "tokens" / "meta.json").read_text())["parts"]) == {"all"}
    succeed(
        "train",
        configuration(manifest),
        "--level",
        "char",
        "--set",
        "training.max_steps=1",
        "--set",
        "training.bptt=4",
        "-o",
        tmp_path / "run",
    )


def test_a_manifest_gives_the_parts(tmp_path: Path) -> None:
    words = {"train": b"a b c a b c\n" * 9, "test": b"a b d\n" * 9}
    manifest = write_manifest(tmp_path / "in", {f"{part}.txt": (part, body) for part, body in words.items()}, "utf-8")
    succeed("build-dict", manifest, "-o", tmp_path / "dict", "--unknown-threshold", "0")
    succeed("build-dict", tmp_path / "in" / "train.txt", "-o", tmp_path / "train.dict", "--unknown-threshold", "0")
    tokens = [path.read_text().splitlines()[1:] for path in (tmp_path / "dict", tmp_path / "train.dict")]
    assert tokens[0] == tokens[1] == ["18\ta", "18\tb", "18\tc"]
    succeed("clean", manifest, "-o", tmp_path / "corpus")
    succeed("encode", manifest, "--dict", tmp_path / "dict", "-o", tmp_path / "tokens")
    for record in (tmp_path / "corpus" / "corpus.json", tmp_path / "tokens" / "meta.json"):
        assert set(json.loads(record.read_text())["parts"]) == {"train", "test"}
    (tmp_path / "more.txt").write_text("e\n")
    assert "some are divided into parts" in fail(
        "build-dict", manifest, tmp_path / "more.txt", "-o", tmp_path / "no", code=1
    )
    assert "divides the corpus into train, test" in fail(
        "train", configuration(manifest), "-o", tmp_path / "run", code=1
    )
    only_test = write_manifest(tmp_path / "other", {"test.txt": ("test", b"a\n")}, "utf-8")
    assert "no training part" in fail("build-dict", only_test, "-o", tmp_path / "no", code=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "a.txt").unlink(), "a.txt is not there."),
        (lambda folder: (folder / "a.txt").write_bytes(b"longer than it was\n"), "size or SHA-256 differ"),
        (lambda folder: (folder / "a.txt").write_bytes(b"b c\n"), "size or SHA-256 differ"),
        (lambda folder: write_manifest(folder, {"a.txt": ("", b"a b\n")}, "cp93"), "unknown encoding 'cp93'"),
        (
            lambda folder: write_manifest(folder, {"a.txt": ("", b"a\n")}, url="https://x.invalid/"),
            "corpus fetch",
        ),
        (lambda folder: (folder / "small.toml").write_text("[project]\n"), "unknown key 'project'"),
    ],
)
def test_what_a_manifest_may_have_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change, message: str) -> None:
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "cache"))
    manifest = write_manifest(tmp_path / "in", {"a.txt": ("", b"a b\n")}, "utf-8")
    change(tmp_path / "in")
    assert message in fail("build-dict", manifest, "-o", tmp_path / "dict", code=1)
    assert not (tmp_path / "dict").exists()


def test_a_corpus_that_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    manifest = write_manifest(source, {"a.txt": ("", b"a b\n")}, "utf-8", url=f"{source.as_uri()}/")
    succeed("corpus", "fetch", "--manifest", manifest)
    succeed("build-dict", manifest, "-o", tmp_path / "dict", "--unknown-threshold", "0")
    assert (tmp_path / "dict").read_text().splitlines()[1:] == ["1\ta", "1\tb"]
