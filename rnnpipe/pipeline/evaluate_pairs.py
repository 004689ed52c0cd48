"""The stage `eval` for pairs: the loss of a part's target tokens, and scores of its translations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnnpipe.data.base import PARTS, PairDataset, Part
from rnnpipe.errors import InputError, UsageError, unknown_name
from rnnpipe.generation.translate import Search, Translation
from rnnpipe.pipeline.pair_material import PairData, load_pairs, pair_dataset
from rnnpipe.pipeline.runs import PairRun
from rnnpipe.pipeline.scores import Score, check_scoring, score
from rnnpipe.training.pair_objective import PairLoss, pair_loss


@dataclass(frozen=True)
class Translated:
    """The translations of a part's sources by a search, which took so many seconds, and their scores."""

    search: Search
    scores: Sequence[Score]
    seconds: float
    translations: Sequence[Translation] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name."""
        return {
            "beam": self.search.width,
            "max_length": self.search.max_length,
            "seconds": round(self.seconds, 3),
            "scores": [each.to_json() for each in self.scores],
        }


@dataclass(frozen=True)
class PairEvaluation:
    """What a run scores on a part.

    loss: of every target token with the true ones before it, the end included, or a bound of it. unknown_rate: the
    share of unknown tokens, of the source and of the target. in_train: how many of the sources also stand in the
    training part. translated: what its sources became, if that was asked for.
    """

    part: str
    step: int
    pairs: int
    loss: PairLoss
    unknown_rate: tuple[float, float]
    in_train: int
    translated: Translated | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all figures by name, with their units."""
        found: dict[str, Any] = {
            "part": self.part,
            "step": self.step,
            "pairs": self.pairs,
            "loss_nats": self.loss.nats,
            "perplexity": self.loss.perplexity,
            "tokens": self.loss.tokens,
            "bound": None
            if self.loss.divergence is None
            else {"reconstruction_nats": self.loss.reconstruction, "divergence_nats": self.loss.divergence},
            "unknown_rate": {"source": self.unknown_rate[0], "target": self.unknown_rate[1]},
            "overlap": {"sources_in_train": self.in_train, "share": self.in_train / self.pairs},
        }
        if self.translated is not None:
            found["translation"] = self.translated.to_json()
        return found


def evaluation_part(data: PairData) -> Part | None:
    """Return the part that a run is evaluated on: its test part, or else its validation part, if it has one."""
    return next((part for part in ("test", "valid") if part in data.parts), None)


def evaluate_pairs(
    run: PairRun,
    part: str | None = None,
    *,
    metrics: Sequence[str] = (),
    search: Search | None = None,
    tokenize: str = "none",
) -> PairEvaluation:
    """Evaluate a run on a part of its dataset, the test part if none is named (or else the validation part).

    With metrics the part is translated and scored against its targets.
    """
    if metrics:
        check_scoring(metrics, tokenize)  # before minutes are spent
    dataset = pair_dataset(run.config)
    data = load_pairs(run.config, (run.source, run.target), dataset)
    chosen = part or evaluation_part(data)
    if chosen is None:
        raise InputError(f"dataset '{data.name}': has neither a test nor a validation part; name one with --part.")
    if chosen not in data.parts:
        raise unknown_name("part", chosen, data.parts)
    if run.checkpoint.state.get("pairs") != data.digests():
        raise InputError(
            f"{run.folder}: was trained on other pairs than dataset '{data.name}' gives now; put those back, or train "
            "again."
        )
    pairs = data.parts[chosen]
    device = torch.device(run.numerics.device)
    model = run.model.to(device)
    seen = {text.tobytes() for text in map(data.parts["train"].source.text, range(len(data.parts["train"])))}
    evaluation = PairEvaluation(
        part=chosen,
        step=int(run.checkpoint.state["step"]),
        pairs=len(pairs),
        loss=pair_loss(model, pairs, run.source.doc_id, run.target.doc_id, device, run.numerics.precision),
        unknown_rate=(
            _share(pairs.source.ids == run.source.unk_id),
            _share(pairs.target.ids == run.target.unk_id),
        ),
        in_train=sum(pairs.source.text(row).tobytes() in seen for row in range(len(pairs))),
    )
    if not metrics:
        return evaluation
    return replace(
        evaluation, translated=translate_part(run, part_texts(dataset, chosen), metrics, search or Search(), tokenize)
    )


def part_texts(dataset: PairDataset, part: str) -> list[tuple[str, str]]:
    """Return the texts of a part; raise UsageError if every target is empty, so that nothing can be scored against."""
    assert part in PARTS
    texts = list(dataset.pairs(part))
    if not any(target.strip() for _, target in texts):
        raise UsageError(f"the targets of part '{part}' are empty; there is nothing to score against.")
    return texts


def translate_part(
    run: PairRun, texts: Sequence[tuple[str, str]], metrics: Sequence[str], search: Search, tokenize: str = "none"
) -> Translated:
    """Translate the sources of texts and score what comes of it against their targets."""
    begun = time.perf_counter()
    translations = list(run.translator().translate((source for source, _ in texts), search))
    seconds = time.perf_counter() - begun
    best = [each.candidates[0].text for each in translations]
    scores = score(metrics, best, [target for _, target in texts], tokenize)
    return Translated(search, scores, seconds, translations)


def _share(where: npt.NDArray[np.bool_]) -> float:
    return float(where.mean()) if len(where) else 0.0
