"""Texts that a person names: files, folders and patterns as they are, and corpora by their manifests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnpipe.durable import cache_folder, sha256_file
from rnnpipe.errors import InputError
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.opening import open_texts

if TYPE_CHECKING:
    from rnnpipe.data.corpora.manifest import CorpusFile, Manifest


def open_parts(
    inputs: Sequence[str], spool: Path, encoding: str = "utf-8", errors: Errors = "strict"
) -> dict[str, list[TextFile]]:
    """Return the texts that `inputs` name, opened as `open_texts` does, by part: `all`, or those that manifests name.

    A file `NAME.toml` is the manifest of a corpus and stands for its files: those beside it, or, with a URL, in the
    cache. They are read in the manifest's encoding, all others in `encoding`. Raises InputError for a file that is not
    there, or not the one of the manifest, and where some inputs are divided into parts and others are not.
    """
    manifests = [item for item in inputs if _is_manifest(item)]
    parts: dict[str, list[TextFile]] = {}
    if others := [item for item in inputs if item not in manifests]:
        parts["all"] = open_texts(others, spool, encoding, errors)
    if manifests:
        from rnnpipe.data.corpora.manifest import load_manifest  # here, as most have none and it takes a while
    for number, item in enumerate(dict.fromkeys(manifests)):
        manifest = load_manifest(Path(item))
        for part in dict.fromkeys(file.split or "all" for file in manifest.files):
            found = [str(_find(manifest, file, item)) for file in manifest.files if (file.split or "all") == part]
            texts = open_texts(found, spool / f"{number}-{part}", manifest.encoding, errors)
            parts.setdefault(part, []).extend(texts)
    if len(parts) > 1 and "all" in parts:
        raise InputError(f"{', '.join(inputs)}: some are divided into parts, some are not; take them one by one.")
    return parts


def open_undivided(inputs: Sequence[str], spool: Path, encoding: str, errors: Errors) -> list[TextFile]:
    """Return what `open_parts` does for inputs without parts of their own; raise InputError for others."""
    parts = open_parts(inputs, spool, encoding, errors)
    if "all" not in parts:
        raise InputError(
            f"{', '.join(inputs)}: the manifest divides the corpus into {', '.join(parts)}; `rnnpipe clean` keeps them "
            "apart, and what it writes can be used here."
        )
    return parts["all"]


def _is_manifest(item: str) -> bool:
    return item.endswith(".toml") and Path(item).is_file()


def _find(manifest: Manifest, file: CorpusFile, place: str) -> Path:
    """Return where a file of a corpus is, or the folder of an archive; raise InputError if it is not the one named."""
    beside = Path(place).parent / file.file
    path = cache_folder() / "corpora" / manifest.name / file.file if file.fetched else beside
    if not path.is_file():
        fetch = f"; `rnnpipe corpus fetch --manifest {place}` brings it" if file.fetched else ""
        raise InputError(f"{place}: {path} is not there{fetch}.")
    if path.stat().st_size != file.size or sha256_file(path) != file.sha256:
        raise InputError(f"{path}: is not the file of {place}: size or SHA-256 differ. Put that back, or correct it.")
    return path.parent / file.folder if file.folder else path
