"""Unpacking archives: regular files inside the target and nothing else, under a cap of bytes and of memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import resource
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import entries, files

from rnnpipe.data.corpora import archives
from rnnpipe.data.corpora.archives import unpack
from rnnpipe.data.corpora.fetch import fetch
from rnnpipe.data.corpora.manifest import CorpusFile, Manifest
from rnnpipe.errors import InputError

GOOD = {"a.txt": b"text a\n", "sub/b.txt": b"text b\n" * 1000, "sub/deep/c.txt": b""}
SIZE = sum(map(len, GOOD.values()))


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=kind) as archive:
        for member, data in members:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def good_tar(path: Path) -> Path:
    folder = (member("sub", tarfile.DIRTYPE), b"")
    return tar(path, folder, *((member(name), data) for name, data in GOOD.items()))


def good_zip(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("sub")
        for name, data in GOOD.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_unpacked(tmp_path: Path, kind: int) -> None:
    name = f"{'d' * 90}/{'e' * 90}.txt"  # longer than a plain header holds
    unpack(tar(tmp_path / "a.tar.gz", (member(name), b"x"), (member("./y.txt"), b"y"), kind=kind), tmp_path / "a", 2)
    assert files(tmp_path / "a") == {name: b"x", "y.txt": b"y"}


@pytest.mark.parametrize("make", [good_tar, good_zip, lambda path: good_zip(path, zipfile.ZIP_STORED)])
def test_an_archive_is_unpacked_up_to_its_cap(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    archive = make(tmp_path / ("g.tar.gz" if make is good_tar else "g.zip"))
    unpack(archive, tmp_path / "out", SIZE)
    assert files(tmp_path / "out") == GOOD
    with pytest.raises(InputError, match=f"its files have more than the {SIZE - 1} bytes promised"):
        unpack(archive, tmp_path / "less", SIZE - 1)
    assert entries(tmp_path) == [archive.name, "out"]


# --- names and kinds ---

NAMES = [
    "../evil.txt",
    "sub/../../evil.txt",
    "/etc/evil.txt",
    "..",
    ".",
    "",
    "a//b",
    "./../evil.txt",
    "../out-sibling/evil.txt",
    "..\\evil.txt",
    "C:evil.txt",
    "C:\\evil.txt",
    "line\nbreak",
    "esc\x1b[31m",
    "/".join("x" * 33),
    "n" * 256,
]


def assert_refused(archive: Path, message: str) -> None:
    """Check that nothing of an archive is left, inside the target or beside it, and that one line says why."""
    folder = archive.parent
    (folder / "out-sibling").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message) as caught:
        unpack(archive, folder / "out", 1 << 20)
    assert str(caught.value).startswith(archive.name)
    assert "\n" not in str(caught.value)
    assert entries(folder) == sorted([archive.name, "out-sibling"])
    assert entries(folder / "out-sibling") == []
    assert not Path("/etc/evil.txt").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_tar_with_a_name_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    archive = tar(tmp_path / "a.tar.gz", (member("fine.txt"), b"x"), (member(name), b"evil"))
    assert_refused(archive, "has a file named .* which may not be inside the target")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("", "./../evil.txt")])
def test_a_zip_with_a_name_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("fine.txt", b"x")
        opened.writestr(zipfile.ZipInfo(name), b"evil")
    assert_refused(archive, "has a file named .* which may not be inside the target")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"?",
    ],
)
def test_a_tar_with_what_is_no_file(tmp_path: Path, kind: bytes) -> None:
    archive = tar(tmp_path / "a.tar.gz", (member("fine.txt"), b"x"), (member("link", kind, "/etc/passwd"), b""))
    assert_refused(archive, "'link' is a link, a device or the like, and no file")


def test_a_tar_that_writes_through_its_own_link(tmp_path: Path) -> None:
    link = member("sub", tarfile.SYMTYPE, str(tmp_path / "out-sibling"))
    assert_refused(tar(tmp_path / "a.tar.gz", (link, b""), (member("sub/evil.txt"), b"evil")), "'sub' is a link")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_with_what_is_no_file(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    assert_refused(tmp_path / "a.zip", "'link' is a link, a device or the like, and no file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_compressed_in_another_way(tmp_path: Path, method: int) -> None:
    good_zip(tmp_path / "a.zip", method)
    assert_refused(tmp_path / "a.zip", "compressed in another way than deflate")


def test_a_zip_with_a_file_without_a_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(zipfile.ZipInfo("a"), b"text")
        opened.filelist[0].filename = ""
    assert_refused(tmp_path / "a.zip", "not an archive that can be read")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(good_zip(tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)  # the first is a folder's
    data[at + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert_refused(tmp_path / "a.zip", "is encrypted")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path: Path, names: tuple[str, str]) -> None:
    assert_refused(tar(tmp_path / "a.tar.gz", *((member(name), b"x") for name in names)), "twice, or as a file and")
    (tmp_path / "a.tar.gz").unlink()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for name in names:
            opened.writestr(name, b"x")
    assert_refused(tmp_path / "a.zip", "twice, or as a file and")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MEMBERS", 2)
    assert_refused(good_tar(tmp_path / "a.tar.gz"), "has more than 2 files")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x1f\x8b", b"PK\5\6" + b"\xff" * 18], ids=["0", "text", "gz", "zip"]
)
def test_what_is_no_archive(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path / name, "not an archive that can be read")


@pytest.mark.parametrize("make", [good_tar, good_zip])
def test_a_damaged_archive(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = tmp_path / ("a.tar.gz" if make is good_tar else "a.zip")
    data = make(path).read_bytes()
    at = len(data) // 2 if make is good_tar else data.index(b"sub/b.txt") + 20
    path.write_bytes(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
    assert_refused(path, "not an archive that can be read")


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    data = bytearray(gzip.decompress(good_tar(tmp_path / "a.tar.gz").read_bytes()))
    data[data.index(b"sub/b.txt")] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data))
    assert_refused(tmp_path / "a.tar.gz", "its list of files breaks off")


# --- bombs ---

MEGABYTE = bytes(1 << 20)


def tar_bomb(path: Path, gigabytes: int) -> Path:
    """Write a tar.gz of one file of zeros: gzip members may stand one behind the other."""
    header = tarfile.TarInfo("bomb.txt")
    header.size = gigabytes << 30
    piece = gzip.compress(MEGABYTE * 64)
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + piece * (gigabytes * 16))
    return path


def zip_bomb(path: Path, gigabytes: int, promised: int | None = None) -> Path:
    """Write a zip of one file of zeros, its size promised as it is or otherwise."""
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(MEGABYTE * 64) + packer.flush(zlib.Z_FULL_FLUSH)
    size = gigabytes << 30
    data = piece * (gigabytes * 16) + packer.flush()
    with zipfile.ZipFile(path, "w") as opened:
        info = zipfile.ZipInfo("bomb.txt")
        opened.writestr(info, data)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.file_size = promised or size
    raw = bytearray(path.read_bytes())
    raw[8] = zipfile.ZIP_DEFLATED
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("make", [tar_bomb, zip_bomb, lambda path, size: zip_bomb(path, size, promised=1 << 20)])
@pytest.mark.parametrize("gigabytes", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_bomb_goes_off_at_its_cap(tmp_path: Path, make: Callable[[Path, int], Path], gigabytes: int) -> None:
    """The archive's 10 GB are neither written nor held in memory: no more than the cap is unpacked."""
    path = make(tmp_path / ("a.tar.gz" if make is tar_bomb else "a.zip"), gigabytes)
    assert path.stat().st_size < 20 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    assert_refused(path, "more than the 1048576 bytes promised|not an archive that can be read")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def long_name(path: Path) -> Path:
    """Write a tar whose one file has a name of a gigabyte, which a careless reader holds in memory."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + gzip.compress(MEGABYTE * 64) * 17)
    return path


def extended_headers(path: Path) -> Path:
    """Write a tar with extended headers of 64 MB before its one file."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XGLTYPE, 64 << 20
    record = b"30 k" + b"x" * 20 + b"=v\n"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + record * ((65 << 20) // 30)))
    return path


def sparse_map(path: Path) -> Path:
    """Write a tar with a sparse file whose map has a million entries."""
    info = tarfile.TarInfo("sparse.txt")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    data = b"1000000\n" + b"1\n" * 2_000_000
    return tar(path, (info, data))


def nested_headers(path: Path) -> Path:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 0
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * 10_000))
    return path


