"""Checkpoints: weights, optimizer, recurrent state and random generators in safetensors, all else in JSON.

A checkpoint is a folder `step-N` with `weights.safetensors`, `training.safetensors`, `state.json` and, written last,
`MANIFEST.json` with every file's size and SHA-256, those of the metrics files as they were at that step, and its own.
It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rnnpipe.durable import (
    atomic_directory,
    clear_leftovers,
    json_bytes,
    moved_aside,
    read_json,
    read_record,
    record_bytes,
    remove_directory,
    sha256_file,
)
from rnnpipe.errors import InputError

FORMAT = "rnnpipe-checkpoint"
VERSION = 3
WEIGHTS = "weights.safetensors"
TRAINING = "training.safetensors"
STATE = "state.json"
MANIFEST = "MANIFEST.json"
KEPT = 2


Files = dict[str, dict[str, Any]]  # by name: size in bytes and SHA-256


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that has been checked against its manifest.

    metrics: size and SHA-256 that each metrics file had at this step; by now it may be longer.
    """

    path: Path
    state: dict[str, Any]
    metrics: Files

    def weights(self) -> dict[str, Tensor]:
        """Return the model's parameters by name."""
        return _load(self.path / WEIGHTS)

    def weights_digest(self) -> str:
        """Return the SHA-256 of the file of parameters."""
        digest: str = read_record(self.path / MANIFEST, FORMAT, VERSION, sealed=True)["files"][WEIGHTS]["sha256"]
        return digest

    def training(self) -> Any:
        """Return the nested state of optimizer, recurrent state and random generators."""
        try:
            return unpack(self.state["training"], _load(self.path / TRAINING))
        except (LookupError, StopIteration, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path / STATE}: does not belong to {TRAINING}: {error!r}.") from None


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    training: Any,
    state: dict[str, Any],
    metrics: Files | None = None,
) -> Path:
    """Write the checkpoint of a step, whole and durable; return its path. An older one of that step is replaced.

    What killed writers have left in `folder` is removed.
    """
    tensors: dict[str, Tensor] = {}
    packed = pack(training, tensors)
    contents = {
        WEIGHTS: save({name: _plain(tensor) for name, tensor in weights.items()}),
        TRAINING: save(tensors),
        STATE: json_bytes({**state, "step": step, "training": packed}),
    }
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    manifest = {"format": FORMAT, "version": VERSION, "files": files, "metrics": metrics or {}}
    clear_leftovers(folder)
    with atomic_directory(folder / f"step-{step}") as temporary:
        for name, data in {**contents, MANIFEST: record_bytes(manifest)}.items():
            (temporary / name).write_bytes(data)
    return folder / f"step-{step}"


def prune_checkpoints(folder: Path, best_step: int | None) -> None:
    """Remove all checkpoints but the newest KEPT and the best one."""
    steps = list_steps(folder)
    for step in set(steps[:-KEPT]) - {best_step}:
        remove_directory(checkpoint_path(folder, step))


def list_steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, ascending."""
    names = (name.removeprefix("step-") for name in _by_name(folder) if name.startswith("step-"))
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies, which after a crash in an exchange is beside its place."""
    return _by_name(folder).get(f"step-{step}", folder / f"step-{step}")


def _by_name(folder: Path) -> dict[str, Path]:
    return {**moved_aside(folder), **{path.name: path for path in folder.glob("step-*")}}


def load_checkpoint(path: Path) -> Checkpoint:
    """Check a checkpoint against its manifest; raise InputError naming the file that does not match."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise InputError(
            f"{path}: has no {MANIFEST}, so this checkpoint was not finished. Use another one, or train again."
        )
    record = read_record(manifest, FORMAT, VERSION, sealed=True)
    files, metrics = (_files(record.get(key)) for key in ("files", "metrics"))
    if files is None or metrics is None or set(files) != {WEIGHTS, TRAINING, STATE}:
        raise InputError(f"{manifest}: must list {WEIGHTS}, {TRAINING}, {STATE} and metrics by size and SHA-256.")
    for name, expected in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != expected["size"]:
            raise InputError(f"{file}: is missing or has not the size in {MANIFEST}; the checkpoint is damaged.")
        if sha256_file(file) != expected["sha256"]:
            raise InputError(f"{file}: its SHA-256 is not the one in {MANIFEST}; the checkpoint is damaged.")
    state = read_json(path / STATE)
    if not isinstance(state, dict) or not _is_step(state.get("step")) or "training" not in state:
        raise InputError(f"{path / STATE}: holds no table of the training's state.")
    if state.get("best_step") is not None and not _is_step(state["best_step"]):
        raise InputError(f"{path / STATE}: best_step is {repr(state['best_step'])[:60]}, which no step is.")
    return Checkpoint(path, state, metrics)


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _files(value: Any) -> Files | None:
    """Return a manifest's record of files, or None if it is no such record."""
    good = isinstance(value, dict) and all(
        isinstance(file, dict) and type(file.get("size")) is int and isinstance(file.get("sha256"), str)
        for file in value.values()
    )
    return value if good else None


def pick_checkpoint(
    folder: Path, which: str = "best", report: Callable[[str], None] = lambda message: None
) -> Checkpoint:
    """Return the "best" checkpoint by validation loss, or the "last" one; raise InputError if there is none.

    A damaged one is reported and the newest whole one used in its place.
    """
    newest = newest_checkpoint(folder, report)
    if newest is None:
        raise InputError(f"{folder}: no finished checkpoint; train this run first, or name another.")
    best = newest.state.get("best_step")
    if which == "last" or best is None or best == newest.state["step"]:
        return newest
    try:
        return load_checkpoint(checkpoint_path(folder, best))
    except InputError as error:
        report(f"warning: {error} Using {newest.path.name} in its place.")
        return newest


def newest_checkpoint(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None if there is none at all.

    A damaged one is reported and the one before it tried; if all are damaged the newest one's InputError is raised.
    """
    damage: list[InputError] = []
    for step in reversed(list_steps(folder)):
        try:
            found = load_checkpoint(checkpoint_path(folder, step))
        except InputError as error:
            damage.append(error)
        else:
            for reason in damage:
                report(f"warning: {reason} Using {found.path.name} in its place.")
            return found
    if damage:
        raise damage[0]
    return None


def pack(value: Any, tensors: dict[str, Tensor], place: str = "t") -> Any:
    """Return a nested value in a form that JSON can hold; its tensors go to `tensors`, by place."""
    if isinstance(value, Tensor):
        tensors[place] = _plain(value)
        return {"tensor": place}
    if isinstance(value, Mapping):
        return {"items": [[key, pack(item, tensors, f"{place}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [pack(item, tensors, f"{place}.{number}") for number, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the nested value that `pack` was given."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "items" in value:
        return {key: unpack(item, tensors) for key, item in value["items"]}
    kind, items = next(iter(value.items()))
    if kind == "float":
        return float(items)
    return (tuple if kind == "tuple" else list)(unpack(item, tensors) for item in items)


def _plain(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU that shares memory with nothing (flattened GPU weights do; safetensors refuses that)."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _load(path: Path) -> dict[str, Tensor]:
    try:
        # Cloned into memory aligned as torch aligns it: sums over vectors round differently where alignment differs.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}.") from None


def random_state() -> dict[str, Any]:
    """Return the state of every random generator: Python's, NumPy's, and torch's on the CPU and on each GPU."""
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": (version, torch.tensor(words), gauss),
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
        "cpu": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put every random generator into a saved state."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    numpy = state["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
