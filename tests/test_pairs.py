"""Pairs: files that must align, ids and batches, the search, and the loss."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnpipe.config import TrainingConfig
from rnnpipe.data.base import PARTS
from rnnpipe.data.pairs import PairBatch, Pairs, batches_per_epoch, make_batch, pair_batches, side_of
from rnnpipe.data.parallel import Parallel
from rnnpipe.data.windows import Cursor
from rnnpipe.errors import InputError, UsageError
from rnnpipe.generation.beam import Hypothesis, beam_search, take_rows
from rnnpipe.generation.translate import Lexicon, Search, Translator, cut_batches
from rnnpipe.models.encoder_decoder import EncoderDecoder
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.hierarchical import cut_turns
from rnnpipe.models.latent import Annealing, Gaussian, divergence
from rnnpipe.models.pair_model import PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.plugins import full_registry
from rnnpipe.text.cleaning import none
from rnnpipe.text.rules import Named, Rules, TextRules
from rnnpipe.text.tokenizing import whitespace
from rnnpipe.text.transcoding import open_bytes
from rnnpipe.text.vocabulary import build_vocabulary
from rnnpipe.training import readout_loss as readout_loss_module
from rnnpipe.training.pair_objective import (
    PairObjective,
    pair_loss,
    sampled_logits,
    target_features,
    wanted,
    with_gradient_of,
)
from rnnpipe.training.readout_loss import readout_loss

SOURCE_END, TARGET_END = 7, 9


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8", newline="")


# --- files ---


def test_two_files_are_divided_in_order(tmp_path: Path) -> None:
    write(tmp_path, a="".join(f"a {n}\n" for n in range(10)), b="".join(f"b {n}\r\n" for n in range(10)))
    dataset = Parallel(source=str(tmp_path / "a"), target=str(tmp_path / "b"))
    parts = {part: list(dataset.pairs(part)) for part in ("train", "valid", "test")}  # type: ignore[arg-type]
    assert {part: len(pairs) for part, pairs in parts.items()} == {"train": 8, "valid": 1, "test": 1}
    assert [*parts["train"], *parts["valid"], *parts["test"]] == [(f"a {n}", f"b {n}") for n in range(10)]


def test_a_folder_has_a_file_for_each_part(tmp_path: Path) -> None:
    write(tmp_path, train__en="x\ny\n", train__de="X\nY\n", dev__en="z\n", dev__de="Z\n")
    dataset = Parallel(folder=str(tmp_path), source="en", target="de")
    assert list(dataset.pairs("train")) == [("x", "X"), ("y", "Y")]
    assert list(dataset.pairs("valid")) == [("z", "Z")]
    assert list(dataset.pairs("test")) == []
    write(tmp_path, test__en="q\n")
    with pytest.raises(InputError, match=r"test\.en: has no partner test\.de"):
        Parallel(folder=str(tmp_path), source="en", target="de").pairs("test")


def test_empty_lines_keep_their_place(tmp_path: Path) -> None:
    write(tmp_path, a="a\n\nc\n", b="A\nB\n\n")
    dataset = Parallel(source=str(tmp_path / "a"), target=str(tmp_path / "b"), split="1:0")
    assert list(dataset.pairs("train")) == [("a", "A"), ("", "B"), ("c", "")]


def test_tab_separated_and_json_lines(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__tsv="x\tX\n\ny z\tY\n",
        a__jsonl='{"source": "x", "target": "X\\nZ"}\n\n{"source": "", "target": ""}\n',
    )
    assert list(Parallel(file=str(tmp_path / "a.tsv"), split="1:0").pairs("train")) == [
        ("x", "X"),
        ("", ""),
        ("y z", "Y"),
    ]
    assert list(Parallel(file=str(tmp_path / "a.jsonl"), split="1:0").pairs("train")) == [("x", "X Z"), ("", "")]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"a": "1\n2\n3\n", "b": "1\n2\n"}, {"source": "a", "target": "b"}, "a: has 3 lines, .*b has 2"),
        ({"a.tsv": "x\tX\ny\n"}, {"file": "a.tsv"}, "a.tsv, line 2: has 0 tabs"),
        ({"a.tsv": "x\tX\tz\n"}, {"file": "a.tsv"}, "a.tsv, line 1: has 2 tabs"),
        ({"a.jsonl": "{}\n"}, {"file": "a.jsonl"}, 'a.jsonl, line 1: expected a text under "source"'),
        ({"a.jsonl": "[\n"}, {"file": "a.jsonl"}, "a.jsonl, line 1: not JSON"),
        ({"a.tsv": "x\tX\n"}, {"file": "b.tsv"}, r"b.tsv: no such file. Did you mean '.*a.tsv'\?"),
        ({"a/b": ""}, {"source": "a", "target": "a"}, r"a: is a folder. .* give folder=a, and their endings"),
        ({"train.en": "x\n"}, {"folder": ".", "source": "en", "target": "de"}, "train.en: has no partner train.de"),
        ({"dev.en": "x\n"}, {"folder": ".", "source": "en", "target": "de"}, "has no train.en and train.de"),
    ],
)
def test_what_does_not_pair_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], options: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    with pytest.raises(InputError, match=message):
        list(Parallel(**options).pairs("train"))  # type: ignore[arg-type]


def test_bytes_of_another_encoding_are_named_by_line_byte_and_side(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("x\nK\u00fcche\n".encode())
    (tmp_path / "b").write_bytes("X\nGr\u00fc\u00dfe\n".encode("latin-1"))
    options: dict[str, Any] = {"source": str(tmp_path / "a"), "target": str(tmp_path / "b"), "split": "1:0"}
    with pytest.raises(InputError, match=r"b, line 2, byte 2: .* is not utf-8 .*target_encoding="):
        Parallel(**options).pairs("train")
    turned = {"source": options["target"], "target": options["source"], "split": "1:0"}
    with pytest.raises(InputError, match=r"b, line 2, byte 2: .*source_encoding="):
        Parallel(**turned).pairs("train")  # type: ignore[arg-type]
    whole = ("K\u00fcche", "Gr\u00fc\u00dfe")
    assert list(Parallel(**options, target_encoding="latin-1").pairs("train"))[1] == whole
    assert list(Parallel(**options, errors="replace").pairs("train"))[1] == ("K\u00fcche", "Gr\ufffd\ufffde")
    with pytest.raises(InputError, match=r"a: is UTF-8, in which iso8859-1 .*source_encoding=utf-8"):
        Parallel(**options, encoding="latin-1").pairs("train")
    assert list(Parallel(**options, encoding="latin-1", source_encoding="utf-8").pairs("train"))[1] == whole
    misread = Parallel(**options, encoding="latin-1", source_encoding="latin-1")
    assert list(misread.pairs("train"))[1][0] == "K\u00c3\u00bcche", "taken at its word"


def test_a_file_of_pairs_has_one_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes("K\u00fcche\tx\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.tsv, line 1, byte 1: .* Name its encoding with encoding="):
        Parallel(file=str(tmp_path / "a.tsv")).pairs("train")
    found = Parallel(file=str(tmp_path / "a.tsv"), encoding="latin-1", split="1:0").pairs("train")
    assert list(found) == [("K\u00fcche", "x")]
    with pytest.raises(UsageError, match="one encoding"):
        Parallel(file="a.tsv", source_encoding="latin-1")


def test_compressed_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("rnnpipe.data.parallel.open_bytes", lambda path: opened.append(path.name) or open_bytes(path))
    (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"a\nb\n"))
    (tmp_path / "train.de.xz").write_bytes(lzma.compress(b"A\nB\n"))
    (tmp_path / "dev.en").write_bytes(b"c\n")
    (tmp_path / "dev.de.bz2").write_bytes(bz2.compress(b"C\n"))
    folder = Parallel(folder=str(tmp_path), source="en", target="de")
    for _ in range(2):
        assert list(folder.pairs("train")) == [("a", "A"), ("b", "B")]
        assert list(folder.pairs("valid")) == [("c", "C")]
        assert list(folder.pairs("test")) == []
    assert opened == ["train.en.gz", "train.de.xz", "dev.en", "dev.de.bz2"]
    two = Parallel(source=str(tmp_path / "train.en.gz"), target=str(tmp_path / "train.de.xz"), split="1:1")
    assert [list(two.pairs(part)) for part in PARTS] == [[("a", "A")], [("b", "B")], []]
    assert opened[4:] == ["train.en.gz", "train.de.xz"]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"source": "x", "target": "X"}\n'))
    assert list(Parallel(file=str(tmp_path / "a.jsonl.gz"), split="1:0").pairs("train")) == [("x", "X")]
    (tmp_path / "b.gz").write_bytes(b"x\n")
    with pytest.raises(InputError, match=r"b\.gz: damaged, or not compressed"):
        Parallel(source=str(tmp_path / "b.gz"), target=str(tmp_path / "b.gz")).pairs("train")


def test_wide_encodings_and_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("x\u000a\u010a y\n".encode("utf-16"))  # a line end's byte within a character
    (tmp_path / "b").write_bytes("X\nY\n".encode("utf-16"))
    dataset = Parallel(source=str(tmp_path / "a"), target=str(tmp_path / "b"), split="1:0", encoding="utf-16")
    assert list(dataset.pairs("train")) == [("x", "X"), ("\u010a y", "Y")]
    (tmp_path / "b").write_bytes("X\nä\n".encode())
    known = Parallel(source=str(tmp_path / "a"), target=str(tmp_path / "b"), split="1:0")
    assert list(known.pairs("train")) == [("x", "X"), ("\u010a y", "ä")], "UTF-16 is known by its mark"
    (tmp_path / "c.tsv").write_bytes(b"\xef\xbb\xbfx\tX\n")
    assert list(Parallel(file=str(tmp_path / "c.tsv"), split="1:0").pairs("train")) == [("x", "X")]


@pytest.mark.parametrize("options", [{}, {"source": "a"}, {"file": "a", "source": "b", "target": "c"}, {"folder": "a"}])
def test_a_dataset_needs_one_of_three_forms(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="needs source and target"):
        Parallel(**options)  # type: ignore[arg-type]


# --- batches ---


def random_pairs(count: int, seed: int = 0) -> Pairs:
    generator = np.random.default_rng(seed)
    sides = [
        side_of([generator.integers(0, end, generator.integers(1, 8)).astype(np.uint32) for _ in range(count)])
        for end in (SOURCE_END, TARGET_END)
    ]
    return Pairs(*sides)


def test_a_batch_is_padded_with_true_lengths() -> None:
    pairs = Pairs(
        side_of([np.array([1, 2, 3], np.uint32), np.array([4], np.uint32)]),
        side_of([np.array([5], np.uint32), np.array([6, 8], np.uint32)]),
    )
    batch = make_batch(pairs, np.array([0, 1]), SOURCE_END, TARGET_END)
    assert batch.source.T.tolist() == [[1, 2, 3, 7], [4, 7, 7, 7]]
    assert batch.source_lengths.tolist() == [4, 2]
    assert batch.target.T.tolist() == [[9, 5, 9, 9], [9, 6, 8, 9]]
    assert batch.target_lengths.tolist() == [2, 3]
    assert batch.items == 5
    assert wanted(batch).tolist() == [5, 6, 9, 8, 9]


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_an_epoch_has_every_pair_once(count: int, batch_size: int, seed: int) -> None:
    pairs = random_pairs(count, seed)
    stream = pair_batches(pairs, batch_size, SOURCE_END, TARGET_END, seed)
    epoch = list(itertools.islice(stream, batches_per_epoch(count, batch_size)))
    assert [batch.cursor.position == 0 for batch in epoch] == [False] * (len(epoch) - 1) + [True]
    seen = Counter(
        (tuple(batch.source[:s, row].tolist()), tuple(batch.target[: t + 1, row].tolist()))
        for batch in epoch
        for row, (s, t) in enumerate(zip(batch.source_lengths.tolist(), batch.target_lengths.tolist(), strict=True))
    )
    expected = Counter(
        ((*pairs.source.text(n).tolist(), SOURCE_END), (TARGET_END, *pairs.target.text(n).tolist(), TARGET_END))
        for n in range(count)
    )
    assert seen == expected


def test_batches_go_on_from_any_cursor() -> None:
    pairs = random_pairs(60)
    whole = list(itertools.islice(pair_batches(pairs, 7, SOURCE_END, TARGET_END, 5), 25))
    assert not torch.equal(whole[0].target, whole[9].target), "each epoch has an order of its own"
    for number, batch in enumerate(whole[:-1]):
        following = next(pair_batches(pairs, 7, SOURCE_END, TARGET_END, 5, batch.cursor))
        assert torch.equal(following.source, whole[number + 1].source)
        assert following.cursor == whole[number + 1].cursor


def test_buckets_save_padding() -> None:
    batches = itertools.islice(pair_batches(random_pairs(500), 10, SOURCE_END, TARGET_END, 0), 50)
    shares = [batch.items / batch.target[1:].numel() for batch in batches]
    assert float(np.mean(shares)) > 0.95


# --- the loss ---


def small_model(kind: type[EncoderDecoder] = EncoderDecoder, **options: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    parts = PairParts(
        source_size=SOURCE_END + 2,
        target_size=TARGET_END + 2,
        joint=False,
        source_id=lambda token: None,
        embed=lambda size: Embedding(size, size=6, std=0.5),
        recur=lambda inputs, hidden, both: Recurrent("gru", inputs, hidden or 8, bidirectional=both),
        hidden_size=8,
        num_layers=1,
        dropout=0.0,
        tied=False,
    )
    return kind(parts, **options)


def objective(pairs: Pairs, **settings: Any) -> PairObjective:
    return PairObjective(pairs, pairs, SOURCE_END, TARGET_END, TrainingConfig(**settings), 0)


def target_logits(model: PairModel, batch: PairBatch) -> Tensor:
    return model.read_out(target_features(model, batch)[0])


def test_the_loss_is_that_of_each_pair_alone() -> None:
    pairs, model = random_pairs(9), small_model().double().eval()
    together = pair_loss(model, pairs, SOURCE_END, TARGET_END, torch.device("cpu"), "float32")
    nats = 0.0
    for row in range(9):
        batch = make_batch(pairs, np.array([row]), SOURCE_END, TARGET_END)
        logits = target_logits(model, batch)
        nats -= float(logits.detach().log_softmax(-1).gather(1, batch.target[1:]).sum())
    assert together.tokens == sum(pairs.target.lengths) + 9
    assert together.nats * together.tokens == pytest.approx(nats, rel=1e-5)


def test_each_token_counts_alike_in_an_epoch() -> None:
    pairs, model = random_pairs(90), small_model().double()
    each, whole = objective(pairs, batch_size=8), objective(pairs, batch_size=0)
    for batch in itertools.islice(each.batches(Cursor()), each.steps_per_epoch()):
        loss, _ = each.loss(model, batch, None)
        (loss / each.steps_per_epoch()).backward()
        assert loss.item() == pytest.approx(pair_nats(model, batch))
    epoch = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    whole.loss(model, next(whole.batches(Cursor())), None)[0].backward()
    assert len(epoch) > 5
    for one, other in zip(epoch, (p.grad for p in model.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_that_is_infinite_stays_so() -> None:
    loss = with_gradient_of(torch.tensor(math.inf, requires_grad=True), 2.0)
    assert loss.item() == math.inf


def pair_nats(model: PairModel, batch: PairBatch) -> float:
    return F.cross_entropy(target_logits(model, batch), wanted(batch)).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("count", "classes"), [(1, 2), (7, 13), (130, 5)])
def test_the_loss_of_a_readout_is_the_plain_one(
    count: int, classes: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and every gradient, over several pieces of the table of logits."""
    monkeypatch.setattr(readout_loss_module, "_CHUNK", 4 * classes)
    torch.manual_seed(0)
    readout = torch.nn.Linear(3, classes).double()
    features = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
    right = torch.randint(classes, (count,))
    found = []
    for loss in (
        readout_loss(readout, features, right, smoothing),
        F.cross_entropy(readout(features), right, label_smoothing=smoothing),
    ):
        gradients = torch.autograd.grad(3 * loss, (features, readout.weight, readout.bias))
        found.append((loss, *gradients))
    torch.testing.assert_close(found[0], found[1])


