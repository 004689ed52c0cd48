"""What can be told about a text before torch is loaded, which takes longer than to read a small text."""

from __future__ import annotations

import glob
from functools import partial
from pathlib import Path

from rnnpipe.config import Config
from rnnpipe.data.text_files import temporary_folder
from rnnpipe.errors import InputError
from rnnpipe.pipeline.clean import dataset_parts, load_text_dataset
from rnnpipe.pipeline.common import load_rules
from rnnpipe.pipeline.dictionary import check_vocabulary
from rnnpipe.text.counting import count_tokens
from rnnpipe.text.files import total_bytes
from rnnpipe.text.rules import TextRules
from rnnpipe.text.vocabulary import build_vocabulary

_SMALL_BYTES = 4 << 20


def check_texts(config: Config) -> None:
    """Raise InputError if the configuration's texts are small and not text, blank, or too few for any training.

    The whole of them is counted, so what is refused here would be refused later. Standard input and pipes, which can be
    read only once, are left for later, and so is any other dataset.
    """
    data, text = config.data, config.text
    inputs = data.dataset.options.get("inputs")
    if data.tokens or data.corpus or data.dataset.name != "text-files" or not isinstance(inputs, list | tuple):
        return
    if not all(isinstance(item, str) and _can_be_read_again(item) for item in inputs):
        return
    assert text.cleaner and text.tokenizer and text.unknown_threshold is not None and data.split_at, "it is resolved"
    rules = TextRules(text.cleaner, text.tokenizer)
    errors = data.dataset.options.get("errors", "strict")
    with temporary_folder() as spool:
        parts = dataset_parts(load_text_dataset(data.dataset), spool, data.split_at)
        texts = [each for part in parts.values() for each in part]
        if total_bytes(texts) > _SMALL_BYTES:
            return
        counts = count_tokens(texts, partial(load_rules, rules.cleaner, rules.tokenizer), errors=errors)
    names = ", ".join(inputs)
    if not any(token.strip() for token in counts.tokens):
        raise InputError(f"{names}: nothing is left after cleaning with '{rules.cleaner.name}'; use another text.")
    if data.dictionary is None:
        check_vocabulary(
            build_vocabulary(counts.tokens, rules, unknown_threshold=text.unknown_threshold, max_size=text.max_size),
            counts,
            inputs,
        )
    if load_rules(rules.cleaner, rules.tokenizer).tokenizer.learn is not None:
        return  # how many tokens there will be depends on what it learns
    window = config.training.text_window
    tokens = counts.tokens.total() + len(texts)  # and a boundary for each document
    if tokens <= window:
        key = "training.window" if config.training.window else "training.bptt"
        raise InputError(
            f"{names}: has {tokens} tokens, too few for a window of {window} and one to predict. Give more text or a "
            f"smaller window with --set {key}=N."
        )


def _can_be_read_again(item: str) -> bool:
    return item != "-" and (Path(item).is_file() or Path(item).is_dir() or bool(glob.has_magic(item)))
