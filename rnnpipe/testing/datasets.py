"""Checks of datasets of text, of sequences and of pairs: the same items however they are read, and true splits."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np

from rnnpipe.data.base import (
    PARTS,
    Dataset,
    PairDataset,
    Part,
    SequenceDataset,
    Sequences,
    TextDataset,
    TextFileDataset,
)
from rnnpipe.errors import UsageError
from rnnpipe.testing.child import elsewhere
from rnnpipe.testing.randomness import require_untouched, undisturbed
from rnnpipe.testing.report import Check, Failure, Finding, Skipped, require
from rnnpipe.testing.sequence_datasets import of_a_length, scaling
from rnnpipe.testing.things import build, in_order, require_reachable, resolve
from rnnpipe.text.files import Block, Errors, read_block

MOST_CHARACTERS = 4_000_000  # read of a part at a time, so that the check of a large dataset takes seconds all the same
SHORT_DOCUMENT = 100  # characters; a shorter document may well stand in two parts
THREADS = 3

Make = Callable[[], Dataset]


def check_dataset(thing: Any, **options: Any) -> list[Finding]:
    """Check a dataset, a factory or a registered name; raise ConformanceError with every check that failed.

    Of a part of a text dataset the first 4 million characters are read.
    """
    thing, name = resolve("dataset", thing)
    return require(f"dataset '{name}'", checks(thing, options))


def checks(thing: Any, options: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a dataset."""
    make: Make = functools.partial(build, "dataset", thing, options)
    made = in_order(
        Check("builds", lambda: _builds(thing, make)),
        [
            Check("lengths and dtypes", lambda: _lengths_and_dtypes(make())),
            Check("same twice", lambda: _same_twice(make)),
            Check("interleaved", lambda: _interleaved(make())),
            Check("several workers", lambda: _several_workers(make())),
            Check("another process", lambda: _another_process(thing, options, make)),
            Check("random state", lambda: require_untouched(lambda: _digests(make()), "reading every part")),
            Check("splits disjoint", lambda: _splits_disjoint(make())),
            Check("unknown part", lambda: _unknown_part(make())),
            Check("files", lambda: _files(make())),
            Check("sequences of a length", lambda: of_a_length(make())),
            Check("scaling", lambda: scaling(make())),
        ],
    )
    return undisturbed(made)


def _builds(thing: Any, make: Make) -> str:
    require_reachable(thing)
    return f"a dataset of {_noun(make())}"


def _noun(dataset: Any) -> str:
    """Return what the items of a dataset are; raise Failure if it is of none of the three kinds."""
    kinds = {"documents": TextDataset, "sequences": SequenceDataset, "pairs": PairDataset}
    nouns = [noun for noun, kind in kinds.items() if isinstance(dataset, kind)]
    if len(nouns) != 1:
        raise Failure(
            "one of documents(split), pairs(split), or sequences(split) with loss and target",
            f"{type(dataset).__name__} with {' and '.join(nouns) or 'none of these'}",
            "building it",
        )
    return nouns[0]


# --- reading: an item is a document, a pair, or inputs, targets and length of a sequence ---


def _items(dataset: Dataset, part: Part) -> Iterator[Any]:
    """Yield the items of a part; of texts no more than MOST_CHARACTERS."""
    if isinstance(dataset, SequenceDataset):
        sequences = dataset.sequences(part)
        yield from zip(sequences.inputs, sequences.targets, sequences.lengths, strict=True)
        return
    read = 0
    items: Iterable[Any] = dataset.documents(part) if isinstance(dataset, TextDataset) else dataset.pairs(part)
    for item in items:
        yield item
        read += len(item) if isinstance(item, str) else len(ascii(item))
        if read >= MOST_CHARACTERS:
            return


def _digest(item: Any) -> str:
    """Return the digest of an item, whatever it is: one of a wrong type has one as well."""
    digest = hashlib.sha256()
    for member in item if isinstance(item, tuple) else (item,):
        is_array = isinstance(member, np.ndarray | np.generic)
        digest.update(f"{member.dtype}{member.shape}".encode() if is_array else ascii(member).encode())
        digest.update(member.tobytes() if is_array else b"\0")
    return digest.hexdigest()


def _digests(dataset: Dataset) -> dict[Part, list[str]]:
    return {part: list(map(_digest, _items(dataset, part))) for part in PARTS}