def test_the_loss_of_a_readout_is_taken_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    readout = torch.nn.Linear(64, 999)
    features = torch.randn(50, 64, requires_grad=True)
    right = torch.randint(999, (50,))
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        for loss in (
            readout_loss(readout, features, right, 0.1),
            F.cross_entropy(readout(features).float(), right, label_smoothing=0.1),
        ):
            found.append((loss, *torch.autograd.grad(loss, (features, readout.weight, readout.bias))))
    assert [each.dtype for each in found[0]] == [torch.float32] * 4
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=0)
    for ours, plain in zip(found[0][1:], found[1][1:], strict=True):
        assert float((ours - plain).norm() / plain.norm()) < 0.01


def test_smoothing_is_the_mixture_with_the_uniform_distribution() -> None:
    pairs, model = random_pairs(4), small_model()
    batch = make_batch(pairs, np.arange(4), SOURCE_END, TARGET_END)
    with torch.no_grad():
        plain = float(objective(pairs).loss(model, batch, None)[0])
        smoothed = float(objective(pairs, label_smoothing=0.2).loss(model, batch, None)[0])
        uniform = -float(target_logits(model, batch).log_softmax(-1).mean())
    assert smoothed == pytest.approx(0.8 * plain + 0.2 * uniform, rel=1e-5)


