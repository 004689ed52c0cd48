"""A configuration made whole: what a given dictionary, token folder or corpus has decided, then the defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rnnpipe.config import Config, TextConfig, resolve, resolve_pairs
from rnnpipe.data.tokens import check_dictionary, load_tokens
from rnnpipe.errors import UsageError
from rnnpipe.pipeline.kind import with_kind
from rnnpipe.pipeline.pretrained import with_vector_size
from rnnpipe.text.corpus import load_corpus
from rnnpipe.text.rules import Named
from rnnpipe.text.vocabulary import Vocabulary, load_vocabulary


def complete(config: Config) -> Config:
    """Return the configuration with everything about the text filled in.

    The rules of a dictionary, token folder or cleaned corpus that is used are taken over. Raises UsageError where the
    configuration says otherwise, and InputError for one that cannot be read. With a dataset of sequences there is no
    text, and the defaults are those of sequences; with one of pairs, there are rules for each side.
    """
    config, kind = with_kind(config)
    if kind == "sequences":
        return config
    if kind == "pairs":
        return resolve_pairs(config)
    text = config.text
    vocabulary, source = _given_vocabulary(config)
    if vocabulary is not None:
        text = _agree(text, source, "level", vocabulary.rules.level)
        text = _agree(text, source, "cleaner", vocabulary.rules.cleaner)
        text = _agree(text, source, "tokenizer", vocabulary.rules.unlearnt.tokenizer)
        text = replace(text, unknown_threshold=vocabulary.unknown_threshold, max_size=vocabulary.max_size)
    elif config.data.corpus is not None:
        corpus = load_corpus(Path(config.data.corpus))
        text = _agree(text, str(corpus.path), "cleaner", corpus.cleaner)
    return resolve(with_vector_size(replace(config, text=text)))


def _given_vocabulary(config: Config) -> tuple[Vocabulary | None, str]:
    """Return the dictionary that the configuration names, itself or by its token folder, and what to call it."""
    tokens, dictionary = config.data.tokens, config.data.dictionary
    if tokens is not None:
        folder = load_tokens(Path(tokens))
        if dictionary is not None:
            check_dictionary(folder, load_vocabulary(Path(dictionary)), Path(dictionary))
        return folder.vocabulary(), tokens
    return (None, "") if dictionary is None else (load_vocabulary(Path(dictionary)), dictionary)


def _agree(text: TextConfig, source: str, key: str, decided: Any) -> TextConfig:
    """Return `text` with the decided value; raise UsageError if another one is asked for."""
    asked = getattr(text, key)
    if asked not in (None, decided):
        raise UsageError(f"text.{key}={_name(asked)}, but {source} was made with {_name(decided)}; leave it out.")
    return replace(text, **{key: decided})


def _name(value: Any) -> str:
    return str(value.to_json()) if isinstance(value, Named) and value.options else str(getattr(value, "name", value))
