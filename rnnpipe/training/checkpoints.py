"""Checkpoints: weights, optimizer, recurrent state and random generators in safetensors, all else in JSON.

A checkpoint is a folder `step-N` with `weights.safetensors`, `training.safetensors`, `state.json` and, written last,
`MANIFEST.json` with every file's size and SHA-256. It appears whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rnnpipe.durable import atomic_directory, read_json, read_record, sha256_file, write_bytes, write_json
from rnnpipe.errors import InputError

FORMAT = "rnnpipe-checkpoint"
VERSION = 1
WEIGHTS = "weights.safetensors"
TRAINING = "training.safetensors"
STATE = "state.json"
MANIFEST = "MANIFEST.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that has been checked against its manifest."""

    path: Path
    state: dict[str, Any]

    def weights(self) -> dict[str, Tensor]:
        """Return the model's parameters by name."""
        return _load(self.path / WEIGHTS)

    def training(self) -> Any:
        """Return the nested state of optimizer, recurrent state and random generators."""
        return unpack(self.state["training"], _load(self.path / TRAINING))


def save_checkpoint(
    folder: Path, step: int, weights: Mapping[str, Tensor], training: Any, state: dict[str, Any]
) -> Path:
    """Write the checkpoint of a step, whole and durable; return its path. An older one of that step is replaced."""
    tensors: dict[str, Tensor] = {}
    packed = pack(training, tensors)
    target = folder / f"step-{step}"
    with atomic_directory(target) as temporary:
        write_bytes(temporary / WEIGHTS, save({name: _plain(tensor) for name, tensor in weights.items()}))
        write_bytes(temporary / TRAINING, save(tensors))
        write_json(temporary / STATE, {**state, "step": step, "training": packed})
        files = {
            name: {"size": (temporary / name).stat().st_size, "sha256": sha256_file(temporary / name)}
            for name in (WEIGHTS, TRAINING, STATE)
        }
        write_json(temporary / MANIFEST, {"format": FORMAT, "version": VERSION, "files": files})
    return target


def prune_checkpoints(folder: Path, best_step: int | None) -> None:
    """Remove all checkpoints but the newest KEPT and the best one."""
    steps = list_steps(folder)
    for step in set(steps[:-KEPT]) - {best_step}:
        shutil.rmtree(folder / f"step-{step}")


def list_steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, ascending."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdigit())


def load_checkpoint(path: Path) -> Checkpoint:
    """Check a checkpoint against its manifest; raise InputError naming the file that does not match."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise InputError(
            f"{path}: has no {MANIFEST}, so this checkpoint was not finished. Use another one, or train again."
        )
    files = read_record(manifest, FORMAT, VERSION).get("files")
    if not isinstance(files, dict) or set(files) != {WEIGHTS, TRAINING, STATE}:
        raise InputError(f"{manifest}: is damaged: it must list {WEIGHTS}, {TRAINING} and {STATE}.")
    for name, expected in files.items():
        file = path / name
        if not isinstance(expected, dict) or not file.is_file() or file.stat().st_size != expected.get("size"):
            raise InputError(f"{file}: is missing or has not the size in {MANIFEST}; the checkpoint is damaged.")
        if sha256_file(file) != expected.get("sha256"):
            raise InputError(f"{file}: its SHA-256 is not the one in {MANIFEST}; the checkpoint is damaged.")
    return Checkpoint(path, read_json(path / STATE))


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
        return load_checkpoint(folder / f"step-{best}")
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
            found = load_checkpoint(folder / f"step-{step}")
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
    """Return the state of torch's random generators: the CPU's and each GPU's."""
    return {"cpu": torch.get_rng_state(), "cuda": list(torch.cuda.get_rng_state_all())}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put torch's random generators into a saved state."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
