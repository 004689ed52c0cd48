"""A language model of torch as a network that the engine runs.

Shapes: B rows, T timesteps, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from rnnpipe.backends.loop import LoopBackend
from rnnpipe.generation.engine import ROW_TILE, Drawing, Draws, Ints, Keys
from rnnpipe.generation.samplers import Rows, draw
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.runtime import autocast

MOST_ROWS = 256  # in one call of the model: more are not faster
FIXED_ROWS = 64  # in every call, where the number of rows changes a row's bits
_TESTED_STEPS = 3


class TorchNetwork:
    """Rows of a language model: logits, and the state behind them, whose leaves have the row as axis 0.

    Rows are rounded up to `ROW_TILE` and at most `MOST_ROWS` go through the model at once, if a test of this model on
    this machine finds that a row's bits then hang neither on their number nor on its place; otherwise always
    `FIXED_ROWS` do. What is drawn for a row is therefore the same in every batch.
    """

    def __init__(self, model: LanguageModel, boundary: int, device: torch.device, precision: str) -> None:
        self.boundary = boundary
        self.context = model.window
        self._model = model
        self._device = device
        self._precision = precision
        with torch.inference_mode(), autocast(device, precision):
            logits, state = model.prime(torch.full((1, 1), boundary, device=device), torch.ones(1, dtype=torch.int64))
        leaves, self._spec = pytree.tree_flatten(state)
        self._fresh = [logits, *leaves]
        self._leaves, self._rows = self._fresh, 1
        self.tile, self._most = ROW_TILE, MOST_ROWS
        if not self._rows_are_alike():
            self.tile = self._most = FIXED_ROWS

    @torch.inference_mode()
    def arrange(self, order: Sequence[int]) -> None:
        """Make row i what row order[i] was, or fresh where that is -1."""
        padded = -(-len(order) // self.tile) * self.tile
        places = [*order, *range(len(order), padded)]
        fresh = [row for row, place in enumerate(places) if not 0 <= place < self._rows]
        for row in fresh:
            places[row] = row if row < self._rows else 0
        if places != list(range(self._rows)):
            self._leaves = [leaf.index_select(0, self._tensor(places)) for leaf in self._leaves]
        if fresh:
            at = self._tensor(fresh)
            pairs = zip(self._leaves, self._fresh, strict=True)
            self._leaves = [leaf.index_copy(0, at, new.expand(len(fresh), *new.shape[1:])) for leaf, new in pairs]
        self._rows = padded

    @torch.inference_mode()
    def read(self, tokens: Ints) -> None:
        """Read one token a row."""
        padded = torch.zeros(self._rows, dtype=torch.int64)
        padded[: len(tokens)] = torch.from_numpy(tokens)
        ids = padded.to(self._device)
        starts = range(0, self._rows, self._most)
        parts = [self._step(ids, slice(start, start + self._most)) for start in starts]
        self._leaves = parts[0] if len(parts) == 1 else [torch.cat(leaf) for leaf in zip(*parts, strict=True)]

    def _step(self, ids: Tensor, rows: slice) -> list[Tensor]:
        state = pytree.tree_unflatten([leaf[rows] for leaf in self._leaves[1:]], self._spec)
        with autocast(self._device, self._precision), plain_steps(self._model):
            logits, following = self._model.step(ids[rows], state)
        return [logits, *pytree.tree_leaves(following)]

    @torch.inference_mode()
    def draw(self, rows: Ints, keys: Keys, drawing: Drawing) -> Draws:
        """Return the next token of some rows; all sums over the vocabulary are in float64."""
        logits = self._leaves[0][torch.from_numpy(rows).to(self._device)].double()
        adjusted = logits
        if drawing.banned:
            adjusted = logits.index_fill(-1, self._tensor(drawing.banned), -torch.inf)
        own = Rows(*(torch.from_numpy(key).to(self._device) for key in (keys.seeds, keys.numbers, keys.positions)))
        for sampler in drawing.samplers:
            adjusted = sampler.adjust(adjusted, own)
        tokens = draw(adjusted, own)
        total = logits.logsumexp(-1)
        scores = logits.gather(-1, tokens[:, None])[:, 0] - total
        return Draws(tokens.cpu().numpy(), scores.cpu().numpy(), _likely(logits, total, drawing.likely))

    def _rows_are_alike(self) -> bool:
        """Say whether rows get the same bits in a tile of their own and among others, behind them."""
        tokens = np.random.default_rng(0).integers(0, self._model.vocab_size, (_TESTED_STEPS, MOST_ROWS))
        found = []
        for rows in (ROW_TILE, 3 * ROW_TILE, FIXED_ROWS, MOST_ROWS):
            self.arrange([-1] * rows)
            for step in tokens:
                self.read(np.concatenate((step[: rows - ROW_TILE], step[-ROW_TILE:])))
            found.append([leaf[-ROW_TILE:] for leaf in self._leaves])
            self._leaves, self._rows = self._fresh, 1
        alone, *others = found
        return all(torch.equal(mine, other) for rest in others for mine, other in zip(alone, rest, strict=True))

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device)


@contextlib.contextmanager
def plain_steps(model: LanguageModel) -> Iterator[None]:
    """Have the cells' own `step` run, whatever the backend.

    Backends gain by many timesteps at once. For one they are no faster, and one that sorts rows by their lengths, as
    cuDNN's does, lets a row's bits hang on the lengths of the others.
    """
    recurrent = model.recurrent
    backend, recurrent.backend = recurrent.backend, LoopBackend.name
    try:
        yield
    finally:
        recurrent.backend = backend


def _likely(logits: Tensor, total: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    if not count:
        return [()] * len(logits)
    order = logits.argsort(dim=-1, descending=True, stable=True)[:, :count]
    scores = logits.gather(-1, order) - total[:, None]
    return [tuple(zip(ids, row, strict=True)) for ids, row in zip(order.tolist(), scores.tolist(), strict=True)]
