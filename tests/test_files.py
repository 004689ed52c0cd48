"""Reading text files: finding them, encodings, line ends, bytes that are not text, and cutting into blocks."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rnnpipe.errors import InputError, UsageError
from rnnpipe.text import files
from rnnpipe.text.files import (
    Block,
    BlockText,
    TextFile,
    character_boundary,
    cut_blocks,
    cut_characters,
    line_boundary,
    read_block,
    total_bytes,
)
from rnnpipe.text.opening import check_encoding, find_paths, open_texts
from rnnpipe.text.transcoding import COMPRESSED


@contextmanager
def file_of(data: bytes) -> Iterator[TextFile]:
    """Yield a text file with these bytes, for tests that hypothesis runs many times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(data)
        yield TextFile("text.txt", path, 0, len(data))


def read_all(text: TextFile, errors: files.Errors = "strict") -> BlockText:
    return read_block(Block(text, text.start, text.stop), errors)


def open_one(path: Path, **options: object) -> TextFile:
    (text,) = open_texts([str(path)], path.parent / "spool", **options)  # type: ignore[arg-type]
    return text


# --- finding files ---


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("a")
    with pytest.raises(InputError, match=r"corpsu\.txt: no such file or folder\. Did you mean '.*corpus\.txt'\?"):
        find_paths([str(tmp_path / "corpsu.txt")])
    with pytest.raises(InputError, match="no such file or folder"):
        find_paths([str(tmp_path / "no" / "such" / "file.txt")])


def test_a_folder_gives_its_texts_recursively_and_sorted(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y/x.txt", "c.txt", "c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.txt").mkdir()
    expected = [str(tmp_path / name) for name in ("a/y/x.txt", "a/z.txt", "b.txt", "c.txt")]
    assert find_paths([str(tmp_path)]) == expected
    assert find_paths([str(tmp_path / "**" / "*.txt")]) == expected
    assert find_paths([str(tmp_path / "c.*")]) == [str(tmp_path / "c.md"), str(tmp_path / "c.txt")]
    assert find_paths([str(tmp_path / "c.txt"), str(tmp_path)]) == [expected[3], *expected[:3]]  # each once


def test_a_folder_or_a_glob_without_texts(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InputError, match=r"no \*\.txt file in this folder"):
        find_paths([str(tmp_path)])
    with pytest.raises(InputError, match=r"\*\.text: no file matches this pattern"):
        find_paths([str(tmp_path / "*.text")])


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.txt"
    path.write_text("x")
    (tmp_path / "a1.txt").write_text("y")
    assert find_paths([str(path)]) == [str(path)]


def test_a_file_named_in_two_ways_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert len(find_paths(["a.txt", "./a.txt", str(tmp_path / "a.txt")])) == 1


# --- opening ---


def test_empty_files_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "empty.txt").write_bytes(b"")
    with pytest.raises(InputError, match="texts: every file there is empty"):
        open_texts([str(folder)], tmp_path / "spool")
    (folder / "full.txt").write_text("x")
    assert [Path(text.name).name for text in open_texts([str(folder)], tmp_path / "spool")] == ["full.txt"]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(data)
    for encoding in ("utf-8", "utf-8-sig"):
        with pytest.raises(InputError, match=r"empty\.txt: is empty"):
            open_one(path, encoding=encoding)


