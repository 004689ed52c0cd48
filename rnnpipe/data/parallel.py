"""The dataset `parallel`: pairs of lines of two aligned files, or of one file of tab-separated or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from rnnpipe.data.base import PARTS, Part
from rnnpipe.data.text_files import parse_split
from rnnpipe.durable import read_lines
from rnnpipe.errors import InputError, UsageError, did_you_mean
from rnnpipe.text.files import Errors
from rnnpipe.text.opening import check_encoding

Pair = tuple[str, str]
_STEMS: dict[Part, tuple[str, ...]] = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}


class Parallel:
    """Pairs of source and target lines, in one of three forms.

    folder, source, target: the files `train`, `valid` (or `dev`) and `test` of a folder, with source and target as
    their endings: `folder=en-ja,source=en,target=ja` reads `en-ja/train.en` and `en-ja/train.ja`, and so on.
    source, target: two files of as many lines each, divided contiguously by `split`.
    file: one file of `SOURCE TAB TARGET` lines, or (`*.jsonl`) of objects with the texts under `source_key` and
    `target_key`, divided by `split`.

    split: shares of train, valid and test. encoding, errors: as for Python's `open`. Empty lines keep their place.
    """

    def __init__(
        self,
        *,
        folder: str = "",
        source: str = "",
        target: str = "",
        file: str = "",
        split: str = "8:1:1",
        source_key: str = "source",
        target_key: str = "target",
        encoding: str = "utf-8",
        errors: Errors = "strict",
    ) -> None:
        both = bool(source and target)
        if not (both if not file else not (source or target or folder)):
            raise UsageError(
                "dataset 'parallel' needs source and target (two files), folder, source and target (a folder and two "
                "endings), or file (tab-separated or JSON lines)."
            )
        self.folder = Path(folder) if folder else None
        self.source, self.target, self.file = source, target, file
        self.shares = parse_split(split)
        self.keys = (source_key, target_key)
        self.encoding = check_encoding(encoding)
        self.errors = errors

    def pairs(self, split: Part) -> Iterable[Pair]:
        """Yield the pairs of one part; none if there is no such part. Raises InputError for lines that do not pair."""
        if self.folder is not None:
            paths = self._part_files(self.folder, split)
            return [] if paths is None else self._aligned(*paths)
        whole = self._lines_of_pairs() if self.file else self._aligned(Path(self.source), Path(self.target))
        total = sum(self.shares)
        ends = [len(whole) * share // total for share in accumulate(self.shares)]
        bounds = dict(zip(PARTS, zip([0, *ends[:-1]], ends, strict=True), strict=False))
        start, stop = bounds.get(split, (0, 0))
        return whole[start:stop]

    def _part_files(self, folder: Path, split: Part) -> tuple[Path, Path] | None:
        """Return the source and target file of a part of a folder, or None if neither is there."""
        if not folder.is_dir():
            siblings = [str(path) for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise InputError(f"{folder}: no such folder.{did_you_mean(str(folder), siblings)}")
        for stem in _STEMS.get(split, ()):
            paths = (folder / f"{stem}.{self.source}", folder / f"{stem}.{self.target}")
            there = [path.is_file() for path in paths]
            if all(there):
                return paths
            if any(there):
                raise InputError(f"{paths[there.index(True)]}: has no partner {paths[there.index(False)].name}.")
        if split == "train":
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise InputError(
                f"{folder}: has no train.{self.source} and train.{self.target}; source and target are the endings of "
                f"the files of a folder. It has: {found}."
            )
        return None

    def _aligned(self, source: Path, target: Path) -> list[Pair]:
        sides = [[line for _, line in self._lines(path)] for path in (source, target)]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"{source}: has {len(sides[0]):,} lines, {target} has {len(sides[1]):,}; line n of one belongs to line "
                "n of the other. Where one has no counterpart, leave its line empty."
            )
        return list(zip(*sides, strict=True))

    def _lines_of_pairs(self) -> list[Pair]:
        path = Path(self.file)
        if path.suffix == ".jsonl":
            return [self._json_pair(line, f"{path}, line {number}") for number, line in self._lines(path) if line]
        return [self._tab_pair(line, f"{path}, line {number}") for number, line in self._lines(path)]

    def _tab_pair(self, line: str, place: str) -> Pair:
        if not line:
            return "", ""
        fields = line.split("\t")
        if len(fields) != 2:
            raise InputError(f"{place}: has {len(fields) - 1} tabs; expected SOURCE TAB TARGET. Received {line[:60]!r}")
        return fields[0], fields[1]

    def _json_pair(self, line: str, place: str) -> Pair:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise InputError(f"{place}: not JSON ({reason}); expected an object a line.") from None
        source, target = [record.get(key) if isinstance(record, dict) else None for key in self.keys]
        for key, text in zip(self.keys, (source, target), strict=True):
            if not isinstance(text, str):
                raise InputError(
                    f'{place}: expected a text under "{key}" (options source_key and target_key name the members). '
                    f"Received {line[:60]}"
                )
        return " ".join(str(source).splitlines()), " ".join(str(target).splitlines())

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file by number, without their ends; raise InputError for bytes that are no text."""
        if not path.is_file():
            siblings = [str(near) for near in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError(f"{path}: no such file.{did_you_mean(str(path), siblings)}")
        if self.encoding.startswith(("utf-16", "utf-32")):  # a line end is no single byte in these
            text = self._decode(path.read_bytes(), str(path)).removesuffix("\n")
            lines = iter(text.split("\n") if text else [])
        else:
            lines = self._decoded_lines(path)
        for number, line in enumerate(lines, 1):
            yield number, (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")

    def _decoded_lines(self, path: Path) -> Iterator[str]:
        with path.open("rb") as file:
            for number, raw in enumerate(read_lines(file, str(path)), 1):
                yield self._decode(raw, f"{path}, line {number}")

    def _decode(self, data: bytes, place: str) -> str:
        try:
            return data.decode(self.encoding, self.errors)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place}, byte {error.start + 1}: {data[error.start : error.start + 4]!r} is not {self.encoding} "
                f"({error.reason}). Name another encoding with encoding=..., or pass errors=replace."
            ) from None
