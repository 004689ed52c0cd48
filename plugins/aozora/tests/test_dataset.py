"""The dataset: what stands around a work is left out, the work is divided and nothing of it is lost."""

import io
import os
import re
from pathlib import Path

import pytest
from rnnpipe_aozora.cleaner import aozora
from rnnpipe_aozora.dataset import Aozora
from works import BODY, FOOTER, LEGEND, TITLE, WORK, write

from rnnpipe.data.text_files import temporary_folder
from rnnpipe.errors import InputError, UsageError
from rnnpipe.testing import check_dataset

PARTS = ("train", "valid", "test")


def read(dataset: Aozora) -> dict[str, list[str]]:
    return {part: list(dataset.documents(part)) for part in PARTS}


def whole(dataset: Aozora) -> str:
    return "".join("".join(documents) for documents in read(dataset).values())


@pytest.mark.parametrize(
    "text",
    [
        WORK,
        TITLE + BODY + FOOTER,  # a work without marks has no legend
        TITLE.replace("\n\n", "\n副題\n訳者\n\n\n") + LEGEND + BODY + FOOTER.replace("底本：", "底本:"),
        TITLE + LEGEND + BODY,
        "\n" + TITLE.rstrip("\n") + "\n" + LEGEND + "\n" + BODY + FOOTER,
        BODY,  # not of the library
        "----\n" + BODY,
    ],
    ids=["all", "no legend", "long title", "no footer", "odd blank lines", "plain", "dashes"],
)
def test_the_work_alone_is_left(text, tmp_path):
    expected = BODY.rstrip() if text.lstrip("\n").startswith("霧") else text
    assert whole(Aozora(inputs=[write(tmp_path / "work.txt", text)])) == expected


@pytest.mark.parametrize("text", [TITLE + LEGEND + FOOTER, FOOTER.lstrip()])
def test_nothing_is_left_of_a_file_without_a_work(text, tmp_path):
    assert read(Aozora(inputs=[write(tmp_path / "work.txt", text)])) == {part: [] for part in PARTS}


def test_a_line_that_only_mentions_the_edition_stays(tmp_path):
    body = "この底本：は本文。\n　底本：字下げ。\n" + BODY
    assert whole(Aozora(inputs=[write(tmp_path / "work.txt", TITLE + body + FOOTER)])) == body.rstrip()


def test_each_work_is_divided_contiguously(tmp_path):
    write(tmp_path / "1.txt", WORK)
    write(tmp_path / "2.txt", WORK.replace("霧", "雨"))
    dataset = Aozora(inputs=[str(tmp_path)], split="2:1:1")
    parts = read(dataset)
    assert [len(documents) for documents in parts.values()] == [2, 2, 2]
    for number, letter in enumerate("霧雨"):
        text = "".join(parts[part][number] for part in PARTS)
        assert text == BODY.replace("霧", letter).rstrip()
        assert len(parts["train"][number]) == pytest.approx(len(BODY) / 2, rel=0.1)


def test_no_mark_is_cut_through_where_files_are_cut_anywhere(tmp_path):
    dataset = Aozora(inputs=[write(tmp_path / "work.txt", WORK)], split="3:4:5")
    with temporary_folder() as spool:
        texts = [text for part in PARTS for text in dataset.texts(part, spool, "character")]
        pieces = [text.path.read_bytes()[text.start : text.stop].decode() for text in texts]
    assert len(pieces) == 3
    for piece in pieces:
        assert piece.startswith("　") and piece.rstrip().endswith("傍点］")


def test_standard_input_is_read_once_for_all_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(WORK.encode("cp932"))))
    dataset = Aozora(inputs=["-"])
    with temporary_folder() as spool:
        texts = [text for part in PARTS for text in dataset.texts(part, spool, "line")]
        assert sum(text.size for text in texts) == len(BODY.rstrip().encode())


def test_another_encoding_and_a_byte_that_is_not_of_it(tmp_path):
    text = WORK
    utf8 = write(tmp_path / "utf8.txt", text, "utf-8-sig")
    assert whole(Aozora(inputs=[utf8], encoding="utf-8")) == BODY.rstrip()
    damaged = tmp_path / "damaged.txt"
    damaged.write_bytes((TITLE + "霧").replace("\n", "\r\n").encode("cp932") + b"\x81 " + BODY.encode("cp932"))
    with pytest.raises(InputError, match=rf"{damaged}, line 4, byte 22 \(0x81\): not valid cp932"):
        whole(Aozora(inputs=[str(damaged)]))
    assert "�" not in whole(Aozora(inputs=[str(damaged)], errors="ignore"))


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="needs inputs"):
        Aozora(inputs=[])
    with pytest.raises(UsageError, match="split '8' is not accepted"):
        Aozora(inputs=["x"], split="8")
    with pytest.raises(InputError, match="no such file"):
        whole(Aozora(inputs=["/no/such/work.txt"]))


def test_conformance(tmp_path):
    check_dataset(Aozora, inputs=[write(tmp_path / "work.txt", WORK)])


def printed(text: str) -> str:
    """Return what a reader of the book sees, character by character, NUL for each that the encoding lacks."""
    kept, ruby, notes = [], False, []
    for position, character in enumerate(text):
        if character == "《" and not notes:
            ruby = True
        elif character == "》" and not notes:
            ruby = False
        elif text.startswith("［＃", position):
            described = text[position - 1] == "※" and not ruby
            notes.append(described)
            if described and len(notes) == 1:
                kept[-1] = "\0"
        elif character == "］" and notes:
            notes.pop()
        elif not (ruby or notes or character == "｜" or character.isspace()):
            kept.append(character)
    return "".join(kept).replace("／″＼", "〴〵").replace("／＼", "〳〵")


def test_real_works():
    """What is left of works of the library is what is printed in the book, read off by another method."""
    folder = Path(os.environ.get("RNNPIPE_TEST_DATA", ""), "ja")
    if not os.environ.get("RNNPIPE_TEST_DATA") or not folder.is_dir():
        pytest.skip("no works; set RNNPIPE_TEST_DATA to a folder with some in ja/")
    for path in sorted(folder.glob("*.txt")):
        cleaned = "".join(aozora().clean(whole(Aozora(inputs=[str(path)]))).split())
        source = path.read_bytes().decode("cp932").replace("\r\n", "\n")
        expected = printed(re.split("^-+\n", source, flags=re.MULTILINE)[2].rpartition("\n底本：")[0])
        assert len(cleaned) == len(expected) > 20_000, path
        for position, (got, wanted) in enumerate(zip(cleaned, expected, strict=True)):
            assert wanted in (got, "\0"), f"{path}: {expected[position - 20 : position + 20]!r}"