def test_headers_are_not_kept(tmp_path: Path) -> None:
    """Headers for all files that follow add up: they are forgotten with each file, as are the files read."""
    number = itertools.count()
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as stream:
        for _ in range(30):
            keys = b"".join(b"30 k%019d=value\n" % next(number) for _ in range(1500))
            header = tarfile.TarInfo("pax")
            header.type, header.size = tarfile.XGLTYPE, len(keys)
            stream.write(header.tobuf(tarfile.GNU_FORMAT) + keys + bytes(-len(keys) % 512))
            stream.write(member(f"{next(number)}.txt").tobuf(tarfile.GNU_FORMAT))
    tracemalloc.start()
    unpack(tmp_path / "a.tar.gz", tmp_path / "out", 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(entries(tmp_path / "out")) == 30
    assert peak < 4 << 20


@pytest.mark.parametrize("make", [long_name, extended_headers, sparse_map, nested_headers])
def test_headers_that_fill_memory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "a.tar.gz")
    tracemalloc.start()
    assert_refused(path, "its headers are larger than any that files need|not an archive that can be read")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_zip_directory_that_fills_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a", b"")
    data = (tmp_path / "a.zip").read_bytes()
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    directory = data[at:end] * 200_000
    tail = bytearray(data[end:])
    tail[12:16] = len(directory).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data[:at] + directory + tail)
    assert_refused(tmp_path / "a.zip", "its headers are larger than any that files need")


