"""What a server takes, and what it answers where a request asks for more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much a server takes.

    body_bytes: of a request. tokens: of a prompt, and drawn for a text. texts: of a request, prompts times `n`.
    seconds: from a request's arrival to its last token. waiting: texts that wait for a row. client_requests: at once
    from one address.
    """

    body_bytes: int = 1 << 20
    tokens: int = 4096
    texts: int = 128
    seconds: float = 120.0
    waiting: int = 1024
    client_requests: int = 128


class Refusal(Exception):
    """A request that is not answered: the HTTP status, and why, for whoever asked."""

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def to_json(self) -> dict[str, object]:
        """Return the answer's body, in OpenAI's form."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}
