"""The dataset `parallel`: pairs of lines of two aligned files, or of one file of tab-separated or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from rnnpipe.data.base import PARTS, Part
from rnnpipe.data.text_files import parse_split
from rnnpipe.durable import read_lines
from rnnpipe.errors import InputError, UsageError, did_you_mean
from rnnpipe.text.arriving import LineReader
from rnnpipe.text.files import Errors
from rnnpipe.text.opening import check_encoding
from rnnpipe.text.transcoding import COMPRESSED, is_utf16, open_bytes

Pair = tuple[str, str]
_WIDE = ("utf-16", "utf-32")  # encodings in which a line end is no single byte
_STEMS: dict[Part, tuple[str, ...]] = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}


class Parallel:
    """Pairs of source and target lines, in one of three forms.

    folder, source, target: the files `train`, `valid` (or `dev`) and `test` of a folder, with source and target as
    their endings: `folder=en-ja,source=en,target=ja` reads `en-ja/train.en` and `en-ja/train.ja`, and so on.
    source, target: two files of as many lines each, divided contiguously by `split`.
    file: one file of `SOURCE TAB TARGET` lines, or (`*.jsonl`) of objects with the texts under `source_key` and
    `target_key`, divided by `split`.

    split: shares of train, valid and test. encoding, errors: as for Python's `open`; source_encoding, target_encoding:
    of one side alone. UTF-16 is known by its mark, and compressed files by their ending, which those of a folder have
    behind their own. Empty lines keep their place.
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
        source_encoding: str = "",
        target_encoding: str = "",
        errors: Errors = "strict",
    ) -> None:
        both = bool(source and target)
        if not (both if not file else not (source or target or folder)):
            raise UsageError(
                "dataset 'parallel' needs source and target (two files), folder, source and target (a folder and two "
                "endings), or file (tab-separated or JSON lines)."
            )
        if file and (source_encoding or target_encoding):
            raise UsageError("dataset 'parallel': a file of pairs has one encoding; name it with encoding=...")
        self.folder = Path(folder) if folder else None
        self.source, self.target, self.file = source, target, file
        self.shares = parse_split(split)
        self.keys = (source_key, target_key)
        self.encodings = {
            "encoding": check_encoding(encoding),
            "source_encoding": source_encoding and check_encoding(source_encoding),
            "target_encoding": target_encoding and check_encoding(target_encoding),
        }
        self.errors = errors
        self._parts: dict[Part, Sequence[Pair]] = {}

    def pairs(self, split: Part) -> Sequence[Pair]:
        """Return the pairs of one part; none if there is no such part. Raises InputError for lines that do not pair.

        The files are read once.
        """
        if split not in self._parts:
            if self.folder is not None:
                paths = self._part_files(self.folder, split)
                self._parts[split] = [] if paths is None else self._aligned(*paths)
            else:
                self._parts |= self._divided()
        return self._parts.get(split, [])

    def _divided(self) -> dict[Part, Sequence[Pair]]:
        """Return the parts, by their shares, of what stands in one file or two."""
        whole = self._lines_of_pairs() if self.file else self._aligned(Path(self.source), Path(self.target))
        total = sum(self.shares)
        ends = [len(whole) * share // total for share in accumulate(self.shares)]
        bounds = dict(zip(PARTS, zip([0, *ends[:-1]], ends, strict=True), strict=False))
        return {part: whole[slice(*bounds.get(part, (0, 0)))] for part in PARTS}

    def _part_files(self, folder: Path, split: Part) -> tuple[Path, Path] | None:
        """Return the source and target file of a part of a folder, or None if neither is there."""
        if not folder.is_dir():
            siblings = [str(path) for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise InputError(f"{folder}: no such folder.{did_you_mean(str(folder), siblings)}")
        for stem in _STEMS.get(split, ()):
            paths = (_plain_or_compressed(folder, stem, self.source), _plain_or_compressed(folder, stem, self.target))
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
        sides = [
            [line for _, line in self._lines(path, option)]
            for path, option in ((source, "source_encoding"), (target, "target_encoding"))
        ]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"{source}: has {len(sides[0]):,} lines, {target} has {len(sides[1]):,}; line n of one belongs to line "
                "n of the other. Where one has no counterpart, leave its line empty."
            )
        return list(zip(*sides, strict=True))

    def _lines_of_pairs(self) -> list[Pair]:
        path = Path(self.file)
        lines = self._lines(path, "encoding")
        if (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix == ".jsonl":
            return [self._json_pair(line, f"{path}, line {number}") for number, line in lines if line]
        return [self._tab_pair(line, f"{path}, line {number}") for number, line in lines]

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

    def _lines(self, path: Path, option: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file by number, without their ends; raise InputError for bytes that are no text.

        option: that which names the file's encoding.
        """
        if path.is_dir():
            raise InputError(
                f"{path}: is a folder. For a folder of train, dev and test files give folder={path}, and their endings "
                "as source and target."
            )
        if not path.is_file():
            siblings = [str(near) for near in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError(f"{path}: no such file.{did_you_mean(str(path), siblings)}")
        with open_bytes(path) as file:
            lines = list(read_lines(LineReader(file), str(path)))
        encoding = self._encoding(path, option, lines)
        if encoding.startswith(_WIDE):
            text = self._decode(b"".join(lines), encoding, option, str(path)).removesuffix("\n")
            decoded = iter(text.split("\n") if text else [])
        else:
            decoded = (
                self._decode(line, encoding, option, f"{path}, line {number}") for number, line in enumerate(lines, 1)
            )
        for number, line in enumerate(decoded, 1):
            yield number, (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")

    def _encoding(self, path: Path, option: str, lines: Sequence[bytes]) -> str:
        """Return the encoding of a file; raise InputError where that of both sides would plainly misread one."""
        own = self.encodings[option]
        encoding = own or self.encodings["encoding"]
        if encoding == "utf-8":
            return "utf-16" if is_utf16(b"".join(lines[:2])) else "utf-8"
        if not own and not encoding.startswith(_WIDE) and _is_utf8(lines):
            raise InputError(
                f"{path}: is UTF-8, in which {encoding} would read other letters; give each side its own encoding, as "
                f"in {option}=utf-8 ({option}={encoding} is taken at its word)."
            )
        return encoding

    def _decode(self, data: bytes, encoding: str, option: str, place: str) -> str:
        try:
            return data.decode(encoding, self.errors)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place}, byte {error.start}: {data[error.start : error.start + 4]!r} is not {encoding} "
                f"({error.reason}). Name its encoding with {option}=..., or pass errors=replace."
            ) from None


def _plain_or_compressed(folder: Path, stem: str, ending: str) -> Path:
    """Return the file of a part and a side; the plain one's name if it is there in no form."""
    plain = folder / f"{stem}.{ending}"
    found = (path for suffix in ("", *COMPRESSED) if (path := folder / f"{plain.name}{suffix}").is_file())
    return next(found, plain)


def _is_utf8(lines: Iterable[bytes]) -> bool:
    """Say whether lines have letters beyond ASCII, and all of them are those of UTF-8."""
    beyond = [line for line in lines if not line.isascii()]
    try:
        for line in beyond:
            line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(beyond)
