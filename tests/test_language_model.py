"""The language model: generation step by step against the whole sequence, windows, tying, initializers, losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnpipe.config import apply_settings, config_from_table
from rnnpipe.errors import UsageError
from rnnpipe.models.encoders import Embedding, OneHot
from rnnpipe.models.initializers import initialize, orthogonal, parameter_kinds
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.pipeline.build import build_model, build_optimizer
from rnnpipe.plugins import full_registry
from rnnpipe.text.rules import Named
from rnnpipe.training.evaluate import loss_carried, loss_in_windows

CPU = torch.device("cpu")
V = 11


def language_model(cell: str = "lstm", *, window: int | None = None, bidirectional: bool = False) -> LanguageModel:
    torch.manual_seed(0)
    recurrent = Recurrent(cell, 6, 8, 2, bidirectional=bidirectional)
    return LanguageModel(Embedding(V, size=6), recurrent, V, window=window).double().eval()


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_prime_and_step_equal_the_whole_sequence(cell: str) -> None:
    model = language_model(cell)
    ids = torch.randint(V, (9, 3))
    whole, _ = model(ids)
    lengths = torch.tensor([4, 2, 3])
    logits, state = model.prime(ids[:4], lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(logits[row], whole[length - 1, row])
    for step in range(5):
        tokens = ids[lengths + step, torch.arange(3)]
        logits, state = model.step(tokens, state)
        expected = whole[lengths + step, torch.arange(3)]
        torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_window_model_sees_the_last_tokens_only(bidirectional: bool) -> None:
    model = language_model(window=3, bidirectional=bidirectional)
    ids = torch.randint(V, (7, 2))
    logits, state = model.prime(ids[:5], torch.tensor([5, 2]))
    torch.testing.assert_close(logits[0], model(ids[2:5, :1])[0][0])
    torch.testing.assert_close(logits[1], model(ids[:2, 1:])[0][0])
    logits, state = model.step(ids[5], state)
    torch.testing.assert_close(logits[0], model(ids[3:6, :1])[0][0])
    second_row = torch.cat((ids[:2, 1], ids[5:6, 1]))[:, None]
    torch.testing.assert_close(logits[1], model(second_row)[0][0])
    logits, _ = model.step(ids[6], state)
    torch.testing.assert_close(logits[1], model(torch.cat((second_row[1:], ids[6:7, 1:])))[0][0])


def test_bidirectional_window_reads_both_ends() -> None:
    """The prediction uses each direction's last state, so the first token matters as much as the last."""
    model = language_model(window=3, bidirectional=True)
    ids = torch.tensor([[1], [2], [3]])
    for position in range(3):
        changed = ids.clone()
        changed[position] = 7
        assert not torch.allclose(model(ids)[0], model(changed)[0])


def test_bidirectional_needs_a_window() -> None:
    with pytest.raises(UsageError, match="sees the token it must predict"):
        language_model(bidirectional=True)


def test_tied_readout_shares_the_embedding() -> None:
    encoder = Embedding(V, size=8)
    model = LanguageModel(encoder, Recurrent("gru", 8, 8), V, tied=True)
    assert model.readout.weight is encoder.weight
    assert model.projection is None
    assert sum(p is encoder.weight for p in model.parameters()) == 1
    projected = LanguageModel(Embedding(V, size=4), Recurrent("gru", 4, 8), V, tied=True)
    assert projected.projection is not None
    assert projected(torch.zeros(2, 3, dtype=torch.int64))[0].shape == (2, 3, V)
    with pytest.raises(UsageError, match="encoder 'embedding'"):
        LanguageModel(OneHot(V), Recurrent("gru", V, 8), V, tied=True)


def test_dropout_is_inactive_in_evaluation() -> None:
    model = LanguageModel(Embedding(V, size=8), Recurrent("lstm", 8, 8), V, dropout=0.5)
    ids = torch.randint(V, (5, 2))
    assert not torch.equal(model(ids)[0], model(ids)[0])
    model.eval()
    assert torch.equal(model(ids)[0], model(ids)[0])


def explicit_loss(model: LanguageModel, text: np.ndarray, window: int) -> float:
    """Return the loss in windows, by hand: one window at a time, from a zero state."""
    total = 0.0
    for first in range(0, len(text) - 1, window):
        piece = torch.from_numpy(text[first : first + window + 1].astype(np.int64))[:, None]
        logits, _ = model(piece[:-1])
        total += F.cross_entropy(logits[:, 0], piece[1:, 0], reduction="sum").item()
    return total / (len(text) - 1)


@pytest.mark.parametrize(("length", "window"), [(2, 5), (6, 5), (101, 10), (100, 7), (3000, 64)])
def test_loss_in_windows_and_carried(length: int, window: int) -> None:
    model = language_model()
    text = np.random.default_rng(0).integers(V, size=length).astype(np.uint8)
    loss = loss_in_windows(model, text, window, CPU, "float32")
    assert loss.tokens == length - 1
    assert loss.nats == pytest.approx(explicit_loss(model, text, window), rel=1e-6)
    assert loss.perplexity == pytest.approx(math.exp(loss.nats))
    assert loss.bits == pytest.approx(loss.nats / math.log(2))
    assert loss_carried(model, text, CPU, "float32").nats == pytest.approx(explicit_loss(model, text, length), rel=1e-6)