# --- with a corpus ---


def manifest_of(archive: Path, unpacked_size: int = SIZE) -> Manifest:
    data = archive.read_bytes()
    file = CorpusFile(
        archive.name, archive.as_uri(), len(data), hashlib.sha256(data).hexdigest(), unpacked_size=unpacked_size
    )
    return Manifest("small", "Small", "For tests.", "CC0-1.0", (), None, (file,))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora" / "small"


@pytest.mark.parametrize("make", [good_tar, good_zip])
def test_an_archive_is_fetched_and_unpacked(tmp_path: Path, cache: Path, make: Callable[[Path], Path]) -> None:
    archive = make(tmp_path / ("texts.tar.gz" if make is good_tar else "texts.zip"))
    (fetched,) = fetch(manifest_of(archive))
    assert fetched.path == cache / "texts"
    assert files(cache / "texts") == GOOD
    assert fetch(manifest_of(archive))[0].was_there
    shutil.rmtree(cache / "texts")
    assert not fetch(manifest_of(archive))[0].was_there
    assert files(cache / "texts") == GOOD


def test_a_bad_archive_leaves_the_good_one(tmp_path: Path, cache: Path) -> None:
    """Neither the archive nor the folder of an earlier version is touched by one that is refused."""
    archive = good_tar(tmp_path / "texts.tar.gz")
    good = archive.read_bytes()  # packed again it would have another time in it
    fetch(manifest_of(archive))
    before = files(cache)
    tar(archive, (member("../evil.txt"), b"evil"))
    with pytest.raises(InputError, match="may not be inside"):
        fetch(manifest_of(archive))
    assert {name: data for name, data in files(cache).items() if not name.endswith(".part")} == before
    archive.write_bytes(good)
    assert fetch(manifest_of(archive))[0].was_there


def test_a_new_version_replaces_the_folder(tmp_path: Path, cache: Path) -> None:
    archive = good_tar(tmp_path / "texts.tar.gz")
    fetch(manifest_of(archive))
    tar(archive, (member("new.txt"), b"new"))
    fetch(manifest_of(archive))
    assert files(cache / "texts") == {"new.txt": b"new"}
    assert entries(cache) == ["texts", "texts.tar.gz"]