def digests(thing: Any, options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the digests of all items, part by part."""
    return cast("dict[str, list[str]]", _digests(build("dataset", thing, options)))


def _require_same(expected: Sequence[str], received: Sequence[str], what: str, part: str) -> None:
    """Raise Failure with the first item that differs."""
    for number, (first, second) in enumerate(zip_longest(expected, received)):
        if first != second:
            came = f"{len(received)} items, of which number {number} is the first that differs"
            raise Failure(f"the same {len(expected)} items {what}", came, f"item {number} of '{part}'")


def _sizes(read: Mapping[Part, Sequence[str]], noun: str) -> str:
    return f"{', '.join(f'{len(items)} {part}' for part, items in read.items())} {noun}"


# --- the checks ---


def _same_twice(make: Make) -> str:
    dataset = make()
    first = _digests(dataset)
    for what, again in (("on a second pass", dataset), ("built anew", make())):
        second = _digests(again)
        for part in PARTS:
            _require_same(first[part], second[part], what, part)
    return f"{_sizes(first, _noun(dataset))}, on a second pass and built anew"


def _interleaved(dataset: Dataset) -> str:
    """Read every part twice at once, item by item in turns, while the others are being read."""
    expected = _digests(dataset)
    readers = {(part, number): _items(dataset, part) for part in PARTS for number in range(2)}
    received: dict[tuple[Part, int], list[Any]] = {reader: [] for reader in readers}
    while readers:
        for reader, items in list(readers.items()):
            try:
                received[reader].append(next(items))
            except StopIteration:
                del readers[reader]
    for (part, _), read in received.items():
        _require_same(expected[part], list(map(_digest, read)), "when several are read in turns", part)
    return f"{_sizes(expected, _noun(dataset))}, each part by two readers in turns"


def _several_workers(dataset: Dataset) -> str:
    """Read the training part in several threads at once."""
    expected = [_digest(item) for item in _items(dataset, "train")]
    barrier = threading.Barrier(THREADS)

    def read(worker: int) -> list[str]:
        barrier.wait()
        return [_digest(item) for item in _items(dataset, "train")]

    with ThreadPoolExecutor(THREADS) as executor:
        for received in executor.map(read, range(THREADS)):
            _require_same(expected, received, f"in each of {THREADS} threads", "train")
    return f"{len(expected)} train {_noun(dataset)} in each of {THREADS} threads at once"


def _another_process(thing: Any, options: Mapping[str, Any], make: Make) -> str:
    there = elsewhere(f"{__name__}:digests", thing, options)
    dataset = make()
    here = _digests(dataset)
    for part in PARTS:
        _require_same(here[part], there[part], "in another process", part)
    return f"{_sizes(here, _noun(dataset))} under another PYTHONHASHSEED"


def _lengths_and_dtypes(dataset: Dataset) -> str:
    if isinstance(dataset, SequenceDataset):
        return _check_sequences(dataset)
    members = 1 if isinstance(dataset, TextDataset) else 2
    found = {}
    for part in PARTS:
        number = -1
        for number, item in enumerate(_items(dataset, part)):
            strings = (item,) if members == 1 else item
            place = f"item {number} of '{part}'"
            if not isinstance(strings, tuple) or [type(s) for s in strings] != [str] * members:
                raise Failure("text" if members == 1 else "a tuple of two texts", type(item).__name__, place)
            for string in strings:
                try:
                    string.encode()
                except UnicodeEncodeError as error:
                    raise Failure("text that UTF-8 can hold", str(error), place) from None
        found[part] = number + 1
    if not found["train"]:
        raise Failure(f"{_noun(dataset)} in 'train'", "none", "reading 'train'")
    return f"{', '.join(f'{number} {part}' for part, number in found.items())} {_noun(dataset)}, all of them text"


def _check_sequences(dataset: SequenceDataset) -> str:
    losses = ("mse", "binary-cross-entropy", "cross-entropy")
    if dataset.loss not in losses or dataset.target not in ("last", "every"):
        received = f"loss={dataset.loss!r}, target={dataset.target!r}"
        raise Failure(f"a loss of {', '.join(losses)} and a target of last, every", received, "its attributes")
    shapes = []
    for part in PARTS:
        sequences = dataset.sequences(part)
        _check_arrays(dataset, sequences, part)
        for number, length in enumerate(sequences.lengths.tolist()):
            _check_sequence(dataset, sequences, number, length, f"sequence {number} of '{part}', of length {length}")
        shapes.append(f"{part} inputs {list(sequences.inputs.shape)}, targets {list(sequences.targets.shape)}")
    return "; ".join(shapes)


def _check_arrays(dataset: SequenceDataset, sequences: Sequences, part: Part) -> None:
    dtypes = {
        "lengths": "int64",
        "inputs": "float32",
        "targets": "int64" if dataset.loss == "cross-entropy" else "float32",
    }
    for name, dtype in dtypes.items():
        array = getattr(sequences, name)
        received = str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__
        if received != dtype:
            raise Failure(f"{name} of {dtype}", received, f"part '{part}'")
    begin = sequences.inputs.shape[:2]
    every = dataset.target == "every"
    for name, rank, first in (
        ("inputs", 3, begin),
        ("lengths", 1, begin[:1]),
        ("targets", 3 if every else 2, begin if every else begin[:1]),
    ):
        shape = getattr(sequences, name).shape
        if len(shape) != rank or shape[: len(first)] != first:
            expected = f"{name} of {rank} axes, the first {list(first)}"
            raise Failure(expected, f"the shape {list(shape)}", f"part '{part}'")
    if part == "train" and not len(sequences.lengths):
        raise Failure("sequences in 'train'", "none", "reading 'train'")


def _check_sequence(dataset: SequenceDataset, sequences: Sequences, number: int, length: int, place: str) -> None:
    inputs, targets = sequences.inputs[number], sequences.targets[number]
    if not 1 <= length <= len(inputs):
        raise Failure(f"a length from 1 to {len(inputs)}", str(length), place)
    if inputs[length:].any() or (dataset.target == "every" and targets[length:].any()):
        raise Failure("0 behind its length", "other values", place)
    if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
        raise Failure("finite values", "values that are not", place)
    lowest, highest = targets.min(), targets.max()
    if dataset.loss == "cross-entropy" and lowest < 0:
        raise Failure("classes from 0", f"the class {lowest}", place)
    if dataset.loss == "binary-cross-entropy" and not 0 <= lowest <= highest <= 1:
        raise Failure("targets from 0 to 1", f"targets from {lowest} to {highest}", place)


def _splits_disjoint(dataset: Dataset) -> str:
    """Count what of a part stands in an earlier one too; the share of it is a finding even where it is no fault."""
    noun, reason = _noun(dataset), getattr(dataset, "overlap", None)
    seen: dict[Part, set[str]] = {}
    shares, faults = [], []
    for part in PARTS:
        seen[part] = set()
        repeated = number = 0
        for number, item in enumerate(_items(dataset, part), 1):
            key = _digest((item[0], item[2]) if noun == "sequences" else item)  # whatever its target
            seen[part].add(key)
            earlier = [other for other in PARTS[: PARTS.index(part)] if key in seen[other]]
            repeated += "train" in earlier
            if earlier and not (noun == "documents" and len(item) < SHORT_DOCUMENT):
                shown = ascii(item if noun != "documents" else item[:60])[:80]
                size = len(item) if noun == "documents" else 0
                faults.append((size, f"item {number - 1} of '{part}', which '{earlier[0]}' has too: {shown}"))
        if part != "train":
            shares.append(f"{repeated} of {number} {part}")
    found = f"{' and '.join(shares)} {noun} are in train too"
    if faults and not (isinstance(reason, str) and reason):
        raise Failure("no item in two parts, or an attribute `overlap` that says why", found, min(faults)[1])
    return f"{found} ({reason})" if faults else found


def _unknown_part(dataset: Dataset) -> str:
    try:
        received = len(list(_items(dataset, cast("Part", "no-such-part"))))
    except UsageError as error:
        return f"refused: {error}"
    if received:
        raise Failure("nothing, or a UsageError", f"{received} items", "the part 'no-such-part'")
    return "nothing in a part that there is not"


def _files(dataset: Dataset) -> str:
    """Read the byte ranges of a text dataset that lies in files."""
    if not isinstance(dataset, TextFileDataset):
        raise Skipped("its documents do not lie in files")
    number = 0
    for part in PARTS:
        with tempfile.TemporaryDirectory(prefix="rnnpipe-") as folder:
            ranges = dataset.texts(part, Path(folder), "line")
            errors: Errors = getattr(dataset, "errors", "strict")  # what `text-files` calls it
            texts = [read_block(Block(text, text.start, text.stop), errors).text for text in ranges]
        documents = list(dataset.documents(part))
        _require_same(list(map(_digest, documents)), list(map(_digest, texts)), "as documents and as files", part)
        number += len(texts)
    return f"{number} files, the same as the documents"
