"""Training against a bare PyTorch loop of the same model, batch and recipe, in turns, in the same process."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.config import Config, config_from_table
from rnnpipe.data.tokens import Ids
from rnnpipe.data.windows import stream_windows
from rnnpipe.pipeline.build import build_model, build_optimizer
from rnnpipe.pipeline.common import no_report
from rnnpipe.runtime import autocast, resolve_device, resolve_precision
from rnnpipe.training.callbacks import TrainState
from rnnpipe.training.captured import Capture, CudaGraphs
from rnnpipe.training.evaluate import loss_carried, loss_in_windows
from rnnpipe.training.loop import fit
from rnnpipe.training.text_objective import TextObjective
from rnnpipe.training.trainers import Task

Report = Callable[[str], None]

SHAPES: dict[str, dict[str, Any]] = {
    "characters, embedding 64, LSTM 512, batch 32 x 64": {
        "vocab_size": 67, "size": 64, "hidden_size": 512, "num_layers": 1, "batch_size": 32, "bptt": 64, "steps": 40,
    },
    "words, LSTM 2 x 200, vocabulary 10,000, batch 20 x 35": {
        "vocab_size": 10_000, "size": 200, "hidden_size": 200, "num_layers": 2, "batch_size": 20, "bptt": 35,
        "steps": 40,
    },
}  # fmt: skip


class BareModel(nn.Module):
    """What one writes with torch alone: embedding, nn.LSTM, linear."""

    def __init__(self, vocab_size: int, size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.rnn = nn.LSTM(size, hidden_size, num_layers)
        self.readout = nn.Linear(hidden_size, vocab_size)
        nn.init.normal_(self.embedding.weight, 0.0, 0.1)  # as our encoder draws it: the recipe is the same

    def forward(self, ids: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return logits and the next state."""
        y, state = self.rnn(self.embedding(ids), state)
        assert state is not None
        return self.readout(y), state


@dataclass(frozen=True)
class SpeedRow:
    """Tokens a second of both loops, medians over the rounds, and the median of the ratios round by round."""

    shape: str
    precision: str
    rnnpipe: float
    bare: float
    ratio: float


@dataclass(frozen=True)
class QualityRow:
    """Validation losses in nats after the same seconds of training, in windows reset every 256 and carried."""

    program: str
    seconds: float
    steps: int
    windows_nats: float
    carried_nats: float


def bench_speed(rounds: int, precision: str, report: Report) -> list[SpeedRow]:
    """Measure tokens/s of our training and of the bare loop, in turns, on random ids."""
    device = resolve_device("auto")
    precision = resolve_precision(precision, device)
    rows = []
    for shape, sizes in SHAPES.items():
        ids = np.random.default_rng(0).integers(sizes["vocab_size"], size=200_000).astype(np.uint16)
        pairs = []
        for _ in range(rounds + 1):  # the first is for warming up
            ours = _our_speed(sizes, ids, device, precision)
            pairs.append((ours, _bare_speed(sizes, ids, device, precision)))
        ours, bare, ratio = (
            _median(v) for v in ([a for a, _ in pairs[1:]], [b for _, b in pairs[1:]], [a / b for a, b in pairs[1:]])
        )
        rows.append(SpeedRow(shape, precision, ours, bare, ratio))
        report(f"{shape}, {precision}: rnnpipe {ours:,.0f} tokens/s, bare loop {bare:,.0f}, ratio {ratio:.3f}")
    return rows


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _config(sizes: dict[str, Any], **training: Any) -> Config:
    return config_from_table(
        {
            "model": {
                "hidden_size": sizes["hidden_size"],
                "num_layers": sizes["num_layers"],
                "encoder": {"name": "embedding", "size": sizes["size"]},
            },
            "training": {"batch_size": sizes["batch_size"], "bptt": sizes["bptt"], **training},
        },
        "bench",
    )


class Clock:
    """A callback that takes the wall time from the start of training to the last step, logging included."""

    def __init__(self) -> None:
        self.begun = self.ended = 0.0

    def on_start(self, state: TrainState) -> None:
        self.begun = time.perf_counter()

    def on_step(self, state: TrainState) -> None:
        self.ended = time.perf_counter()

    def on_evaluate(self, state: TrainState) -> None:
        """Take no notice."""

    def on_end(self, state: TrainState) -> None:
        """Take no notice."""


def _task(
    config: Config, train: Ids, valid: Ids | None, vocab_size: int, device: torch.device, precision: str, folder: str
) -> Task:
    torch.manual_seed(0)
    return Task(
        model=build_model(config, vocab_size),
        objective=TextObjective(train, valid, config.training, seed=0),
        config=config.training,
        make_optimizer=partial(build_optimizer, config.training.optimizer),
        device=device,
        precision=precision,
        seed=0,
        folder=Path(folder),
        record={},
        capture=Capture(CudaGraphs(), True, no_report) if device.type == "cuda" else None,  # as `rnnpipe train`
    )


