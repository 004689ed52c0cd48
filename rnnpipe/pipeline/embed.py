"""The stage `embed`: token files to word vectors."""

from __future__ import annotations

from pathlib import Path

import torch

from rnnpipe.data.tokens import check_dictionary, load_tokens
from rnnpipe.pipeline.common import Report, check_output_folder, no_report
from rnnpipe.text.vocabulary import load_vocabulary
from rnnpipe.vectors.folder import FORMAT, META, OWN_FILES, Vectors, save_vectors
from rnnpipe.vectors.word2vec import Settings, Trained, to_table, train_word2vec

_REPORTED_SHARE = 10  # progress is told so many times


def embed(
    dictionary: Path,
    tokens: Path,
    out: Path,
    settings: Settings,
    *,
    threads: int = 1,
    report: Report = no_report,
) -> Trained:
    """Train vectors on the training part of a token folder, or on all of one that is not divided, and write them.

    Raises InputError if the tokens were not made with the dictionary.
    """
    vocabulary = load_vocabulary(dictionary)
    folder = load_tokens(tokens)
    check_dictionary(folder, vocabulary, dictionary)
    check_output_folder(out, META, FORMAT, OWN_FILES)
    torch.set_num_threads(threads)  # its products are small: threads that wait for each other lose more than they gain
    part = "train" if "train" in folder.parts else "all"
    text = folder.part(part)
    total = settings.epochs * (len(text) - folder.meta["parts"][part]["unknown"] - len(text.offsets))
    read = told = 0

    def progress(count: int) -> None:
        nonlocal read, told
        read += count
        if (share := read * _REPORTED_SHARE // total) > told:
            told = share
            report(f"embed: {read:,} of {total:,} tokens")

    trained = train_word2vec(text, vocabulary, settings, progress if total else lambda count: None)
    made = {
        **to_table(settings),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dictionary": vocabulary.digest,
        "text": folder.meta["parts"][part]["sha256"],
    }
    save_vectors(out, Vectors(vocabulary.tokens[: vocabulary.kept], trained.vectors, made))
    return trained
