"""A language model of torch as a network that the engine runs.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from rnnpipe.backends.loop import LoopBackend
from rnnpipe.generation.engine import PIECE, Drawing, Draws, Facts, Ints, Likely
from rnnpipe.generation.samplers import Rows, choose
from rnnpipe.models.language_model import LanguageModel, Memory
from rnnpipe.runtime import ROW_TILE, autocast

MOST_ROWS = 512  # in one call of the model: more are hardly faster
FIXED_ROWS = 64  # in every call, where the number of rows changes a row's bits
_MOST_LOGITS = 1 << 20  # that are drawn from at once: the passes over them then stay in the cache
_TESTED_STEPS = 3
# A timestep of few rows takes as long as one of so many: up to there pieces of prompts are read ahead, in tiles that
# are full enough for it. With more rows the products take all the time, and a piece of a prompt saves nothing.
_FEW_ROWS = 128


class TorchNetwork:
    """Rows of a language model, in blocks that go through it together.

    A block has at most `MOST_ROWS` rows, rounded up to `tile`, if a test of this model on this processor finds that a
    row's bits then hang neither on how many there are nor on its place; otherwise, and on other devices, every block
    has `FIXED_ROWS`. What is drawn for a row is therefore the same in every batch.
    """

    def __init__(
        self, model: LanguageModel, boundary: int, device: torch.device, precision: str, *, tile: int = ROW_TILE
    ) -> None:
        self.boundary = boundary
        self.context = model.window
        self.model = model
        self._device = device
        self._precision = precision
        self.tile, self._most = tile, max(tile, MOST_ROWS // tile * tile)
        with self._computing():
            start = torch.full((tile,), boundary, device=device)
            blank = model.blank(tile)
            first = model.absorb(start, blank)
            # The types are those that all later timesteps leave behind.
            types = model.absorb(start, first)
            self._blank: Memory = tree_map(lambda leaf, like: leaf[:1].to(like.dtype), blank, types)
            self._fresh: Memory = tree_map(lambda leaf, like: leaf[:1].to(like.dtype), first, types)
        self._blocks: list[Memory] = []
        self._rows = 0
        self._alike = device.type == "cpu" and self._rows_are_alike()
        if not self._alike:
            self.tile = self._most = FIXED_ROWS

    def arrange(self, order: Ints) -> None:
        """Make row i what row order[i] was, or fresh where that is -1."""
        with torch.inference_mode():
            stay = len(order) == self._rows and np.array_equal(order[order >= 0], np.flatnonzero(order >= 0))
            if not stay:
                self._blocks = self._rearranged(order)
                self._rows = len(order)
            fresh = np.flatnonzero(order < 0)
            for number, places in self._places(fresh):
                at = torch.from_numpy(places).to(self._device)
                tree_map(functools.partial(_renew, at=at), self._blocks[number], self._fresh)

    def _rearranged(self, order: Ints) -> list[Memory]:
        """Return blocks whose rows are those of `order`; fresh ones, and those that fill the last tile, are any."""
        blocks = []
        for start in range(0, len(order), self._most):
            part = np.maximum(order[start : start + self._most], 0)
            size = -(-len(part) // self.tile) * self.tile
            if not self._blocks:
                blocks.append(tree_map(functools.partial(_repeat, rows=size), self._fresh))
                continue
            index = torch.from_numpy(np.concatenate((part, np.full(size - len(part), part[-1])))).to(self._device)
            whole = tree_map(lambda *leaves: torch.cat(leaves), *self._blocks)
            blocks.append(_rows_of(whole, index))
        return blocks

    def read(self, tokens: Ints) -> None:
        """Read one token a row."""
        with self._computing():
            for number, memory in enumerate(self._blocks):
                part = tokens[number * self._most : (number + 1) * self._most]
                ids = torch.zeros(len(memory[0]), dtype=torch.int64)
                ids[: len(part)] = torch.from_numpy(part)
                self._blocks[number] = self.model.absorb(ids.to(self._device), memory)

    def read_ahead(self, rows: Ints, pieces: Callable[[], Ints]) -> bool:
        """Read a piece of a prompt in each of some rows, in one call of the model, where that saves time."""
        size = -(-len(rows) // self.tile) * self.tile
        if self._rows > _FEW_ROWS or size * self._rows > len(rows) * _FEW_ROWS or not self._pieces_are_steps:
            return False
        places = torch.from_numpy(rows).to(self._device)
        index = torch.from_numpy(np.concatenate((rows, np.full(size - len(rows), rows[-1])))).to(self._device)
        ids = torch.zeros(PIECE, size, dtype=torch.int64)
        ids[:, : len(rows)] = torch.from_numpy(pieces().T)
        with self._computing():
            (block,) = self._blocks
            after = self.model.absorb_all(ids.to(self._device), _rows_of(block, index))
            tree_map(lambda leaf, new: leaf.index_copy_(0, places, new[: len(rows)]), block, after)
        return True

    def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
        """Return the next token of some rows; all sums over the vocabulary are in float64."""
        known = Rows.of(facts, self._device)
        most = max(self.tile, _MOST_LOGITS // self.model.vocab_size // self.tile * self.tile)
        parts = []
        for first in range(0, len(rows), most):
            some = rows[first : first + most]
            logits = [self._foresee(self._blocks[number], places) for number, places in self._places(some)]
            parts.append(self._draw(torch.cat(logits), known.pick(slice(first, first + len(some))), drawing))
        likely = [each for part in parts for each in part.likely or ()]
        return Draws(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.log_probabilities for part in parts]),
            likely or None,
        )

    def _places(self, rows: Ints) -> Iterator[tuple[int, Ints]]:
        """Yield the blocks of rows, and their places there."""
        numbers = rows // self._most
        for number in sorted(set(numbers.tolist())):
            yield number, rows[numbers == number] - number * self._most

    def _foresee(self, memory: Memory, rows: Ints) -> Tensor:
        """Return the logits [B, V], in float64, of some rows of a block; if these are few, of no others."""
        with self._computing():
            size = -(-len(rows) // self.tile) * self.tile
            if 2 * size <= len(memory[0]):
                index = torch.from_numpy(np.concatenate((rows, np.full(size - len(rows), rows[-1])))).to(self._device)
                memory = _rows_of(memory, index)
                rows = np.arange(len(rows))
            logits = self.model.foresee(memory)
            return (logits if len(rows) == len(logits) else logits[torch.from_numpy(rows).to(self._device)]).double()

    @torch.inference_mode()
    def _draw(self, logits: Tensor, rows: Rows, drawing: Drawing) -> Draws:
        count = len(logits)
        if count == 1:  # torch adds up a single long row in parts, one a thread, and rows among others in one go
            logits, rows = logits.expand(2, -1), rows.pick(torch.tensor([0, 0], device=self._device))
        scores = logits.log_softmax(-1)
        likely = _likely(scores[:count], drawing.likely) if drawing.likely else None
        if drawing.banned:
            logits = logits.index_fill(-1, torch.tensor(drawing.banned, device=self._device), -torch.inf)
        tokens = choose(logits, rows, drawing.samplers)[:count]
        found = scores[:count].gather(-1, tokens.clamp(min=0)[:, None])[:, 0]
        return Draws(tokens.cpu().numpy(), found.cpu().numpy(), likely)

    # --- whole rows at once, for beam search ---

    def prime(self, prompts: Sequence[Sequence[int]]) -> Memory:
        """Return the memory of rows that have read these ids [B], and nothing before."""
        with self._computing():
            memory = _rows_of(self._blank, torch.zeros(len(prompts), dtype=torch.int64, device=self._device))
            for place in range(max(map(len, prompts))):
                going = torch.tensor([place < len(ids) for ids in prompts], device=self._device)
                read = torch.tensor([ids[place] if place < len(ids) else 0 for ids in prompts], device=self._device)
                memory = tree_map(functools.partial(_where, going), self._absorb(read, memory), memory)
            return memory

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Read one token a row [B]: return the logits [B, V], in float64, and the memory behind it."""
        with self._computing():
            memory = self._absorb(tokens, memory)
            parts = [self.model.foresee(part).double() for part in self._parts(memory)]
            return torch.cat(parts)[: len(tokens)], memory

    def _absorb(self, tokens: Tensor, memory: Memory) -> Memory:
        read = [self.model.absorb(ids, part) for ids, part in self._parts((tokens, memory))]
        joined: Memory = tree_map(lambda *leaves: torch.cat(leaves)[: len(tokens)], *read)
        return joined

    def _parts(self, memory: Memory) -> Iterator[Memory]:
        """Yield rows in blocks, each rounded up to the tile by repeating the last row."""
        rows = len(tree_leaves(memory)[0])
        for start in range(0, rows, self._most):
            size = -(-min(rows - start, self._most) // self.tile) * self.tile
            index = torch.arange(start, start + size, device=self._device).clamp(max=rows - 1)
            yield _rows_of(memory, index)

    def _rows_are_alike(self) -> bool:
        """Say whether rows get the same bits in a tile of their own and among others, behind them."""
        tile = self.tile
        tokens = np.random.default_rng(0).integers(0, self.model.vocab_size, (_TESTED_STEPS, self._most))
        found = []
        for rows in sorted({tile, 3 * tile, FIXED_ROWS // tile * tile, self._most - tile, self._most} - {0}):
            self._blocks, self._rows = [], 0
            self.arrange(np.full(rows, -1))
            for step in tokens:
                self.read(np.concatenate((step[: rows - tile], step[-tile:])))
            last = np.arange(rows)[-tile:]
            every = self._foresee(self._blocks[0], np.arange(rows))[last]
            found.append([every, self._foresee(self._blocks[0], last), *(m[last] for m in tree_leaves(self._blocks))])
        self._blocks, self._rows = [], 0
        alone, *others = found
        same = torch.equal(alone[0], alone[1])
        return same and all(
            torch.equal(mine, other) for rest in others for mine, other in zip(alone, rest, strict=True)
        )

    @functools.cached_property
    def _pieces_are_steps(self) -> bool:
        """Say whether a piece of a prompt leaves the bits of its tokens one by one, however many rows there are."""
        if self.context is not None or not self._alike:
            return False
        counts = sorted({self.tile, 3 * self.tile, FIXED_ROWS, _FEW_ROWS})
        tokens = np.random.default_rng(1).integers(0, self.model.vocab_size, (PIECE, counts[-1]))
        with self._computing():
            for rows in counts:
                ids = torch.from_numpy(tokens[:, -rows:]).to(self._device)
                start: Memory = tree_map(functools.partial(_repeat, rows=rows), self._fresh)
                by_steps = start
                for step in ids:
                    by_steps = self.model.absorb(step, by_steps)
                pairs = zip(tree_leaves(by_steps), tree_leaves(self.model.absorb_all(ids, start)), strict=True)
                if not all(mine.dtype == other.dtype and torch.equal(mine, other) for mine, other in pairs):
                    return False
        return True

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute without gradients in the run's precision; read windows by the cells' own `step`.

        A backend that sorts windows by their lengths, as cuDNN's does, lets a row's bits hang on those of the others.
        """
        recurrent: Any = self.model.recurrent
        backend = recurrent.backend
        if self.context is not None:
            recurrent.backend = LoopBackend.name
        try:
            with torch.inference_mode(), autocast(self._device, self._precision):
                yield
        finally:
            recurrent.backend = backend


def _rows_of(memory: Memory, index: Tensor) -> Memory:
    rows: Memory = tree_map(lambda leaf: leaf.index_select(0, index), memory)
    return rows


def _repeat(leaf: Tensor, rows: int) -> Tensor:
    return leaf.repeat(rows, *(1,) * (leaf.dim() - 1))


def _where(going: Tensor, following: Tensor, before: Tensor) -> Tensor:
    """Return what follows in rows that go on, and what was before in the others."""
    return torch.where(going.view(-1, *(1,) * (before.dim() - 1)), following, before)


def _renew(leaf: Tensor, fresh: Tensor, *, at: Tensor) -> None:
    """Put fresh rows at some places of a leaf."""
    leaf.index_copy_(0, at, fresh.expand(len(at), *fresh.shape[1:]))


def _likely(scores: Tensor, count: int) -> list[Likely]:
    order = scores.argsort(dim=-1, descending=True, stable=True)[:, :count]
    found = scores.gather(-1, order)
    return [tuple(zip(ids, row, strict=True)) for ids, row in zip(order.tolist(), found.tolist(), strict=True)]
