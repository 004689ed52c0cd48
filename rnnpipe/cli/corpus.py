"""`rnnpipe corpus list|fetch|audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from rnnpipe.cli import say
from rnnpipe.cli.byte_progress import byte_progress
from rnnpipe.cli.common import PATH, hint, json_option, print_json, print_table, text_options

if TYPE_CHECKING:
    from rnnpipe.data.corpora.manifest import Manifest
    from rnnpipe.text.files import Errors

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


@command.command("audit")
@click.argument("inputs", nargs=-1, required=True, metavar="DATASET|FILES...")
@click.option("--split", default="8:1:1", show_default=True, help="How files are divided: train, valid and test.")
@click.option(
    "--level", type=click.Choice(["word", "char"]), default="word", show_default=True, help="What a token is."
)
@click.option(
    "--ngram", type=click.IntRange(min=1), metavar="N", help="Compare runs of N tokens. [8 words, 50 characters]"
)
@click.option(
    "--unknown-threshold", type=click.IntRange(min=0), help="As for build-dict. [3 for words, 0 for characters]"
)
@text_options
@json_option
def audit(
    inputs: tuple[str, ...],
    split: str,
    level: Literal["word", "char"],
    ngram: int | None,
    unknown_threshold: int | None,
    encoding: str,
    errors: Errors,
    as_json: bool,
) -> None:
    """Measure how much of the test part also stands in the training part.

    Whole documents, whole lines and runs of N tokens, of files, of a folder that clean wrote, or of a dataset by its
    name; and how many tokens of each part a dictionary of the training part does not know.
    """
    from rnnpipe.pipeline.audit import audit as audit_parts

    with byte_progress("audit") as progress:
        found = audit_parts(
            inputs,
            split=split,
            level=level,
            ngram=ngram,
            unknown_threshold=unknown_threshold,
            encoding=encoding,
            errors=errors,
            progress=progress,
        )
    if as_json:
        print_json(found.to_json())
        return
    names = {"documents": "documents", "lines": "lines", "ngrams": f"runs of {found.ngram} tokens"}
    rows = [("part", "what", "count", "repeated", "also in train")]
    for part, kinds in found.overlaps.items():
        rows += [
            (part, names[kind], f"{o.count:,}", _share(o.duplicates, o.count), _share(o.in_train, o.count))
            for kind, o in kinds.items()
            if o.count
        ]
    print_table(rows, right=(2, 3, 4))
    for part, tokens in found.unknown.items():
        share = _share(tokens.unknown, tokens.tokens)
        click.echo(f"{part}: {share} of {tokens.tokens:,} tokens unknown to a dictionary of train")
    for part, kinds in found.overlaps.items():
        if kinds["documents"].in_train:
            share = _share(kinds["documents"].in_train, kinds["documents"].count)
            say(f"warning: {share} of the documents of {part} also stand in train; score on the others as well")


def _share(some: int | None, count: int) -> str:
    return "" if some is None else f"{some:,} ({some / count:.2%})" if count else "0"


def _to_json(corpus: Manifest) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(corpus), "size": corpus.size}
