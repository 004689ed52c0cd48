"""Downloading one file whose size and digest are known: bounded, checked before it is used, resumed after a cut."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import io
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

import rnnpipe
from rnnpipe.data.corpora.manifest import CorpusFile, refusal
from rnnpipe.durable import sha256_file
from rnnpipe.errors import InputError

STALL_SECONDS = 30.0
_CHUNK = 1 << 18
_TRIES = 5
_SLOWEST = 64  # bytes a second, over STALL_SECONDS: below it a server only pretends to send

Progress = Callable[[int], None]
_Source: TypeAlias = io.BufferedReader | http.client.HTTPResponse


class _Cut(Exception):
    """A connection ended early; what came so far is kept."""


class _OtherRange(Exception):
    """The server has not got the rest that was asked for; what came earlier is of no use."""


@contextlib.contextmanager
def downloaded(
    file: CorpusFile, part: Path, progress: Progress, stall_seconds: float = STALL_SECONDS
) -> Iterator[None]:
    """Download a file to `part`, for the block to rename; bytes that lie there from an earlier try are kept.

    Inside the block `part` has the size and the SHA-256 of the manifest and is on the disk. Raises InputError for
    anything else that the server sends, and for one that sends nothing for `stall_seconds`.
    """
    with part.open("a+b") as sink:
        _lock(sink, part)
        for _ in range(_TRIES):
            before = sink.seek(0, os.SEEK_END)
            try:
                _continue(file, sink, progress, stall_seconds)
            except _OtherRange:
                sink.truncate(0)
                continue
            except _Cut as cut:
                if sink.seek(0, os.SEEK_END) > before:
                    continue
                raise InputError(f"{file.url}: {cut}. Run the same command again to go on from there.") from None
            digest = sha256_file(part)
            if digest == file.sha256:
                os.fsync(sink.fileno())
                yield
                return
            sink.truncate(0)
            if before == 0:  # nothing of an earlier try was in it
                part.unlink()
                raise InputError(f"{file.url}: its SHA-256 is {digest}, not {file.sha256} as the manifest says.")
        raise InputError(f"{file.url}: the connection was cut {_TRIES} times. Run the same command again to go on.")


def _lock(sink: IO[bytes], part: Path) -> None:
    """Hold the file against other processes for as long as it is open."""
    with contextlib.suppress(BlockingIOError, FileNotFoundError):  # it is held, or has just been renamed
        fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if part.stat().st_ino == os.fstat(sink.fileno()).st_ino:
            return
    raise InputError(f"{part}: another process is fetching this file; wait for it.")


def _continue(file: CorpusFile, sink: IO[bytes], progress: Progress, stall_seconds: float) -> None:
    """Append to `sink` what it lacks; raise _Cut if less came, InputError if more did."""
    have = sink.seek(0, os.SEEK_END)
    if have == file.size:
        return
    source, have = _open(file, have, stall_seconds)
    with source:
        sink.truncate(have)
        since, then = time.monotonic(), have
        while chunk := _read(source, file.url, stall_seconds):
            have += len(chunk)
            if have > file.size:
                sink.truncate(0)
                raise InputError(f"{file.url}: sends more than the {file.size} bytes of the manifest.")
            sink.write(chunk)
            progress(len(chunk))
            if time.monotonic() - since > stall_seconds:
                if have - then < _SLOWEST * stall_seconds:
                    raise _stalled(file.url, stall_seconds)
                since, then = time.monotonic(), have
    sink.flush()
    if have < file.size:
        raise _Cut(f"ended after {have} of {file.size} bytes")


def _read(source: _Source, url: str, stall_seconds: float) -> bytes:
    try:
        return source.read1(_CHUNK)
    except TimeoutError:
        raise _stalled(url, stall_seconds) from None
    except (http.client.HTTPException, OSError):  # reset by the other side, or cut inside a chunk: seen by the length
        return b""


def _stalled(url: str, stall_seconds: float) -> InputError:
    return InputError(
        f"{url}: sent next to nothing for {stall_seconds:g} seconds. Run the same command again to go on from there."
    )


def _open(file: CorpusFile, have: int, stall_seconds: float) -> tuple[_Source, int]:
    """Return what is to be read, and the position in the file at which it begins: `have`, or 0."""
    parts = urllib.parse.urlsplit(file.url)
    if parts.scheme == "file":
        path = Path(urllib.request.url2pathname(parts.path))
        if not path.is_file():
            raise InputError(f"{path}: no such file, which the manifest names.")
        _check_size(file, path.stat().st_size)
        return path.open("rb"), 0
    request = urllib.request.Request(file.url, headers={"User-Agent": f"rnnpipe/{rnnpipe.__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = _opener().open(request, timeout=stall_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            raise _OtherRange from None
        raise InputError(f"{file.url}: the server answers {error.code} {_line(error.reason)}.") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _stalled(file.url, stall_seconds) from None
        raise InputError(f"{file.url}: cannot be reached: {_line(error.reason)}.") from None
    except TimeoutError:
        raise _stalled(file.url, stall_seconds) from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise InputError(f"{file.url}: no answer that can be read: {_line(error) or type(error).__name__}.") from None
    start = have if response.status == 206 else 0
    if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        response.close()
        raise _OtherRange
    length = response.headers.get("Content-Length", "")
    if re.fullmatch("[0-9]{1,18}", length):
        try:
            _check_size(file, start + int(length))
        except InputError:
            response.close()
            raise
    return response, start


def _line(words: object) -> str:
    """Return a server's words as one short line without control characters."""
    return "".join(letter for letter in " ".join(str(words).split()) if letter.isprintable())[:120]


def _check_size(file: CorpusFile, size: int) -> None:
    if size != file.size:
        raise InputError(f"{file.url}: has {size} bytes, not {file.size} as the manifest says.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to what a manifest might name; never from https to http, nor to a file."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request for the new place; raise InputError if it is none to follow to."""
        scheme = urllib.parse.urlsplit(newurl).scheme
        reason = refusal(newurl)
        if reason is None and scheme != "https" and scheme != req.type:
            reason = f"{newurl} is not https"
        if reason is not None:
            fp.close()
            raise InputError(f"{req.full_url}: redirects, and {reason}.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https, the latter through a proxy if the environment names one; nothing else."""
    proxies = {scheme: url for scheme, url in urllib.request.getproxies().items() if scheme == "https"}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
