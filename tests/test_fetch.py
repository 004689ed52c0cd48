"""Fetching corpora: what a server may send wrong, cuts and resumption, the cache, manifests, the commands."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.server
import json
import socket
import threading
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from cli import entries, fail, succeed

from rnnpipe.data.corpora import download
from rnnpipe.data.corpora.fetch import cache_folder, fetch
from rnnpipe.data.corpora.manifest import Manifest, load_manifest, refusal, shipped
from rnnpipe.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
BODY = b"".join(b"line %d of a corpus\n" % number for number in range(20_000))
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNNPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora" / "small"


class Server:
    """A server on this machine that gives scripted answers, the last one again and again, and keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole()]
        self.ranges: list[str | None] = []
        self.over = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.ranges.append(self.headers["Range"])
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/small.txt"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.over.set()
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def send(handler: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, object], body: bytes) -> None:
    handler.send_response(status)
    for key, value in headers.items():
        handler.send_header(key, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def whole(body: bytes = BODY) -> Answer:
    return lambda handler: send(handler, 200, {"Content-Length": len(body)}, body)


def rest(body: bytes = BODY) -> Answer:
    """Answer a request for a range as servers do that can."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Length": len(body) - start, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        send(handler, 206, headers, body[start:])

    return answer


def cut(count: int, body: bytes = BODY) -> Answer:
    """Answer with the first bytes of a body and close the connection."""
    return lambda handler: send(handler, 200, {"Content-Length": len(body)}, body[:count])


def write_manifest(folder: Path, url: object, body: bytes = BODY, **changes: object) -> Path:
    record = {
        "name": "small",
        "title": "A small corpus",
        "description": "For tests.",
        "licence": "CC0-1.0",
        "url": url,
        "file": "small.txt",
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        **changes,
    }
    folder.mkdir(exist_ok=True)
    path = folder / "small.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in record.items()), encoding="utf-8")
    return path


def corpus(folder: Path, url: str, body: bytes = BODY, **changes: object) -> Manifest:
    return load_manifest(write_manifest(folder, url, body, **changes))


# --- what servers send ---


def test_a_corpus_is_fetched_once(tmp_path: Path, server: Server, cache: Path) -> None:
    manifest = corpus(tmp_path, server.url)
    heard: list[int] = []
    (first,) = fetch(manifest, progress=heard.append)
    assert (first.path, first.was_there) == (cache / "small.txt", False)
    assert first.path.read_bytes() == BODY
    assert sum(heard) == len(BODY)
    assert fetch(manifest)[0].was_there
    assert len(server.ranges) == 1
    assert entries(cache) == ["small.txt"]


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, server: Server, cache: Path) -> None:
    fetch(corpus(tmp_path, server.url))
    (cache / "small.txt").write_bytes(BODY[:-1] + b"x")
    assert not fetch(corpus(tmp_path, server.url))[0].was_there
    assert (cache / "small.txt").read_bytes() == BODY


def chunked(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, 200, {"Transfer-Encoding": "chunked"}, b"".join((b"%x\r\n" % len(BODY), BODY, b"\r\n0\r\n\r\n")))


def no_length(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, 200, {}, BODY)


@pytest.mark.parametrize("answer", [chunked, no_length])
def test_a_body_without_a_length(tmp_path: Path, server: Server, answer: Answer) -> None:
    server.answers = [answer]
    assert fetch(corpus(tmp_path, server.url))[0].path.read_bytes() == BODY


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, 200, {}, BODY)
    while True:
        handler.wfile.write(BODY)


def drips(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, 200, {"Content-Length": len(BODY)}, b"")
    for byte in BODY:
        handler.wfile.write(bytes([byte]))
        threading.Event().wait(0.02)


def no_answer(handler: http.server.BaseHTTPRequestHandler) -> None:
    threading.Event().wait(0.5)


def garbage(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\xff\x1b[31m not http\r\n\r\n")


def redirect(url: str) -> Answer:
    return lambda handler: send(handler, 302, {"Location": url, "Content-Length": 0}, b"")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (whole(BODY[:-1] + b"x"), "its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64} as the manifest says"),
        (whole(BODY[:-1]), f"has {len(BODY) - 1} bytes, not {len(BODY)} as the manifest says"),
        (whole(BODY + b"x"), f"has {len(BODY) + 1} bytes, not {len(BODY)} as the manifest says"),
        (endless, f"sends more than the {len(BODY)} bytes"),
        (cut(0), f"ended after 0 of {len(BODY)} bytes. Run the same command again"),
        (drips, "next to nothing for 0.2 seconds"),
        (no_answer, "next to nothing for 0.2 seconds"),
        (garbage, "no answer that can be read"),
        (redirect("http://example.com/small.txt"), "redirects, and http://example.com/small.txt is not accepted"),
        (redirect("file:///etc/passwd"), "answers 302 .*file:///etc/passwd' is not allowed"),
        (redirect("ftp://127.0.0.1/x"), "redirects, and ftp://127.0.0.1/x is not accepted"),
        (redirect("//user@127.0.0.1/x"), "redirects, and .* names no host, or a user as well"),
        (redirect("/small.txt"), "the server answers 302 .*infinite loop"),
        (lambda handler: send(handler, 404, {"Content-Length": 0}, b""), "the server answers 404 Not Found"),
    ],
)
def test_what_a_server_sends_wrong_is_refused(
    tmp_path: Path, server: Server, cache: Path, answer: Answer, message: str
) -> None:
    """A good copy of an earlier version survives; nothing of the bad one is to be seen under its name."""
    old = corpus(tmp_path, server.url, b"an older version")
    server.answers = [whole(b"an older version")]
    fetch(old)
    server.answers = [answer]
    with pytest.raises(InputError, match=message) as caught:
        fetch(corpus(tmp_path, server.url), stall_seconds=0.2)
    assert str(caught.value).isprintable()
    assert (cache / "small.txt").read_bytes() == b"an older version"
    assert set(entries(cache)) <= {"small.txt", ".small.txt.part"}
    assert fetch(old)[0].was_there


def test_a_server_that_stalls_is_left_and_its_bytes_are_kept(tmp_path: Path, server: Server, cache: Path) -> None:
    def stalls(handler: http.server.BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Length": len(BODY)}, BODY[:1000])
        server.over.wait(10)

    server.answers = [stalls]
    with pytest.raises(InputError, match="sent next to nothing for"):
        fetch(corpus(tmp_path, server.url), stall_seconds=0.2)
    assert (cache / ".small.txt.part").read_bytes() == BODY[:1000]
    server.answers = [rest()]
    fetch(corpus(tmp_path, server.url))
    assert server.ranges[-1] == "bytes=1000-"
    assert (cache / "small.txt").read_bytes() == BODY


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be reached: \[Errno \d+\] Connection refused"):
        fetch(corpus(tmp_path, f"http://127.0.0.1:{port}/a"))


# --- cuts ---


def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path, server: Server, cache: Path) -> None:
    server.answers = [cut(1000), rest()]
    fetch(corpus(tmp_path, server.url))
    assert server.ranges == [None, "bytes=1000-"]
    assert entries(cache) == ["small.txt"]


def test_a_server_without_ranges_starts_again(tmp_path: Path, server: Server, cache: Path) -> None:
    server.answers = [cut(1000), whole()]
    fetch(corpus(tmp_path, server.url))
    assert (cache / "small.txt").read_bytes() == BODY


def odd_range(handler: http.server.BaseHTTPRequestHandler) -> None:
    headers = {"Content-Length": 10, "Content-Range": f"bytes 5-14/{len(BODY)}"}
    send(handler, 206, headers, BODY[5:15])


@pytest.mark.parametrize(
    "answer", [odd_range, lambda handler: send(handler, 416, {"Content-Length": 0}, b"")], ids=["other range", "416"]
)
def test_a_range_that_is_not_the_one_asked_for(tmp_path: Path, server: Server, cache: Path, answer: Answer) -> None:
    server.answers = [cut(1000), answer, whole()]
    fetch(corpus(tmp_path, server.url))
    assert server.ranges == [None, "bytes=1000-", None]
    assert (cache / "small.txt").read_bytes() == BODY


@pytest.mark.parametrize("found", [b"x" * 1000, BODY[:-1] + b"x", BODY + b"longer", BODY])
def test_whatever_lies_in_the_partial_file(tmp_path: Path, server: Server, cache: Path, found: bytes) -> None:
    """Bytes of another version, too many, or all of them: the result is the file of the manifest."""
    cache.mkdir(parents=True)
    (cache / ".small.txt.part").write_bytes(found)
    server.answers = [rest(), whole()] if 0 < len(found) < len(BODY) else [whole()]
    fetch(corpus(tmp_path, server.url))
    assert (cache / "small.txt").read_bytes() == BODY
    assert len(server.ranges) == (0 if found == BODY else 2 if found[:1] == b"x" else 1)


def test_a_server_that_cuts_again_and_again_is_left(tmp_path: Path, server: Server) -> None:
    def bit_by_bit(handler: http.server.BaseHTTPRequestHandler) -> None:
        start = int((handler.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Length": len(BODY) - start, "Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
        send(handler, 206 if start else 200, headers, BODY[start : start + 10])

    server.answers = [bit_by_bit]
    with pytest.raises(InputError, match=r"cut 5 times\. Run the same command again"):
        fetch(corpus(tmp_path, server.url))
    assert len(server.ranges) == 5


def test_two_at_once(tmp_path: Path, server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    with (cache / ".small.txt.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching this file"):
            fetch(corpus(tmp_path, server.url))
    fetch(corpus(tmp_path, server.url))


def test_a_crash_before_the_rename_leaves_the_name_to_the_old_copy(
    tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            fetch(corpus(tmp_path, server.url))
    assert entries(cache) == [".small.txt.part"]
    fetch(corpus(tmp_path, server.url))
    assert len(server.ranges) == 1
    assert entries(cache) == ["small.txt"]


def test_a_full_disk_is_told_before_the_download(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": len(BODY) - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"bytes free, .* are needed; make room"):
        fetch(corpus(tmp_path, server.url))
    assert server.ranges == []


# --- where from ---


def test_a_file_url_and_a_file_beside_the_manifest(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "small.txt").write_bytes(BODY)
    fetch(corpus(tmp_path, (tmp_path / "small.txt").as_uri()))
    assert (cache / "small.txt").read_bytes() == BODY
    (cache / "small.txt").unlink()
    path = write_manifest(tmp_path, "")
    path.write_text(path.read_text().replace('url = ""\n', ""))
    fetch(load_manifest(path))
    assert (cache / "small.txt").read_bytes() == BODY


def test_a_file_url_of_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(InputError, match="no such file, which the manifest names"):
            fetch(corpus(tmp_path, path.as_uri()))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.txt",
        "http://127.0.0.1.example.com/a",
        "http://0x7f000001/a",
        "ftp://example.com/a.txt",
        "data:text/plain,a",
        "a.txt",
        "",
        "https://",
        "https://user:secret@example.com/a",
        "https://example.com:port/a",
        "https://example.com/a b",
        "https://example.com/\u00e9",
        "https://example.com/a\r\nX-Header: 1",
        "https://[::1/a",
        "file://elsewhere/a.txt",
    ],
)
def test_urls_that_are_not_fetched(url: str) -> None:
    assert refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.txt?b=%20",
        "file:///a.txt",
        "http://localhost:8000/a",
        "http://127.0.0.1/a",
        "http://[::1]/a",
    ],
)
def test_urls_that_are_fetched(url: str) -> None:
    assert refusal(url) is None


def test_https_does_not_turn_into_http_on_this_machine() -> None:
    request = urllib.request.Request("https://example.com/a")
    with contextlib.closing(urllib.request.urlopen("data:,x")) as answer:
        with pytest.raises(InputError, match=r"http://127\.0\.0\.1/a is not https"):
            download._Redirects().redirect_request(request, answer, 302, "", answer.headers, "http://127.0.0.1/a")
        followed = download._Redirects().redirect_request(request, answer, 302, "", answer.headers, "https://b.com/a")
    assert followed is not None
    assert followed.full_url == "https://b.com/a"


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch(corpus(tmp_path, server.url))[0].path.read_bytes() == BODY


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RNNPIPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "rnnpipe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "rnnpipe"


# --- manifests ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../evil"}, "name '../evil' is not accepted"),
        ({"name": "Small"}, "name 'Small' is not accepted"),
        ({"file": "../a.txt"}, "it takes a plain file name"),
        ({"file": ".a.txt"}, "it takes a plain file name"),
        ({"file": "/etc/a"}, "it takes a plain file name"),
        ({"file": "a\nb"}, "file is 'a.nb'; it takes a line of text"),
        ({"sha256": "00"}, "sha256 of small.txt is '00'; it takes 64"),
        ({"sha256": "A" * 64}, "it takes 64 lower-case"),
        ({"size": 0}, "size of small.txt is 0; it takes a number of bytes"),
        ({"size": True}, "size of small.txt is True"),
        ({"size": 1 << 41}, "it takes a number of bytes up to"),
        ({"size": "12"}, "size of small.txt is '12'"),
        ({"split": "dev"}, "split of small.txt is 'dev'; it takes train, valid or test"),
        ({"url": "http://example.com/x"}, "url of small.txt: http://example.com/x is not accepted; it takes https"),
        ({"unpacked_size": 10}, "has an unpacked_size, but is no archive"),
        ({"licenec": "x"}, "unknown key 'licenec'. Did you mean 'licence'"),
        ({"title": 3}, "title is 3; it takes a line of text"),
        ({"language": [3]}, r"language is \[3\]"),
        ({"files": [{"file": "a"}]}, r"has file beside \[\[files\]\]"),
        ({"files": []}, "files is not an array of tables"),
    ],
)
def test_a_manifest_that_cannot_be_trusted(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_manifest(tmp_path, **{"url": "https://example.com/a", **changes})
    path.write_text(path.read_text().replace('{"file": "a"}', '{file = "a"}'))
    with pytest.raises(InputError, match=message):
        load_manifest(path)


@pytest.mark.parametrize("key", ["name", "title", "description", "licence", "file", "size", "sha256"])
def test_a_manifest_that_lacks_a_key(tmp_path: Path, key: str) -> None:
    path = write_manifest(tmp_path, "https://example.com/a")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(key)))
    with pytest.raises(InputError, match=f"{key}( of small.txt)? is missing"):
        load_manifest(path)


def test_a_manifest_with_one_name_twice(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "https://example.com/a")
    lines = manifest.read_text().splitlines(True)
    record = "".join(["[[files]]\n", *lines[4:]])
    manifest.write_text("".join([*lines[:4], record, record]))
    with pytest.raises(InputError, match=r"small\.txt stands for two files"):
        load_manifest(manifest)


def test_a_manifest_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    with pytest.raises(InputError, match="no such manifest"):
        load_manifest(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="more than the 1048576"):
        load_manifest(path)
    path.write_bytes(b"a." * 500_000 + b"a = 1\n")
    with pytest.raises(InputError, match="a line with more than 200 dots"):
        load_manifest(path)


def test_shipped_manifests_are_part_of_the_package() -> None:
    assert [path.stem for path in shipped()] == ["small-parallel-enja", "tinyshakespeare"]
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["rnnpipe"]
    for path in shipped():
        assert load_manifest(path).name == path.stem
        assert any(fnmatch(str(path.relative_to(ROOT / "rnnpipe")), pattern) for pattern in patterns)


# --- the commands ---


def test_corpus_list(tmp_path: Path) -> None:
    own = write_manifest(tmp_path, "https://example.com/a")
    listed = succeed("corpus", "list", "--manifest", own, "--json").json()["corpora"]
    assert [corpus["name"] for corpus in listed] == ["small-parallel-enja", "tinyshakespeare", "small"]
    assert listed[2]["size"] == len(BODY)
    table = succeed("corpus", "list")
    assert "tinyshakespeare" in table.out
    assert "next: rnnpipe corpus fetch" in table.err


def test_corpus_fetch(tmp_path: Path, server: Server, cache: Path) -> None:
    own = write_manifest(tmp_path, server.url)
    result = succeed("corpus", "fetch", "--manifest", own)
    assert result.out == f"{cache / 'small.txt'}\n"
    assert "small.txt: fetched" in result.err
    assert "licence CC0-1.0" in result.err
    again = succeed("corpus", "fetch", "--manifest", own, "--json")
    assert again.json()["files"] == [{"path": str(cache / "small.txt"), "split": None, "language": []}]
    assert "small.txt: is there" in again.err


def test_corpus_fetch_fails_in_one_line(tmp_path: Path, server: Server) -> None:
    server.answers = [whole(BODY[::-1])]
    assert "its SHA-256 is" in fail("corpus", "fetch", "--manifest", write_manifest(tmp_path, server.url), code=1)
    assert "Did you mean 'tinyshakespeare'" in fail("corpus", "fetch", "tinyshakespear", code=2)
    assert "one --manifest FILE" in fail("corpus", "fetch", code=2)
    assert "one --manifest FILE" in fail("corpus", "fetch", "a", "--manifest", tmp_path / "m.toml", code=2)


def test_the_corpora_of_the_repository_are_fetched_from_beside_their_manifests() -> None:
    for path in sorted((ROOT / "corpora").glob("*.toml")):
        found = fetch(load_manifest(path))
        assert found
        for fetched in found:
            assert fetched.path.read_bytes() == (ROOT / "corpora" / fetched.file.file).read_bytes()
