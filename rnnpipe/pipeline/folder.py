"""A run's folder: the names of what lies in it, and whether a folder may become or is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rnnpipe.config import Config, dump_config, load_config
from rnnpipe.durable import is_leftover
from rnnpipe.errors import InputError, RnnpipeError
from rnnpipe.text.corpus import is_corpus

CONFIG = "config.toml"
DICTIONARY = "dictionary.txt"
TARGET_DICTIONARY = "target-dictionary.txt"  # of a run of pairs, whose source side has the other one
CORPUS = "corpus"
TOKENS = "tokens"
CHECKPOINTS = "checkpoints"
RECORD = "run.json"  # written last: the training is finished
EVALUATION = "evaluation.json"
CARD = "README.md"
RUN_FORMAT = "rnnpipe-run"
RUN_VERSION = 1


def check_is_run(folder: Path) -> None:
    """Raise InputError unless `folder` is a run."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name the folder of a run.")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; `rnnpipe train TEXT -o {folder}` makes one.")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: is no run (it has no {CONFIG}); name a folder that `rnnpipe train` wrote.")


def check_may_run(config: Config, folder: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Raise InputError if running the configuration in `folder` would destroy something.

    That is: a finished run of another configuration, an interrupted run that is not to be gone on with, or anything
    that is no run. `overwrite` allows the first two.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the run.")
    if not folder.is_dir() or all(_is_beginning(item) for item in folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: holds other files (no {CONFIG}); name a new or empty folder with -o.")
    try:
        before = load_config(folder / CONFIG)
    except RnnpipeError as error:
        raise InputError(
            f"{folder}: its {CONFIG} is not that of a run; name another folder with -o. ({error})"
        ) from None
    if overwrite or not is_trained(folder):
        return
    finished = (folder / RECORD).is_file()
    if not same_settings(config, before):
        raise InputError(
            f"{folder}: holds {'a finished' if finished else 'an interrupted'} run with other settings ({CONFIG} there "
            "says which). Name another folder with -o, or pass --overwrite."
        )
    if not finished and not resume:
        raise InputError(
            f"{folder}: holds an interrupted run. Go on with it: `rnnpipe train --resume {folder}`, or start it again "
            "with --overwrite."
        )


def _is_beginning(item: Path) -> bool:
    """Say whether an entry of a folder is what a run has that was killed before it had its configuration."""
    return is_leftover(item.name) or (item.name == CORPUS and is_corpus(str(item)))


def is_trained(folder: Path) -> bool:
    """Say whether a run has a checkpoint, which what is written before training must fit."""
    return any((folder / CHECKPOINTS).glob("step-*")) or any((folder / CHECKPOINTS).glob(".step-*.aside"))


def check_may_replace(folder: Path, path: Path) -> None:
    """Raise InputError if `path`, which is about to be written, is part of what a trained run in `folder` rests on."""
    if path.exists() and is_trained(folder):
        kind = "a finished" if (folder / RECORD).is_file() else "an interrupted"
        raise InputError(
            f"{folder}: holds {kind} run, and its {path.name} would be replaced, as the text has changed or a stage is "
            "to run again. Name another folder with -o, or pass --overwrite."
        )


def same_settings(config: Config, other: Config) -> bool:
    """Say whether two configurations ask for the same, numerics aside."""
    return dump_config(replace(config, numerics={})) == dump_config(replace(other, numerics={}))