def test_scheduled_sampling_ends_at_teacher_forcing_and_at_the_models_own_tokens() -> None:
    pairs, model = random_pairs(5), small_model()
    batch = make_batch(pairs, np.arange(5), SOURCE_END, TARGET_END)
    torch.testing.assert_close(sampled_logits(model, batch, 0.0), target_logits(model, batch))
    torch.manual_seed(1)
    own = sampled_logits(model, batch, 1.0)
    assert not torch.allclose(own, target_logits(model, batch))
    ramp = objective(pairs, scheduled_sampling=0.5, scheduled_sampling_epochs=4)
    assert [ramp._sampling_rate(epoch) for epoch in (0, 1, 4, 9)] == [0.0, 0.125, 0.5, 0.5]


def test_the_rate_of_scheduled_sampling_is_that_of_a_batchs_own_epoch() -> None:
    ramp = objective(random_pairs(5), scheduled_sampling=0.5, scheduled_sampling_epochs=4, batch_size=2)
    rates = [ramp._sampling_rate(batch.epoch) for batch in itertools.islice(ramp.batches(Cursor()), 7)]
    assert rates == [0.0, 0.0, 0.0, 0.125, 0.125, 0.125, 0.25], "three batches an epoch"
    resumed = next(ramp.batches(Cursor(1, 2)))
    assert ramp._sampling_rate(resumed.epoch) == 0.125, "the last one of its epoch"


