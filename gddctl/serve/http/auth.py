"""Who may ask: the bearer token, where it comes from and whether a request carries it; and no page of somebody else's."""

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


_PORTS = {b"http": b":80", b"https": b":443"}  # left out of an origin


def foreign_origin(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The page's origin where a browser asks for a page that did not come from here; None: anybody else.

    A browser sends simple requests to any address that any page names, also to this machine's own, and asks nobody before. It says whose
    page it was, and no script can change that (Fetch, "Origin header" and "Sec-Fetch-Site").

    >>> foreign_origin([(b"host", b"127.0.0.1:8000"), (b"origin", b"http://127.0.0.1:8000")])
    >>> foreign_origin([(b"host", b"127.0.0.1:8000"), (b"origin", b"https://example.com")])
    'https://example.com'
    """
    found = dict(headers)
    origin = found.get(b"origin")
    if origin is None or found.get(b"sec-fetch-site") == b"same-origin":  # the latter: its own, through a proxy that changed the Host
        return None
    scheme, _, place = origin.lower().partition(b"://")
    port = _PORTS.get(scheme, b"")
    if place and place.removesuffix(port) == found.get(b"host", b"").lower().removesuffix(port):
        return None
    return origin[:80].decode("ascii", "replace")


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
