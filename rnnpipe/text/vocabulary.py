"""The vocabulary: which tokens have an id, and the dictionary file that keeps it.

The file is UTF-8 text. Its first line is JSON: format, version, rules, threshold, totals, and what was counted. Each
further line is `count TAB token`, by descending count, then token bytes; backslash, tab and every line end inside a
token are escaped. The first line ends with `sha256`, the digest of the file without that member. Tokens at or below
the unknown threshold are kept in the file, so that dictionaries can be merged and thresholds moved without a recount;
where `rnnpipe dict prune` has left them out, `left_out` says how many there were.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from rnnpipe.durable import JSON_BYTES, parse_json, read_lines, write_bytes
from rnnpipe.errors import InputError
from rnnpipe.text.files import WORD_BYTES
from rnnpipe.text.rules import TextRules

FORMAT = "rnnpipe-dictionary"
VERSION = 1
DOC = "<doc>"
UNK = "<unk>"
START = f'{{"format": "{FORMAT}"'.encode()  # how every dictionary file begins
_SEAL = re.compile(rb', "sha256": "([0-9a-f]{64})"}\n\Z')
_LINE_BYTES = 2 * WORD_BYTES + 64  # a word with every character escaped, and its count
_ESCAPED = re.compile(r"[\\\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_SHORT = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_UNESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|(.)|$)")
_LONG = {short[1]: character for character, short in _SHORT.items()}


@dataclass(frozen=True)
class LeftOut:
    """What `dict prune` has taken out of a dictionary file: how many types, and how often they occurred together."""

    types: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Vocabulary:
    """Tokens with ids, in id order, then the specials: `<doc>`, the document boundary, and `<unk>`, last.

    Ids go by descending count, then token bytes. A token of the text that is spelt like a special is not one: specials
    have ids of their own that no text can produce.

    tokens, counts: all counted tokens, kept or not, in order. unknown_threshold: -1 where every token has an id, one
    that the text never used too, as a learnt tokenizer's may be. size: the number of ids.
    """

    rules: TextRules
    tokens: tuple[str, ...]
    counts: tuple[int, ...]
    unknown_threshold: int
    max_size: int | None
    counted: tuple[dict[str, Any], ...]  # per text: name, bytes, sha256, part ("train" or "all")
    characters: int
    left_out: LeftOut = LeftOut()

    @functools.cached_property
    def kept(self) -> int:
        """Return how many tokens have an id of their own."""
        above = len(self.counts)
        while above and self.counts[above - 1] <= self.unknown_threshold:
            above -= 1
        return above if self.max_size is None else min(above, self.max_size)

    @property
    def size(self) -> int:
        """Return the number of ids: kept tokens and the two specials."""
        return self.kept + 2

    @property
    def doc_id(self) -> int:
        """Return the id of the document boundary."""
        return self.kept

    @property
    def unk_id(self) -> int:
        """Return the id of the unknown token."""
        return self.kept + 1

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Return the id of each kept token."""
        return {token: number for number, token in enumerate(self.tokens[: self.kept])}

    @functools.cached_property
    def total(self) -> int:
        """Return the number of tokens counted."""
        return sum(self.counts) + self.left_out.tokens

    @property
    def types(self) -> int:
        """Return the number of different tokens counted."""
        return len(self.tokens) + self.left_out.types

    @property
    def covered(self) -> int:
        """Return how many of the counted tokens have an id of their own."""
        return sum(self.counts[: self.kept])

    @property
    def coverage(self) -> float:
        """Return that as a share."""
        return self.covered / self.total if self.total else 0.0

    def encode(self, tokens: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """Return the ids of tokens; unknown ones get `unk_id`."""
        return np.fromiter(map(self.ids.get, tokens, itertools.repeat(self.unk_id)), np.uint32, len(tokens))

    def token(self, token_id: int) -> str:
        """Return the token of an id; the specials as `<doc>` and `<unk>`."""
        if 0 <= token_id < self.kept:
            return self.tokens[token_id]
        return {self.doc_id: DOC, self.unk_id: UNK}[token_id]

    def with_threshold(self, unknown_threshold: int, max_size: int | None = None) -> Vocabulary:
        """Return the vocabulary that the same counts give under another threshold or size."""
        return replace(self, unknown_threshold=unknown_threshold, max_size=max_size)

    @functools.cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the dictionary file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the dictionary file."""
        header = header_line(
            self.rules,
            unknown_threshold=self.unknown_threshold,
            max_size=self.max_size,
            characters=self.characters,
            tokens=self.total,
            types=self.types,
            counted=self.counted,
            left_out=self.left_out,
        )
        # One look at all of them: in most dictionaries there is nothing to escape.
        tokens = map(escape, self.tokens) if _ESCAPED.search("".join(self.tokens)) else self.tokens
        lines = (f"{count}\t{token}\n" for token, count in zip(tokens, self.counts, strict=True))
        body = b"\n" + "".join(lines).encode()
        return seal(header, hashlib.sha256(header + body).hexdigest()) + body

    def save(self, path: Path) -> None:
        """Write the dictionary file, whole and durable."""
        write_bytes(path, self.to_bytes())

    def summary(self) -> Summary:
        """Return the figures of the dictionary."""
        pairs = list(zip(self.tokens, self.counts, strict=True))
        return Summary(
            rules=self.rules,
            kept=self.kept,
            types=self.types,
            total=self.total,
            covered=self.covered,
            unknown_threshold=self.unknown_threshold,
            max_size=self.max_size,
            characters=self.characters,
            characters_in_tokens=sum(len(token) * count for token, count in pairs),
            digest=self.digest,
            last_kept=tuple(pairs[max(0, self.kept - Summary.SHOWN) : self.kept]),
            first_unknown=tuple(pairs[self.kept : self.kept + Summary.SHOWN]),
        )


@dataclass(frozen=True)
class Summary:
    """The figures of a dictionary, which may itself be larger than memory, and the tokens nearest to its threshold."""

    SHOWN: ClassVar[int] = 6

    rules: TextRules
    kept: int
    types: int
    total: int
    covered: int
    unknown_threshold: int
    max_size: int | None
    characters: int
    characters_in_tokens: int
    digest: str
    last_kept: tuple[tuple[str, int], ...]
    first_unknown: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Return the number of ids: kept tokens and the two specials."""
        return self.kept + 2

    @property
    def coverage(self) -> float:
        """Return the share of the counted tokens that have an id of their own."""
        return self.covered / self.total if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name."""
        return {
            "size": self.size,
            "types": self.types,
            "tokens": self.total,
            "coverage": self.coverage,
            "unknown_rate": 1 - self.coverage,
            "unknown_threshold": self.unknown_threshold,
            "max_size": self.max_size,
            "characters": self.characters,
            "characters_in_tokens": self.characters_in_tokens,
            "digest": self.digest,
            **self.rules.brief(),
        }


def build_vocabulary(
    counts: Mapping[bytes, int],
    rules: TextRules,
    *,
    unknown_threshold: int = 3,
    max_size: int | None = None,
    counted: Iterable[dict[str, Any]] = (),
    characters: int = 0,
) -> Vocabulary:
    """Return the vocabulary of token counts: a token seen at most `unknown_threshold` times is unknown.

    At most `max_size` tokens are kept, the most frequent ones.
    """
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Vocabulary(
        rules=rules,
        tokens=tuple(token.decode() for token, _ in order),
        counts=tuple(count for _, count in order),
        unknown_threshold=unknown_threshold,
        max_size=max_size,
        counted=sort_counted(counted),
        characters=characters,
    )


def sort_counted(counted: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return what was counted in the order of the dictionary file."""
    return tuple(sorted(counted, key=lambda item: (item["name"], item["sha256"])))


def header_line(
    rules: TextRules,
    *,
    unknown_threshold: int,
    max_size: int | None,
    characters: int,
    tokens: int,
    types: int,
    counted: Sequence[dict[str, Any]],
    left_out: LeftOut = LeftOut(),
) -> bytes:
    """Return the first line of a dictionary file, without its line end and its digest."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        **rules.to_json(),
        "unknown_threshold": unknown_threshold,
        "max_size": max_size,
        "totals": {"characters": characters, "tokens": tokens, "types": types},
        "counted": list(counted),
    }
    if left_out.types:
        header["left_out"] = {"types": left_out.types, "tokens": left_out.tokens}
    return json.dumps(header, ensure_ascii=False).encode()


def seal(header: bytes, digest: str) -> bytes:
    """Return a first line with the digest of the file that begins with it."""
    return header[:-1] + f', "sha256": "{digest}"}}'.encode()


def escape(token: str) -> str:
    """Return a token as it stands in a dictionary file."""
    return _ESCAPED.sub(lambda match: _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}", token)


def unescape(text: str) -> str:
    """Return the token of its form in a dictionary file; raise ValueError for an escape that is none."""

    def original(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2] not in _LONG:
            raise ValueError(f"'{match[0]}' is no escape; accepted: \\\\, \\t, \\n, \\r and \\uXXXX")
        return _LONG[match[2]]

    return _UNESCAPE.sub(original, text) if "\\" in text else text


def load_vocabulary(path: Path, *, sealed: bool = False) -> Vocabulary:
    """Read a dictionary file; raise InputError naming the line of whatever is wrong with it.

    A file that has its own digest must agree with it; with `sealed` it must have one.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name the dictionary file that `rnnpipe build-dict -o` wrote.")
    try:
        with path.open("rb") as file:
            return read_vocabulary(file, str(path), sealed=sealed)
    except FileNotFoundError:
        raise InputError(f"{path}: no such dictionary; `rnnpipe build-dict TEXT -o {path}` writes one.") from None


def read_vocabulary(file: IO[bytes], name: str, *, sealed: bool = False) -> Vocabulary:
    """Read a dictionary file that is open, as `load_vocabulary` does; `name` is what people know it by."""
    line = file.readline(JSON_BYTES)
    header = _parse_header(name, line)
    seal = _SEAL.search(line)
    digest = hashlib.sha256(line[: seal.start()] + b"}\n" if seal else line)
    lines = _hashed(read_lines(file, name, _LINE_BYTES), digest)
    left_out = LeftOut(**header.get("left_out", {}))
    tokens, counts = _parse_body(name, lines, header["totals"]["types"] - left_out.types)
    totals = header["totals"]
    promised = (totals["types"] - left_out.types, totals["tokens"] - left_out.tokens)
    if promised != (len(tokens), sum(counts)):
        raise InputError(
            f"{name}: the first line promises {promised[0]} types and {promised[1]} tokens, the file has "
            f"{len(tokens)} and {sum(counts)}: it is damaged or was cut. Build it again."
        )
    if (sealed or "sha256" in header) and (seal is None or seal[1].decode() != digest.hexdigest()):
        raise InputError(
            f"{name}: its SHA-256 is not the one in its first line: damaged, or changed by hand. Build it again."
        )
    return Vocabulary(
        rules=TextRules.from_json(header, f"{name}, line 1"),
        tokens=tuple(tokens),
        counts=tuple(counts),
        unknown_threshold=header["unknown_threshold"],
        max_size=header["max_size"],
        counted=tuple(header["counted"]),
        characters=totals["characters"],
        left_out=left_out,
    )


def _hashed(lines: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    """Pass lines on, and put them into a digest."""
    for line in lines:
        digest.update(line)
        yield line


def _parse_header(name: str, line: bytes) -> dict[str, Any]:
    try:
        header = parse_json(line, name)
    except InputError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{name}, line 1: not a dictionary of rnnpipe; `rnnpipe build-dict TEXT -o FILE` writes one.")
    if header.get("version") != VERSION:
        raise InputError(f"{name}, line 1: format version {header.get('version')!r}; this rnnpipe reads {VERSION}.")

    def number(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    totals, left_out = header.get("totals"), header.get("left_out", {})
    threshold = header.get("unknown_threshold")
    checks = {
        "unknown_threshold": number(threshold) or (type(threshold) is int and threshold == -1),
        "max_size": header.get("max_size", "missing") is None or number(header.get("max_size")),
        "totals": isinstance(totals, dict) and all(number(totals.get(k)) for k in ("characters", "tokens", "types")),
        "counted": isinstance(header.get("counted"), list) and all(map(_is_counted, header["counted"])),
        "left_out": isinstance(left_out, dict)
        and set(left_out) in (set(), {"types", "tokens"})
        and all(map(number, left_out.values())),
    }
    for key, good in checks.items():
        if not good:
            raise InputError(f"{name}, line 1: {key} is {repr(header.get(key))[:60]}, which no dictionary has.")
    return header


def _is_counted(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), str) for key in ("name", "sha256", "part"))
        and isinstance(record.get("bytes"), int)
    )


