"""The datasets of text: how files are divided, and that every reading gives the same."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnpipe.data.base import PARTS, Part, TextDataset, TextFileDataset
from rnnpipe.data.python_docs import PythonDocs
from rnnpipe.data.text_files import TextFiles, parse_split, split_text
from rnnpipe.errors import InputError, UsageError
from rnnpipe.pipeline.clean import clean_dataset, load_text_dataset
from rnnpipe.text.corpus import load_corpus
from rnnpipe.text.files import Block, TextFile, read_block
from rnnpipe.text.rules import Named


def read(text: TextFile) -> str:
    return read_block(Block(text, text.start, text.stop), "strict").text


@contextmanager
def file_of(data: bytes) -> Iterator[TextFile]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(data)
        yield TextFile("text.txt", path, 0, len(data))


# --- the shares ---


@pytest.mark.parametrize(
    ("split", "shares"),
    [("8:1:1", (8, 1, 1)), ("9:1", (9, 1)), ("1:0:1", (1, 0, 1)), ("1:0", (1, 0)), ("80:10:10", (80, 10, 10))],
)
def test_shares(split: str, shares: tuple[int, ...]) -> None:
    assert parse_split(split) == shares


@pytest.mark.parametrize(
    "split",
    [
        "",
        "8",
        "8:",
        ":1",
        "0:1",
        "0:0:1",
        "8:1:1:1",
        "8:-1",
        "8:+1",
        "0.8:0.2",
        "8 : 1",
        "a:b",
        "\u0668:\u0661",
        "\u00b2:1",
        "1" * 10 + ":1",
        "8:1:1\n",
        "8/1/1",
        "1_0:1",
    ],
)
def test_wrong_shares(split: str) -> None:
    with pytest.raises(UsageError, match="is not accepted; write the shares as train:valid or train:valid:test"):
        parse_split(split)
    with pytest.raises(UsageError, match="is not accepted"):
        PythonDocs(split=split)
    with pytest.raises(UsageError, match="is not accepted"):
        TextFiles(inputs=["x"], split=split)


# --- the cuts ---

content = st.lists(
    st.sampled_from(["a", "bc ", "\n", "\r\n", "\u65e5", "\U0001f600 x", "long line of words\n"]), max_size=30
)
shares = st.lists(st.integers(0, 9), min_size=1, max_size=2).map(lambda rest: (1, *rest)) | st.just((8, 1, 1))


@given(content.map("".join), shares, st.integers(0, 5))
@settings(deadline=None, max_examples=200)
@example("one\ntwo\n", (1, 9), 0)
def test_parts_are_contiguous_and_the_whole_text(text: str, parts: Sequence[int], skip: int) -> None:
    data = (text + "\n").encode()
    with file_of(b"s" * skip + data) as file:
        whole = TextFile("text.txt", file.path, skip, file.stop)
        for at in ("line", "character"):
            if at == "character" and len(data) * parts[0] // sum(parts) == 0 and skip == 0:
                continue  # see the test below
            divided = split_text(whole, parts, at)  # type: ignore[arg-type]
            assert list(divided) == [part for part in PARTS if part in divided]
            found = list(divided.values())
            assert [one.start for one in found] == [skip, *[one.stop for one in found[:-1]]]
            assert found[-1].stop == whole.stop
            pieces = [read(one) for one in found]  # strict: no character is parted
            assert "".join(pieces) == io.StringIO(data.decode(), newline=None).read()
            if at == "line":
                assert all(piece.endswith("\n") for piece in pieces)


@given(content.map("".join), shares)
@settings(deadline=None)
def test_each_cut_is_the_first_that_its_share_allows(text: str, parts: Sequence[int]) -> None:
    data = ("start\n" + text + "\n").encode()
    with file_of(data) as file:
        divided = split_text(file, parts, "line")
    train = divided["train"].stop if "train" in divided else 0
    wanted = len(data) * parts[0] // sum(parts)
    assert train >= wanted
    if 0 < wanted < len(data):
        assert train == data.index(b"\n", wanted - 1) + 1


def test_a_part_without_a_share_is_left_out() -> None:
    with file_of(b"line\n" * 10) as file:
        assert list(split_text(file, (1, 0, 1), "line")) == ["train", "test"]
        assert list(split_text(file, (1, 0), "line")) == ["train"]
    with file_of(b"one line alone") as file:
        assert list(split_text(file, (8, 1, 1), "line")) == ["train"]


def test_a_very_short_text_is_divided_at_characters() -> None:
    with file_of(b"abcde") as file:
        assert list(split_text(file, (1, 9), "character")) == ["valid"]


def test_a_text_with_lone_carriage_returns_is_divided_at_lines() -> None:
    with file_of(b"line\r" * 100) as file:
        divided = split_text(file, (8, 1, 1), "line")
        assert {part: read(one) for part, one in divided.items()} == {
            "train": "line\n" * 80,
            "valid": "line\n" * 10,
            "test": "line\n" * 10,
        }


def test_the_standard_split_of_tiny_shakespeare(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "en" / "tinyshakespeare.txt"
    dataset = TextFiles(inputs=[str(path)], split="9:1")
    clean_dataset(dataset, tmp_path / "out", cleaner=Named("none"), split_at="character")
    parts = {part: (tmp_path / "out" / f"{part}.txt").read_text() for part in ("train", "valid")}
    assert {part: len(text) for part, text in parts.items()} == {"train": 1_003_854, "valid": 111_540}
    assert parts["train"] + parts["valid"] == path.read_text(encoding="utf-8")
    assert load_corpus(tmp_path / "out").parts == ["train", "valid"]


def test_real_texts_in_other_encodings(data_dir: Path, tmp_path: Path) -> None:
    inputs = sorted(str(path) for path in (data_dir / "ja").glob("*.txt"))[:2]
    dataset = TextFiles(inputs=inputs, encoding="cp932")
    for number, name in enumerate(inputs):
        whole = "".join(list(dataset.documents(part))[number] for part in PARTS)
        assert whole == Path(name).read_text(encoding="cp932")


# --- text-files ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, count in (("a", 10), ("b", 100)):
        (folder / f"{name}.txt").write_text("".join(f"{name} {number:03}\n" for number in range(count)))
    return folder


def test_each_file_is_divided(folder: Path) -> None:
    dataset = TextFiles(inputs=[str(folder)])
    parts: dict[Part, list[str]] = {part: list(dataset.documents(part)) for part in PARTS}
    assert [[len(document.splitlines()) for document in parts[part]] for part in PARTS] == [[8, 80], [1, 10], [1, 10]]
    for number, name in enumerate("ab"):
        assert "".join(parts[part][number] for part in PARTS) == (folder / f"{name}.txt").read_text()


def test_reading_twice_gives_the_same(folder: Path) -> None:
    dataset = TextFiles(inputs=[str(folder)], split="3:1:1")
    first = {part: list(dataset.documents(part)) for part in PARTS}
    assert {part: list(dataset.documents(part)) for part in reversed(PARTS)} == first
    lines = [{line for document in documents for line in document.splitlines()} for documents in first.values()]
    assert sum(map(len, lines)) == len(set.union(*lines)) == 110  # no line is in two parts


def test_the_files_are_opened_once_for_a_folder_of_copies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Input:
        buffer = io.BytesIO(b"line\n" * 10)

    monkeypatch.setattr("sys.stdin", Input())
    dataset = TextFiles(inputs=["-"])
    sizes = [sum(text.size for text in dataset.texts(part, tmp_path / "spool", "line")) for part in PARTS]
    assert sizes == [40, 5, 5]


def test_mending(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\xff\n" * 10)
    documents = list(TextFiles(inputs=[str(tmp_path / "a.txt")], errors="ignore").documents("train"))
    assert documents == ["a\n" * 8]
    with pytest.raises(InputError, match="line 1, byte 1"):
        list(TextFiles(inputs=[str(tmp_path / "a.txt")]).documents("train"))


def test_text_files_need_inputs() -> None:
    with pytest.raises(UsageError, match="needs inputs"):
        TextFiles(inputs=[])
    with pytest.raises(UsageError, match="dataset 'text-files' needs the option 'inputs'"):
        load_text_dataset(Named("text-files"))
    with pytest.raises(UsageError, match=r"has no option 'input'\. Did you mean 'inputs'"):
        load_text_dataset(Named("text-files", {"input": ["a"]}))
    with pytest.raises(UsageError, match="'errors' of dataset 'text-files': 'skip' is not accepted"):
        load_text_dataset(Named("text-files", {"inputs": ["a"], "errors": "skip"}))


# --- python-docs ---


def test_python_docs_are_divided_by_topics() -> None:
    from pydoc_data.topics import topics

    dataset = PythonDocs()
    parts = {part: list(dataset.documents(part)) for part in PARTS}
    assert {part: list(dataset.documents(part)) for part in PARTS} == parts  # again
    assert sum(map(len, parts.values())) == len(topics)
    sets = [set(documents) for documents in parts.values()]
    assert sum(map(len, sets)) == len(set.union(*sets))  # no topic in two parts
    sizes = {part: sum(map(len, documents)) for part, documents in parts.items()}
    total = sum(sizes.values())
    assert total > 400_000
    assert sizes["train"] / total == pytest.approx(0.8, abs=0.06)
    assert sizes["valid"] / total == pytest.approx(0.1, abs=0.06)
    assert not [line for text in parts["train"] for line in text.split("\n") if re.fullmatch("[-=*~^]{3,}", line)]


def test_python_docs_have_no_ruling_lines() -> None:
    lines = [line for part in PARTS for text in PythonDocs().documents(part) for line in text.split("\n")]
    assert not [line for line in lines if re.fullmatch(r"\s*[+|]?(?:[-=]{3,}[+| ]*)+", line)]


def test_python_docs_in_two_parts() -> None:
    dataset = PythonDocs(split="1:1")
    sizes = [sum(map(len, dataset.documents(part))) for part in PARTS]
    assert sizes[2] == 0
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)
    assert not list(PythonDocs(split="1:0:1").documents("valid"))


def test_python_docs_become_a_corpus(tmp_path: Path) -> None:
    clean_dataset(load_text_dataset(Named("python-docs")), tmp_path / "out", cleaner=Named("none"))
    corpus = load_corpus(tmp_path / "out")
    for part in PARTS:
        assert [read(text) for text in corpus.texts(part)] == [text for text in PythonDocs().documents(part) if text]


# --- the protocols ---


class Lines:
    """A dataset as a plugin would write it."""

    def __init__(self, parts: dict[str, list[str]]) -> None:
        self.parts = parts

    def documents(self, split: Part) -> list[str]:
        return self.parts.get(split, [])


def test_kinds_of_dataset() -> None:
    assert isinstance(PythonDocs(), TextDataset)
    assert not isinstance(PythonDocs(), TextFileDataset)
    assert isinstance(TextFiles(inputs=["a"]), TextFileDataset)
    assert isinstance(Lines({}), TextDataset)
    assert not isinstance(object(), TextDataset)


def test_a_dataset_of_documents_is_cleaned(tmp_path: Path) -> None:
    dataset = Lines({"train": ["One!\r\ntwo\n", "", "Three\n"], "test": ["four\n"]})
    clean_dataset(dataset, tmp_path / "out", cleaner=Named("unicode-words"))
    corpus = load_corpus(tmp_path / "out")
    assert corpus.parts == ["train", "test"]
    assert [read(text) for text in corpus.texts("train")] == ["one\ntwo\n", "three\n"]
    assert [read(text) for text in corpus.texts("test")] == ["four\n"]


@pytest.mark.parametrize("parts", [{}, {"valid": ["text"]}, {"train": [""], "valid": ["text"]}])
def test_a_dataset_without_training_text(tmp_path: Path, parts: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the dataset has no training text"):
        clean_dataset(Lines(parts), tmp_path / "out", cleaner=Named("none"))
