"""Whether what lies on the disk is what was written: every digest and format of an output of ours, checked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnpipe import durable
from rnnpipe.config import load_config
from rnnpipe.data import tokens
from rnnpipe.errors import InputError, RnnpipeError
from rnnpipe.pipeline.folder import (
    CHECKPOINTS,
    CONFIG,
    CORPUS,
    DICTIONARY,
    EVALUATION,
    RECORD,
    RUN_FORMAT,
    RUN_VERSION,
    TARGET_DICTIONARY,
    TOKENS,
    is_trained,
)
from rnnpipe.text import corpus
from rnnpipe.text.vocabulary import START, load_vocabulary
from rnnpipe.vectors.folder import META as VECTORS_META
from rnnpipe.vectors.folder import load_vectors


@dataclass
class Verified:
    """What was found: what kind of output it is, what was checked, and what is wrong, each naming its file.

    newest_step: of a run, the newest step whose checkpoint is whole.
    """

    path: Path
    kind: str
    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    newest_step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "whole": not self.problems,
            "newest_step": self.newest_step,
            "checked": self.checked,
            "problems": self.problems,
        }

    def check(self, path: Path, function: Callable[[Path], Any]) -> Any:
        """Call a function that raises if something at `path` is wrong; note what it said, return what it returned."""
        self.checked.append(str(path))
        try:
            return function(path)
        except RnnpipeError as error:
            self.problems.append(str(error))
        except OSError as error:
            self.problems.append(f"{error.filename or path}: {error.strerror or error}.")
        return None


def verify(path: Path) -> Verified:
    """Check a run, checkpoint, dictionary, token folder, corpus or vectors; raise InputError if `path` is none of them.

    Every file that has a digest is read whole.
    """
    kind = _kind(path)
    found = Verified(path, kind)
    if kind == "run":
        _verify_run(found, path)
    else:
        found.check(path, {"checkpoint": _checkpoint, "dictionary": _dictionary, **_FOLDERS}[kind])
    return found


def _kind(path: Path) -> str:
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(START)) == START:
                return "dictionary"
        raise InputError(f"{path}: is no dictionary of rnnpipe, or its beginning is damaged.")
    if (path / CONFIG).is_file() or (path / CHECKPOINTS).is_dir():
        return "run"
    if (path / "MANIFEST.json").is_file() or path.parent.name == CHECKPOINTS:
        return "checkpoint"
    for kind, marker in (("tokens", tokens.META), ("corpus", corpus.META), ("vectors", VECTORS_META)):
        if (path / marker).is_file():
            return kind
    if path.is_dir():
        raise InputError(f"{path}: is no run, checkpoint, token folder, corpus or vectors, or has lost its record.")
    raise InputError(f"{path}: no such file or folder; name a run, a checkpoint, a dictionary, tokens or a corpus.")


def _verify_run(found: Verified, folder: Path) -> None:
    """Check all that lies in a run's folder; what is only there at a later stage may be missing."""
    config = found.check(folder / CONFIG, load_config)
    for name, check in ((CORPUS, _corpus), (TOKENS, _tokens)):
        if (folder / name).is_dir():
            found.check(folder / name, check)
    trained = is_trained(folder)
    vocabulary = None
    reads_text = config is not None and config.text.level is not None
    if (trained and reads_text) or (folder / DICTIONARY).is_file():
        vocabulary = found.check(folder / DICTIONARY, _dictionary)
    digests = {"dictionary": (DICTIONARY, vocabulary and vocabulary.digest)}
    reads_pairs = config is not None and config.target_text.level is not None
    if (trained and reads_pairs) or (folder / TARGET_DICTIONARY).is_file():
        target = found.check(folder / TARGET_DICTIONARY, _dictionary)
        digests["target_dictionary"] = (TARGET_DICTIONARY, target and target.digest)
    if trained:
        _verify_checkpoints(found, folder, digests)
    if (folder / RECORD).is_file():
        found.check(folder / RECORD, _record)
    if (folder / EVALUATION).is_file():
        found.check(folder / EVALUATION, durable.read_json)


def _verify_checkpoints(found: Verified, folder: Path, digests: dict[str, tuple[str, str | None]]) -> None:
    """Check every checkpoint of a run, and the metrics files up to where the newest whole one recorded them."""
    from rnnpipe.training.checkpoints import checkpoint_path, list_steps
    from rnnpipe.training.metrics import check_metrics

    whole = None
    for step in list_steps(folder / CHECKPOINTS):
        checkpoint = found.check(checkpoint_path(folder / CHECKPOINTS, step), _checkpoint)
        whole = checkpoint or whole
        for key, (name, digest) in digests.items():
            if checkpoint and digest and checkpoint.state.get(key) != digest:
                found.problems.append(
                    f"{folder / name}: is not the dictionary that {checkpoint.path} was trained with."
                )
    if whole is not None:
        found.newest_step = whole.state["step"]
        found.checked += [str(folder / name) for name in whole.metrics]
        found.problems += check_metrics(folder, whole.metrics)


def _checkpoint(path: Path) -> Any:
    from rnnpipe.training.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(path)
    checkpoint.weights()
    checkpoint.training()
    return checkpoint


def _record(path: Path) -> None:
    record = durable.read_record(path, RUN_FORMAT, RUN_VERSION, sealed=True)
    config = path.with_name(CONFIG)
    if config.is_file() and durable.sha256_file(config) != record.get("config"):
        raise InputError(f"{config}: its SHA-256 is not the one in {RECORD}: damaged, or changed by hand.")


def _dictionary(path: Path) -> Any:
    return load_vocabulary(path, sealed=True)


def _tokens(path: Path) -> None:
    durable.read_record(path / tokens.META, tokens.FORMAT, tokens.VERSION, sealed=True)
    folder = tokens.load_tokens(path)
    tokens.check_dictionary(folder, _dictionary(path / tokens.DICTIONARY), path / tokens.DICTIONARY)
    for part in folder.parts:
        folder.part(part)


def _corpus(path: Path) -> None:
    durable.read_record(path / corpus.META, corpus.FORMAT, corpus.VERSION, sealed=True)
    folder = corpus.load_corpus(path)
    for part in folder.parts:
        folder.texts(part)
        file, record = path / f"{part}.txt", folder.meta["parts"][part]
        if durable.sha256_file(file) != record.get("sha256"):
            raise InputError(
                f"{file}: its SHA-256 is not the one in {corpus.META}: damaged; run `rnnpipe clean` again."
            )


_FOLDERS: dict[str, Callable[[Path], Any]] = {"tokens": _tokens, "corpus": _corpus, "vectors": load_vectors}
