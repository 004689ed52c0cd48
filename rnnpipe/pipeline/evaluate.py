"""The stage `eval`: loss of a run on its own test text, or on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rnnpipe.data.text_files import temporary_folder
from rnnpipe.data.tokens import Ids
from rnnpipe.errors import InputError
from rnnpipe.pipeline.encode import encode
from rnnpipe.pipeline.folder import DICTIONARY
from rnnpipe.pipeline.runs import Run, check_tokens, run_tokens
from rnnpipe.text.files import Errors
from rnnpipe.text.vocabulary import Vocabulary
from rnnpipe.training.evaluate import Loss, loss_carried, loss_in_windows


@dataclass(frozen=True)
class Evaluation:
    """The loss of a text in reset windows and in one pass with carried state, and its share of unknown tokens."""

    text: str
    level: str
    window: int
    windows: Loss
    carried: Loss
    unknown_rate: float
    step: int

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name, with their units."""

        def figures(loss: Loss) -> dict[str, Any]:
            bits = {"bits_per_character": loss.bits} if self.level == "char" else {}
            return {"loss_nats": loss.nats, "perplexity": loss.perplexity, **bits, "tokens": loss.tokens}

        return {
            "text": self.text,
            "step": self.step,
            "unknown_rate": self.unknown_rate,
            "windows": {"window": self.window, **figures(self.windows)},
            "carried": figures(self.carried),
        }


def evaluate_run(
    run: Run, inputs: Sequence[str] = (), *, window: int = 256, encoding: str = "utf-8", errors: Errors = "strict"
) -> Evaluation:
    """Evaluate a run on texts, or without any on its own test text (validation text if it has no test text)."""
    if inputs:
        with temporary_folder() as temporary:
            encoded = encode(
                inputs, run.folder / DICTIONARY, temporary / "tokens", encoding=encoding, errors=errors
            ).folder
            ids = np.concatenate([encoded.part(part).tokens for part in encoded.parts])
        return evaluate_ids(run, ids, ", ".join(inputs), window)
    tokens = run_tokens(run.folder, run.config)
    check_tokens(tokens, run)
    part = next((part for part in ("test", "valid") if part in tokens.parts), None)
    if part is None:
        raise InputError(f"{run.folder}: was trained without test or validation text; name a text to evaluate on.")
    return evaluate_ids(run, tokens.part(part).tokens, f"{part} text", window)


def evaluate_ids(run: Run, ids: Ids, name: str, window: int) -> Evaluation:
    """Evaluate a run on the ids of a text."""
    if len(ids) < 3:
        raise InputError(f"{name}: has {max(0, len(ids) - 1)} tokens; an evaluation needs at least 2.")
    device = torch.device(run.numerics.device)
    model = run.model.to(device)
    text_ids = ids[ids != run.vocabulary.doc_id]
    return Evaluation(
        text=name,
        level=level_of(run.vocabulary),
        window=window,
        windows=loss_in_windows(model, ids, window, device, run.numerics.precision),
        carried=loss_carried(model, ids, device, run.numerics.precision),
        unknown_rate=float(np.mean(text_ids == run.vocabulary.unk_id)),
        step=int(run.checkpoint.state["step"]),
    )


def level_of(vocabulary: Vocabulary) -> str:
    """Return "char" or "word" for a vocabulary's tokens."""
    return "char" if vocabulary.rules.tokenizer.name == "characters" else "word"