def test_an_empty_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes("".encode("utf-16"))  # a byte-order mark alone
    with pytest.raises(InputError, match=r"empty\.txt: is empty"):
        open_one(path, encoding="utf-16")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbfabc\n", "abc\n"),
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"a\rb\r", "a\nb\n"),
        (b"a\r\r\nb\n\r", "a\n\nb\n\n"),
        (b"a\xef\xbb\xbfb", "a\ufeffb"),  # in the middle it is a character
        ("\u65e5\u672c\r\n\U0001f600".encode(), "\u65e5\u672c\n\U0001f600"),
    ],
)
def test_byte_order_marks_and_line_ends(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    read = read_all(open_one(path))
    assert read.text == expected
    assert read.characters == len(expected)
    assert read.mended == 0


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(deadline=None)
def test_text_reads_as_in_text_mode(text: str) -> None:
    with file_of(text.encode()) as file:
        assert read_all(file).text == io.StringIO(text, newline=None).read()


@pytest.mark.parametrize("encoding", ["cp932", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "euc-jp", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_other_encodings_read_like_their_utf_8_twin(tmp_path: Path, encoding: str, newline: str) -> None:
    text = newline.join(["\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u8868\u4e0a\u3002", "ASCII", ""]) * 500
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    (tmp_path / "b.txt").write_bytes(text.encode())
    one, two = open_one(tmp_path / "a.txt", encoding=encoding), open_one(tmp_path / "b.txt")
    assert read_all(one).raw == read_all(two).raw
    assert one.name == str(tmp_path / "a.txt")


def test_characters_across_the_chunks_of_a_copy(tmp_path: Path) -> None:
    text = "a" + "\u65e5" * (1 << 20)  # two bytes each in cp932: one lies across every chunk end
    (tmp_path / "a.txt").write_bytes(text.encode("cp932"))
    assert read_all(open_one(tmp_path / "a.txt", encoding="cp932")).text == text


def test_encodings_by_name() -> None:
    assert check_encoding("UTF8") == check_encoding("utf-8-sig") == check_encoding("U8") == "utf-8"
    assert check_encoding("Shift_JIS") == "shift_jis"
    with pytest.raises(UsageError, match=r"unknown encoding 'utf-61'\. Did you mean 'utf-16'\?"):
        check_encoding("utf-61")
    with pytest.raises(UsageError, match=r"unknown encoding 'x'\. Examples: utf-8"):
        check_encoding("x")
    for name in ("rot13", "base64", "zip"):
        with pytest.raises(UsageError, match=f"'{name}' is not an encoding of text"):
            check_encoding(name)


class _Input:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "utf-16"])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr("sys.stdin", _Input("\u65e5\u672c a\r\nb".encode(encoding)))
    (text,) = open_texts(["-"], tmp_path / "spool", encoding)
    assert text.name == "standard input"
    assert read_all(text).text == "\u65e5\u672c a\nb"
    monkeypatch.setattr("sys.stdin", _Input(b""))
    with pytest.raises(InputError, match="standard input: is empty"):
        open_texts(["-"], tmp_path / "spool", encoding)


def test_a_bad_byte_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Input(b"a\nb\xff"))
    (text,) = open_texts(["-"], tmp_path)
    with pytest.raises(InputError, match=r"standard input, line 2, byte 3 \(0xff\)"):
        read_all(text)


# --- bytes that are not text ---