def test_loss_of_a_window_model() -> None:
    model = language_model(window=3)
    text = np.random.default_rng(0).integers(V, size=20).astype(np.uint8)
    total = 0.0
    for position in range(1, 20):
        ids = torch.from_numpy(text[max(0, position - 3) : position].astype(np.int64))[:, None]
        total += F.cross_entropy(model(ids)[0], torch.tensor([int(text[position])])).item()
    for loss in (loss_in_windows(model, text, 9, CPU, "float32"), loss_carried(model, text, CPU, "float32")):
        assert loss.tokens == 19
        assert loss.nats == pytest.approx(total / 19, rel=1e-6)


def test_evaluation_leaves_the_mode_alone() -> None:
    model = language_model().train()
    loss_carried(model, np.zeros(5, np.uint8), CPU, "float32")
    assert model.training


@pytest.mark.parametrize("name", full_registry().names("initializer"))
def test_initializers_fill_their_kind_only(name: str) -> None:
    base = config_from_table({"model": {"hidden_size": 6, "encoder": {"name": "embedding", "size": 6}}}, "test")
    torch.manual_seed(0)
    plain = dict(build_model(base, V).named_parameters())
    torch.manual_seed(0)
    other = dict(build_model(apply_settings(base, [f"model.initializers.recurrent={name}"]), V).named_parameters())
    for parameter, value in plain.items():
        same = torch.equal(value, other[parameter])
        assert same != ("recurrent" in parameter_kinds(parameter)), parameter


def test_initializer_values() -> None:
    config = config_from_table(
        {
            "model": {
                "hidden_size": 50,
                "encoder": {"name": "embedding", "size": 40},
                "initializers": {
                    "bias": {"name": "constant", "value": 1.0},
                    "input": {"name": "truncated-normal", "std": 0.1},
                    "embedding": {"name": "uniform", "bound": 0.3},
                    "readout": {"name": "normal", "std": 0.5},
                },
            }
        },
        "test",
    )
    model = build_model(config, 1000)
    by_kind: dict[str | None, list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        by_kind.setdefault(parameter_kinds(name)[-1], []).append(parameter.detach())
    assert all(bool((bias == 1).all()) for bias in by_kind["bias"])
    (weight_ih,) = by_kind["input"]
    assert weight_ih.abs().max() <= 0.2
    assert weight_ih.std() == pytest.approx(0.088, abs=0.004)  # a normal of 0.1 cut at two deviations
    (embedding,) = by_kind["embedding"]
    assert 0.29 < embedding.abs().max() <= 0.3
    (readout,) = by_kind["readout"]
    assert readout.std() == pytest.approx(0.5, rel=0.03)
    with pytest.raises(UsageError, match="Did you mean 'recurrent'"):
        build_model(apply_settings(config, ["model.initializers.recurent=normal"]), V)


def test_recurrent_matrix_is_orthogonal_gate_by_gate() -> None:
    model = language_model()
    initialize(model, {"recurrent": orthogonal})
    for cell in model.recurrent.cells():
        for gate in cell.weight_hh.chunk(4):
            torch.testing.assert_close(gate @ gate.T, torch.eye(8, dtype=gate.dtype))


@pytest.mark.parametrize("name", [n for n in full_registry().names("optimizer") if n != "sparseadam"])
def test_every_optimizer_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = LanguageModel(Embedding(V, size=6), Recurrent("gru", 6, 8), V)
    optimizer = build_optimizer(Named(name), model)
    ids = torch.arange(22).view(11, 2) % V

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids[:-1])[0].flatten(0, 1), ids[1:].flatten())
        loss.backward()
        return float(loss.detach())

    first = closure()
    for _ in range(20):
        optimizer.step(closure)
    assert closure() < first


def test_every_optimizer_of_torch_has_a_name() -> None:
    classes = {name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)}
    own = {"momentum", "nesterov", "rmsprop-keras", "rmsprop-tensorflow"}
    assert {name.lower() for name in classes - {"Optimizer"}} | own == set(full_registry().names("optimizer"))


def test_optimizer_errors() -> None:
    model = language_model()
    with pytest.raises(UsageError, match="sparse gradients only"):
        build_optimizer(Named("sparseadam"), model)
    with pytest.raises(UsageError, match="Did you mean 'adam'"):
        build_optimizer(Named("adamv"), model)
    with pytest.raises(UsageError, match="Did you mean 'weight_decay'"):
        build_optimizer(Named("adamw", {"weight_decai": 0.1}), model)
    with pytest.raises(UsageError, match="takes"):
        build_optimizer(Named("adamw", {"lr": "fast"}), model)
    with pytest.raises(UsageError, match="Invalid learning rate"):
        build_optimizer(Named("adamw", {"lr": -1.0}), model)


def test_muon_shares_out_matrices_and_vectors() -> None:
    model = nn.Linear(3, 4)
    optimizer = full_registry().build("optimizer", "muon", {}, model.parameters())
    assert sorted(len(group["params"]) for group in optimizer.param_groups) == [1, 1]
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    again = full_registry().build("optimizer", "muon", {}, model.parameters())
    again.load_state_dict(saved)
    assert str(again.state_dict()) == str(saved)
