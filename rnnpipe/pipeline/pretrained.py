"""Word vectors that a training begins with: `model.encoder.pretrained` names the folder that `rnnpipe embed` wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnpipe.config import Config
from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.common import Report
from rnnpipe.text.rules import Named
from rnnpipe.text.vocabulary import Vocabulary
from rnnpipe.vectors.folder import META, VECTORS, load_record, load_vectors, rows_by_token

if TYPE_CHECKING:
    from torch import nn

OPTION = "pretrained"


def with_vector_size(config: Config) -> Config:
    """Return the configuration with the encoder's size that of its pretrained vectors, and their path absolute.

    So the run can be opened where the vectors are not. Raises UsageError if another size is asked for.
    """
    encoder = config.model.encoder
    if not isinstance(given := encoder.options.get(OPTION), str):
        return config
    folder = Path(given).absolute()
    size = encoder.options.get("size")
    if size is None or folder.is_dir():
        held = load_record(folder)["size"]
        if size not in (None, held):
            raise UsageError(
                f"model.encoder.size={size}, but the vectors in {folder} have {held} numbers; leave it out."
            )
        size = held
    options = {**encoder.options, OPTION: str(folder), "size": size}
    return replace(config, model=replace(config.model, encoder=Named(encoder.name, options)))


def vectors_digest(config: Config) -> dict[str, Any]:
    """Return the digest of the vectors that a training begins with, by name; nothing if there are none."""
    folder = config.model.encoder.options.get(OPTION)
    if folder is None or not (Path(folder) / META).is_file():
        return {}
    return {OPTION: load_record(Path(folder))["files"][VECTORS]["sha256"]}


def begin_with_vectors(encoder: nn.Module, config: Config, vocabulary: Vocabulary, report: Report) -> None:
    """Put the pretrained vectors of the tokens that have one in the place of those drawn; report how many had one.

    Raises InputError if none had, and UsageError for an encoder that has no vector for each token.
    """
    import torch

    folder = config.model.encoder.options.get(OPTION)
    if folder is None:
        return
    vectors = load_vectors(Path(folder))
    weight = getattr(encoder, "weight", None)
    if not isinstance(weight, torch.nn.Parameter) or weight.shape != (vocabulary.size, vectors.size):
        raise UsageError(f"model.encoder.{OPTION}: encoder '{config.model.encoder.name}' has no vector for each token.")
    rows = rows_by_token(vectors.tokens)
    shared = [(number, rows[token]) for token, number in vocabulary.ids.items() if token in rows]
    if not shared:
        raise InputError(f"{folder}: has a vector for none of the {vocabulary.kept} tokens of the dictionary.")
    numbers, places = zip(*shared, strict=True)
    with torch.no_grad():
        weight[list(numbers)] = torch.from_numpy(vectors.rows[list(places)]).to(weight.dtype)
    report(f"encoder: begins with the vectors of {folder}, {len(shared):,} of {vocabulary.kept:,} tokens have one")
