"""A request turned down, in the words of the protocol: a status and ``{"error": "..."}``."""

from __future__ import annotations

import json
from typing import Literal

Reason = Literal[
    "malformed", "unsupported", "not found", "too large", "too slow", "not an image",
    "queue", "memory", "connections", "timeout", "starting", "draining", "token", "origin", "runtime",
]  # fmt: skip

RETRY_AFTER_S = 1


class Refusal(Exception):
    """Raised wherever a request cannot be served.

    ``message`` is for the client: it names what was found and what is expected, never a path or a piece of the program.
    """

    def __init__(self, status: int, reason: Reason, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.headers = headers or {}

    def body(self) -> bytes:
        """The answer's body."""
        return error_body(self.message)


def error_body(message: str) -> bytes:
    """``{"error": message}`` as JSON bytes."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")


def malformed(message: str) -> Refusal:
    """400: the request itself is wrong."""
    return Refusal(400, "malformed", message)


def unsupported(message: str, status: int = 400) -> Refusal:
    """A form of request that exists, but not here."""
    return Refusal(status, "unsupported", message)


def not_found(message: str) -> Refusal:
    """404: no such model or version."""
    return Refusal(404, "not found", message)


def too_large(message: str) -> Refusal:
    """413: a body, a batch of bytes or an image beyond the limit."""
    return Refusal(413, "too large", message)


def overloaded(reason: Reason, message: str, retry_after_s: int = RETRY_AFTER_S) -> Refusal:
    """503 with Retry-After: right as it is, but not now."""
    return Refusal(503, reason, message, {"Retry-After": str(retry_after_s)})
