"""A request's body, read whole: no longer, no slower and no more compressed than allowed."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from gddctl.serve.http.limits import MEBIBYTE, MIN_RATE, Holding, Limits
from gddctl.serve.http.refusal import Refusal, malformed, too_large, unsupported

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # "deflate" is zlib's form (RFC 9110, 8.4.1.2)
_PIECE = MEBIBYTE
_END = 1 << 16  # bytes: about what one packet more brings on a fast network


class ClientLeft(Exception):
    """The client closed the connection; nobody waits for an answer."""


@dataclass(frozen=True)
class Cap:
    """Bytes that a body may have, and what a client hears who sends more."""

    bytes: int
    words: str

    def refusal(self) -> Refusal:
        """413."""
        return too_large(self.words)


def any_body(limits: Limits) -> Cap:
    """The cap of every body."""
    return Cap(limits.body_bytes, f"the body is larger than the {limits.body_bytes // MEBIBYTE or 1} MiB allowed here (--max-body-mb)")


async def read_body(
    receive: Receive, content_length: str | None, cap: Cap, limits: Limits, holding: Holding, nearly: Callable[[], None] | None = None
) -> bytes:
    """The body as it came.

    Args:
        receive: of the ASGI request.
        content_length: the header's value.
        cap: on its bytes.
        limits: seconds.
        holding: takes what has come so far, so that many slow clients cannot claim memory they do not fill.
        nearly: told once when, by the header, little is missing.

    Raises:
        Refusal: 413, 408 or 503.
        ClientLeft: before its body was whole.
    """
    whole = int(content_length) if content_length is not None and content_length.isdigit() else None
    if whole is not None and whole > cap.bytes:
        raise cap.refusal()
    pieces, length, started = list[bytes](), 0, time.monotonic()
    while True:
        left = limits.read_s + length / MIN_RATE - (time.monotonic() - started)
        message = await _next(receive, min(left, limits.read_s))  # a quick start buys no leave to stand still
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        length += len(piece)
        if length > cap.bytes:
            raise cap.refusal()
        holding.take(len(piece))
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if nearly is not None and whole is not None and whole - length <= _END:
            nearly()
            nearly = None


async def _next(receive: Receive, left: float) -> MutableMapping[str, Any]:
    try:
        return await asyncio.wait_for(receive(), max(left, 0.001))
    except (TimeoutError, asyncio.TimeoutError) as error:  # two classes before Python 3.11
        raise Refusal(
            408, "too slow", f"the body stood still or came at less than {MIN_RATE // 1024} KiB per second", {"Connection": "close"}
        ) from error


def encoding_of(header: str | None) -> str | None:
    """The body's compression by its Content-Encoding; None for none.

    Raises:
        Refusal: 415, one that is not understood here.
    """
    if header is None or header.strip().lower() in ("", "identity"):
        return None
    encoding = header.strip().lower()
    if encoding not in _WINDOW:
        raise unsupported(f"Content-Encoding '{encoding[:40]}', expected gzip or deflate", status=415)
    return encoding


def decompress(data: bytes, encoding: str, cap: Cap, holding: Holding) -> bytes:
    """The body behind its compression, stopped as soon as it grows beyond the cap. Takes a while: not for the event loop.

    Raises:
        Refusal: 400 not of that encoding, 413 too large, 503 no memory left.
    """
    machine, pieces, length = zlib.decompressobj(_WINDOW[encoding]), list[bytes](), 0
    try:
        while not machine.eof:
            piece = machine.decompress(data, _PIECE)
            data = machine.unconsumed_tail
            length += len(piece)
            if length > cap.bytes:
                raise cap.refusal()
            if not piece and not data:
                break
            holding.take(len(piece))
            pieces.append(piece)
    except zlib.error as error:
        raise malformed(f"the body is not {encoding} as its Content-Encoding says") from error
    if not machine.eof or machine.unused_data:
        raise malformed(f"the {encoding} body is not whole, or something follows it")
    return b"".join(pieces)
