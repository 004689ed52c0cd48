"""What can be measured of a trained run, each by its `kind` in an experiment's rows.

evaluation {figure, part?, on?, scale?}: loss, reduced_loss, accuracy or share_of_variance of a part, `on = "unseen"` of
those of its sequences that the training part has not. lengths {figure, lengths, count}: the worst of it over new
sequences of each length. dataset {figure, options}: on the test part of the dataset with other options. largest-error
{lengths, count}: of any output, over all lengths from the first to the last. relative-error {length, count}: the
largest |output - target| / |target|. output {inputs, truth?}: the last output behind some inputs, or its error.
forecast {prefix, steps}: the largest error of a closed loop. training-loss {step}, steps, epochs, seconds: of the
training.
weight {name}: a parameter that is one number. perplexity, n-grams {n}, share-of-n-grams {n}: of the test
text, the network's, that of Kneser-Ney n-grams, and the one divided by the other. bleu, chrf {beam, max_length?},
target-perplexity: of the test part of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnpipe.data.base import Sequences
from rnnpipe.data.kneser_ney import KneserNey
from rnnpipe.errors import InputError, unknown_name
from rnnpipe.generation.translate import Search
from rnnpipe.options import bind_options
from rnnpipe.pipeline.evaluate import Evaluation, evaluate_run
from rnnpipe.pipeline.evaluate_pairs import PairEvaluation, Translated, evaluate_pairs, part_texts, translate_part
from rnnpipe.pipeline.evaluate_sequences import SequenceEvaluation, evaluate_lengths, evaluate_sequences, measure
from rnnpipe.pipeline.forecast import forecast_series
from rnnpipe.pipeline.kind import build_dataset
from rnnpipe.pipeline.pair_material import pair_dataset
from rnnpipe.pipeline.runs import PairRun, Run, SequenceRun, open_any_run, read_record, run_tokens
from rnnpipe.pipeline.scores import METRICS
from rnnpipe.text.rules import Named
from rnnpipe.training.metrics import read_metrics
from rnnpipe.training.sequence_objective import run_sequences

_SEED = 20_190  # of the sequences that are drawn to measure on: no dataset of an experiment has it


class Trained:
    """A run that was trained for an experiment: opened, evaluated and translated once for all rows.

    record: what training wrote of itself. translated: what the sources became, by each search that a row asked for.
    """

    def __init__(self, folder: Path, part: str | None = None) -> None:
        self.folder = folder
        self.part = part
        self.run = open_any_run(folder)
        self.rows = read_metrics(folder)
        self.state = self.run.checkpoint.state
        self.record: Mapping[str, Any] = read_record(folder) or {}
        self.translated: dict[Search, Translated] = {}

    @property
    def sequences(self) -> SequenceRun:
        """Return the run of sequences; raise InputError if it is another one."""
        if not isinstance(self.run, SequenceRun):
            raise self._wrong("sequences")
        return self.run

    @property
    def text(self) -> Run:
        """Return the run of text; raise InputError if it is another one."""
        if not isinstance(self.run, Run):
            raise self._wrong("text")
        return self.run

    @property
    def pairs(self) -> PairRun:
        """Return the run of pairs; raise InputError if it is another one."""
        if not isinstance(self.run, PairRun):
            raise self._wrong("pairs")
        return self.run

    def _wrong(self, wanted: str) -> InputError:
        kind = {Run: "text", SequenceRun: "sequences", PairRun: "pairs"}[type(self.run)]
        return InputError(f"{self.folder}: is a run of {kind}; what is to be measured needs one of {wanted}.")

    @cached_property
    def evaluated(self) -> SequenceEvaluation | Evaluation | PairEvaluation:
        """Return the evaluation of the part that the experiment is evaluated on."""
        if isinstance(self.run, PairRun):
            return self.pair_evaluation
        if isinstance(self.run, SequenceRun):
            return evaluate_sequences(self.run, self.part)
        return evaluate_run(self.text, window=self.text.config.training.evaluation_window)

    @cached_property
    def pair_evaluation(self) -> PairEvaluation:
        """Return the evaluation of a run of pairs."""
        return evaluate_pairs(self.pairs, self.part)

    @cached_property
    def _texts(self) -> list[tuple[str, str]]:
        return part_texts(pair_dataset(self.pairs.config), self.pair_evaluation.part)

    def translate(self, search: Search) -> Translated:
        """Return the part's sources translated, and every score of them."""
        if search not in self.translated:
            self.translated[search] = translate_part(self.pairs, self._texts, METRICS, search)
        return self.translated[search]