@pytest.mark.parametrize(
    ("data", "line", "offset", "value"),
    [
        (b"\xff", 1, 0, "ff"),
        (b"ab\ncd\xe9 e\n", 2, 5, "e9"),
        (b"\xef\xbb\xbfab\n\ncaf\xc3", 3, 10, "c3"),
        (b"a\r\nb\r\n\xed\xa0\x80", 3, 6, "ed"),  # a surrogate
        (b"ok \xc0\x80", 1, 3, "c0"),  # overlong
    ],
)
def test_a_bad_byte_is_named(tmp_path: Path, data: bytes, line: int, offset: int, value: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        read_all(open_one(path))
    message = str(raised.value)
    assert message.startswith(f"{path}, line {line}, byte {offset} (0x{value}): not valid utf-8")
    assert "--encoding" in message
    assert "--errors" in message


def test_the_place_is_that_in_the_file_for_any_block(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"line\n" * 100 + b"x\xffy\n" + b"line\n" * 100)
    text = open_one(path)
    for size in (1, 7, 300, 10_000):
        with pytest.raises(InputError, match=r"line 101, byte 501 \(0xff\)"):
            for block in cut_blocks(text, size):
                read_block(block, "strict")


@pytest.mark.parametrize(
    ("errors", "data", "raw", "mended"),
    [
        ("replace", b"a\xffb\xc3", "a\ufffdb\ufffd", 2),
        ("ignore", b"a\xffb\xc3", "ab", 2),
        ("replace", b"\xe2\x82a", "\ufffda", 2),
        ("ignore", b"\xe2\x82a\x80", "a", 3),
        ("replace", b"a\0\0b", "a\ufffd\ufffdb", 2),
        ("ignore", b"a\0\0b\xff\r\n", "ab\r\n", 3),
        ("replace", b"fine \xef\xbf\xbd\n", "fine \ufffd\n", 0),
        ("ignore", "\u65e5\n".encode(), "\u65e5\n", 0),
    ],
)
def test_mending(errors: files.Errors, data: bytes, raw: str, mended: int) -> None:
    with file_of(data) as text:
        read = read_all(text, errors)
    assert (read.raw, read.mended) == (raw.encode(), mended)
    assert read.characters == len(read.text)


@given(st.binary(max_size=40), st.sampled_from(["replace", "ignore"]))
@settings(deadline=None, max_examples=200)
@example(b"\0\xff\r\n\r", "replace")
def test_mended_text_is_text(data: bytes, errors: files.Errors) -> None:
    with file_of(data) as text:
        read = read_all(text, errors)
    twin = data.replace(b"\0", b"\xff").decode("utf-8", errors)
    assert read.raw.decode() == twin
    assert read.text == io.StringIO(twin, newline=None).read()
    assert read.characters == len(read.text)
    assert (read.mended == 0) == (data.decode("utf-8", "ignore").encode() == data and b"\0" not in data)


def test_a_nul_byte_is_named_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "nul.txt"
    path.write_bytes(b"ab\nc\0d")
    with pytest.raises(InputError, match=r"nul\.txt, line 2, byte 4: NUL \(0x00\).*--errors"):
        read_all(open_one(path))
    path.write_bytes("a\nb".encode("utf-16-le"))
    with pytest.raises(InputError, match="--encoding utf-16-le"):
        read_all(open_one(path))


# --- compressed input, and encodings found out ---

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def compress(suffix: str, data: bytes) -> bytes:
    if suffix != ".zst":
        return COMPRESS[suffix](data)
    return bytes(pytest.importorskip("zstandard", reason="the extra `zst` is not installed").compress(data))


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
def test_compressed_texts_read_like_their_twin(tmp_path: Path, suffix: str, encoding: str) -> None:
    text = "\u6771\u4eac one\r\n" * 100_000  # more than a piece
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(compress(suffix, text.encode(encoding)))
    (found,) = open_texts([str(tmp_path)], tmp_path / "spool", encoding=encoding)
    assert found.name == str(path)
    assert read_all(found).text == text.replace("\r\n", "\n")


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_damaged_compressed_texts(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text.txt{suffix}"
    whole = compress(suffix, b"some words\n" * 1000)
    for data in (whole[: len(whole) // 2], b"some words\n", whole[:20] + bytes(9) + whole[29:]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"text\.txt\{suffix}: damaged, or not compressed as its name says"):
            open_texts([str(path)], tmp_path / "spool")


def test_zstandard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.txt.zst").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"a\.txt\.zst: .* pip install 'rnnpipe\[zst\]'"):
        open_texts([str(tmp_path)], tmp_path / "spool")


def test_encodings_are_found_out_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\u65e5\u672c\u8a9e\u306e\u6587 and more\n" * 30_000  # pieces end within a character
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp932", "euc-jp"):
        (tmp_path / f"{encoding}.txt").write_bytes(text.encode(encoding))
    found = open_texts([str(tmp_path)], tmp_path / "spool", encoding="utf-8, cp932,euc-jp")
    assert [read_all(one).text == text for one in found] == [True] * 5
    (tmp_path / "big.txt").write_bytes(codecs.BOM_UTF16_BE + text.encode("utf-16-be"))
    assert read_all(open_one(tmp_path / "big.txt")).text == text  # by its mark, though nobody asked
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9\xff\n")
    with pytest.raises(InputError, match=r"bad\.txt: not valid in any of utf-8, cp932"):
        open_one(tmp_path / "bad.txt", encoding="utf-8,cp932")
    assert read_all(open_one(tmp_path / "bad.txt", encoding="ascii,cp932", errors="ignore")).text == "caf\n"
    for data in (text.encode("cp932"), text.encode("utf-16"), text.encode()):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        (one,) = open_texts(["-"], tmp_path / "spool", encoding="utf-8,cp932")
        assert read_all(one).text == text


@pytest.mark.parametrize(
    ("encoding", "data", "line", "offset", "value"),
    [
        ("cp932", b"ab\ncd\x81 e", 2, 5, "81"),
        ("ascii", b"ab\n\ncaf\xe9", 3, 7, "e9"),
        ("utf-16-le", "a\nb".encode("utf-16-le") + b"\x00\xdc", 2, 6, "00"),
        ("euc_jp", b"x" * (1 << 20) + b"\n\xff", 2, (1 << 20) + 1, "ff"),  # in the second chunk
        ("cp932", b"x" * ((1 << 20) - 1) + b"\x88\n", 1, (1 << 20) - 1, "88"),  # a character cut by the chunk's end
    ],
)
def test_a_bad_byte_in_another_encoding(
    tmp_path: Path, encoding: str, data: bytes, line: int, offset: int, value: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        open_one(path, encoding=encoding)
    assert str(raised.value).startswith(f"{path}, line {line}, byte {offset} (0x{value}): not valid {encoding}")


def test_the_line_of_a_bad_byte_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes("\u4e0a\u0a05\n".encode("utf-16-le") + b"\x00\xdc")
    with pytest.raises(InputError, match="line 2, byte 6"):
        open_one(path, encoding="utf-16-le")


@pytest.mark.parametrize("errors", ["replace", "ignore"])
def test_mended_bytes_are_counted_in_every_encoding(tmp_path: Path, errors: files.Errors) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes("\u65e5 ".encode("cp932") + b"\x81 \x81 a")
    from rnnpipe.pipeline.dictionary import build_dict

    built = build_dict([str(path)], tmp_path / "dict", unknown_threshold=0, encoding="cp932", errors=errors)
    assert built.mended_bytes == 2


@pytest.mark.parametrize(("encoding", "data"), [("utf-7", b"a +2AA- b"), ("unicode_escape", rb"a \ud800 b")])
def test_an_encoding_that_gives_lone_surrogates(tmp_path: Path, encoding: str, data: bytes) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(str(path))):
        open_one(path, encoding=encoding)


@pytest.mark.parametrize("encoding", ["idna", "undefined"])
def test_an_encoding_with_an_error_of_its_own(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"a\xff..b")
    with pytest.raises((InputError, UsageError), match=re.escape(str(path))):
        open_one(path, encoding=encoding)


def test_the_line_of_a_bad_byte_behind_lone_carriage_returns() -> None:
    with file_of(b"a\rb\r\xff") as text, pytest.raises(InputError, match=r"line 3, byte 4 \(0xff\)"):
        read_all(text)


# --- blocks ---

line = st.text(st.sampled_from("ab \u00e9\u65e5\U0001f600\r"), max_size=12)
texts = st.lists(
    st.sampled_from(["\n", "\r\n", "\r", " "]).flatmap(lambda end: line.map(lambda t: t + end)), max_size=12
)


def assert_covers(text: TextFile, blocks: list[Block]) -> None:
    assert [block.start for block in blocks] == [text.start, *[block.stop for block in blocks]][: len(blocks)]
    assert blocks[-1].stop == text.stop
    assert all(block.start < block.stop for block in blocks)


@given(texts.map("".join), st.integers(1, 40), st.integers(0, 8))
@settings(deadline=None, max_examples=200)
def test_blocks_are_the_file_and_end_at_line_ends(content: str, size: int, skip: int) -> None:
    data = content.encode()
    with file_of(b"s" * skip + data) as whole:
        text = TextFile("part", whole.path, skip, whole.stop)
        blocks = list(cut_blocks(text, size))
        if not data:
            assert blocks == []
            return
        assert_covers(text, blocks)
        raws = [read_block(block, "strict").raw for block in blocks]
        assert b"".join(raws) == data
        assert all(raw.endswith((b"\n", b"\r")) for raw in raws[:-1])
        assert "".join(read_block(block, "strict").text for block in blocks) == read_all(text).text
        ends = [re.compile(rb"\r\n|\n|\r").search(raw, size) for raw in raws]
        assert all(
            end is None or end.end() == len(raw) for end, raw in zip(ends, raws, strict=True)
        )  # no longer than it must be
        assert all(len(raw) > size for raw in raws[:-1])


@given(texts.map("".join), st.integers(1, 40), st.integers(0, 8))
@settings(deadline=None, max_examples=200)
@example("\r\n\r\n", 1, 0)
@example("\U0001f600" * 5, 1, 0)
@example("\u65e5" * 5, 2, 1)
def test_character_blocks_are_the_file(content: str, size: int, skip: int) -> None:
    data = (content + "\n").encode()
    with file_of(b"s" * skip + data) as whole:
        text = TextFile("part", whole.path, skip, whole.stop)
        blocks = list(cut_characters(text, size))
        assert_covers(text, blocks)
        reads = [read_block(block, "strict") for block in blocks]  # strict: no character is parted
        assert b"".join(read.raw for read in reads) == data
        assert "".join(read.text for read in reads) == read_all(text).text
        assert all(size <= len(read.raw) <= size + 3 for read in reads[:-1])


@given(texts.map("".join), st.integers(1, 60))
@settings(deadline=None, max_examples=200)
@example("\r\n", 1)
@example("a\U0001f600", 2)
def test_a_character_boundary_is_the_next_place_that_parts_nothing(content: str, position: int) -> None:
    data = (content + "\n").encode()

    def whole(at: int) -> bool:
        return at == len(data) or (data[at] & 0xC0 != 0x80 and data[at - 1 : at + 1] != b"\r\n")

    with file_of(data) as text:
        at = character_boundary(text, position)
    assert at == next((place for place in range(position, len(data)) if whole(place)), len(data))


@pytest.mark.parametrize("character", ["\u00e9", "\u65e5", "\U0001f600"])
def test_the_last_character_of_a_file_is_not_parted(character: str) -> None:
    with file_of(b"a" + character.encode()) as text:
        assert [character_boundary(text, position) for position in range(2, text.stop)] == [text.stop] * (text.stop - 2)
        assert "".join(read_block(block, "strict").text for block in cut_characters(text, 2)) == "a" + character


def test_a_character_boundary_at_the_start() -> None:
    with file_of(b"abc") as text:
        assert character_boundary(text, 0) == 0


@given(texts.map("".join), st.integers(0, 60))
@settings(deadline=None)
def test_a_line_boundary_follows_a_line_end(content: str, position: int) -> None:
    data = content.encode()
    with file_of(data) as text:
        at = line_boundary(text, position)
    if position >= len(data):
        assert at == len(data)
    elif position == 0:
        assert at == 0
    else:
        ends = [match.end() for match in re.finditer(rb"\r\n|\n|\r", data)]
        assert at == next((end for end in ends if end >= position), len(data))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_BYTES", 32)
    monkeypatch.setattr(files, "WORD_BYTES", 64)
    monkeypatch.setattr(files, "_WINDOW", 8)


words = st.lists(st.sampled_from(["a", "bc ", " ", "defgh", "\n", "\r\n", "\u65e5 "]), max_size=120).map("".join)


@given(words, st.integers(1, 20))
@example("aaaaaadefgh\naaaabc bc bc bc defghdefghdefghdefghdefgh", 12)  # the long line is the second of its block
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small")
def test_only_a_long_line_is_cut_at_a_blank(content: str, size: int) -> None:
    data = content.encode()
    with file_of(data) as text:
        try:
            blocks = list(cut_blocks(text, size))
        except InputError:
            assert re.search(rb"[^ \n]{56,}", data)
            return
        raws = [read_block(block, "strict").raw for block in blocks]
    assert b"".join(raws) == data
    behind = 0
    for raw in raws[:-1]:
        begun, behind = behind, behind + len(raw)
        if not raw.endswith(b"\n"):
            assert raw.endswith(b" ")
            line_from_here = data[begun + raw.rfind(b"\n") + 1 :].split(b"\n")[0]
            assert len(line_from_here) > 32
    assert [word for raw in raws for word in raw.split()] == data.split()  # no word is parted


@pytest.mark.usefixtures("small")
def test_a_long_line_is_cut_at_blanks(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"word " * 100)
    text = open_one(path)
    raws = [read_block(block, "strict").raw for block in cut_blocks(text, 10)]
    assert len(raws) > 10
    assert all(raw.endswith(b" ") for raw in raws)
    assert b"".join(raws) == b"word " * 100
    assert line_boundary(text, 11) % 5 == 0


@pytest.mark.usefixtures("small")
def test_a_run_without_a_blank_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"fine\n" * 4 + b"x" * 500)
    with pytest.raises(InputError, match=r"long\.txt, line 5, byte 28: .* without a blank or a line end.*--level char"):
        list(cut_blocks(open_one(path), 13))
    assert len(list(cut_characters(open_one(path), 13))) == 40


def test_total_bytes(tmp_path: Path) -> None:
    assert total_bytes([TextFile("a", tmp_path, 3, 10), TextFile("b", tmp_path, 0, 5)]) == 12


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"from a pipe",))
    writer.start()
    text = open_one(pipe)
    writer.join()
    assert read_all(text).text == "from a pipe"
    assert text.path.is_file()
