"""Generation against what its matrix products alone take and against peers, in turns, in the same process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnpipe.errors import InputError
from rnnpipe.generation.engine import Drawing, Drawn, Draws, Engine, Facts, Ints, Job
from rnnpipe.generation.generate import Reader
from rnnpipe.generation.samplers import Sampler
from rnnpipe.generation.torch_network import TorchNetwork
from rnnpipe.models.language_model import LanguageModel
from rnnpipe.pipeline.manners import build_samplers
from rnnpipe.pipeline.reading import run_sampler
from rnnpipe.pipeline.requests import Options
from rnnpipe.pipeline.runs import open_run
from rnnpipe.runtime import autocast

Report = Callable[[str], None]

_LONGEST_PROMPT = 64  # tokens; prompts have from 1 to so many
_ALONE = 4  # prompts that are continued one at a time
_STARTS = 5  # processes that are started


@dataclass(frozen=True)
class GenerationRow:
    """Tokens drawn a second by one program, the median of the rounds, and the median of ours by its, round by round."""

    program: str
    precision: str
    tokens_per_second: float
    ratio: float


@dataclass(frozen=True)
class GenerationBench:
    """The rows, and the median seconds from the start of a process to the first token that it prints."""

    rows: list[GenerationRow]
    first_token_seconds: float


@dataclass(frozen=True)
class _Load:
    """Prompts of mixed length, and how many tokens are drawn for each; the document never ends before."""

    model: LanguageModel
    boundary: int
    unknown: int
    device: torch.device
    precision: str
    prompts: Sequence[Sequence[int]]
    tokens: int
    samplers: Sequence[Sampler]

    @property
    def drawn(self) -> int:
        return len(self.prompts) * self.tokens


def bench_generation(
    run: Path,
    prompts: int,
    tokens: int,
    rounds: int,
    precisions: Sequence[str],
    options: Options,
    peer: bool,
    report: Report,
) -> GenerationBench:
    """Measure a run of text on random prompts; `peer` says whether transformers' `generate` is measured as well."""
    if peer:
        _transformers()
    reader = open_run(run, report=report).reader()
    rows: list[GenerationRow] = []
    for precision in precisions:
        load = _load(reader, prompts, tokens, precision, options)
        rows += _measure(load, rounds, report)
        if peer:
            rows.append(_against_transformers(load, rows[-3].tokens_per_second, report))
    starts = [_first_token(run) for _ in range(_STARTS)]
    report(f"first token after the start of a process: {statistics.median(starts):.2f} s")
    return GenerationBench(rows, statistics.median(starts))


def _load(reader: Reader, prompts: int, tokens: int, precision: str, options: Options) -> _Load:
    chance = np.random.default_rng(0)
    special = (reader.tokens.boundary, reader.tokens.unknown)
    known = np.setdiff1d(np.arange(reader.vocabulary.size), special)
    lengths = chance.integers(1, _LONGEST_PROMPT, prompts, endpoint=True)
    texts = [chance.choice(known, length).tolist() for length in lengths]
    return _Load(reader.model, *special, reader.device, precision, texts, tokens, build_samplers(options, run_sampler))


def _measure(load: _Load, rounds: int, report: Report) -> list[GenerationRow]:
    network = _Counted(TorchNetwork(load.model, load.boundary, load.device, load.precision))
    peers: dict[str, Callable[[], float]] = {
        "matrix products of the same steps": lambda: load.drawn / _products(load, network.steps),
        "one prompt at a time": lambda: _ALONE * load.tokens / _one_at_a_time(load),
    }
    speeds: list[list[float]] = []
    for _ in range(rounds + 1):  # the first is for warming up
        speeds.append([load.drawn / _ours(load, network), *(speed() for speed in peers.values())])
    rows = []
    for name, column in zip(("rnnpipe", *peers), zip(*speeds[1:], strict=True), strict=True):
        ratio = statistics.median(ours / its for (ours, *_), its in zip(speeds[1:], column, strict=True))
        rows.append(GenerationRow(name, load.precision, statistics.median(column), ratio))
        report(f"{load.precision}: {name}: {rows[-1].tokens_per_second:,.0f} tokens/s, ours / its {ratio:.2f}")
    return rows


# --- ours ---


class _Counted:
    """A network that notes how many rows are read, or else are drawn for, each time."""

    def __init__(self, network: TorchNetwork) -> None:
        self.network = network
        self.boundary, self.context, self.tile = network.boundary, network.context, network.tile
        self.steps: list[tuple[int, int]] = []

    def arrange(self, order: Ints) -> None:
        self.network.arrange(order)

    def read(self, tokens: Ints) -> None:
        self.steps.append((len(tokens), 0))
        self.network.read(tokens)

    def read_ahead(self, rows: Ints, pieces: Callable[[], Ints]) -> bool:
        return False

    def draw(self, rows: Ints, facts: Facts, drawing: Drawing) -> Draws:
        self.steps.append((0, len(rows)))
        return self.network.draw(rows, facts, drawing)


