"""The models of pairs: the bound of variational ones, and the Transformer's attention step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.config import TrainingConfig
from rnnpipe.data.pairs import Pairs, make_batch, side_of
from rnnpipe.generation.translate import Lexicon, Search, Translator
from rnnpipe.models.autoencoder import Autoencoder, VariationalAutoencoder
from rnnpipe.models.encoder_decoder import EncoderDecoder
from rnnpipe.models.encoders import Embedding
from rnnpipe.models.hierarchical import HRED, VHRED
from rnnpipe.models.latent import divergence
from rnnpipe.models.pair_model import PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.models.transformer import Transformer
from rnnpipe.text.cleaning import none
from rnnpipe.text.rules import Named, Rules, TextRules
from rnnpipe.text.tokenizing import whitespace
from rnnpipe.text.vocabulary import build_vocabulary
from rnnpipe.training.pair_objective import PairLoss, PairObjective, pair_loss, target_features, wanted

END = 9  # of both sides
CPU = torch.device("cpu")


def parts(**changes: Any) -> PairParts:
    sizes: dict[str, Any] = {
        "source_size": END + 2,
        "target_size": END + 2,
        "joint": False,
        "source_id": lambda token: 0,
        "embed": lambda size: Embedding(size, size=6, std=0.5),
        "recur": lambda inputs, hidden, both: Recurrent("gru", inputs, hidden or 16, bidirectional=both),
        "hidden_size": 16,
        "num_layers": 1,
        "dropout": 0.0,
        "tied": False,
        **changes,
    }
    return PairParts(**sizes)


def pairs_of(*texts: list[int]) -> Pairs:
    sides = [side_of([np.array(text, np.uint32) for text in texts]) for _ in range(2)]
    return Pairs(*sides)


def loss_of(model: PairModel, pairs: Pairs) -> PairLoss:
    return pair_loss(model, pairs, END, END, CPU, "float32")


# --- the bound of variational models ---


TEXTS = ([1, 2, 3], [4], [7, 7, 0, 5, 2])


@pytest.fixture(scope="module")
def learnt() -> VariationalAutoencoder:
    """Return a model in float64 whose code, one number, has learnt to tell the texts apart, whatever that costs."""
    torch.manual_seed(0)
    model = VariationalAutoencoder(parts(), code_size=1).double()
    batch = make_batch(pairs_of(*TEXTS), np.arange(len(TEXTS)), END, END)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        features, _ = target_features(model, batch)
        F.cross_entropy(model.read_out(features), wanted(batch)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@torch.no_grad()
def exact_nats(model: VariationalAutoencoder, text: list[int]) -> float:
    """Return -log of the integral of p(z) p(text | z) over z."""
    z = torch.linspace(-9, 9, 1201, dtype=torch.float64)[:, None]
    batch = make_batch(pairs_of(text), np.array([0]), END, END)
    features, _ = model._read(batch.target[:-1].expand(-1, len(z)), z, None)
    shares = model.read_out(features).log_softmax(-1)
    given = shares.gather(-1, batch.target[1:].expand(-1, len(z))[..., None]).sum((0, 2))
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
    return -float((given + prior + torch.log(z[1, 0] - z[0, 0])).logsumexp(0))


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_the_loss_of_a_variational_model_is_no_less_than_that_of_the_text(
    learnt: VariationalAutoencoder, text: list[int]
) -> None:
    """Against the integral over a latent variable of one number; the loss at its mean alone would be less."""
    model, exact = learnt, exact_nats(learnt, text)
    found = loss_of(model, pairs_of(*[text] * 512))
    tokens = len(text) + 1
    assert found.nats * tokens > exact
    batch = make_batch(pairs_of(text), np.array([0]), END, END)
    with torch.no_grad():
        features, _ = target_features(model, batch)
        at_the_mean = float(F.cross_entropy(model.read_out(features), wanted(batch), reduction="sum"))
        assert at_the_mean < exact
        cost = float(divergence(model.code(model.summarise(batch.source, batch.source_lengths))))
    assert found.divergence == pytest.approx(cost / tokens)
    assert found.reconstruction + cost / tokens == pytest.approx(found.nats)


@pytest.mark.parametrize(("kind", "options"), [(VariationalAutoencoder, {"code_size": 3}), (VHRED, {"latent_size": 3})])
def test_evaluation_takes_the_whole_divergence_and_leaves_training_as_it_was(kind: Any, options: Any) -> None:
    """However far annealing is; and it is the loss by which the best checkpoint is chosen."""
    torch.manual_seed(3)
    model = kind(parts(), **options, anneal_steps=1000).double().train()
    pairs = pairs_of([1, 2, 3], [4], [5, 6])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = loss_of(model, pairs)
    assert torch.equal(torch.get_rng_state(), before)
    assert int(model.annealing.steps) == 0 and model.training
    torch.manual_seed(6)
    model.annealing.steps += 700
    assert loss_of(model, pairs) == first, "what is drawn is the same each time"
    assert first.divergence is not None and first.divergence > 0.01
    evaluated = PairObjective(pairs, pairs, END, END, TrainingConfig(), 0).evaluate(model, CPU, "float32")
    assert evaluated is not None and evaluated.loss == first.nats


# --- the Transformer ---


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_attention_of_a_step_is_that_of_torchs_module(layers: int, norm_first: bool) -> None:
    """The last layer's mean over heads, as `need_weights` gives it; the logits are those of the target read at once."""
    torch.manual_seed(0)
    model = Transformer(parts(num_layers=layers), heads=4, norm_first=norm_first).double().eval()
    source, lengths = torch.randint(END, (5, 3)), torch.tensor([5, 1, 3])
    target = torch.randint(END, (7, 3))
    found: list[Tensor] = []
    last = model._layers()[-1].multihead_attn
    last.register_forward_pre_hook(
        lambda module, given, named: (given, {**named, "need_weights": True}), with_kwargs=True
    )
    last.register_forward_hook(lambda module, given, results: found.append(results[1]))
    with torch.no_grad():
        whole = model.read_out(model(source, lengths, target)[0])
        state = model.begin(source, lengths)
        for place, tokens in enumerate(target):
            logits, weights, state = model.step(tokens, state)
            torch.testing.assert_close(logits, whole[place])
            torch.testing.assert_close(weights, found[0][:, place])
    assert model.attends
    assert torch.equal(weights[1], torch.tensor([1.0, 0, 0, 0, 0]).double()), "one token, the rest is padding"


