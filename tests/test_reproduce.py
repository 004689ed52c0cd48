"""The reference experiments: their files, what is measured, and each of them at reduced size with its own assertion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import HARBOUR, fail, succeed

from rnnpipe.config import Config, apply_settings, to_table
from rnnpipe.errors import InputError, RnnpipeError, UsageError
from rnnpipe.pipeline.complete import complete
from rnnpipe.pipeline.reproduce import measures
from rnnpipe.pipeline.reproduce.experiment import (
    Experiment,
    Target,
    experiment_names,
    load_experiment,
    read_experiment,
)
from rnnpipe.pipeline.reproduce.measures import MEASURES, Trained, take
from rnnpipe.pipeline.reproduce.run import VariantResult, medians, reproduce, variant_config
from rnnpipe.pipeline.reproduce.surface import cost_surface
from rnnpipe.training.trajectory import read_trajectory

NAMES = [
    "binary-addition",
    "counting-ones",
    "en-ja",
    "next-word",
    "sine-next",
    "sine-window",
    "two-weights",
    "variable-sum",
    "variable-sum-long",
]


def only(experiment: Experiment, *variants: str) -> Experiment:
    from dataclasses import replace

    return replace(experiment, variants=tuple(v for v in experiment.variants if v.name in variants))


def run(name: str, variant: str, folder: Path, *settings: str, seeds: int = 1) -> VariantResult:
    """Return what one variant gives, its configuration changed by `settings`."""

    def change(config: Config) -> Config:
        return complete(apply_settings(config, settings))

    experiment = only(load_experiment(name), variant)
    return reproduce(experiment, folder, seeds=seeds, improved=True, change=change).variants[0]


def values(found: VariantResult) -> dict[str, float]:
    return dict(found.seeds[0].values)


# --- the files ---


def test_the_experiments_are_there() -> None:
    assert experiment_names() == NAMES
    with pytest.raises(UsageError, match=r"unknown experiment 'two-weight'\. Did you mean 'two-weights'"):
        load_experiment("two-weight")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_complete(name: str) -> None:
    experiment = load_experiment(name)
    names = [variant.name for variant in experiment.variants]
    assert names[0] == "published" and names[-1] == "improved"
    for variant in experiment.variants:
        first, second = (variant_config(experiment, variant, seed) for seed in (0, 1))
        assert first.runtime.seed == 0 and second.runtime.seed == 1
        for row in variant.rows:
            assert row.measure["kind"] in MEASURES
        assert [row for row in variant.rows if row.target] or name in ("en-ja", "next-word")


def test_a_seed_is_that_of_data_that_state_none() -> None:
    experiment = load_experiment("variable-sum")
    published, improved = experiment.variants
    assert variant_config(experiment, published, 3).data.dataset.options["seed"] == 14
    assert variant_config(experiment, improved, 3).data.dataset.options["seed"] == 3


def test_a_folder_of_texts_takes_the_place_of_the_built_in_one(tmp_path: Path) -> None:
    experiment = load_experiment("next-word")
    dataset = variant_config(experiment, experiment.variants[0], 0, str(tmp_path)).data.dataset
    assert (dataset.name, dataset.options) == ("text-files", {"inputs": [str(tmp_path)], "split": "4:1"})


@pytest.mark.parametrize(
    ("target", "good", "bad"),
    [
        ("<= 0.22", 0.22, 0.2200001),
        ("< 1e-8", 0.0, 1e-8),
        (">= 1", 1.0, 0.999),
        ("> 1", 1.001, 1.0),
        ("= 0.2677", 0.26766, 0.26759),
        ("1 ± 0.001", 0.9991, 1.0011),
    ],
)
def test_targets(target: str, good: float, bad: float) -> None:
    Target(target).check("here")
    assert Target(target).met(good) and not Target(target).met(bad)


SMALL = """
task = "t"
published = "p"
[[variant]]
name = "published"
settings = "s"
[variant.config.data]
dataset = "counting-ones"
[[variant.row]]
label = "l"
measure = { kind = "steps" }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('task = "t"', "", "has no 'task'"),
        ('task = "t"', "task = 1", "task: 1 is not accepted; it takes text"),
        ('task = "t"', 'taks = "t"', r"unknown key of .* 'taks'. Did you mean 'task'"),
        ('settings = "s"', 'settings = "s"\nlike = "x"', "unknown variant before 'published'"),
        ('label = "l"', 'label = "l"\ntarget = "about 1"', r"row 'l': the target 'about 1' is not accepted"),
        ('published = "p"', 'published = "p"\nfigures = ["pie"]', "figures: 'pie' is not accepted"),
        ("[[variant]]", "variant = 3\n[[other]]", "variant: 3 is not accepted|Cannot"),
        ("[variant.config.data]", "[variant.other]", "unknown key"),
    ],
)
def test_files_that_are_no_experiment(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SMALL)
    assert read_experiment(path).variants[0].settings == "s"
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(RnnpipeError, match=message) as caught:
        read_experiment(path)
    assert str(path) in str(caught.value)