@pytest.mark.parametrize(
    "cell",
    [
        entry.name
        for entry in full_registry().entries("cell")
        if entry.distribution == "rnnpipe" and entry.name != "hopfield"  # the sign it takes has no gradient
    ],
)
def test_any_cell_reads_and_writes(cell: str) -> None:
    torch.manual_seed(0)
    parts = PairParts(
        9, 11, False, lambda token: None, lambda size: Embedding(size, size=8),
        lambda inputs, hidden, both: Recurrent(cell, inputs, hidden or 8, bidirectional=both), 8, 1, 0.0, False,
    )  # fmt: skip
    model = EncoderDecoder(parts)
    batch = make_batch(random_pairs(6), np.arange(6), SOURCE_END, TARGET_END)
    loss = F.cross_entropy(target_logits(model, batch), wanted(batch))
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(loss.item())
    gradient = model.source_encoder.weight.grad
    assert isinstance(gradient, Tensor) and bool(gradient.any()), "the source is read"


# --- latent variables and turns ---


def test_divergence_of_gaussians() -> None:
    torch.manual_seed(0)
    q, p = (Gaussian(torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.5) for _ in range(2))
    normals = [torch.distributions.Normal(each.mean, each.variance.sqrt()) for each in (q, p)]
    expected = torch.distributions.kl_divergence(*normals).sum()
    torch.testing.assert_close(divergence(q, p), expected)
    standard = Gaussian(torch.zeros(3, 2).double(), torch.ones(3, 2).double())
    torch.testing.assert_close(divergence(q), divergence(q, standard))


