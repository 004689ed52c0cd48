"""Checks of tokenizers: tokens and back again on fuzzed Unicode, whole and in pieces, and through a dictionary."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnpipe.errors import InputError
from rnnpipe.testing.child import elsewhere
from rnnpipe.testing.fuzz import Broken, for_each_text, lines, texts
from rnnpipe.testing.randomness import undisturbed
from rnnpipe.testing.report import Check, Failure, Finding, Skipped, require
from rnnpipe.testing.things import build, in_order, require_reachable, resolve
from rnnpipe.text.rules import MODEL, Named, TextRules
from rnnpipe.text.tokenizing import Tokenizer
from rnnpipe.text.vocabulary import Vocabulary, build_vocabulary, load_vocabulary

Make = Callable[[], Tokenizer]


def check_tokenizer(thing: Any, **options: Any) -> list[Finding]:
    """Check a tokenizer, a factory or a registered name; raise ConformanceError with every check that failed."""
    thing, name = resolve("tokenizer", thing)
    return require(f"tokenizer '{name}'", checks(thing, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a tokenizer."""
    make: Make = functools.partial(build, "tokenizer", thing, options)
    made = in_order(
        Check("builds", lambda: _builds(thing, make)),
        [
            Check("tokens", lambda: _tokens(make())),
            Check("determinism", lambda: _determinism(make)),
            Check("another process", lambda: _another_process(thing, options)),
            Check("split again", lambda: _split_again(make())),
            Check("lossless", lambda: _lossless(make())),
            Check("by character", lambda: _by_character(make())),
            Check("streaming", lambda: _streaming(make())),
            Check("dictionary", lambda: _dictionary(make())),
            Check("learning", lambda: _learning(thing, options)),
        ],
    )
    return undisturbed(made)


def _builds(thing: Any, make: Make) -> str:
    require_reachable(thing)
    tokenizer = make()
    if not isinstance(tokenizer, Tokenizer):
        raise Failure("a rnnpipe.text.tokenizing.Tokenizer", type(tokenizer).__name__, "building it")
    return f"by_character={tokenizer.by_character}, lossless={tokenizer.lossless}"


def _tokens(tokenizer: Tokenizer) -> str:
    def look(text: str) -> Broken | None:
        tokens = tokenizer.split(text)
        if not isinstance(tokens, list) or not all(isinstance(token, str) and token for token in tokens):
            return "a list of texts, none of them empty", ascii(tokens)
        return None

    return f"none empty in {for_each_text(look)} texts"


def _determinism(make: Make) -> str:
    first, second = make(), make()

    def look(text: str) -> Broken | None:
        expected = first.split(text)
        for tokenizer in (first, second):
            if (received := tokenizer.split(text)) != expected:
                return f"{expected!a} each time", ascii(received)
        return None

    return f"the same tokens of {for_each_text(look)} texts each time, and built anew"


def digests(thing: Any, options: Mapping[str, Any]) -> list[str]:
    """Return the digest of each fuzzed text's tokens."""
    tokenizer = build("tokenizer", thing, options)
    return [hashlib.sha256(ascii(tokenizer.split(text)).encode()).hexdigest() for text in texts()]


def _another_process(thing: Any, options: Mapping[str, Any]) -> str:
    here, there = digests(thing, options), elsewhere(f"{__name__}:digests", thing, options)
    for text, own, other in zip(texts(), here, there, strict=True):
        if own != other:
            raise Failure("the same tokens in another process", "others", f"the text {text!a}")
    return f"the same tokens of {len(here)} texts under another PYTHONHASHSEED"


def _split_again(tokenizer: Tokenizer) -> str:
    def look(text: str) -> Broken | None:
        tokens = tokenizer.split(text)
        again = tokenizer.split(tokenizer.join(tokens))
        return (f"{tokens!a} again, joined and split", ascii(again)) if again != tokens else None

    return f"the same tokens, joined and split, of {for_each_text(look)} texts"


