"""The bearer token: where it comes from, and whether a request carries it."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from gddctl.core.errors import UsageError

VARIABLE = "GDDCTL_TOKEN"
OPEN = ("/v2/health/live", "/v2/health/ready", "/", "/page.css", "/page.js", "/icon.svg")  # say nothing of the models


def read_token(file: Path | None) -> str | None:
    """The token in ``file``, else in the environment; None: everybody may ask.

    Raises:
        UsageError: no such file, or a token that cannot stand in a header.
    """
    if file is None:
        token, place = os.environ.get(VARIABLE), f"the environment variable {VARIABLE}"
        if token is None:
            return None
    else:
        place = str(file)
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"--token-file {file}: cannot be read ({reason})", remedy="write the token into it, on one line") from error
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{place}: holds no token", remedy="one line of letters and digits, for example from: openssl rand -hex 32")
    return token


class Gate:
    """Lets requests in that carry the token."""

    def __init__(self, token: str | None) -> None:
        self._wanted = None if token is None else _digest(token.encode())

    def admits(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request for ``path`` may pass. Compared in constant time, and by digest, so that not even the length is told."""
        if self._wanted is None or path in OPEN:
            return True
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self._wanted) and scheme.lower() == b"bearer"


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