def test_annealing_counts_training_steps_and_is_saved() -> None:
    annealing = Annealing(4)
    weights = [float(annealing(torch.tensor(1.0))) for _ in range(6)]
    assert weights == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    other = Annealing(4)
    other.load_state_dict(annealing.state_dict())
    assert int(other.steps) == 6
    assert float(Annealing(0)(torch.tensor(3.0))) == 3.0


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=5))
def test_a_dialogue_is_cut_into_its_turns(turns: list[list[int]]) -> None:
    ids = [token for turn in turns for token in (*turn, 0)]
    ids[-1] = 9  # the boundary ends the last turn
    found = [turn.tolist() for turn in cut_turns(torch.tensor(ids), 0)]
    assert found == [[*turn, 0] for turn in turns[:-1]] + [[*turns[-1], 9]]


# --- outputs without a final state ---


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "lru", "qrnn"])
def test_outputs_alone_are_those_of_forward(cell: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    rnn = Recurrent(cell, 3, 5, 2, bidirectional=bidirectional).double()
    x, lengths = torch.randn(7, 4, 3, dtype=torch.float64), torch.tensor([7, 1, 4, 3])
    torch.testing.assert_close(rnn.outputs(x, lengths), rnn(x, lengths=lengths)[0])


# --- unknown words ---


class Pointing(EncoderDecoder):
    """Writes <unk> for each source token, from the last to the first, and looks at that token."""

    def begin(self, source: Tensor, lengths: Tensor) -> Any:
        return lengths - 2, torch.arange(len(source)).expand(source.shape[1], -1)

    def step(self, tokens: Tensor, state: Any) -> Any:
        at, places = state
        logits = torch.zeros(len(at), TARGET_END + 2, dtype=torch.float64)
        logits[torch.arange(len(at)), torch.where(at < 0, TARGET_END, TARGET_END + 1)] = 99.0
        # The boundary is looked at as much, and is no word.
        weights = ((places == at[:, None]) | (places == places.shape[1] - 1)).double()
        return logits, weights, (at - 1, places)


def test_unknown_tokens_are_replaced_by_the_word_looked_at() -> None:
    rules = Rules(none(), whitespace())
    named = TextRules(Named("none"), Named("whitespace"))
    source, target = (
        Lexicon(build_vocabulary({b"w%d" % n: 9 for n in range(end)}, named), rules) for end in (SOURCE_END, TARGET_END)
    )
    torch.manual_seed(0)
    translator = Translator(small_model(kind=Pointing), source, target, torch.device("cpu"))
    texts = ["w1 gnu w3", "zebra", "w2 w2 w2 emu"]
    found = [each.candidates[0] for each in translator.translate(texts, Search(width=2, replace_unknown=True))]
    assert [each.text for each in found] == ["w3 gnu w1", "zebra", "emu w2 w2 w2"]
    assert [each.replaced for each in found] == [3, 1, 4]
    kept = translator.translate(texts, Search(width=2, allow_unknown=True))
    assert [each.candidates[0].text for each in kept] == ["<unk> <unk> <unk>", "<unk>", "<unk> <unk> <unk> <unk>"]
    banned = translator.translate(texts, Search(width=2, max_length=5))
    assert not any("<unk>" in each.candidates[0].text for each in banned)
    assert [each.unknown for each in translator.translate(texts, Search())] == [("gnu",), ("zebra",), ("emu",)]


# --- the search ---

END = 3


def table_step(table: Tensor) -> Any:
    """Return a step whose logits depend on the token before alone: table [V, V]."""

    def step(tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        return table[tokens], tokens, state

    return step


def enumerated(table: Tensor, max_length: int, alpha: float) -> dict[tuple[int, ...], Hypothesis]:
    """Return every text of three tokens with its end; at the limit it has ended only if no token is likelier."""
    shares = table.double().log_softmax(-1)
    found = {}
    for length in range(max_length + 1):
        for tokens in itertools.product(range(3), repeat=length):
            before = (END, *tokens)
            total = sum(float(shares[a, b]) for a, b in itertools.pairwise(before))
            end = float(shares[before[-1], END])
            ended = length < max_length or end >= float(shares[before[-1]].max())
            score = (total + end) / (length + 1) ** alpha
            found[tokens] = Hypothesis(tokens, total + end if ended else total, score, ended, before[:-1])
    return found


def plain_beam(
    every: dict[tuple[int, ...], Hypothesis], table: Tensor, width: int, max_length: int
) -> list[Hypothesis]:
    """Return what a beam of texts keeps, one text at a time, best first."""
    shares = table.double().log_softmax(-1)
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[tuple[int, ...]] = []
    for _ in range(max_length):
        following = [(s + float(shares[t[-1] if t else END, n]), (*t, n)) for s, t in beams for n in range(4)]
        following.sort(reverse=True)
        done += [tokens[:-1] for _, tokens in following[:width] if tokens[-1] == END][: width - len(done)]
        beams = [(total, tokens) for total, tokens in following if tokens[-1] != END][:width]
        if len(done) == width:
            beams = []
            break
    found = [every[tokens] for tokens in (*done, *(tokens for _, tokens in beams))]
    return sorted(found, key=lambda each: -each.score)[:width]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 150])
