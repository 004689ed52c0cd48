"""The checks of a model of pairs: every form of the built-in ones passes, and each check catches a wrong one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnpipe.models.encoder_decoder import EncoderDecoder
from rnnpipe.models.pair_model import DecoderState, PairParts
from rnnpipe.testing import check_model, checks_for, findings

FORMS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("encoder-decoder", {"attention": attention, "input_feeding": feeding, "bidirectional": bidirectional})
        for attention, feeding, bidirectional in itertools.product(
            ("none", "dot", "general", "additive"), (False, True), (False, True)
        )
    ),
    ("transformer", {"heads": 2}),
    ("autoencoder", {"code_size": 5, "word_dropout": 0.3}),
    ("variational-autoencoder", {"code_size": 5}),
    ("hred", {}),
    ("vhred", {"latent_size": 3}),
    ("transformer", {"heads": 4, "norm_first": False, "feedforward": 5}),
]


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_every_form_passes(name: str, options: dict[str, Any]) -> None:
    check_model(name, **options)


class Untied(EncoderDecoder):
    """A readout of its own whatever is asked for."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(parts)
        self.readout = nn.Linear(self.embedding_size, parts.target_size)


class TooWide(EncoderDecoder):
    """A logit too many."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(parts)
        if not parts.tied:
            self.readout = nn.Linear(self.embedding_size, parts.target_size + 1)


class StandsStill(EncoderDecoder):
    """A step that goes on from the state that it was given."""

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None, DecoderState]:
        logits, weights, _ = super().step(tokens, state)
        return logits, weights, state


class ReadsPadding(EncoderDecoder):
    """The padding of a source counts as its tokens, in `forward` and in `step`."""

    attends = False

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, None]:
        return super().forward(source, torch.full_like(lengths, len(source)), target)

    def begin(self, source: Tensor, lengths: Tensor) -> DecoderState:
        return super().begin(source, torch.full_like(lengths, len(source)))

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, None, DecoderState]:
        logits, _, following = super().step(tokens, state)
        return logits, None, following


class Boundless(EncoderDecoder):
    """Variational by its word alone."""

    variational = True


class Unfilled(EncoderDecoder):
    """A parameter that keeps what memory held, yet takes no part."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(parts)
        self.more = nn.Parameter(torch.empty(3))

    def embed_target(self, ids: Tensor) -> Tensor:
        return super().embed_target(ids) + 0 * self.more.nan_to_num().sum()


class ReadsOut(EncoderDecoder):
    """Logits that the loss of training would not see."""

    def read_out(self, features: Tensor) -> Tensor:
        return 2 * super().read_out(features)


class NeverDrops(EncoderDecoder):
    """No dropout anywhere."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(PairParts(**{**vars(parts), "dropout": 0.0}))


class Idle(EncoderDecoder):
    """A parameter that nothing reads."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(parts)
        self.idle = nn.Linear(2, 2)


class Scaled(EncoderDecoder):
    """Features scaled by a number that its checkpoint does not have."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(parts)
        self.scale = float(torch.rand(()) + 0.5)

    def _attend(self, *given: Tensor) -> tuple[Tensor, Tensor | None]:
        features, weights = super()._attend(*given)
        return features * self.scale, weights


WRONG: dict[str, Any] = {
    "contract": Untied,
    "shapes": TooWide,
    "step by step": StandsStill,
    "padding": ReadsPadding,
    "bound": Boundless,
    "determinism": Unfilled,
    "dropout": NeverDrops,
    "gradients": Idle,
    "save and load": Scaled,
}
# What else cannot be right where that is wrong.
ALSO = {"shapes": {"step by step"}, "determinism": {"gradients", "save and load"}}


def test_the_readout_is_left_as_it_is() -> None:
    (found, *_) = findings(checks_for("model", ReadsOut, {}))
    assert (found.check, found.outcome) == ("contract", "failed")
    assert "training relies on it" in str(found)


def test_there_is_a_wrong_one_for_every_check() -> None:
    assert set(WRONG) == {check.name for check in checks_for("model", EncoderDecoder, {})}


@pytest.mark.parametrize("check", WRONG)
def test_a_wrong_one_is_caught(check: str) -> None:
    found = {finding.check: finding for finding in findings(checks_for("model", WRONG[check], {}))}
    failed = {name for name, finding in found.items() if finding.outcome == "failed"}
    assert check in failed, found[check]
    assert failed <= {check} | ALSO.get(check, set())
