"""Counting and encoding on a cluster that the library Dask holds together (extra `dask`).

The workers see the texts and the output's folder under the same paths, as on a network file system, and have this
version of rnnpipe. Tasks and their arguments travel as Dask sends them, which executes what it receives: for trusted
networks only. A worker that is lost costs the shards it was at: the scheduler gives them to another one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rnnpipe
from rnnpipe.data.tokens import Ids
from rnnpipe.durable import make_directory, sha256_file
from rnnpipe.errors import InputError, RnnpipeError, UsageError
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.shards import (
    MERGED_AT_ONCE,
    SHARD_BYTES,
    Shard,
    count_shard,
    cut_shards,
    digest_shard,
    encode_shard,
    merge_shards,
    read_ids,
    remove_shards,
)
from rnnpipe.text.counting import Counts
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.rules import LoadRules
from rnnpipe.text.runs import TYPE_BYTES, Spill, merge_runs

_TIMEOUT_SECONDS = 20
_AHEAD = 4  # shards for each thread of the cluster that are handed out at once


class DaskEngine:
    """A Dask cluster at the address of its scheduler, asked for when there is work."""

    def __init__(self, scheduler: str, report: Report = no_report, shard_bytes: int = SHARD_BYTES) -> None:
        self._scheduler = scheduler
        self._report = report
        self._shard_bytes = shard_bytes
        self._folder: Path | None = None
        _library()

    @contextlib.contextmanager
    def folder(self, out: Path | None) -> Iterator[Path]:
        """Yield `OUT.shards`, beside the output; it goes when the work is done, and stays for another try if not."""
        if out is None:
            raise UsageError("--engine dask writes beside its output; name one with -o.")
        folder = out.absolute().with_name(f"{out.name}.shards")
        make_directory(folder)
        self._folder = folder
        yield folder
        remove_shards(folder)

    def digests(self, texts: Sequence[TextFile]) -> Sequence[str]:
        """Return the SHA-256 of each text, each found by one worker: a digest cannot be put together from parts."""
        with self._client() as client:
            shards = (Shard((replace(text, path=text.path.absolute()),), str(k)) for k, text in enumerate(texts))
            found = {shard.name: digest for shard, digest in self._map(client, shards, digest_shard)}
        return [found[str(number)] for number in range(len(texts))]

    def count(
        self,
        texts: Sequence[TextFile],
        load_rules: LoadRules,
        *,
        errors: Errors,
        workers: int,
        spill: Spill,
        progress: Callable[[int], None],
    ) -> Counts:
        """Count shard by shard, and merge the runs by a tree; the counts are runs of `spill` if memory has no room."""
        assert self._folder is not None, "the folder is open"
        folder = self._folder
        shards = cut_shards(texts, load_rules(), ["count", described(load_rules), errors], folder, self._shard_bytes)
        with self._client() as client:
            records = []
            for shard, record in self._map(client, shards, count_shard, load_rules, errors):
                records.append(record)
                progress(shard.size)
            self._tell(records, "counted")
            names = sorted({record["name"] for record in records})  # the tree does not depend on who was first
            while len(names) > 1:
                groups = [names[k : k + MERGED_AT_ONCE] for k in range(0, len(names), MERGED_AT_ONCE)]
                merged = client.map(merge_shards, [str(folder)] * len(groups), groups, pure=False)
                names = [record["name"] for record in map(_result, merged)]
        counts = Counts()
        counts.characters = sum(record["characters"] for record in records)
        counts.mended_bytes = sum(record["mended_bytes"] for record in records)
        run = folder / f"{names[0]}.run"
        for batch in merge_runs([run], keep=True):
            counts.tokens.update(batch.to_counts())
            if len(counts.tokens) * TYPE_BYTES > spill.count_bytes // 2:
                counts.tokens.clear()
                spill.runs.append(run)
                break
        return counts

    def encode(
        self,
        texts: Sequence[TextFile],
        load_rules: LoadRules,
        dictionary: Path,
        *,
        errors: Errors,
        workers: int,
        progress: Callable[[int], None],
        mended: Callable[[int], object],
    ) -> Iterator[Iterator[Ids]]:
        """Encode shard by shard; the ids are put together here, in order."""
        assert self._folder is not None, "the folder is open"
        folder = self._folder
        made_by = ["encode", described(load_rules), sha256_file(dictionary), errors]
        copy = folder / "dictionary"
        copy.write_bytes(dictionary.read_bytes())
        shards = list(cut_shards(texts, load_rules(), made_by, folder, self._shard_bytes))
        records: dict[str, dict[str, Any]] = {}
        with self._client() as client:
            for shard, record in self._map(client, iter(shards), encode_shard, load_rules, str(copy), errors):
                records[shard.name] = record
        self._tell(list(records.values()), "encoded")

        def pieces() -> Iterator[tuple[TextFile, int, Ids]]:
            for shard in shards:
                record = records[shard.name]
                ids = read_ids(folder, shard, record["lengths"])
                for number, (text, array) in enumerate(zip(shard.texts, ids, strict=True)):
                    yield text, 0 if number else record["mended_bytes"], array

        every = pieces()

        def arrays(text: TextFile) -> Iterator[Ids]:
            position = text.start
            while position < text.stop:
                part, count, ids = next(every)
                progress(part.size)
                mended(count)
                position = part.stop
                yield ids

        for text in texts:
            yield arrays(text)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """Yield a client of the cluster; raise InputError if there is none, or one of other versions of rnnpipe."""
        distributed = _library()
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is lost is done again, and told here
        try:
            client = distributed.Client(self._scheduler, timeout=_TIMEOUT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(f"--scheduler {self._scheduler}: no Dask scheduler answers there: {error}.") from None
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT_SECONDS)
            for worker, version in client.run(_version, on_error="return").items():
                if version != rnnpipe.__version__:
                    raise InputError(
                        f"worker {worker}: has rnnpipe {version}, this is {rnnpipe.__version__}; install it there."
                    )
            yield client
        except TimeoutError:
            raise InputError(
                f"--scheduler {self._scheduler}: has no worker; start some with `dask worker {self._scheduler}`."
            ) from None
        finally:
            client.close()

    def _map(
        self, client: Any, shards: Iterator[Shard], function: Callable[..., Any], *arguments: Any
    ) -> Iterator[tuple[Shard, Any]]:
        """Yield each shard with the result of its task, as they are done; only so many are handed out at once."""
        room = _AHEAD * max(1, sum(client.nthreads().values()))
        waiting: dict[Any, Shard] = {}
        done = _library().as_completed(loop=client.loop)

        def hand_out(number: int) -> None:
            for shard in _take(shards, number):
                future = client.submit(function, str(self._folder), shard, *arguments, pure=False)
                waiting[future] = shard
                done.add(future)

        hand_out(room)
        while waiting:
            future = next(done)
            yield waiting.pop(future), _result(future)
            hand_out(1)

    def _tell(self, records: Sequence[dict[str, Any]], what: str) -> None:
        new = sum(record["new"] for record in records)
        self._report(f"{len(records)} shards: {new} {what}, {len(records) - new} were there already")


def _take(shards: Iterator[Shard], number: int) -> Iterator[Shard]:
    for _ in range(number):
        if (shard := next(shards, None)) is None:
            return
        yield shard


def _result(future: Any) -> Any:
    """Return the result of a task; what it raised as an error of ours, in one line."""
    try:
        return future.result()
    except RnnpipeError:
        raise
    except Exception as error:
        raise InputError(f"a task of the cluster failed: {type(error).__name__}: {error}.") from error


def described(load_rules: LoadRules) -> Any:
    """Return what rules a loader loads, in a form that can be compared: it is a partial over names and options."""
    names = getattr(load_rules, "args", ())
    return [named.to_json() for named in names]


def _version() -> str:
    return rnnpipe.__version__


def _library() -> Any:
    try:
        import distributed
    except ImportError:
        raise UsageError("--engine dask needs Dask: pip install 'rnnpipe[dask]'.") from None
    return distributed
