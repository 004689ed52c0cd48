"""Fetching a corpus into the cache: every file with the digest of its manifest, archives unpacked beside themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rnnpipe.data.corpora.archives import unpack
from rnnpipe.data.corpora.download import STALL_SECONDS, Progress, downloaded
from rnnpipe.data.corpora.manifest import CorpusFile, Manifest
from rnnpipe.durable import cache_folder, fsync_path, sha256_file
from rnnpipe.errors import InputError


@dataclass(frozen=True)
class Fetched:
    """One file of a corpus in the cache (for an archive: the folder with its files), and whether it was there."""

    file: CorpusFile
    path: Path
    was_there: bool


def fetch(
    manifest: Manifest,
    *,
    progress: Progress = lambda done_bytes: None,
    report: Callable[[str], None] = lambda message: None,
    stall_seconds: float = STALL_SECONDS,
) -> list[Fetched]:
    """Bring the files of a corpus into the cache and return where they are; those that are there whole stay.

    Raises InputError for a download that is not what the manifest says, or an archive that is not to be trusted;
    whatever was in the cache before is then still there.
    """
    folder = cache_folder() / "corpora" / manifest.name
    folder.mkdir(parents=True, exist_ok=True)
    fetched = []
    for file in manifest.files:
        was_there = _fetch_file(file, folder, progress, stall_seconds)
        report(
            f"{file.file}: {'is there' if was_there else 'fetched'}, {file.size:,} bytes, SHA-256 as in the manifest"
        )
        fetched.append(Fetched(file, folder / (file.folder or file.file), was_there))
    return fetched


def _fetch_file(file: CorpusFile, folder: Path, progress: Progress, stall_seconds: float) -> bool:
    """Bring one file to its place and unpack it if it is an archive; return whether all of it was there."""
    target = folder / file.file
    if target.is_file() and target.stat().st_size == file.size and sha256_file(target) == file.sha256:
        if file.folder and not (folder / file.folder).is_dir():
            _unpack(file, target, folder)
            return False
        return True
    _check_space(folder, file.size + (file.unpacked_size or 0))
    part = folder / f".{file.file}.part"
    with downloaded(file, part, progress, stall_seconds):
        if file.folder:  # before the archive has its name: where that is, the folder holds just this archive's files
            _unpack(file, part, folder)
        part.replace(target)
        fsync_path(folder)
    return False


def _unpack(file: CorpusFile, archive: Path, folder: Path) -> None:
    assert file.folder and file.unpacked_size, "it is an archive"
    unpack(archive, folder / file.folder, file.unpacked_size, file.file)


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{folder}: has {free:,} bytes free, {needed_bytes:,} are needed; make room, or set RNNPIPE_CACHE to a "
            "folder on another disk."
        )
