"""Texts of Aozora Bunko for rnnpipe: a dataset, a cleaner, and a tokenizer for Japanese words."""

from rnnpipe import hookimpl


@hookimpl
def register_datasets():
    return {"aozora": "rnnpipe_aozora.dataset:Aozora"}


@hookimpl
def register_cleaners():
    return {"aozora": "rnnpipe_aozora.cleaner:aozora"}


@hookimpl
def register_tokenizers():
    return {"japanese-words": "rnnpipe_aozora.words:japanese_words"}
