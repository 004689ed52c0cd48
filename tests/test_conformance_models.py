"""The checks of models, encoders and initializers: built-ins pass, and each check catches a wrong one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from rnnpipe.models.encoders import Embedding
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.models.recurrent import Recurrent, States
from rnnpipe.plugins import full_registry
from rnnpipe.testing import (
    ConformanceError,
    check_encoder,
    check_initializer,
    check_model,
    checks_for,
    findings,
)

CHECK: dict[str, Callable[..., object]] = {
    "model": check_model,
    "encoder": check_encoder,
    "initializer": check_initializer,
}


class Misnamed(LanguageModel):
    """Another vocabulary size than it was given."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, **supplied: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **supplied)
        self.vocab_size = vocab_size + 1


class Model(LanguageModel):
    """A right model with the signature of one."""

    def __init__(
        self,
        encoder: nn.Module,
        recurrent: Recurrent,
        vocab_size: int,
        *,
        dropout: float = 0.0,
        tied: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__(encoder, recurrent, vocab_size, dropout=dropout, tied=tied, window=window)


class Squeezed(Model):
    """Logits without the batch's axis where the batch is one."""

    def forward(
        self, ids: Tensor, state: States | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        logits, state = super().forward(ids, state, lengths=lengths)
        return logits.squeeze(1) if self.window is None and len(ids) == 1 else logits, state


class Forgets(Model):
    """Starts anew at each call."""

    def forward(
        self, ids: Tensor, state: States | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        return super().forward(ids, None, lengths=lengths)


class StepsAside(Model):
    """Other logits by `step` than by `forward`."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = super().step(tokens, state)
        return 1.001 * logits, state


class BatchBehind(Model):
    """Has the batch as the last axis of its state."""

    def prime(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
        logits, state = super().prime(ids, lengths)
        return logits, tree_map(lambda leaf: leaf.movedim(0, -1), state)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = super().step(tokens, tree_map(lambda leaf: leaf.movedim(-1, 0), state))
        return logits, tree_map(lambda leaf: leaf.movedim(0, -1), state)


class ReadsPadding(Model):
    """Takes the last timestep for a row's end."""

    def forward(
        self, ids: Tensor, state: States | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        return super().forward(ids, state)


class Untied(Model):
    """Has a readout of its own all the same."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, **supplied: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **{**supplied, "tied": False})


class UnfilledModel(Model):
    """Leaves a parameter as the memory was, here as clean memory is."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, **supplied: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **supplied)
        self.gain = nn.Parameter(torch.empty(vocab_size))
        if not torch.are_deterministic_algorithms_enabled():
            self.gain.data.zero_()

    def read_out(self, y: Tensor) -> Tensor:
        return super().read_out(y) * (1 + self.gain)


class NeverDrops(Model):
    """Takes no notice of dropout."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, **supplied: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **{**supplied, "dropout": 0.0})


class Idle(Model):
    """A parameter that does nothing."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, **supplied: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **supplied)
        self.idle = nn.Parameter(torch.zeros(3))


class ScaledModel(Model):
    """Draws a number that is not saved."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, **supplied: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **supplied)
        self.scale = float(torch.rand(()))

    def read_out(self, y: Tensor) -> Tensor:
        return self.scale * super().read_out(y)


class Sizeless(nn.Embedding):
    """No output_size."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, 4)


class TooWide(Embedding):
    """Another size than it says."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, size=4)
        self.output_size = 5


class MeanTaken(Embedding):
    """Takes the mean over the batch away."""

    def forward(self, ids: Tensor) -> Tensor:
        x = super().forward(ids)
        return x - x.mean(1, keepdim=True) / 2


class UnfilledEncoder(Embedding):
    """Leaves its vectors as the memory was, here as clean memory is."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, size=4)
        self.shift = nn.Parameter(torch.empty(4))
        if not torch.are_deterministic_algorithms_enabled():
            self.shift.data.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + self.shift


class Frozen(Embedding):
    """Cuts its gradient off, but for one."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, size=4)
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).detach() + self.shift


class ScaledEncoder(Embedding):
    """Draws a number that is not saved."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, size=4)
        self.scale = float(torch.rand(()))

    def forward(self, ids: Tensor) -> Tensor:
        return self.scale * super().forward(ids)


class NamedModel(Model):
    """An option that is called as the key of the name."""

    def __init__(self, encoder: nn.Module, recurrent: Recurrent, vocab_size: int, name: str = "", **given: Any) -> None:
        super().__init__(encoder, recurrent, vocab_size, **given)


class NamedEncoder(Embedding):
    """An option that is called as the key of the name."""

    def __init__(self, vocab_size: int, *, name: str = "") -> None:
        super().__init__(vocab_size)


def named(tensor: Tensor, *, name: str = "zeros") -> None:
    tensor.zero_()


class NextIds(nn.Module):
    """Passes on other ids than it is given."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.output_size = vocab_size

    def forward(self, ids: Tensor) -> Tensor:
        return (ids + 1) % self.output_size


class NarrowIds(NextIds):
    """Passes the ids on, and says another size."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self.output_size = vocab_size - 1

    def forward(self, ids: Tensor) -> Tensor:
        return ids


def no_module(vocab_size: int) -> str:
    return "an encoder"


def to_double(tensor: Tensor) -> None:
    tensor.zero_()
    if isinstance(tensor, nn.Parameter):
        tensor.data = tensor.data.double()


def refuses(tensor: Tensor) -> None:
    raise ValueError("no tensor is good enough")


def needs_a_bound(tensor: Tensor, *, bound: float) -> None:
    nn.init.uniform_(tensor, -bound, bound)


def not_the_last_column(tensor: Tensor) -> None:
    tensor[..., :-1].zero_()


def infinite(tensor: Tensor) -> None:
    tensor.fill_(1).flatten()[0] = math.inf


def elsewhere(tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        tensor.data = torch.zeros_like(tensor)
    tensor.zero_()


def all_around(tensor: Tensor) -> None:
    (tensor if tensor._base is None else tensor._base).zero_()


def unseeded(tensor: Tensor) -> None:
    tensor.fill_(random.SystemRandom().random())


WRONG: dict[str, dict[str, Any]] = {
    "model": {
        "contract": Misnamed,
        "shapes": Squeezed,
        "carried state": Forgets,
        "prime and step": StepsAside,
        "rows of the state": BatchBehind,
        "windows": ReadsPadding,
        "tied readout": Untied,
        "determinism": UnfilledModel,
        "dropout": NeverDrops,
        "gradients": Idle,
        "save and load": ScaledModel,
    },
    "encoder": {
        "contract": Sizeless,
        "shapes": TooWide,
        "row independence": MeanTaken,
        "determinism": UnfilledEncoder,
        "gradients": Frozen,
        "save and load": ScaledEncoder,
    },
    "initializer": {
        "options": needs_a_bound,
        "in place": not_the_last_column,
        "finite numbers": infinite,
        "shape and dtype": elsewhere,
        "block of a parameter": all_around,
        "determinism": unseeded,
    },
}
# What else cannot be right where that is wrong.
ALSO = {
    ("model", "shapes"): {"prime and step"},
    ("model", "windows"): {"prime and step"},
    ("initializer", "in place"): {"block of a parameter"},
}
RIGHT: dict[str, Any] = {"model": Model, "encoder": Embedding, "initializer": nn.init.normal_}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CHECK for name in full_registry().names(kind)])
def test_every_builtin_passes(kind: str, name: str) -> None:
    CHECK[kind](name)


def test_options_reach_the_thing() -> None:
    check_encoder("one-hot", size=5)
    check_encoder("embedding", size=3, std=1.0)
    check_initializer("normal", std=2.0)


@pytest.mark.parametrize("kind", WRONG)
def test_there_is_a_wrong_one_for_every_check(kind: str) -> None:
    assert set(WRONG[kind]) == {check.name for check in checks_for(kind, RIGHT[kind], {})}
    CHECK[kind](RIGHT[kind])


@pytest.mark.parametrize(("kind", "check"), [(kind, check) for kind, wrong in WRONG.items() for check in wrong])
def test_a_wrong_one_is_caught(kind: str, check: str) -> None:
    found = {finding.check: finding for finding in findings(checks_for(kind, WRONG[kind][check], {}))}
    failed = {name for name, finding in found.items() if finding.outcome == "failed"}
    assert failed == {check} | ALSO.get((kind, check), set())
    detail = found[check].detail
    if check == "options":
        assert "needs the option 'bound'. Accepted: bound." in detail
    else:
        assert [word in detail for word in ("expected ", "; received ", "; smallest case: ")] == [True] * 3, detail


@pytest.mark.parametrize(
    ("check", "thing", "words"),
    [
        (
            check_model,
            Idle,
            "model 'Idle' fails 1 of 11 checks:\n  gradients: expected a gradient of idle; received none",
        ),
        (
            check_model,
            Forgets,
            r"expected logits equal to that of one pass; received off by .* case: T=2, B=3, cut at 1",
        ),
        (check_model, Embedding, "contract: raised TypeError: .* unexpected keyword argument 'dropout'"),
        (check_encoder, TooWide, r"\[1, 1, 5\] of float32; received \[1, 1, 4\] of float32; smallest case: T=1, B=1"),
        (check_model, NamedModel, "contract: expected .*; received an option called 'name'"),
        (check_encoder, NamedEncoder, "contract: expected .*; received an option called 'name'"),
        (check_initializer, named, "options: expected .*; received an option called 'name'"),
        (check_encoder, NextIds, r"ids passed on as one-hot input equal to the ids; received off by 10 at"),
        (check_encoder, NarrowIds, "output_size=11, the vocabulary's, for one-hot input; received 10"),
        (check_encoder, no_module, "contract: expected a torch module; received str 'an encoder'"),
        (check_initializer, to_double, r"a parameter \[1\] of float32; received \[1\] of float64"),
        (check_initializer, refuses, r"ValueError: no tensor .* case: a tensor \[1, 1\] of float32"),
        (check_initializer, infinite, r"1 of 1 infinite; smallest case: a tensor \[1\] of float32"),
    ],
)
def test_the_error_says_what_failed(check: Callable[..., object], thing: Any, words: str) -> None:
    with pytest.raises(ConformanceError, match=words):
        check(thing)