def test_a_transformer_translates_alike_in_batches_of_any_size() -> None:
    """Keys and values that are kept follow their beams, and rows do not see each other's."""
    named, rules = TextRules(Named("none"), Named("whitespace")), Rules(none(), whitespace())
    side = Lexicon(build_vocabulary({b"w%d" % n: 9 for n in range(END)}, named), rules)
    torch.manual_seed(1)
    model = Transformer(parts(num_layers=2), heads=2)
    torch.nn.init.normal_(model.readout.weight, std=1.0)
    torch.nn.init.constant_(model.readout.bias[side.vocabulary.doc_id], -4.0)  # so that it writes more than a word
    translator = Translator(model, side, side, CPU)
    texts = [" ".join(f"w{word}" for word in torch.randint(END, (1 + n % 5,)).tolist()) for n in range(9)]
    found = [
        [
            [(each.tokens, round(each.log_probability, 9), each.finish) for each in translation.candidates]
            for translation in translator.translate(texts, Search(width=3, max_length=9, n_best=3), size)
        ]
        for size in (1, 4, 64)
    ]
    assert found[0] == found[1] == found[2]
    for text, candidates in zip(texts, found[0], strict=True):
        source, ids = (
            torch.tensor([*side.vocabulary.encode(tokens).tolist(), side.vocabulary.doc_id])
            for tokens in (text.split(), candidates[-1][0])
        )
        with torch.no_grad():
            features, _ = model(source[:, None], torch.tensor([len(source)]), torch.cat((ids[-1:], ids[:-1]))[:, None])
            shares = model.read_out(features)[:, 0].log_softmax(-1).gather(1, ids[:, None])
        whole = len(ids) if candidates[-1][2] == "end" else -1
        assert candidates[-1][1] == pytest.approx(float(shares[:whole].sum())), "that of the worst of the beams"


def test_scheduled_sampling_drops_within_the_step_too() -> None:
    torch.manual_seed(0)
    model = Transformer(parts(dropout=0.5), heads=2).double()
    source, lengths = torch.randint(END, (5, 3)), torch.tensor([5, 1, 3])

    def logits() -> Tensor:
        state = model.begin(source, lengths)
        found = []
        for _ in range(2):
            after, _, state = model.step(torch.zeros(3, dtype=torch.int64), state)
            found.append(after)
        return torch.stack(found)

    assert not torch.equal(logits(), logits())
    logits().sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- learning ---

LEARNERS: list[tuple[Any, dict[str, Any]]] = [
    (EncoderDecoder, {"attention": "none"}),
    (EncoderDecoder, {"attention": "general"}),
    (EncoderDecoder, {"attention": "additive", "input_feeding": True}),
    (Transformer, {"heads": 2}),
    (HRED, {}),
    (VHRED, {"latent_size": 2, "anneal_steps": 50}),
    (Autoencoder, {"code_size": 4}),
    (VariationalAutoencoder, {"code_size": 4, "anneal_steps": 2000}),
]


@pytest.mark.parametrize(("kind", "options"), LEARNERS, ids=lambda value: getattr(value, "__name__", None) or "")
def test_every_model_learns_what_each_source_becomes(kind: Any, options: dict[str, Any]) -> None:
    """Six pairs, whose targets differ: whoever knows nothing of the source has log 6 nats a pair at the least."""
    texts = [[n, 0, n] for n in range(1, 7)]
    targets = texts if issubclass(kind, Autoencoder) else texts[2:] + texts[:2]
    pairs = Pairs(*(side_of([np.array(text, np.uint32) for text in side]) for side in (texts, targets)))
    torch.manual_seed(0)
    model = kind(parts(embed=lambda size: Embedding(size, size=8, std=1.0)), **options)
    batch = make_batch(pairs, np.arange(6), END, END)
    objective = PairObjective(pairs, None, END, END, TrainingConfig(), 0)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(80):
        optimizer.zero_grad()
        objective.loss(model, batch, None)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = loss_of(model, pairs)
    chance = math.log(6) / 4  # a token, the end of a target one of them
    if kind is VariationalAutoencoder:  # its latent variable alone tells of the source, and costs what it tells
        assert found.nats > chance
        assert found.reconstruction < chance / 2
    else:
        assert found.nats < chance / 2
