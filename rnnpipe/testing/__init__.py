"""The conformance kit: what `rnnpipe plugins check` runs, for plugin authors to call in their own tests.

    from rnnpipe.testing import check_cell

    def test_my_cell():
        check_cell(MyCell)

`check_KIND` takes the thing itself, or the name under which it is registered, and its options; it returns what it
measured, and raises `ConformanceError` (an AssertionError) with every check that failed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rnnpipe.testing.report import Check, ConformanceError, Failure, Finding, Skipped, findings, require

if TYPE_CHECKING:
    from rnnpipe.testing.backends import check_backend
    from rnnpipe.testing.callbacks import check_callback
    from rnnpipe.testing.cells import check_cell
    from rnnpipe.testing.cleaners import check_cleaner
    from rnnpipe.testing.commands import check_command
    from rnnpipe.testing.datasets import check_dataset
    from rnnpipe.testing.encoders import check_encoder
    from rnnpipe.testing.initializers import check_initializer
    from rnnpipe.testing.models import check_model
    from rnnpipe.testing.optimizers import check_optimizer
    from rnnpipe.testing.samplers import check_sampler
    from rnnpipe.testing.tokenizers import check_tokenizer
    from rnnpipe.testing.trainers import check_trainer

KINDS = (
    "dataset",
    "cleaner",
    "tokenizer",
    "cell",
    "encoder",
    "model",
    "initializer",
    "optimizer",
    "sampler",
    "backend",
    "callback",
    "trainer",
    "command",
)

__all__ = [
    "KINDS",
    "Check",
    "ConformanceError",
    "Failure",
    "Finding",
    "Skipped",
    "check_backend",
    "check_callback",
    "check_cell",
    "check_cleaner",
    "check_command",
    "check_dataset",
    "check_encoder",
    "check_initializer",
    "check_model",
    "check_optimizer",
    "check_sampler",
    "check_tokenizer",
    "check_trainer",
    "checks_for",
    "findings",
    "require",
]


def checks_for(kind: str, thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a kind of plugin over one thing (a class or a factory) with its options."""
    checks: Callable[[Any, Mapping[str, Any]], list[Check]] = importlib.import_module(f"{__name__}.{kind}s").checks
    return checks(thing, options)


def __getattr__(name: str) -> Any:
    if name.startswith("check_") and (kind := name.removeprefix("check_")) in KINDS:
        return getattr(importlib.import_module(f"{__name__}.{kind}s"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