def take(trained: Trained, what: Mapping[str, Any], place: str) -> float:
    """Return a measured number; raise UsageError, naming `place`, for a kind or an option that there is not."""
    options = dict(what)
    kind = options.pop("kind", None)
    if kind not in MEASURES:
        raise unknown_name(f"kind of measure in {place}:", str(kind), MEASURES)
    function = MEASURES[kind]
    return function(trained, **bind_options(function, options, f"measure '{kind}' in {place}", reserved=1))


def evaluation(trained: Trained, *, figure: str, part: str | None = None, on: str = "all", scale: float = 1.0) -> float:
    """Return a figure of a part, or of what the training part has not of it, times `scale`."""
    found = evaluate_sequences(trained.sequences, part or trained.part)
    measured = found.whole
    if on == "unseen":
        if found.unseen is None:
            raise InputError(f"{trained.folder}: every sequence of the part '{found.part}' is in the training part.")
        measured = found.unseen
    if figure == "reduced_loss":
        return scale * measured.reduced(found.reduction)
    return scale * _figure(measured, figure)


def lengths(trained: Trained, *, figure: str, lengths: list[int], count: int) -> float:
    """Return the worst figure over new sequences of each length."""
    found = [_figure(m, figure) for m in evaluate_lengths(trained.sequences, lengths, count, _SEED).values()]
    return min(found) if figure == "accuracy" else max(found)


def other_dataset(trained: Trained, *, figure: str, options: dict[str, Any]) -> float:
    """Return a figure of the test part of the run's dataset with some options changed."""
    run = trained.sequences
    named = run.config.data.dataset
    dataset: Any = build_dataset(Named(named.name, {**named.options, **options}))
    return _figure(measure(run, dataset.sequences("test")), figure)


def _figure(measured: Any, figure: str) -> float:
    found: float | None = getattr(measured, figure)
    if found is None:
        raise InputError(f"'{figure}' is not counted for this dataset; set training.tolerance.")
    return found


def largest_error(trained: Trained, *, lengths: list[int], count: int) -> float:
    """Return the largest error of any output, over all lengths from the first to the last."""
    run = trained.sequences
    at_length = _at_length(run)
    found = []
    for length in range(lengths[0], lengths[-1] + 1):
        drawn = at_length(length, count, _SEED + length)
        found.append(float(np.abs(_outputs(run, drawn) - drawn.targets).max()))
    return max(found)


def relative_error(trained: Trained, *, length: int, count: int) -> float:
    """Return the largest |output - target| / |target| over new sequences of a length; targets of 0 are left out."""
    run = trained.sequences
    drawn = _at_length(run)(length, count, _SEED)
    errors, sizes = np.abs(_outputs(run, drawn) - drawn.targets), np.abs(drawn.targets)
    return float((errors[sizes > 0] / sizes[sizes > 0]).max())


def _at_length(run: SequenceRun) -> Callable[[int, int, int], Sequences]:
    at_length: Callable[[int, int, int], Sequences] | None = getattr(run.data.dataset, "at_length", None)
    if at_length is None:
        raise InputError(f"dataset '{run.data.name}' cannot make sequences of a given length.")
    return at_length


def _outputs(run: SequenceRun, sequences: Sequences) -> Any:
    device = torch.device(run.numerics.device)
    return run_sequences(run.model.to(device), sequences, run.data.sizes, device, run.numerics.precision)