def _lossless(tokenizer: Tokenizer) -> str:
    if not tokenizer.lossless:
        raise Skipped("it does not say that it is lossless")

    def look(text: str) -> Broken | None:
        joined = tokenizer.join(tokenizer.split(text))
        return (f"{text!a} back, as lossless=True says", ascii(joined)) if joined != text else None

    return f"{for_each_text(look)} texts come back as they were"


def _by_character(tokenizer: Tokenizer) -> str:
    if not tokenizer.by_character:
        if all(tokenizer.split(text) == list(text) for text in texts()):
            raise Failure("by_character=True, since the tokens are the characters", "by_character=False", "every text")
        return "the tokens are not the characters, and it does not say so"

    def look(text: str) -> Broken | None:
        tokens = tokenizer.split(text)
        return (f"{list(text)!a}, as by_character=True says", ascii(tokens)) if tokens != list(text) else None

    return f"the tokens of {for_each_text(look)} texts are their characters"


def _streaming(tokenizer: Tokenizer) -> str:
    def look(text: str) -> Broken | None:
        whole, pieces = tokenizer.split(text), [token for piece in lines(text) for token in tokenizer.split(piece)]
        return (f"{whole!a}, as of the whole", f"{pieces!a} line by line") if pieces != whole else None

    return f"the same tokens whole and line by line of {for_each_text(look)} texts"


def _dictionary(tokenizer: Tokenizer) -> str:
    def look(text: str) -> Broken | None:
        tokens = tokenizer.split(text)
        return _round_trip(_vocabulary(tokens), tokens)

    number = for_each_text(look)
    tokens = [token for text in texts() for token in tokenizer.split(text)]
    with tempfile.TemporaryDirectory(prefix="rnnpipe-") as folder:
        path = Path(folder) / "dictionary"
        _vocabulary(tokens).save(path)
        if broken := _round_trip(load_vocabulary(path), tokens):
            raise Failure(*broken, case=f"a dictionary file of {number} texts")
    return f"the same tokens through ids and a dictionary file for {number} texts"


def _learning(thing: Any, options: Mapping[str, Any]) -> str:
    untrained: Tokenizer = build("tokenizer", thing, options)
    if untrained.learn is None:
        raise Skipped("it does not learn")
    counts = Counter(word for text in texts() for word in untrained.split(text))
    try:
        model = untrained.learn(counts)
    except InputError as error:
        raise Skipped(f"the fuzzed texts are no text for it: {error}") from None
    if untrained.learn(dict(reversed(counts.items()))) != model:
        raise Failure("the same model for any order of the words", "another one", "the words reversed")
    if json.loads(json.dumps(model)) != model:
        raise Failure("a model that JSON can hold", type(model).__name__, "learning")
    trained: Tokenizer = build("tokenizer", thing, {**options, MODEL: model})
    known = set(trained.tokens)

    def look(text: str) -> Broken | None:
        tokens = trained.split(text)
        apart = [token for word in untrained.split(text) for token in trained.split(word)]
        if tokens != apart:
            return f"{apart!a}, those of each word", ascii(tokens)
        strange = [token for token in tokens if token not in known and len(token) > 1]
        return (f"tokens among the {len(known)} it names, or characters", ascii(strange)) if strange else None

    return f"{len(known)} tokens learnt, the same for any order; {for_each_text(look)} texts are divided word by word"


def _vocabulary(tokens: Sequence[str]) -> Vocabulary:
    counts = Counter(token.encode() for token in tokens)
    return build_vocabulary(counts, TextRules(Named("none"), Named("checked")), unknown_threshold=0)


def _round_trip(vocabulary: Vocabulary, tokens: Sequence[str]) -> Broken | None:
    for token, token_id in zip(tokens, vocabulary.encode(tokens).tolist(), strict=True):
        if (back := vocabulary.token(token_id)) != token or token_id >= vocabulary.kept:
            return f"the token {token!a} back from its id", ascii(back)
    return None