def _our_speed(sizes: dict[str, Any], ids: Ids, device: torch.device, precision: str) -> float:
    config = _config(sizes, max_steps=sizes["steps"], log_every=10, schedule="constant")
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="rnnpipe-bench-") as folder:
        fit(_task(config, ids, None, sizes["vocab_size"], device, precision, folder), [clock], lambda: False)
    return float(sizes["steps"] * sizes["batch_size"] * sizes["bptt"] / (clock.ended - clock.begun))


def _bare_speed(sizes: dict[str, Any], ids: Ids, device: torch.device, precision: str) -> float:
    model = BareModel(sizes["vocab_size"], sizes["size"], sizes["hidden_size"], sizes["num_layers"])
    begun = time.perf_counter()
    train_bare(model, ids, sizes, device, precision, steps=sizes["steps"])
    return float(sizes["steps"] * sizes["batch_size"] * sizes["bptt"] / (time.perf_counter() - begun))


def train_bare(
    model: BareModel,
    ids: Ids,
    sizes: dict[str, Any],
    device: torch.device,
    precision: str,
    *,
    steps: int = 0,
    seconds: float = 0.0,
    lr: float = 0.003,
) -> int:
    """Train as one writes it by hand: AdamW, clipping at 1, state carried; cosine over `seconds` if they are given."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    batches = stream_windows(ids, sizes["batch_size"], sizes["bptt"])
    state: tuple[Tensor, Tensor] | None = None
    step, begun = 0, time.perf_counter()
    while True:
        progress = (time.perf_counter() - begun) / seconds if seconds else 0.0
        if progress >= 1 or (steps and step >= steps):
            return step
        if seconds:
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * progress))
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            logits, state = model(batch.inputs.to(device), None if batch.resets else state)
            loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.to(device).flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise ArithmeticError("the bare loop diverged")
        state = (state[0].detach(), state[1].detach())
        step += 1


def bench_quality(text: Path, seconds: float, precision: str, report: Report) -> list[QualityRow]:
    """Train both on the first 90 % of a text's characters for the same seconds; return their losses on the rest."""
    device = resolve_device("auto")
    precision = resolve_precision(precision, device)
    characters = text.read_text(encoding="utf-8")
    cut = len(characters) * 9 // 10
    alphabet = {character: number for number, character in enumerate(sorted(set(characters[:cut])))}
    unknown = len(alphabet)
    ids = np.array([alphabet.get(character, unknown) for character in characters], np.uint16)
    sizes = {**SHAPES["characters, embedding 64, LSTM 512, batch 32 x 64"], "vocab_size": unknown + 1}
    config = _config(sizes, epochs=0, max_seconds=seconds, evaluate_every=10**9)
    rows = []
    with tempfile.TemporaryDirectory(prefix="rnnpipe-bench-") as folder:
        task = _task(config, ids[:cut], None, sizes["vocab_size"], device, precision, folder)
        end = fit(task, [], lambda: False)
        ours = task.model
    rows.append(_quality("rnnpipe", ours, end.step, ids[cut:], seconds, device, precision))
    report(_describe(rows[-1]))
    torch.manual_seed(0)
    bare = BareModel(sizes["vocab_size"], sizes["size"], sizes["hidden_size"], sizes["num_layers"])
    steps = train_bare(bare, ids[:cut], sizes, device, precision, seconds=seconds)
    # The same weights in our model: both are then measured by the same code.
    twin = build_model(config, sizes["vocab_size"]).to(device)
    names = {"encoder.weight": "embedding.weight", "readout.weight": "readout.weight", "readout.bias": "readout.bias"}
    names |= {f"recurrent.layers.0.{n}": f"rnn.{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    twin.load_state_dict({to: bare.state_dict()[name] for to, name in names.items()})
    rows.append(_quality("bare loop", twin, steps, ids[cut:], seconds, device, precision))
    report(_describe(rows[-1]))
    return rows


def _quality(
    program: str, model: Any, steps: int, valid: Ids, seconds: float, device: torch.device, precision: str
) -> QualityRow:
    windows = loss_in_windows(model, valid, 256, device, precision)
    carried = loss_carried(model, valid, device, precision)
    return QualityRow(program, seconds, steps, windows.nats, carried.nats)


def _describe(row: QualityRow) -> str:
    return (
        f"{row.program}: {row.steps} steps in {row.seconds:g} s, validation {row.windows_nats:.4f} nats "
        f"in windows reset every 256, {row.carried_nats:.4f} carried"
    )