@pytest.mark.parametrize("longest", [1, 2, 4])
def test_a_beam_against_all_texts(seed: int, alpha: float, width: int, longest: int) -> None:
    """Whole and cut, each text has its own score; a beam keeps what a plain one does, a wide one finds the best."""
    table = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) * 2
    every = enumerated(table, longest, alpha)
    found = beam_search(
        table_step(table), (), 1, width=width, end=END, max_length=longest, alpha=alpha, device=torch.device("cpu")
    )[0]
    # Texts of the same steps in another order score the same: their scores are compared, each text with its own.
    expected = [each.score for each in plain_beam(every, table, width, longest)]
    assert [each.score for each in found] == pytest.approx(expected)
    assert len({each.tokens for each in found}) == len(found)
    for one in found:
        other = every[one.tokens]
        assert (one.ended, one.marks) == (other.ended, other.marks)
        assert (one.score, one.log_probability) == pytest.approx((other.score, other.log_probability))
    if width == 150:
        assert found[0].tokens == max(every.values(), key=lambda each: each.score).tokens


def test_a_text_that_is_whole_at_the_limit_has_ended() -> None:
    table = torch.full((4, 4), -5.0)
    for before, after in ((END, 0), (0, 1), (1, 2), (2, END)):
        table[before, after] = 5.0
    options: dict[str, Any] = {"end": END, "device": torch.device("cpu")}
    for width in (1, 2):
        exact, roomy, cut = (
            beam_search(table_step(table), (), 1, width=width, max_length=n, **options)[0][0] for n in (3, 9, 2)
        )
        assert exact == roomy and exact.ended and exact.tokens == (0, 1, 2)
        assert not cut.ended and len(cut.tokens) <= 2


