"""BLEU and chrF of translations, by sacrebleu, with the signature that makes a score comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rnnpipe.errors import UsageError, unknown_name

METRICS = ("bleu", "chrf")


@dataclass(frozen=True)
class Score:
    """A score from 0 to 100 by the name of its metric, and sacrebleu's signature of how it was computed."""

    metric: str
    value: float
    signature: str

    def to_json(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {"metric": self.metric, "value": self.value, "signature": self.signature}


def parse_metrics(text: str) -> tuple[str, ...]:
    """Return the metrics in "bleu,chrf"; raise UsageError for one that there is not."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    return names


def _require_sacrebleu() -> Any:
    """Return sacrebleu; raise UsageError, naming the extra, where it is missing."""
    try:
        import sacrebleu
    except ImportError:
        raise UsageError("--metric needs sacrebleu; install it with pip install 'rnnpipe[translation]'.") from None
    return sacrebleu


def _metric(name: str, tokenize: str) -> Any:
    """Return sacrebleu's metric; raise UsageError if sacrebleu, or what its tokenizer needs, is not there."""
    sacrebleu = _require_sacrebleu()
    if name == "chrf":
        return sacrebleu.metrics.CHRF()
    try:
        return sacrebleu.metrics.BLEU(tokenize=tokenize, force=True)
    except (ImportError, OSError, RuntimeError) as error:  # a tokenizer with a package or a download of its own
        raise UsageError(f"--tokenize {tokenize}: {' '.join(str(error).split())}") from None


def check_scoring(metrics: Sequence[str], tokenize: str) -> None:
    """Raise UsageError if sacrebleu, its tokenizer of that name, or the package that this one needs is not there."""
    known = _require_sacrebleu().metrics.BLEU.TOKENIZERS
    if tokenize not in known:
        raise unknown_name("tokenizer", tokenize, known)
    for name in metrics:
        _metric(name, tokenize)


def score(metrics: Sequence[str], translations: Sequence[str], references: Sequence[str], tokenize: str) -> list[Score]:
    """Return the scores of translations against one reference each (Papineni et al. 2002; Popović 2015).

    tokenize: sacrebleu's tokenizer for BLEU; "none" takes the words as they stand.
    """
    scores = []
    for name in metrics:
        metric = _metric(name, tokenize)
        found = metric.corpus_score(list(translations), [list(references)])
        scores.append(Score(name, float(found.score), str(metric.get_signature())))
    return scores
