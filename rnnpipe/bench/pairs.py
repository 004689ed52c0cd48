"""Training on pairs against a bare PyTorch encoder-decoder of the same sizes, batches and recipe, in turns.

Shapes: S source tokens, T target tokens, B pairs, H hidden numbers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnpipe.bench.train import Clock, Report, SpeedRow
from rnnpipe.config import Config, config_from_table
from rnnpipe.data.pairs import PairBatch, Pairs, PairSizes, side_of
from rnnpipe.data.windows import Cursor
from rnnpipe.models.pair_model import PairModel
from rnnpipe.pipeline.build import build_optimizer, build_pair_model
from rnnpipe.runtime import autocast, resolve_device, resolve_precision
from rnnpipe.training.loop import fit
from rnnpipe.training.pair_objective import PairObjective
from rnnpipe.training.trainers import Task

SHAPES: dict[str, dict[str, int]] = {
    "translation, embedding 256, bidirectional LSTM 256 to LSTM 256, vocabularies 4,000 and 5,000, batch 64": {
        "source_size": 4000, "target_size": 5000, "size": 256, "hidden_size": 256, "batch_size": 64, "steps": 30,
    },
}  # fmt: skip
_DROPOUT, _SMOOTHING, _LR = 0.2, 0.1, 0.003


class BareEncoderDecoder(nn.Module):
    """What one writes with torch alone: packed sources, two nn.LSTM, attention by matrix products, tied readout."""

    def __init__(self, source_size: int, target_size: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.source = nn.Embedding(source_size, size)
        self.target = nn.Embedding(target_size, size)
        self.encoder = nn.LSTM(size, hidden_size // 2, bidirectional=True)
        self.decoder = nn.LSTM(size, hidden_size)
        self.bridge = nn.Linear(hidden_size, 2 * hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.combine = nn.Linear(2 * hidden_size, size)
        self.readout = nn.Linear(size, target_size)
        self.readout.weight = self.target.weight
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, 0.0, 0.1)

    def forward(self, batch: PairBatch) -> Tensor:
        """Return the loss of a batch, smoothed."""
        lengths = batch.source_lengths
        embedded = F.dropout(self.source(batch.source), _DROPOUT)
        packed, (h, _) = self.encoder(pack_padded_sequence(embedded, lengths.cpu(), enforce_sorted=False))
        memory, _ = pad_packed_sequence(packed)
        first = torch.tanh(self.bridge(torch.cat((h[0], h[1]), -1))).chunk(2, -1)
        state = tuple(leaf[None].contiguous() for leaf in first)
        memory = F.dropout(memory, _DROPOUT).transpose(0, 1)
        outputs, _ = self.decoder(F.dropout(self.target(batch.target[:-1]), _DROPOUT), state)
        outputs = F.dropout(outputs, _DROPOUT).transpose(0, 1)
        scores = torch.bmm(outputs, self.key(memory).transpose(1, 2)).float()
        padding = torch.arange(memory.shape[1], device=memory.device) >= lengths[:, None]
        weights = scores.masked_fill(padding[:, None], -torch.inf).softmax(-1)
        context = torch.bmm(weights.to(memory.dtype), memory)
        features = torch.tanh(self.combine(torch.cat((outputs, context), -1))).transpose(0, 1)
        steps = torch.arange(len(features), device=features.device)[:, None]
        inside = steps < batch.target_lengths
        logits = self.readout(F.dropout(features[inside], _DROPOUT))
        return F.cross_entropy(logits.float(), batch.target[1:][inside], label_smoothing=_SMOOTHING)


def bench_pairs(rounds: int, precision: str, report: Report) -> list[SpeedRow]:
    """Measure target tokens/s of our training and of the bare loop, in turns, on random pairs."""
    device = resolve_device("auto")
    precision = resolve_precision(precision, device)
    rows = []
    for shape, sizes in SHAPES.items():
        objective = our_objective(sizes)
        rates = []
        for _ in range(rounds + 1):  # the first is for warming up
            ours = _our_speed(sizes, objective, device, precision)
            rates.append((ours, _bare_speed(sizes, objective, device, precision)))
        mine, other, ratio = np.median([(a, b, a / b) for a, b in rates[1:]], axis=0).tolist()
        rows.append(SpeedRow(shape, precision, mine, other, ratio))
        report(f"{shape}, {precision}: rnnpipe {mine:,.0f} tokens/s, bare loop {other:,.0f}, ratio {ratio:.3f}")
    return rows


def random_pairs(sizes: dict[str, int]) -> Pairs:
    """Return pairs of 4 to 16 tokens, the lengths of both sides alike, as sentences have them."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 15, size=sizes["batch_size"] * sizes["steps"])
    sides = []
    for size in (sizes["source_size"], sizes["target_size"]):
        more = generator.integers(3, size=len(lengths))
        # The last two ids are the unknown token and the boundary.
        sides.append(side_of([generator.integers(size - 2, size=n).astype(np.uint32) for n in lengths + more]))
    return Pairs(*sides)


def _config(sizes: dict[str, int]) -> Config:
    return config_from_table(
        {
            "model": {
                "name": {"name": "encoder-decoder", "attention": "general"},
                "hidden_size": sizes["hidden_size"],
                "encoder": {"name": "embedding", "size": sizes["size"]},
                "dropout": _DROPOUT,
                "tied": True,
            },
            "training": {
                "batch_size": sizes["batch_size"],
                "max_steps": sizes["steps"],
                "label_smoothing": _SMOOTHING,
                "optimizer": {"name": "adamw", "lr": _LR},
                "schedule": "constant",
                "log_every": 10,
            },
        },
        "bench",
    )


def our_objective(sizes: dict[str, int]) -> PairObjective:
    """Return what our training learns: random pairs."""
    ends = sizes["source_size"] - 1, sizes["target_size"] - 1
    return PairObjective(random_pairs(sizes), None, *ends, config=_config(sizes).training, seed=0)


def our_model(sizes: dict[str, int]) -> PairModel:
    """Return our encoder-decoder."""
    torch.manual_seed(0)
    return build_pair_model(_config(sizes), PairSizes(sizes["source_size"], sizes["target_size"], False), {})


def _our_speed(sizes: dict[str, int], objective: PairObjective, device: torch.device, precision: str) -> float:
    config, clock = _config(sizes), Clock()
    with tempfile.TemporaryDirectory(prefix="rnnpipe-bench-") as folder:
        task = Task(
            model=our_model(sizes),
            objective=objective,
            config=config.training,
            make_optimizer=partial(build_optimizer, config.training.optimizer),
            device=device,
            precision=precision,
            seed=0,
            folder=Path(folder),
            record={},
        )
        end = fit(task, [clock], lambda: False)
    return end.items / (clock.ended - clock.begun)


def _bare_speed(sizes: dict[str, int], objective: PairObjective, device: torch.device, precision: str) -> float:
    names = ("source_size", "target_size", "size", "hidden_size")
    model = BareEncoderDecoder(**{name: sizes[name] for name in names})
    batches = islice(objective.batches(Cursor()), sizes["steps"])
    begun = time.perf_counter()
    items = train_bare(model, batches, device, precision)
    return items / (time.perf_counter() - begun)


def train_bare(model: BareEncoderDecoder, batches: Iterator[PairBatch], device: torch.device, precision: str) -> int:
    """Train as one writes it by hand: AdamW, clipping at 1; return how many target tokens were read."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR)
    items = 0
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            loss = model(batch.to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not np.isfinite(loss.item()):
            raise ArithmeticError("the bare loop diverged")
        items += batch.items
    return items
