"""Checks of cleaners: on fuzzed Unicode, whole and in the pieces in which the pipeline hands texts to them."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rnnpipe.testing.child import elsewhere
from rnnpipe.testing.fuzz import Broken, for_each_text, lines, texts
from rnnpipe.testing.randomness import undisturbed
from rnnpipe.testing.report import Check, Failure, Finding, Skipped, require
from rnnpipe.testing.things import build, in_order, require_reachable, resolve
from rnnpipe.text.cleaning import Cleaner
from rnnpipe.text.native import word_encoder
from rnnpipe.text.rules import Rules
from rnnpipe.text.tokenizing import whitespace

Make = Callable[[], Cleaner]


def check_cleaner(thing: Any, **options: Any) -> list[Finding]:
    """Check a cleaner, a factory or a registered name; raise ConformanceError with every check that failed."""
    thing, name = resolve("cleaner", thing)
    return require(f"cleaner '{name}'", checks(thing, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a cleaner."""
    make: Make = functools.partial(build, "cleaner", thing, options)
    made = in_order(
        Check("builds", lambda: _builds(thing, make)),
        [
            Check("valid text", lambda: _valid_text(make())),
            Check("determinism", lambda: _determinism(make)),
            Check("another process", lambda: _another_process(thing, options)),
            Check("explain", lambda: _explain(make())),
            Check("idempotence", lambda: _idempotence(make())),
            Check("streaming", lambda: _streaming(make())),
            Check("byte table", lambda: _byte_table(make())),
            Check("point entries", lambda: _point_entries(make())),
        ],
    )
    return undisturbed(made)


def _builds(thing: Any, make: Make) -> str:
    require_reachable(thing)
    cleaner = make()
    if not isinstance(cleaner, Cleaner):
        raise Failure("a rnnpipe.text.cleaning.Cleaner", type(cleaner).__name__, "building it")
    names = [rule.name for rule in cleaner.rules]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(isinstance(name, str) and name.strip() for name in names):
        raise Failure("rules with names of their own", f"the names {names}", f"{twice or names}")
    return f"rules: {', '.join(names) or 'none'}"


def _valid_text(cleaner: Cleaner) -> str:
    def look(text: str) -> Broken | None:
        cleaned = cleaner.clean(text)
        if not isinstance(cleaned, str):
            return "text", type(cleaned).__name__
        surrogates = [character for character in cleaned if "\ud800" <= character <= "\udfff"]
        return ("text that UTF-8 can hold", ascii(cleaned)) if surrogates else None

    return f"what comes of {for_each_text(look)} texts can be written as UTF-8"


def _determinism(make: Make) -> str:
    first, second = make(), make()

    def look(text: str) -> Broken | None:
        expected = first.clean(text)
        for cleaner in (first, second):
            if (received := cleaner.clean(text)) != expected:
                return f"{expected!a} each time", ascii(received)
        return None

    return f"the same for {for_each_text(look)} texts each time, and built anew"


def digests(thing: Any, options: Mapping[str, Any]) -> list[str]:
    """Return the digest of each fuzzed text, cleaned."""
    cleaner = build("cleaner", thing, options)
    return [_digest(cleaner.clean(text)) for text in texts()]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _another_process(thing: Any, options: Mapping[str, Any]) -> str:
    here, there = digests(thing, options), elsewhere(f"{__name__}:digests", thing, options)
    for text, own, other in zip(texts(), here, there, strict=True):
        if own != other:
            raise Failure("the same cleaned text in another process", "another one", f"the text {text!a}")
    return f"the same for {len(here)} texts under another PYTHONHASHSEED"


def _explain(cleaner: Cleaner) -> str:
    names = [rule.name for rule in cleaner.rules]

    def look(text: str) -> Broken | None:
        steps = cleaner.explain(text)
        if [name for name, _ in steps] != names:
            return f"a step for each of the rules {names}", str([name for name, _ in steps])
        expected = cleaner.clean(text)
        received = steps[-1][1] if steps else text
        return (f"{expected!a}, as `clean` gives it", ascii(received)) if received != expected else None

    return f"ends where `clean` does for {for_each_text(look)} texts"


def _idempotence(cleaner: Cleaner) -> str:
    if not cleaner.idempotent:
        raise Skipped("it does not say that it is idempotent")

    def look(text: str) -> Broken | None:
        once = cleaner.clean(text)
        twice = cleaner.clean(once)
        return (f"{once!a} unchanged, as idempotent=True says", ascii(twice)) if twice != once else None

    return f"cleaning again changes none of {for_each_text(look)} texts"


def _streaming(cleaner: Cleaner) -> str:
    def look(text: str) -> Broken | None:
        whole, pieces = cleaner.clean(text), [cleaner.clean(piece) for piece in lines(text)]
        if (counted := [word for piece in pieces for word in piece.split()]) != whole.split():
            return f"the words of the whole, {whole.split()!a}", f"{counted!a} line by line"
        written = _written(cleaner, pieces)
        same = written.split() == whole.split() if cleaner.joiner else written == whole
        return None if same else (f"{whole!a}, as of the whole", f"{written!a} line by line")

    what = "words" if cleaner.joiner else "text"
    return f"the same {what} whole and line by line for {for_each_text(look)} texts"


def _written(cleaner: Cleaner, pieces: Iterable[str]) -> str:
    """Return cleaned pieces as `rnnpipe clean` writes them one after the other."""
    written = ""
    for piece in filter(None, pieces):
        written += cleaner.between(written, piece) + piece if written else piece
    return written


def _byte_table(cleaner: Cleaner) -> str:
    if (table := cleaner.byte_table) is None:
        raise Skipped("it has none")

    def look(text: str) -> Broken | None:
        expected = [word.encode() for word in cleaner.clean(text).split()]
        received = [word for word in table.words(text.encode()) if not word.startswith(table.drop_prefix)]
        if received != expected:
            return f"the words that the rules leave, {expected}", f"{received} by table"
        return _broken_in_c(cleaner, text, expected)

    return f"the same words by table as by rules for {for_each_text(look)} texts"


def _point_entries(cleaner: Cleaner) -> str:
    if cleaner.point_entry is None:
        raise Skipped("it has none")
    if word_encoder(Rules(cleaner, whitespace()), [], unknown=0) is None:
        raise Skipped("the C extension is not in use")

    def look(text: str) -> Broken | None:
        return _broken_in_c(cleaner, text, [word.encode() for word in cleaner.clean(text).split()])

    return f"the same words by code point as by rules for {for_each_text(look)} texts"


def _broken_in_c(cleaner: Cleaner, text: str, expected: list[bytes]) -> Broken | None:
    """Return the words expected and those of the C extension if they differ."""
    known = sorted(set(expected))
    encoder = word_encoder(Rules(cleaner, whitespace()), known, unknown=len(known))
    if encoder is None:
        return None
    ids = np.frombuffer(encoder.encode(text.encode()), np.uint32).tolist()
    encoded = [[*known, b"?"][word_id] for word_id in ids]
    return (f"{expected} by the C extension", f"{encoded}") if encoded != expected else None
