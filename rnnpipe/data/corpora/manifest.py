"""Corpus manifests: where the files of a corpus are, how large they are, and what their digests must be.

A manifest is a TOML file, `NAME.toml`. Those of public corpora lie beside this module; others are named by their path.
"""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from rnnpipe.durable import read_toml
from rnnpipe.errors import InputError, UsageError, did_you_mean, unknown_name
from rnnpipe.text.opening import check_encodings

SUFFIXES = (".tar.gz", ".tgz", ".zip")
MAX_BYTES = 1 << 40
_FILE_KEYS = ("file", "language", "split", "url", "size", "sha256", "unpacked_size")
_KEYS = ("name", "language", "title", "description", "licence", "homepage", "encoding", "files", *_FILE_KEYS)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus. `unpacked_size`: of an archive, the most bytes that its files may have together.

    fetched: whether it has a URL of its own, and so lies in the cache and not beside the manifest.
    """

    file: str
    url: str
    size: int
    sha256: str
    language: tuple[str, ...] = ()
    split: str | None = None
    unpacked_size: int | None = None
    fetched: bool = False

    @property
    def folder(self) -> str | None:
        """Return the name of the folder that an archive is unpacked into, None for any other file."""
        if self.unpacked_size is None:
            return None
        return next(self.file.removesuffix(suffix) for suffix in SUFFIXES if self.file.endswith(suffix))


@dataclass(frozen=True)
class Manifest:
    """A corpus: its name, what people need to know of it, and its files.

    encoding: of all of them, as `--encoding` takes it.
    """

    name: str
    title: str
    description: str
    licence: str
    language: tuple[str, ...]
    homepage: str | None
    files: tuple[CorpusFile, ...]
    encoding: str = "utf-8"

    @property
    def size(self) -> int:
        """Return the size of its files in bytes."""
        return sum(file.size for file in self.files)


def shipped() -> list[Path]:
    """Return the manifests that ship with the package, by name."""
    folder = Path(str(files("rnnpipe.data.corpora")))
    return sorted(folder.glob("*.toml"))


def find_manifest(name: str) -> Manifest:
    """Return the shipped manifest of a name; raise UsageError with the nearest one if there is none."""
    paths = {path.stem: path for path in shipped()}
    if name not in paths:
        raise unknown_name("corpus", name, paths)
    return load_manifest(paths[name])


def load_manifest(path: Path) -> Manifest:
    """Read a manifest; raise InputError naming the key of whatever is wrong with it.

    A file without `url` lies beside the manifest.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such manifest; corpora/README.md says how to write one.")
    table = read_toml(path)
    _check_keys(table, _KEYS, str(path))
    name = _text(table, "name", path)
    if not _NAME.fullmatch(name):
        raise InputError(f"{path}: name {name!r} is not accepted; it takes lower-case letters, digits and hyphens.")
    records = table.get("files", [{key: table[key] for key in _FILE_KEYS if key in table}])
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise InputError(f"{path}: files is not an array of tables, [[files]].")
    if "files" in table and (both := [key for key in ("file", "url", "size", "sha256") if key in table]):
        raise InputError(f"{path}: has {both[0]} beside [[files]]; it belongs in one of those tables.")
    corpus_files = tuple(_file(record, Path(path)) for record in records)
    names = Counter(name for file in corpus_files for name in (file.file, file.folder) if name)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise InputError(f"{path}: {twice} stands for two files or folders; each needs a name of its own.")
    return Manifest(
        name=name,
        title=_text(table, "title", path),
        description=_text(table, "description", path),
        licence=_text(table, "licence", path),
        language=_languages(table, path),
        homepage=_text(table, "homepage", path) if "homepage" in table else None,
        files=corpus_files,
        encoding=_encoding(table, path),
    )


def _encoding(table: Mapping[str, Any], path: Path) -> str:
    if "encoding" not in table:
        return "utf-8"
    try:
        return ",".join(check_encodings(_text(table, "encoding", path)))
    except UsageError as error:
        raise InputError(f"{path}: encoding: {error}") from None


def _file(record: Mapping[str, Any], path: Path) -> CorpusFile:
    _check_keys(record, _FILE_KEYS, str(path))
    file = _text(record, "file", path)
    if not _FILE.fullmatch(file):
        raise InputError(f"{path}: file {file!r} is not accepted; it takes a plain file name, without a folder.")
    digest = _text(record, "sha256", path)
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{path}: sha256 of {file} is {digest!r}; it takes 64 lower-case hexadecimal digits.")
    split = record.get("split")
    if split not in (None, "train", "valid", "test"):
        raise InputError(f"{path}: split of {file} is {split!r}; it takes train, valid or test.")
    unpacked = _size(record, "unpacked_size", file, path) if "unpacked_size" in record else None
    if unpacked is not None and not file.endswith(SUFFIXES):
        raise InputError(f"{path}: {file} has an unpacked_size, but is no archive: {', '.join(SUFFIXES)}.")
    url = _text(record, "url", path) if "url" in record else (path.absolute().parent / file).as_uri()
    reason = refusal(url)
    if reason:
        raise InputError(f"{path}: url of {file}: {reason}.")
    size = _size(record, "size", file, path)
    return CorpusFile(file, url, size, digest, _languages(record, path), split, unpacked, "url" in record)


def refusal(url: str) -> str | None:
    """Return why nothing is fetched from a URL, or None: https, file, and http to this machine itself are accepted."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, user = parts.hostname, parts.username
        _ = parts.port
    except ValueError as error:
        return f"{url!r} is no URL ({error})"
    if not url.isascii() or not url.isprintable() or " " in url:
        return f"{url!r} has characters that a URL has only percent-encoded"
    if parts.scheme == "file":
        return None if parts.netloc in ("", "localhost") else f"{url} names a file on another machine"
    if not host or user is not None:
        return f"{url} names no host, or a user as well"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return f"{url} is not accepted; it takes https:// (or file:, or http:// to this machine)"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_keys(table: Mapping[str, Any], accepted: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in accepted:
            key = key[:60]
            raise InputError(
                f"{place}: unknown key {key!r}.{did_you_mean(key, accepted)} Accepted: {', '.join(accepted)}."
            )


def _text(table: Mapping[str, Any], key: str, path: Path) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InputError(f"{path}: {key} is {_short(value)}; it takes a line of text.")
    return value


def _size(record: Mapping[str, Any], key: str, file: str, path: Path) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_BYTES:
        raise InputError(f"{path}: {key} of {file} is {_short(value)}; it takes a number of bytes up to {MAX_BYTES}.")
    return value


def _languages(table: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    value = table.get("language", [])
    languages = [value] if isinstance(value, str) else value
    if not isinstance(languages, list) or not all(isinstance(tag, str) and tag.isprintable() for tag in languages):
        raise InputError(f"{path}: language is {_short(value)}; it takes a language tag or a list of them.")
    return tuple(languages)


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