def _ours(load: _Load, network: _Counted) -> float:
    """Return the seconds that the engine takes."""
    network.steps = []
    begun = time.perf_counter()
    engine = Engine(network, len(load.prompts))
    drawing = Drawing(tuple(load.samplers), (load.boundary, load.unknown))
    for number, prompt in enumerate(load.prompts):
        engine.add(Job(number, prompt, drawing, load.tokens, number=number))
    drawn = 0
    while engine.running or engine.waiting:
        drawn += sum(len(event.tokens) for event in engine.step() if not isinstance(event, Drawn))
    assert drawn == load.drawn, "no text ends before its last token"
    return time.perf_counter() - begun


def _first_token(run: Path) -> float:
    """Return the seconds from the start of `rnnpipe generate` to the first byte that it prints."""
    words = [sys.executable, "-m", "rnnpipe", "generate", str(run), "A", "--max-tokens", "1"]
    begun = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None, "it is a pipe"
        printed = process.stdout.read(1)
        seconds = time.perf_counter() - begun
    if not printed:
        raise InputError(f"{run}: `rnnpipe generate` printed nothing (exit code {process.returncode}).")
    return seconds


# --- its matrix products ---


@torch.inference_mode()
def _products(load: _Load, steps: Sequence[tuple[int, int]]) -> float:
    """Return the seconds for the products of rows with every matrix that a step applies to them, and nothing else."""
    dtype = getattr(torch, load.precision)
    read = [_product(weight, load, dtype) for weight in _matrices(load.model.recurrent)]
    drawn = [_product(weight, load, dtype) for weight in _readout(load.model)]
    begun = time.perf_counter()
    for reading, drawing in steps:
        for weight, rows in read if reading else drawn:
            F.linear(rows[: reading or drawing], weight)
    return time.perf_counter() - begun


def _product(weight: Tensor, load: _Load, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = torch.randn(len(load.prompts), weight.shape[1], device=load.device)
    return weight.to(dtype), rows.to(dtype)


def _matrices(module: torch.nn.Module) -> Iterator[Tensor]:
    return (weight for weight in module.parameters() if weight.dim() == 2)


def _readout(model: LanguageModel) -> Iterator[Tensor]:
    if model.projection is not None:
        yield model.projection.weight
    yield model.readout.weight


# --- peers ---


@torch.inference_mode()
def _one_at_a_time(load: _Load) -> float:
    """Return the seconds of the loop that one writes first: a prompt, then a token after the other."""
    model = load.model
    begun = time.perf_counter()
    with autocast(load.device, load.precision):
        for prompt in load.prompts[:_ALONE]:
            logits, state = model(torch.tensor([[load.boundary], *([token] for token in prompt)], device=load.device))
            for _ in range(load.tokens):
                shares = logits[-1].float()
                shares[:, [load.boundary, load.unknown]] = -torch.inf
                token = torch.multinomial(shares.softmax(-1), 1)
                logits, state = model(token, state)
    return time.perf_counter() - begun


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(
            "the peer needs transformers; pip install 'rnnpipe[bench]', or leave it out with --no-peer."
        ) from None
    return transformers


def _against_transformers(load: _Load, ours: float, report: Report) -> GenerationRow:
    """Measure, once, `generate` of a GPT-2 with about as many parameters: same prompts, batch, tokens and precision."""
    transformers = _transformers()
    transformers.logging.set_verbosity_error()
    count = sum(weight.numel() for weight in load.model.parameters())
    longest = _LONGEST_PROMPT + load.tokens
    vocabulary = load.model.vocab_size
    layers, heads = 6, 4
    width = heads
    while 12 * layers * (width + heads) ** 2 + (vocabulary + longest) * (width + heads) <= count:
        width += heads
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=longest,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=load.boundary,
        eos_token_id=None,
        pad_token_id=load.boundary,
    )
    model = transformers.GPT2LMHeadModel(config).to(load.device, getattr(torch, load.precision)).eval()
    width_of_prompts = max(map(len, load.prompts))
    padded = [[load.boundary] * (width_of_prompts - len(prompt)) + list(prompt) for prompt in load.prompts]
    ids = torch.tensor(padded, device=load.device)
    mask = torch.tensor(
        [[0] * (width_of_prompts - len(prompt)) + [1] * len(prompt) for prompt in load.prompts], device=load.device
    )
    begun = time.perf_counter()
    with torch.inference_mode():
        found = model.generate(
            ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=load.tokens, min_new_tokens=load.tokens
        )
    seconds = time.perf_counter() - begun
    assert found.shape[1] == width_of_prompts + load.tokens, "it draws as many tokens as we do"
    speed = load.drawn / seconds
    parameters = sum(weight.numel() for weight in model.parameters())
    report(
        f"{load.precision}: transformers, GPT-2 of {parameters:,} parameters (ours {count:,}): {speed:,.0f} tokens/s, "
        f"ours / its {ours / speed:.2f}"
    )
    return GenerationRow("transformers, GPT-2 of as many parameters", load.precision, speed, ours / speed)
