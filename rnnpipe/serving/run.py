"""A server from its socket to its end."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from rnnpipe.errors import InputError
from rnnpipe.pipeline.reading import Opened
from rnnpipe.serving.app import build_app
from rnnpipe.serving.limits import Limits
from rnnpipe.serving.service import Service

_BACKLOG = 1024
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class _Server(uvicorn.Server):
    """Ends with the requests that run when it is asked to (SIGTERM, SIGINT); at once when it is asked again."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, as a signal asks."""
        self.end()

    def end(self) -> None:
        """End."""
        self.force_exit = self.should_exit
        self.should_exit = True


def is_local(host: str) -> bool:
    """Say whether only programs on this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ModelServer:
    """A model served at `url`; `key` is what requests need, None for nothing.

    Without a key one is made, unless `host` is of this machine alone. Raises InputError if the address cannot be had.
    """

    def __init__(
        self, opened: Opened, name: str, host: str, port: int, *, key: str | None, rows: int, limits: Limits
    ) -> None:
        self.key = secrets.token_urlsafe(24) if key is None and not is_local(host) else key
        self._listening = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listening.getsockname()[1]}"
        app = build_app(Service(opened, name, rows, limits), self.key, LOCAL_NAMES if self.key is None else None)
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=int(limits.seconds) + 1,
        )

    def run(self, ready: Callable[[Callable[[], None]], None]) -> None:
        """Serve until a signal asks to end; then the requests that run are answered.

        ready: called once requests are taken, with a function that asks to end.
        """
        server = _Server(self._config, lambda: ready(server.end))
        server.run(sockets=[self._listening])


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise InputError(
            f"{host}, port {port}: cannot listen there ({error.strerror}); name another with --host or --port, or 0 "
            "for any port that is free."
        ) from None
    return listening
