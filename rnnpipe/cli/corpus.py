"""`rnnpipe corpus list|fetch|audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnpipe.cli import say
from rnnpipe.cli.common import PATH, byte_progress, hint, json_option, print_json, print_table

if TYPE_CHECKING:
    from rnnpipe.data.corpora.manifest import Manifest

manifest_option = click.option(
    "--manifest", "manifests", type=PATH, multiple=True, metavar="FILE", help="A manifest of your own, NAME.toml."
)


@click.group("corpus")
def command() -> None:
    """List, fetch or audit corpora."""


@command.command("list")
@manifest_option
@json_option
def list_(manifests: tuple[Path, ...], as_json: bool) -> None:
    """Print the corpora that can be fetched."""
    from rnnpipe.data.corpora.manifest import load_manifest, shipped

    corpora = [load_manifest(path) for path in (*shipped(), *manifests)]
    if as_json:
        print_json({"corpora": [_to_json(corpus) for corpus in corpora]})
        return
    rows = [(c.name, ",".join(c.language), f"{c.size:,}", c.licence, c.title) for c in corpora]
    print_table([("name", "language", "bytes", "licence", "title"), *rows], right=(2,))
    hint("corpus", "fetch", corpora[0].name)


@command.command("fetch")
@click.argument("name", required=False)
@manifest_option
@json_option
def fetch(name: str | None, manifests: tuple[Path, ...], as_json: bool) -> None:
    """Bring a corpus into the cache ($RNNPIPE_CACHE); print where its files are."""
    from rnnpipe.data.corpora.fetch import fetch as fetch_corpus
    from rnnpipe.data.corpora.manifest import find_manifest, load_manifest

    if (name is None) == (not manifests) or len(manifests) > 1:
        raise click.UsageError(
            "give the name of a corpus, or one --manifest FILE; `rnnpipe corpus list` has the names."
        )
    manifest = load_manifest(manifests[0]) if name is None else find_manifest(name)
    with byte_progress("fetch", manifest.size) as progress:
        fetched = fetch_corpus(manifest, progress=progress, report=say)
    say(f"{manifest.name}: {manifest.title}; licence {manifest.licence}")
    if as_json:
        files = [{"path": str(f.path), "split": f.file.split, "language": f.file.language} for f in fetched]
        print_json({"name": manifest.name, "licence": manifest.licence, "files": files})
        return
    for each in fetched:
        click.echo(each.path)
    hint("train", fetched[0].path)


def _to_json(corpus: Manifest) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(corpus), "size": corpus.size}