def test_what_the_limit_cuts_is_ranked_with_what_ended() -> None:
    """One hypothesis ends early and is poor; of the two that the limit cuts the less likely has the likelier end."""
    shares = {(0, 0): [0.3, 0.4, 0.3], (1, 1): [0.001, 0.9, 0.099], (1, 2): [0.001, 0.099, 0.9]}

    def step(tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, None, Any]:
        last = {1: [0.0001, 0.5, 0.4999], 2: [0.98, 0.01, 0.01], 0: [1.0, 0.0, 0.0]}
        rows = [shares.get((int(n), t), last[t]) for n, t in zip(state[0], tokens.tolist(), strict=True)]
        return torch.tensor(rows).log(), None, (state[0] + 1,)

    found = beam_search(
        step, (torch.zeros(1, dtype=torch.int64),), 1, width=2, end=0, max_length=2, device=torch.device("cpu")
    )[0]
    assert found[0].tokens == (2, 2)
    assert len(found) == 2 and found[0].score > found[1].score


def test_width_one_is_greedy_and_the_limit_cuts() -> None:
    table = torch.full((4, 4), -5.0)
    for before, after in ((END, 0), (0, 1), (1, 2), (2, END)):
        table[before, after] = 5.0
    options: dict[str, Any] = {"width": 1, "end": END, "device": torch.device("cpu")}
    whole = beam_search(table_step(table), (), 2, max_length=9, **options)
    assert [[each.tokens for each in row] for row in whole] == [[(0, 1, 2)], [(0, 1, 2)]]
    assert whole[0][0].ended and whole[0][0].marks == (END, 0, 1)
    cut = beam_search(table_step(table), (), 1, max_length=2, **options)[0][0]
    assert cut.tokens == (0, 1) and not cut.ended
    assert beam_search(table_step(table), (), 1, max_length=9, banned=[1], **options)[0][0].tokens != (0, 1, 2)