def output(trained: Trained, *, inputs: list[float], truth: float | None = None) -> float:
    """Return the last output behind inputs of one number each, or how far it is from the truth."""
    run = trained.sequences
    x = np.array(inputs, np.float32)[None, :, None]
    outputs = _outputs(run, Sequences(x, np.zeros((1, len(inputs), 1), np.float32), np.array([len(inputs)])))
    last = float(outputs.reshape(-1)[-1])
    return last if truth is None else abs(last - truth)


def forecast_error(trained: Trained, *, prefix: int, steps: int) -> float:
    """Return the largest error of a new series continued by `steps` of the run's own outputs."""
    found = forecast_series(trained.sequences, steps, source="new", prefix_length=prefix, seed=_SEED)
    assert found.largest_error is not None, "a new series has its truth"
    return found.largest_error


def training_loss(trained: Trained, *, step: int) -> float:
    """Return the training loss in the metrics at a step."""
    for row in trained.rows:
        if row["step"] == step and row.get("loss") is not None:
            return float(row["loss"])
    raise InputError(f"{trained.folder}: metrics.jsonl has no training loss at step {step}; see training.log_every.")


def steps(trained: Trained) -> float:
    """Return how many steps the training took."""
    return float(max(row["step"] for row in trained.rows))


def epochs(trained: Trained) -> float:
    """Return how many epochs the training took."""
    return float(max(row["epoch"] for row in trained.rows))


def seconds(trained: Trained) -> float:
    """Return how many seconds the training took, without evaluations."""
    return float(trained.record["seconds"])


def weight(trained: Trained, *, name: str) -> float:
    """Return a parameter that is one number."""
    found = dict(trained.run.model.named_parameters())
    if name not in found or found[name].numel() != 1:
        raise unknown_name("parameter of one number", name, (n for n, p in found.items() if p.numel() == 1))
    return found[name].item()


def perplexity(trained: Trained) -> float:
    """Return the perplexity of the test text with the state carried, or in windows for a run that is trained so."""
    found = evaluate_run(trained.text)
    loss = found.windows if trained.text.config.training.window else found.carried
    return loss.perplexity


def share_of_n_grams(trained: Trained, *, n: int) -> float:
    """Return the perplexity of the network as a share of that of Kneser-Ney n-grams: below 1 it is the better one."""
    return perplexity(trained) / n_grams(trained, n=n)


def n_grams(trained: Trained, *, n: int) -> float:
    """Return the perplexity of the test text under Kneser-Ney n-grams of the training text."""
    run = trained.text
    tokens, vocabulary = run_tokens(run.folder, run.config), run.vocabulary
    part = "test" if "test" in tokens.parts else "valid"
    model = KneserNey(tokens.part("train").tokens, vocabulary.size, n, boundary=vocabulary.doc_id)
    return float(np.exp(-model.log_probabilities(tokens.part(part).tokens)[1:].mean()))


def bleu(trained: Trained, *, beam: int, max_length: int = 60) -> float:
    """Return the BLEU of the translations of the test part, its words as they stand."""
    return _score(trained, "bleu", Search(width=beam, max_length=max_length))


def chrf(trained: Trained, *, beam: int, max_length: int = 60) -> float:
    """Return the chrF of the translations of the test part."""
    return _score(trained, "chrf", Search(width=beam, max_length=max_length))


def _score(trained: Trained, metric: str, search: Search) -> float:
    return next(each.value for each in trained.translate(search).scores if each.metric == metric)


def target_perplexity(trained: Trained) -> float:
    """Return the perplexity a target token of the test part."""
    return trained.pair_evaluation.loss.perplexity


MEASURES: dict[str, Callable[..., float]] = {
    "evaluation": evaluation,
    "lengths": lengths,
    "dataset": other_dataset,
    "largest-error": largest_error,
    "relative-error": relative_error,
    "output": output,
    "forecast": forecast_error,
    "training-loss": training_loss,
    "steps": steps,
    "epochs": epochs,
    "seconds": seconds,
    "weight": weight,
    "perplexity": perplexity,
    "n-grams": n_grams,
    "share-of-n-grams": share_of_n_grams,
    "bleu": bleu,
    "chrf": chrf,
    "target-perplexity": target_perplexity,
}
