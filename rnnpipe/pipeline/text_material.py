"""A token folder as what a run is trained on."""

from __future__ import annotations

import json
from typing import Any

from rnnpipe.config import Config
from rnnpipe.data.tokens import Ids, TokenFolder
from rnnpipe.errors import InputError
from rnnpipe.pipeline.build import build_model, resolve_numerics
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.folder import DICTIONARY
from rnnpipe.pipeline.material import Material
from rnnpipe.pipeline.pretrained import begin_with_vectors, vectors_digest
from rnnpipe.text.vocabulary import Vocabulary
from rnnpipe.training.text_objective import TextObjective


def text_material(config: Config, tokens: TokenFolder, report: Report = no_report) -> Material:
    """Return what a run is trained on that reads a token folder."""
    vocabulary = tokens.vocabulary()
    train_ids, valid_ids = split_tokens(config, tokens, report)
    counted = ", ".join(f"{item['name']} ({item['bytes']} bytes)" for item in vocabulary.counted)
    return Material(
        objective=TextObjective(train_ids, valid_ids, config.training, config.runtime.seed),
        build=lambda config: build_model(config, vocabulary.size),
        resolve=lambda config, model: resolve_numerics(config, model, ready=True, report=report),
        record={"dictionary": vocabulary.digest, "texts": made_from(tokens)},
        differs={
            "dictionary": "was trained with another dictionary; the text or its rules have changed.",
            "texts": "was trained on other text than the tokens hold now; put that text back.",
        },
        made_from={**made_from(tokens), **vectors_digest(config)},
        files={DICTIONARY: vocabulary.to_bytes()},
        title="A recurrent language model",
        described=[
            ("text", counted),
            ("rules", f"`{json.dumps(vocabulary.rules.brief())}`"),
            ("vocabulary", f"{vocabulary.size} ids, dictionary {vocabulary.digest[:16]}"),
        ],
        evaluated=f"in windows reset every {config.training.evaluation_window} tokens",
        begin=lambda model: begin_with_vectors(model.encoder, config, vocabulary, report),
    )


def made_from(tokens: TokenFolder) -> dict[str, Any]:
    """Return what tells whether tokens are those that a run was trained on: digests of dictionary and parts."""
    parts = {part: record["sha256"] for part, record in tokens.meta["parts"].items()}
    return {"dictionary": tokens.meta["dictionary"], **parts}


def split_tokens(config: Config, tokens: TokenFolder, report: Report = no_report) -> tuple[Ids, Ids | None]:
    """Return the ids to train on and those to validate on, or None if there are none.

    A token folder that was not divided is divided here, contiguously, 9:1; its dictionary has then seen the
    validation text, which is reported.
    """
    window = config.training.text_window
    if "train" in tokens.parts:
        train_ids: Ids = tokens.part("train").tokens
        valid_ids: Ids | None = tokens.part("valid").tokens if "valid" in tokens.parts else None
        if valid_ids is None:
            report("warning: there is no validation text (parts end at line ends); the last weights are the best.")
    else:
        whole = tokens.part("all").tokens
        cut = len(whole) * 9 // 10
        train_ids, valid_ids = whole[:cut], whole[cut:]
        report(
            f"warning: {tokens.path} is not divided; its last tenth is for validation, and the dictionary has seen it."
        )
    if len(train_ids) <= window:
        key = "training.window" if config.training.window else "training.bptt"
        raise InputError(
            f"{tokens.path}: the training text has {len(train_ids)} tokens, too few for a window of {window} and one "
            f"to predict. Give more text or a smaller window with --set {key}=N."
        )
    if valid_ids is not None and len(valid_ids) < 3:
        report("warning: there is no validation text to speak of; the last weights will count as the best.")
        valid_ids = None
    return train_ids, valid_ids


def warn_about_dictionary(vocabulary: Vocabulary, train_digest: str, report: Report) -> None:
    """Report if a given dictionary has counted more than the training text."""
    others = [item["name"] for item in vocabulary.counted if item["sha256"] != train_digest]
    if others:
        report(
            f"warning: the dictionary counted {', '.join(others)}, which is not just this training text; if that "
            "includes validation or test text, their unknown words are fewer than they should be."
        )
