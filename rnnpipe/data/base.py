"""The three kinds of dataset. A dataset plugin implements one of these protocols; nothing is inherited.

No item of one part may stand in another one as well: a document of 100 characters or more, a sequence (its inputs and
length), a pair. A dataset where that cannot be otherwise, as when all items there are are few, has an attribute
`overlap: str` that says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from rnnpipe.text.files import TextFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Part: TypeAlias = Literal["train", "valid", "test"]
Loss: TypeAlias = Literal["mse", "binary-cross-entropy", "cross-entropy"]
Target: TypeAlias = Literal["last", "every"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


@runtime_checkable
class TextDataset(Protocol):
    """Documents of text, divided into parts. Each call gives the same documents again."""

    def documents(self, split: Part) -> Iterable[str]:
        """Yield the documents of one part; none if the dataset has no such part."""
        ...


@runtime_checkable
class TextFileDataset(TextDataset, Protocol):
    """A text dataset whose documents lie in files: they are streamed, not held in memory."""

    def texts(self, split: Part, spool: Path, at: Literal["line", "character"]) -> Sequence[TextFile]:
        """Return the byte ranges of one part, cut `at` line ends or anywhere; temporary copies go to `spool`."""
        ...


@dataclass(frozen=True)
class Sequences:
    """Padded sequences: inputs [N, T, I] float32, targets [N, O] or [N, T, O], lengths [N] int64, from 1 to T.

    Targets are float32, between 0 and 1 for binary cross-entropy, and for cross-entropy the classes as int64. Behind
    the length of a sequence its inputs, and its targets if it has one for every timestep, are 0.
    """

    inputs: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32 | np.int64]
    lengths: npt.NDArray[np.int64]


@runtime_checkable
class SequenceDataset(Protocol):
    """Sequences of numbers with a target for the last timestep or for every one.

    It may have, besides: `tolerance`, below which an error is a hit (mean squared error); `classes`, how many there are
    (cross-entropy; otherwise one more than the highest target); `continues`, whether a target is the next input, so
    that outputs can be fed back (found out where every timestep has a target); `at_length(length, count, seed)`, new
    `Sequences` of one length, drawn apart from the parts; `unscale(values)` and `scale(values)`, from inputs [..., I]
    to a person's own units and back.
    """

    loss: Loss
    target: Target

    def sequences(self, split: Part) -> Sequences:
        """Return one part."""
        ...


@runtime_checkable
class PairDataset(Protocol):
    """Pairs of a source and a target document."""

    def pairs(self, split: Part) -> Iterable[tuple[str, str]]:
        """Yield the pairs of one part."""
        ...


Dataset: TypeAlias = TextDataset | SequenceDataset | PairDataset
