"""The stage `eval`: loss of a run on its own test text, or on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from rnnpipe.config import Config
from rnnpipe.data.kneser_ney import KneserNey
from rnnpipe.data.text_files import temporary_folder
from rnnpipe.data.tokens import Ids, TokenFolder
from rnnpipe.errors import InputError
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.encode import encode
from rnnpipe.pipeline.folder import DICTIONARY
from rnnpipe.pipeline.runs import Run, check_tokens, run_tokens
from rnnpipe.pipeline.text_material import split_tokens
from rnnpipe.text.files import Errors
from rnnpipe.text.vocabulary import Vocabulary
from rnnpipe.training.evaluate import Loss, loss_carried, loss_in_windows


@dataclass(frozen=True)
class Evaluation:
    """The loss of a text in reset windows and in one pass with carried state, and its share of unknown tokens.

    ngrams: what a Kneser-Ney model of n-grams of the run's own training tokens makes of the same text, by n.
    """

    text: str
    level: str
    window: int
    windows: Loss
    carried: Loss
    unknown_rate: float
    step: int
    ngrams: dict[int, Loss] = field(default_factory=dict)

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
            "ngrams": {str(n): figures(loss) for n, loss in self.ngrams.items()},
        }


def evaluate_run(
    run: Run,
    inputs: Sequence[str] = (),
    *,
    window: int = 256,
    ngram: int | None = None,
    encoding: str = "utf-8",
    errors: Errors = "strict",
    report: Report = no_report,
) -> Evaluation:
    """Evaluate a run on texts, or without any on its own test text (validation text if it has no test text).

    With `ngram`, n-grams of that n are counted in its training tokens and evaluated on the same text.
    """
    ids, name = _ids_to_evaluate(run, inputs, encoding, errors, report)
    evaluation = evaluate_ids(run, ids, name, window)
    if ngram is None:
        return evaluation
    train_ids, _ = split_tokens(run.config, _own_tokens(run))
    return replace(evaluation, ngrams={ngram: _loss_of_ngrams(train_ids, ids, run.vocabulary, ngram)})


def _ids_to_evaluate(run: Run, inputs: Sequence[str], encoding: str, errors: Errors, report: Report) -> tuple[Ids, str]:
    if inputs:
        with temporary_folder() as temporary:
            encoded = encode(inputs, run.folder / DICTIONARY, temporary / "tokens", encoding=encoding, errors=errors)
            if encoded.mended_bytes:
                report(f"warning: {encoded.mended_bytes:,} bytes were not valid and were mended")
            ids = np.concatenate([encoded.folder.part(part).tokens for part in encoded.folder.parts])
        return ids, ", ".join(inputs)
    tokens = _own_tokens(run)
    if "test" in tokens.parts:
        return tokens.part("test").tokens, "test text"
    _, valid_ids = split_tokens(run.config, tokens)
    if valid_ids is None:
        raise InputError(f"{run.folder}: was trained without test or validation text; name a text to evaluate on.")
    return valid_ids, "validation text"


def _own_tokens(run: Run) -> TokenFolder:
    tokens = run_tokens(run.folder, run.config)
    check_tokens(tokens, run)
    return tokens


def _loss_of_ngrams(train_ids: Ids, ids: Ids, vocabulary: Vocabulary, n: int) -> Loss:
    """Return the loss of n-grams on every token but the first, which is what the network is measured on."""
    logs = KneserNey(train_ids, vocabulary.size, n, vocabulary.doc_id).log_probabilities(ids)[1:]
    return Loss(-float(logs.mean()), len(logs))


def has_evaluation_text(config: Config, tokens: TokenFolder) -> bool:
    """Say whether a run on these tokens has a text of its own to be evaluated on."""
    return "test" in tokens.parts or split_tokens(config, tokens)[1] is not None


def evaluate_ids(run: Run, ids: Ids, name: str, window: int) -> Evaluation:
    """Evaluate a run on the ids of a text."""
    if len(ids) < 3:
        raise InputError(f"{name}: has {max(0, len(ids) - 1)} tokens; an evaluation needs at least 2.")
    device = torch.device(run.numerics.device)
    model = run.model.to(device)
    text_ids = ids[ids != run.vocabulary.doc_id]
    return Evaluation(
        text=name,
        level=run.vocabulary.rules.level,
        window=window,
        windows=loss_in_windows(model, ids, window, device, run.numerics.precision),
        carried=loss_carried(model, ids, device, run.numerics.precision),
        unknown_rate=float(np.mean(text_ids == run.vocabulary.unk_id)),
        step=int(run.checkpoint.state["step"]),
    )