def test_like_takes_over_what_is_not_said(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    variant = SMALL[SMALL.index("[[variant]]") :].replace('name = "published"', 'name = "improved"\nlike = "published"')
    own = variant.replace('[variant.config.data]\ndataset = "counting-ones"', "[variant.config.model]\nhidden_size = 3")
    path.write_text(SMALL + own)
    config = read_experiment(path).variants[1].config
    assert config == {"data": {"dataset": "counting-ones"}, "model": {"hidden_size": 3}}


# --- each at reduced size ---


def test_two_weights_by_the_command(tmp_path: Path) -> None:
    """The published descent to four decimals, from 0.0900 and 0.0113; RMSProp; ours; and the paths over the cost."""
    (result,) = succeed("reproduce", "two-weights", "--improved", "--json", "-o", tmp_path).json()
    rows = [row for variant in result["variants"] for row in variant["rows"] if row["target"]]
    assert len(rows) == 13
    assert all(row["met"] for row in rows), rows
    folder = tmp_path / "two-weights"
    path = read_trajectory(folder / "published-0" / "trajectory.csv")
    assert path[0] == ["step", "recurrent.layers.0.weight_ih[0]", "recurrent.layers.0.weight_hh[0]"]
    assert [round(float(number), 4) for number in path[1]] == [0, 0.09, 0.0113]
    assert [int(row[0]) for row in path[1:]] == list(range(2002))
    for name in ("surface", "published-loss", "published-rmsprop-loss", "improved-loss"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_two_weights_by_our_recipe(tmp_path: Path) -> None:
    found = run("two-weights", "improved", tmp_path)
    assert values(found)["cost"] < 1e-8
    surface = cost_surface({"ours": found.seeds[0].folder}, "train")
    assert surface.names == ("weight_ih", "weight_hh")
    row, column = np.unravel_index(surface.cost.argmin(), surface.cost.shape)
    assert surface.x[column] == pytest.approx(1, abs=0.05) and surface.y[row] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(surface.paths["ours"][-1], [1, 1], atol=1e-5)


def test_counting_ones(tmp_path: Path) -> None:
    """300 steps with the published settings: from about 25 down below 1."""
    settings = ("training.max_steps=300", "model.hidden_size=20", "model.input_layer=20")
    experiment = only(load_experiment("counting-ones"), "published")
    variant = experiment.variants[0]
    config = complete(apply_settings(variant_config(experiment, variant, 0), settings))
    from rnnpipe.pipeline.stages import run_stages

    run_stages(config, tmp_path / "run")
    trained = Trained(tmp_path / "run")
    assert 15 < take(trained, {"kind": "training-loss", "step": 1}, "here") < 40
    assert take(trained, {"kind": "evaluation", "figure": "loss"}, "here") < 1


def test_counting_ones_by_our_recipe(tmp_path: Path) -> None:
    found = run("counting-ones", "improved", tmp_path, "model.hidden_size=12", "training.max_steps=8")
    measured = values(found)
    assert measured["accuracy at length 10"] == 1
    assert measured["accuracy at length 100"] > 0.9


def test_variable_sum(tmp_path: Path) -> None:
    found = run("variable-sum", "published", tmp_path)
    assert values(found)["validation MSE"] < 0.5
    beside = medians(found)
    assert beside["overlap"] > 0.9
    assert beside["loss"] < beside["mean loss"] / 10


@pytest.mark.parametrize("name", ["variable-sum", "variable-sum-long"])
def test_sums_by_our_recipe(name: str, tmp_path: Path) -> None:
    found = run(name, "improved", tmp_path, "training.max_steps=20")
    assert all(found.met(row) for row in found.variant.rows), values(found)
    assert medians(found)["overlap"] == 0


def test_sine_next_by_our_recipe(tmp_path: Path) -> None:
    found = run("sine-next", "improved", tmp_path, "training.max_steps=30", "data.dataset.train=200")
    assert all(found.met(row) for row in found.variant.rows), values(found)


def test_sine_next(tmp_path: Path) -> None:
    found = run("sine-next", "published", tmp_path, "training.epochs=2")
    measured = values(found)
    assert measured["after 0.5 alone"] == pytest.approx(0.433, abs=0.15)
    assert measured["error after 0, 0.5"] < 0.2


def test_sine_window_by_our_recipe(tmp_path: Path) -> None:
    found = run("sine-window", "improved", tmp_path, "training.max_steps=30")
    assert values(found)["squared error / 2, no shared points"] < 1e-5


def test_binary_addition_by_our_recipe(tmp_path: Path) -> None:
    found = run("binary-addition", "improved", tmp_path, "training.max_steps=1200", "data.dataset.train=1000")
    assert values(found)["sums of 64 bits that are right"] > 0.95


def test_next_word(tmp_path: Path, corpora: Path) -> None:
    """Every stage, over a folder of texts, with the published settings and ours; and the words that may follow."""
    experiment = load_experiment("next-word")

    def change(config: Config) -> Config:
        return complete(apply_settings(config, ["training.max_steps=60", "training.max_seconds=0"]))

    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("harbour-year", "kitchen-notes"):
        (texts / f"{name}.txt").write_bytes((corpora / f"{name}.txt").read_bytes())
    result = reproduce(experiment, tmp_path / "out", improved=True, texts=str(texts), change=change)
    assert [found.variant.name for found in result.variants] == ["published", "improved"]
    for found in result.variants:
        measured = values(found)
        assert 20 < measured["test perplexity"] < 700
        assert 20 < measured["test perplexity of 5-grams (Kneser-Ney)"] < 700
        config = to_table(variant_config(experiment, found.variant, 0))
        assert config["text"]["cleaner"] == "ascii-words"


def pairs_as_published(folder: Path, corpora: Path, train: int, other: int) -> Path:
    """Write pairs of our own under the names of the published ones, so many in each part; return the folder."""
    folder.mkdir()
    cuts = {"train": (0, train), "dev": (train, train + other), "test": (train + other, train + 2 * other)}
    for ours, ending in (("en", "en"), ("de", "ja")):
        lines = (corpora / f"harbour-phrases.{ours}").read_text().splitlines(keepends=True)
        for part, (first, last) in cuts.items():
            (folder / f"{part}.{ending}").write_text("".join(lines[first:last]))
    return folder


def test_pairs_are_read_and_translated_once_for_all_rows(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BLEU with its signature, chrF, seconds; and the published sentence with what was published beside ours."""
    pytest.importorskip("sacrebleu", reason="the extra `translation` is not installed")
    pairs = pairs_as_published(tmp_path / "pairs", corpora, 60, 3)
    called: list[str] = []
    for name in ("evaluate_pairs", "translate_part", "part_texts"):
        real = getattr(measures, name)
        monkeypatch.setattr(measures, name, lambda *given, n=name, f=real: called.append(n) or f(*given))  # type: ignore[misc]
    small = ["training.max_seconds=0", "training.max_steps=2", "model.hidden_size=16", "model.encoder.size=8"]
    words = [word for each in small for word in ("--set", each)]
    command = ("reproduce", "en-ja", "--full", pairs, "-o", tmp_path / "out", *words)
    (result,) = succeed(*command, "--json").json()
    assert sorted(called) == ["evaluate_pairs", "part_texts", "translate_part", "translate_part"]
    (variant,) = result["variants"]
    greedy, wide = variant["seeds"][0]["translated"]
    assert [greedy["beam"], wide["beam"]] == [1, 5]
    assert [each["metric"] for each in wide["scores"]] == ["bleu", "chrf"]
    assert "tok:none" in wide["scores"][0]["signature"]
    measured = {row["label"]: row["median"] for row in variant["rows"]}
    assert measured["test BLEU, greedy"] == greedy["scores"][0]["value"]
    assert measured["test chrF, beam 5"] == wide["scores"][1]["value"]
    assert measured["seconds of training"] == variant["seeds"][0]["seconds"] > 0
    (sentence,) = result["translations"]
    assert sentence["text"] == "show your own business ." and sentence["reference"] == "自分 の 事 を しろ 。"
    told = succeed(*command).out
    assert f"bleu: {wide['scores'][0]['signature']}" in told
    lines = [line.split() for line in told.splitlines()]
    assert ["as", "published", *sentence["published"].split()] in lines
    assert ["published", *sentence["translation"].split()] in lines


@pytest.mark.slow
def test_en_ja(tmp_path: Path, corpora: Path) -> None:
    """Every variant at reduced size, on pairs of our own under the names of the published ones."""
    pairs = pairs_as_published(tmp_path / "pairs", corpora, 400, 40)
    small = ["max_seconds=0", "epochs=6", "batch_size=16", "optimizer.lr=0.01", "warmup_steps=20"]
    words = [word for each in small for word in ("--set", f"training.{each}")]
    words += ["--set", "model.hidden_size=32", "--set", "model.encoder.size=32"]
    command = ("reproduce", "en-ja", "--improved", "--full", pairs, "-o", tmp_path / "out", *words)
    (result,) = succeed(*command, "--json").json()
    names = ["published", "improved-without-attention", "improved"]
    assert [each["variant"] for each in result["variants"]] == [each["variant"] for each in result["translations"]]
    assert [each["variant"] for each in result["variants"]] == names
    assert result["variants"][-1]["rows"][1]["median"] > 15


def test_an_experiment_without_its_data_says_where_to_get_it() -> None:
    message = "needs its data, with --full FOLDER. `rnnpipe corpus fetch small-parallel-enja`"
    assert message in fail("reproduce", "en-ja", code=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("en-ja", "next-word")])
def test_every_target_of_our_recipes_is_met(name: str, tmp_path: Path) -> None:
    """Whole, over three seeds: minutes."""
    found = run(name, "improved", tmp_path, seeds=3)
    missed = {row.label: found.values(row) for row in found.variant.rows if not found.met(row)}
    assert not missed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binary-addition", "two-weights", "variable-sum"])
def test_every_published_target_is_met(name: str, tmp_path: Path) -> None:
    found = run(name, "published", tmp_path)
    missed = {row.label: found.values(row) for row in found.variant.rows if found.met(row) is False}
    assert not missed


# --- measures ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("run")
    return Trained(run("two-weights", "improved", folder).seeds[0].folder, "train")


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ({"kind": "wieght", "name": "x"}, "unknown kind of measure in here: 'wieght'. Did you mean 'weight'"),
        ({"kind": "weight"}, "measure 'weight' in here needs the option 'name'"),
        ({"kind": "weight", "name": "x"}, "unknown parameter of one number 'x'"),
        ({"kind": "steps", "step": 3}, "has no option 'step'"),
        ({"kind": "training-loss", "step": 9999}, "no training loss at step 9999"),
        ({"kind": "perplexity"}, "is a run of sequences"),
        ({"kind": "evaluation", "figure": "loss", "on": "unseen"}, "every sequence of the part 'train'"),
    ],
)
def test_measures_that_there_are_not(trained: Trained, measure: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, InputError), match=message):
        take(trained, measure, "here")


def test_measures_are_what_they_say(trained: Trained) -> None:
    """Of a network that counts exactly, h' = h + x."""
    exact: Callable[..., float] = lambda **measure: take(trained, measure, "here")  # noqa: E731
    assert exact(kind="weight", name="recurrent.layers.0.weight_hh") == pytest.approx(1, abs=1e-5)
    assert exact(kind="output", inputs=[1.0, 1.0, 0.0, 1.0]) == pytest.approx(3, abs=1e-4)
    assert exact(kind="output", inputs=[1.0, 1.0], truth=5.0) == pytest.approx(3, abs=1e-4)
    assert exact(kind="lengths", figure="accuracy", lengths=[3, 30], count=50) == 1
    assert exact(kind="largest-error", lengths=[2, 9], count=20) < 1e-4
    assert exact(kind="relative-error", length=50, count=20) < 1e-4
    assert exact(kind="dataset", figure="loss", options={"test": 30, "max_length": 12, "min_length": 12}) < 1e-8
    assert exact(kind="evaluation", figure="loss", scale=100.0) < 1e-6


# --- the command ---


def test_the_command_lists() -> None:
    assert [line.split()[0] for line in succeed("reproduce").out.splitlines()] == NAMES
    assert [each["experiment"] for each in succeed("reproduce", "--json").json()] == NAMES


def test_the_command_runs_and_goes_on(tmp_path: Path) -> None:
    words = ("reproduce", "variable-sum", "--improved", "--seeds", 2, "-o", tmp_path, "--set", "training.max_steps=20")
    first = succeed(*words)
    assert "test MSE, unseen" in first.out and "to be" in first.out
    folder = tmp_path / "variable-sum"
    assert {"published-0", "published-1", "improved-0", "improved-1"} <= {path.name for path in folder.iterdir()}
    assert (folder / "improved-loss.png").read_bytes().startswith(b"\x89PNG")
    again = succeed(*words, "--json")
    assert again.err.count("up to date") == 4
    (result,) = again.json()
    published, improved = result["variants"]
    assert len(published["rows"][0]["values"]) == 2
    assert improved["rows"][0]["median"] == pytest.approx(sum(improved["rows"][0]["values"]) / 2)
    table = succeed(*words, "--markdown").out.splitlines()
    assert table[0].startswith("| experiment | settings |") and len({line.count("|") for line in table}) == 1
    assert succeed("eval", folder / "improved-0").out


def test_the_likely_next_words(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_bytes(Path(HARBOUR).read_bytes())
    words = ("reproduce", "next-word", "--full", texts, "-o", tmp_path, "--set", "training.max_steps=10")
    assert 'behind "some of them looks like"' in succeed(*words).out
    (result,) = succeed(*words, "--json").json()
    (prediction,) = result["predictions"]
    assert len(prediction["next"]) == 10


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("two-wieghts",), 2, "Did you mean 'two-weights'"),
        (("--all", "two-weights"), 2, "give names or --all, not both"),
        (("two-weights", "--full", "x"), 2, "--full is for one experiment on text"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], code: int, message: str) -> None:
    assert message in fail("reproduce", *words, code=code)