@given(st.lists(st.integers(1, 20_000), max_size=40), st.integers(1, 8))
def test_batches_of_long_texts_are_small(lengths: list[int], batch_size: int) -> None:
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batches = cut_batches(order, lengths, batch_size)
    assert list(itertools.chain.from_iterable(batches)) == order
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 8192


def test_rows_do_not_depend_on_their_neighbours() -> None:
    tables = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(3))

    def step(tokens: Tensor, state: Any) -> tuple[Tensor, None, Any]:
        (row,) = state
        return tables[row, tokens], None, state

    options: dict[str, Any] = {"width": 3, "end": END, "max_length": 8, "device": torch.device("cpu")}
    together = beam_search(step, (torch.arange(6),), 6, **options)
    alone = [beam_search(step, (torch.tensor([row]),), 1, **options)[0] for row in range(6)]
    assert together == alone


def test_rows_of_nested_states() -> None:
    state = (torch.arange(3), (torch.arange(3) * 10, (torch.arange(6).view(3, 2),)))
    taken = take_rows(state, torch.tensor([2, 2, 0]))
    assert taken[0].tolist() == [2, 2, 0]
    assert taken[1][0].tolist() == [20, 20, 0]
    assert taken[1][1][0].tolist() == [[4, 5], [4, 5], [0, 1]]