def _parse_body(name: str, lines: Iterable[bytes], types: int) -> tuple[list[str], list[int]]:
    """Return the tokens and counts of the lines, which must be as many as the first line promises."""
    tokens: list[str] = []
    counts: list[int] = []
    count, raw = 10**18, b""  # more than any, so that the first line is in order
    for number, line in enumerate(lines, 2):
        digits, tab, token = line.rstrip(b"\n").partition(b"\t")
        before = (count, raw)
        try:
            if not tab or not digits.isdigit() or len(digits) > 18 or not line.endswith(b"\n"):
                raise ValueError("expected `count TAB token`")
            count, raw = int(digits), token
            text = token.decode("utf-8")
            if b"\\" in token:
                text = unescape(text)
                raw = text.encode("utf-8")
        except ValueError as error:
            raise InputError(f"{name}, line {number}: {error}; received {line[:60]!r}.") from None
        if count > before[0] or (count == before[0] and raw <= before[1]):
            raise InputError(f"{name}, line {number}: out of order or twice; lines go by descending count, then token.")
        if len(tokens) == types:
            raise InputError(f"{name}, line {number}: one more than the {types} types that the first line promises.")
        tokens.append(text)
        counts.append(count)
    if len(set(tokens)) < len(tokens):
        twice = next(token for token, number in Counter(tokens).items() if number > 1)
        raise InputError(f"{name}: {twice[:60]!r} stands in two lines; a token has one count.")
    return tokens, counts
