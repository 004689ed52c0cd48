"""Finding the texts that a person names, and opening them as UTF-8 files.

Input that is compressed, in another encoding, or no ordinary file is copied once into a temporary UTF-8 file, so that
everything after it works on byte ranges.
"""

from __future__ import annotations

import codecs
import encodings.aliases
import functools
import glob
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from rnnpipe.errors import InputError, UsageError, did_you_mean
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.transcoding import COMPRESSED, copy_as_utf8, detect_encoding, open_bytes


def find_paths(inputs: Sequence[str]) -> list[str]:
    """Return the files that `inputs` name, each once: files, `*.txt` in folders (recursive, sorted), globs and `-`.

    In a folder, those compressed, such as `*.txt.gz`, are texts too.

    What rnnpipe itself has written below a folder (a cleaned corpus, a token folder, a run) is not taken for text.
    """
    found: dict[str, str] = {}  # by real path

    def add(*names: str) -> None:
        for name in names:
            found.setdefault(name if name == "-" else os.path.realpath(name), name)

    for item in inputs:
        path = Path(item)
        if item == "-" or path.is_file():
            add(item)
        elif path.is_dir():
            texts = _find_texts(path)
            if not texts:
                raise InputError(f"{item}: no *.txt file in this folder or below it.")
            add(*texts)
        elif glob.has_magic(item):
            texts = sorted(text for text in glob.glob(item, recursive=True) if Path(text).is_file())  # noqa: PTH207
            if not texts:
                raise InputError(f"{item}: no file matches this pattern.")
            add(*texts)
        elif path.exists():
            add(item)  # a named pipe or a device: it is read once, like standard input
        else:
            siblings = [str(path.with_name(s.name)) for s in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError(f"{item}: no such file or folder.{did_you_mean(item, siblings)}")
    return list(found.values())


def _find_texts(folder: Path) -> list[str]:
    """Return the `*.txt` below a folder, sorted, less those in outputs of rnnpipe that lie below it."""

    @functools.cache
    def written(below: Path) -> bool:
        return below != folder and (_is_output(below) or written(below.parent))

    patterns = ("*.txt", *(f"*.txt{suffix}" for suffix in COMPRESSED))
    found = (
        text for pattern in patterns for text in folder.rglob(pattern) if text.is_file() and not written(text.parent)
    )
    return sorted(str(text) for text in found if not _is_ours(text))


def _is_output(folder: Path) -> bool:
    """Say whether rnnpipe has written this folder."""
    if (folder / "config.toml").is_file() and (folder / "dictionary.txt").is_file():
        return True  # a run
    return any((folder / marker).is_file() and _is_ours(folder / marker) for marker in ("corpus.json", "meta.json"))


def _is_ours(file: Path) -> bool:
    """Say whether a file names itself as of one of rnnpipe's formats: a record, or a dictionary."""
    with file.open("rb") as opened:
        return b'"format": "rnnpipe-' in opened.read(40)


def check_encoding(encoding: str) -> str:
    """Return the codec's own name for `encoding`; raise UsageError with the nearest name if there is none."""
    try:
        info = codecs.lookup(encoding)
    except LookupError:
        names = sorted({name.replace("_", "-") for name in encodings.aliases.aliases.values()})
        raise UsageError(
            f"unknown encoding '{encoding}'.{did_you_mean(encoding, names)} Examples: utf-8, utf-16, cp1252, cp932."
        ) from None
    if not getattr(info, "_is_text_encoding", True):
        raise UsageError(f"'{encoding}' is not an encoding of text. Examples: utf-8, utf-16, cp1252, cp932.")
    return "utf-8" if info.name == "utf-8-sig" else info.name


def check_encodings(text: str) -> list[str]:
    """Return the codecs' own names for an encoding, or for several with commas between them."""
    return list(dict.fromkeys(check_encoding(name.strip()) for name in text.split(",")))


def open_texts(
    inputs: Sequence[str], spool: Path, encoding: str = "utf-8", errors: Errors = "strict"
) -> list[TextFile]:
    """Return the texts that `inputs` name, as UTF-8 files; what is not UTF-8 on disk is copied into the folder `spool`.

    Of several encodings, with commas between them, each file has the first that can read all of it. A byte-order mark
    tells UTF-16 from UTF-8. Raises InputError for a file that is missing, or named itself and empty, and for bytes that
    are not of the encoding. Empty files in a folder or a pattern are passed over.
    """
    encodings = check_encodings(encoding)
    texts = []
    for number, path in enumerate(find_paths(inputs)):
        # A name that is not UTF-8 is still a name, but not one that can be written down.
        name = "standard input" if path == "-" else os.fsencode(path).decode("utf-8", "replace")
        text = _open_text(path, name, spool / f"{number}.txt", encodings, errors)
        if text.size == 0 and path in inputs:
            raise InputError(f"{name}: is empty; give a file with text in it.")
        if text.size:
            texts.append(text)
    if not texts:
        raise InputError(f"{', '.join(inputs)}: every file there is empty; give files with text in them.")
    return texts


def _open_text(path: str, name: str, copy: Path, encodings: list[str], errors: Errors) -> TextFile:
    """Return a text as a UTF-8 file: itself, or `copy`."""
    file = Path(path)
    if path == "-" or file.suffix in COMPRESSED or not file.is_file():
        raw = copy.with_suffix(".raw")
        with _open_source(path) as source:
            copy.parent.mkdir(parents=True, exist_ok=True)
            if len(encodings) == 1 and encodings[0] != "utf-8":
                return _bounds(name, copy, copy_as_utf8(source, name, copy, encodings[0], errors))
            copy_as_utf8(source, name, raw, "utf-8", errors)
        file = raw
    encoding = detect_encoding(file, name, encodings, errors)
    if encoding == "utf-8":
        return _bounds(name, file)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as source:
        text = _bounds(name, copy, copy_as_utf8(source, name, copy, encoding, errors))
    if file.suffix == ".raw" and file.parent == copy.parent:
        file.unlink()
    return text


def _open_source(path: str) -> AbstractContextManager[BinaryIO]:
    if path != "-":
        return open_bytes(Path(path))
    if sys.stdin is None:
        raise InputError("standard input is closed; name a file instead of -.")
    return nullcontext(sys.stdin.buffer)


def _bounds(name: str, path: Path, mended: int = 0) -> TextFile:
    with path.open("rb") as file:
        start = 3 if file.read(3) == codecs.BOM_UTF8 else 0
        size = os.fstat(file.fileno()).st_size
    return TextFile(name, path, start, max(start, size), mended)
