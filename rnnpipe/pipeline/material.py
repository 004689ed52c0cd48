"""What a run is trained on, text or sequences, in the one form that the stage `train` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnnpipe.config import Config
from rnnpipe.models.base import Model
from rnnpipe.runtime import Numerics
from rnnpipe.training.objective import Objective


@dataclass(frozen=True)
class Material:
    """What a run is trained on.

    build: draws the model of a configuration. resolve: its numerics, and why faster backends refuse. record: digests
    that every checkpoint repeats; `differs` says, by the same keys, what to tell a person whose checkpoint has others.
    made_from: what a finished run records, to know whether it is up to date. files: what belongs into the run's folder.
    title, described: the model card's headline and rows. begin: what else is done to a model that was just drawn.
    """

    objective: Objective
    build: Callable[[Config], Model]
    resolve: Callable[[Config, Model], tuple[Numerics, dict[str, str]]]
    record: Mapping[str, Any]
    differs: Mapping[str, str]
    made_from: Mapping[str, Any]
    files: Mapping[str, bytes]
    title: str
    described: Sequence[tuple[str, str]]
    evaluated: str  # how the validation loss is measured, for the card
    begin: Callable[[Any], None] = lambda model: None
