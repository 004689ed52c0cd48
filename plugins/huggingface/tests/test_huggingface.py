"""The dataset over data that the tests make: files, saved folders, splits, columns, and whatever can be wrong."""

import json
import sys

import datasets
import pytest
from rnnpipe_huggingface import HuggingFace

from rnnpipe.errors import InputError, UsageError
from rnnpipe.testing import check_dataset

PARTS = ("train", "valid", "test")


def rows(name, number):
    return {"text": [f"{name} {k}: naïve 朝\n" for k in range(number)], "label": list(range(number))}


def jsonl(path, table):
    lines = [json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def saved(path, **splits):
    datasets.DatasetDict({name: datasets.Dataset.from_dict(table) for name, table in splits.items()}).save_to_disk(path)
    return str(path)


def read(dataset):
    return {part: list(dataset.documents(part)) for part in PARTS}


def test_files_of_a_format(tmp_path):
    tables = {"train": rows("t", 2500), "validation": rows("v", 3)}
    files = {name: jsonl(tmp_path / f"{name}.jsonl", table) for name, table in tables.items()}
    got = read(HuggingFace(path="json", data_files=files))
    assert got == {"train": tables["train"]["text"], "valid": tables["validation"]["text"], "test": []}


@pytest.mark.parametrize("name", ["validation", "valid", "dev"])
def test_a_saved_folder_and_the_usual_names(name, tmp_path):
    path = saved(tmp_path / "saved", train=rows("t", 4), **{name: rows("v", 2)}, test=rows("e", 1))
    got = read(HuggingFace(path=path))
    assert got == {"train": rows("t", 4)["text"], "valid": rows("v", 2)["text"], "test": rows("e", 1)["text"]}


def test_names_of_ones_own(tmp_path):
    path = saved(tmp_path / "saved", big=rows("b", 3), small=rows("s", 1), test=rows("e", 1))
    got = read(HuggingFace(path=path, splits={"train": "big", "test": "small"}))
    assert got == {"train": rows("b", 3)["text"], "valid": [], "test": rows("s", 1)["text"]}
    with pytest.raises(UsageError, match=r"has no split 'train' but big, small, test; name one with splits\.train"):
        read(HuggingFace(path=path))
    with pytest.raises(UsageError, match=r"unknown split of '.*' 'bigg'\. Did you mean 'big'\? Accepted: big, small"):
        read(HuggingFace(path=path, splits={"train": "bigg"}))
    with pytest.raises(UsageError, match=r"unknown part 'validation'\. Did you mean 'valid'"):
        HuggingFace(path=path, splits={"validation": "small"})


def test_the_only_split_is_divided_contiguously(tmp_path):
    path = tmp_path / "one"
    datasets.Dataset.from_dict(rows("r", 11)).save_to_disk(path)
    got = read(HuggingFace(path=str(path), split="3:1:1"))
    assert got["train"] + got["valid"] + got["test"] == rows("r", 11)["text"]
    assert [len(got[part]) for part in PARTS] == [6, 2, 3]
    assert read(HuggingFace(path=str(path), split="9:1"))["test"] == []
    assert read(HuggingFace(path=str(path))) == {"train": rows("r", 11)["text"], "valid": [], "test": []}
    several = saved(tmp_path / "several", train=rows("t", 2), test=rows("e", 2))
    with pytest.raises(UsageError, match="has the splits train, test; leave out split"):
        read(HuggingFace(path=several, split="8:1:1"))
    with pytest.raises(UsageError, match="leave out it or splits"):
        HuggingFace(path=several, split="8:1:1", splits={"train": "train"})
    with pytest.raises(UsageError, match="split '8' is not accepted"):
        HuggingFace(path=several, split="8")


def test_columns(tmp_path):
    table = {"body": ["one", None, "", "two"], "n": [1, 2, 3, 4]}
    path = saved(tmp_path / "saved", train=table)
    assert read(HuggingFace(path=path, column="body"))["train"] == ["one", "two"]
    with pytest.raises(InputError, match="column 'text' is not there; columns of text: body; others: n"):
        read(HuggingFace(path=path))
    with pytest.raises(InputError, match="column 'n' is not text; columns of text: body; others: n"):
        read(HuggingFace(path=path, column="n"))


def test_a_saved_format_has_no_say(tmp_path):
    path = tmp_path / "saved"
    datasets.Dataset.from_dict(rows("t", 2)).with_format("numpy").save_to_disk(path)
    assert read(HuggingFace(path=str(path)))["train"] == rows("t", 2)["text"]
    assert all(type(document) is str for document in HuggingFace(path=str(path)).documents("train"))


def test_what_cannot_be_loaded(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"text": ')
    for options, reason in (
        ({"path": "nobody/nothing"}, "cannot load 'nobody/nothing': Couldn't reach"),
        ({"path": str(tmp_path / "nothing")}, "cannot load '.*/nothing': Couldn't find any data file"),
        ({"path": "json", "data_files": str(tmp_path / "no.jsonl")}, "cannot load 'json': Unable to find '.*no.jsonl'"),
        ({"path": "json", "data_files": str(tmp_path / "broken.jsonl")}, "cannot load 'json': .*JSON"),
    ):
        with pytest.raises(InputError, match=reason):
            read(HuggingFace(**options))


def test_without_the_library_one_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="pip install datasets"):
        HuggingFace(path="json")


def test_conformance(tmp_path):
    check_dataset(HuggingFace, path=saved(tmp_path / "saved", train=rows("t", 30), validation=rows("v", 5)))
