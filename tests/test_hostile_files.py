"""Readers that trust nothing: whatever stands in a file of any of our formats, only our errors come of it."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli import HARBOUR
from hostile import Cost, Edit, mutate, mutations, resident, sealed_again
from hypothesis import HealthCheck, Phase, given, settings
from test_archives import good_tar, good_zip

from rnnpipe.config import Config, dump_config, load_config, resolve
from rnnpipe.data.corpora.archives import unpack
from rnnpipe.data.corpora.manifest import load_manifest, shipped
from rnnpipe.data.tokens import load_tokens
from rnnpipe.errors import InputError, RnnpipeError
from rnnpipe.pipeline.clean import clean
from rnnpipe.pipeline.dictionary import build_dict
from rnnpipe.pipeline.encode import encode
from rnnpipe.pipeline.requests import Options, number_prompts, read_prompts
from rnnpipe.pipeline.runs import read_record
from rnnpipe.text.corpus import load_corpus
from rnnpipe.text.files import cut_blocks, read_block
from rnnpipe.text.opening import open_texts
from rnnpipe.text.vocabulary import load_vocabulary
from rnnpipe.training.checkpoints import load_checkpoint, save_checkpoint
from rnnpipe.training.metrics import read_metrics

Target = tuple[bytes, Callable[[bytes], object]]  # what is mutated, and what is done with the result


def between(whole: bytes, start: int, stop: int, read: Callable[[bytes], object]) -> Target:
    """Return the target that mutates only the bytes [start, stop)."""
    return whole[start:stop], lambda data: read(whole[:start] + data + whole[stop:])


# --- the formats ---


def dictionary(folder: Path) -> dict[str, Target]:
    path = folder / "words.dict"
    build_dict([HARBOUR], path, unknown_threshold=1)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    header = json.loads(whole[:first])
    del header["sha256"]  # a dictionary without its digest is read as well: what is mutated reaches every check
    plain = json.dumps(header, ensure_ascii=False).encode() + b"\n" + whole[first:]
    first = plain.index(b"\n") + 1

    def read(data: bytes) -> None:
        path.write_bytes(data)
        vocabulary = load_vocabulary(path)
        assert vocabulary.digest
        assert len(vocabulary.ids) == vocabulary.kept

    return {
        "dictionary header": between(plain, 0, first, read),
        "dictionary body": between(plain, first, first + 4000, read),
        "dictionary sealed": (whole, read),
    }


def tokens(folder: Path) -> dict[str, Target]:
    build_dict([HARBOUR], folder / "words.dict")
    encode([HARBOUR], folder / "words.dict", folder / "tokens")
    meta, array = folder / "tokens" / "meta.json", folder / "tokens" / "all" / "tokens.npy"
    offsets = array.with_name("offsets.npy")
    originals = {path: path.read_bytes() for path in (meta, array, offsets)}

    def read(path: Path, data: bytes) -> None:
        for other, original in originals.items():
            other.write_bytes(original)
        path.write_bytes(data)
        if path != meta:  # signed anew, as whoever makes such a file would
            record = json.loads(originals[meta])
            key = "sha256" if path == array else "offsets_sha256"
            record["parts"]["all"][key] = hashlib.sha256(data[128:]).hexdigest()
            meta.write_bytes(sealed_again((json.dumps(record, indent=2) + "\n").encode()))
        opened = load_tokens(folder / "tokens")
        size = opened.vocabulary().size
        for part in opened.parts:
            ids = opened.part(part)
            assert len(ids) == 0 or int(ids.tokens.max()) < size

    return {
        "tokens meta": (originals[meta], lambda data: read(meta, sealed_again(data))),
        "tokens header": between(originals[array], 0, 128, lambda data: read(array, data)),
        "tokens body": between(originals[array], 128, 1 << 30, lambda data: read(array, data)),
        "offsets": (originals[offsets], lambda data: read(offsets, data)),
    }


def checkpoint(folder: Path) -> dict[str, Target]:
    model = torch.nn.LSTM(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    training = {"optimizer": optimizer.state_dict(), "recurrent": ((torch.zeros(2, 4),),), "random": torch.ones(9)}
    path = save_checkpoint(folder, 3, model.state_dict(), training, {"best_step": None, "seconds": 0.5})
    originals = {file.name: file.read_bytes() for file in path.iterdir()}

    def read(name: str, data: bytes) -> None:
        contents = {**originals, name: data}
        if name != "MANIFEST.json":
            record = json.loads(originals["MANIFEST.json"])
            record["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            contents["MANIFEST.json"] = (json.dumps(record, indent=2) + "\n").encode()
        contents["MANIFEST.json"] = sealed_again(contents["MANIFEST.json"])
        for file, content in contents.items():
            (path / file).write_bytes(content)
        loaded = load_checkpoint(path)
        loaded.weights()
        loaded.training()

    weights = originals["weights.safetensors"]
    header = 8 + int.from_bytes(weights[:8], "little")
    return {
        "checkpoint manifest": (originals["MANIFEST.json"], lambda data: read("MANIFEST.json", data)),
        "checkpoint state": (originals["state.json"], lambda data: read("state.json", data)),
        "weights header": between(weights, 0, header, lambda data: read("weights.safetensors", data)),
        "weights body": between(weights, header, 1 << 30, lambda data: read("weights.safetensors", data)),
        "training tensors": (originals["training.safetensors"], lambda data: read("training.safetensors", data)),
    }


def configuration(folder: Path) -> dict[str, Target]:
    path = folder / "config.toml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        dump_config(resolve(load_config(path)))

    return {"configuration": (dump_config(resolve(Config())), read)}


def metrics(folder: Path) -> dict[str, Target]:
    rows = "".join(json.dumps({"step": step, "loss_nats": 1 / step, "lr": 0.1}) + "\n" for step in range(1, 20))

    def read(data: bytes) -> None:
        (folder / "metrics.jsonl").write_bytes(data)
        read_metrics(folder)

    return {"metrics": (rows.encode(), read)}


def prompts(folder: Path) -> dict[str, Target]:
    path = folder / "prompts.jsonl"
    lines = '{"id": "a", "prompt": "The harbour"}\n{"id": 7, "prompt": "caf\\u00e9", "seed": 7}\n{"prompt": ""}\n'

    def read(data: bytes, jsonl: bool) -> None:
        path.write_bytes(data)
        for prompt in number_prompts(read_prompts(path, jsonl=jsonl), Options(), 0, 2):
            prompt.id.encode()
            prompt.text.encode()

    return {
        "prompts as JSON lines": (lines.encode() * 3, lambda data: read(data, True)),
        "prompts as lines": (lines.encode() * 3, lambda data: read(data, False)),
    }


def manifest(folder: Path) -> dict[str, Target]:
    path = folder / "small.toml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        loaded = load_manifest(path)
        for file in loaded.files:
            assert Path(file.file).name == file.file
            assert file.url.startswith(("https://", "file:///", "http://127.0.0.1", "http://localhost", "http://[::1]"))

    return {"corpus manifest": (shipped()[0].read_bytes(), read)}


def cleaned(folder: Path) -> dict[str, Target]:
    clean([HARBOUR], folder / "cleaned", split="8:1:1")
    meta, text = folder / "cleaned" / "corpus.json", folder / "cleaned" / "test.txt"
    originals = {path: path.read_bytes() for path in (meta, text)}

    def read(path: Path, data: bytes) -> None:
        for other, original in originals.items():
            other.write_bytes(original)
        path.write_bytes(data)
        corpus = load_corpus(folder / "cleaned")
        assert corpus.cleaner.name is not None
        for part in corpus.parts:
            for each in corpus.texts(part):
                for block in cut_blocks(each):
                    read_block(block, "strict")

    return {
        "cleaned corpus record": (originals[meta], lambda data: read(meta, sealed_again(data))),
        "cleaned corpus text": (originals[text], lambda data: read(text, data)),
    }


def texts(folder: Path) -> dict[str, Target]:
    path = folder / "text.txt"
    original = "Caf\u00e9, na\u00efve\r\n\u65e5\u672c\u8a9e\u2028\U0001f600\n".encode() * 20

    def read(data: bytes, encoding: str) -> None:
        path.write_bytes(data)
        for text in open_texts([str(path)], folder / "spool", encoding):
            for block in cut_blocks(text):
                assert read_block(block, "strict").text.encode()

    return {
        "text": (original, lambda data: read(data, "utf-8")),
        "text in UTF-16": (original.decode().encode("utf-16"), lambda data: read(data, "utf-16")),
        "text in cp932": ("\u65e5\u672c\u8a9e\r\n".encode("cp932") * 20, lambda data: read(data, "cp932")),
    }


def record(folder: Path) -> dict[str, Target]:
    original = json.dumps({"format": "rnnpipe-run", "version": 1, "steps": 20, "made_from": ["a", {"train": "b"}]})

    def read(data: bytes) -> None:
        (folder / "run.json").write_bytes(data)
        read_record(folder)

    return {"run record": (original.encode(), read)}


def archives(folder: Path) -> dict[str, Target]:
    packed = good_tar(folder / "a.tar.gz").read_bytes()
    zipped = good_zip(folder / "a.zip").read_bytes()
    unpacked = gzip.decompress(packed)
    directory = zipped.index(b"PK\1\2")
    local = zipped.index(b"sub/b.txt") + 9

    def read(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        shutil.rmtree(folder / "out", ignore_errors=True)
        try:
            unpack(folder / name, folder / "out", 20_000)
        finally:
            written = [path for path in folder.rglob("*") if path.is_file()]
            assert all(path.parent == folder or folder / "out" in path.parents for path in written)
            assert sum(path.stat().st_size for path in written if folder / "out" in path.parents) <= 20_000

    def read_tar(data: bytes) -> None:
        read("a.tar.gz", gzip.compress(data, 1))

    return {
        "gzip": (packed, lambda data: read("a.tar.gz", data)),
        "tar headers": between(unpacked, 0, 1024, read_tar),
        "tar body": between(unpacked, 1024, 1 << 30, read_tar),
        "zip directory": between(zipped, directory, 1 << 30, lambda data: read("a.zip", data)),
        "zip body": between(zipped, 0, local + 200, lambda data: read("a.zip", data)),
    }


FORMATS: dict[Callable[[Path], dict[str, Target]], list[str]] = {
    dictionary: ["dictionary header", "dictionary body", "dictionary sealed"],
    tokens: ["tokens meta", "tokens header", "tokens body", "offsets"],
    checkpoint: ["checkpoint manifest", "checkpoint state", "weights header", "weights body", "training tensors"],
    configuration: ["configuration"],
    metrics: ["metrics"],
    prompts: ["prompts as JSON lines", "prompts as lines"],
    manifest: ["corpus manifest"],
    cleaned: ["cleaned corpus record", "cleaned corpus text"],
    texts: ["text", "text in UTF-16", "text in cp932"],
    record: ["run record"],
    archives: ["gzip", "tar headers", "tar body", "zip directory", "zip body"],
}
EVERY = [pytest.param(make, name, id=name) for make, names in FORMATS.items() for name in names]


def outcomes(target: Target, examples: int, cost: Cost | None = None) -> dict[str, int]:
    """Read so many mutations; return how many were read and how many refused. Anything but our errors is a failure."""
    original, read = target
    counts = {"read": 0, "refused": 0}

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=cost is None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations)
    def run(edits: list[Edit]) -> None:
        data = mutate(original, edits)
        begun = time.process_time()
        try:
            read(data)
        except RnnpipeError as error:
            counts["refused"] += 1
            assert len(str(error)) < 2100, "one line, that a person can read"
        else:
            counts["read"] += 1
        if cost is not None:
            cost.seconds = max(cost.seconds, time.process_time() - begun)

    run()
    return counts


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize(("make", "name"), EVERY)
def test_only_our_errors(tmp_path: Path, make: Callable[[Path], dict[str, Target]], name: str) -> None:
    target = make(tmp_path)[name]
    target[1](target[0])  # the file as it is can be read
    counts = outcomes(target, 60)
    assert counts["refused"]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "name"), EVERY)
def test_ten_thousand_mutations(
    tmp_path: Path, make: Callable[[Path], dict[str, Target]], name: str, record_property: Callable[[str, object], None]
) -> None:
    """Each takes at most 2 seconds of processor time and 500 MB of memory beside what the process had."""
    cost = Cost()
    target = make(tmp_path)[name]
    with resident(cost):
        counts = outcomes(target, 10_000, cost)
    for key, value in {**counts, **vars(cost)}.items():
        record_property(key, value)
    print(f"{name}: {counts}, at most {cost.seconds:.2f} s and {cost.resident_bytes >> 20} MB")  # noqa: T201
    assert sum(counts.values()) >= 9_000, "hypothesis ran out of examples"
    assert cost.seconds < 2
    assert cost.resident_bytes < 500 << 20


def test_a_message_quotes_no_more_than_a_person_reads() -> None:
    """A megabyte where a name should be does not become a megabyte on the screen; place and advice stay."""
    message = str(InputError(f"file.toml: name {'x' * 1_000_000} is not accepted; use another one."))
    assert len(message) < 2100
    assert message.startswith("file.toml: name xxx")
    assert message.endswith("xxx is not accepted; use another one.")
    assert str(InputError("x" * 2000)) == "x" * 2000
