"""A TCP connection with a watch on it: clients that send or read too slowly are let go, and no more than so many are served.

uvicorn's protocol objects do the HTTP; they wait for ever for a header to end and for a client to read. What is missing is put around them
here, and they are told nothing of it. A connection is known to the application by its client's address, which ASGI passes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gddctl.serve.http.limits import MIN_RATE
from gddctl.serve.http.refusal import RETRY_AFTER_S, error_body

KEEP_ALIVE_S = 65.0  # an idle connection stays open this long; proxies commonly reuse theirs for 60 s
LINGER_S = 5.0  # after an answer that came before the body's end: so long may the client go on sending, to be able to read it
REFUSED_LINGER_S = 1.0

Peer = tuple[str, int]


class Connections:
    """All open connections by their client's address."""

    def __init__(self, limit: int, read_s: float, refused: Callable[[], None]) -> None:
        """``limit`` connections at once; ``read_s`` seconds for a header; ``refused`` is told of those beyond the limit."""
        self.limit, self.read_s, self.refused = limit, read_s, refused
        self.open: dict[Peer, WatchedConnection] = {}

    def of(self, scope: Any) -> WatchedConnection | None:
        """The connection on which an ASGI request came."""
        client = scope.get("client")
        return self.open.get((client[0], client[1])) if client else None

    def protocol(self, inner: Callable[..., asyncio.Protocol]) -> Callable[..., asyncio.Protocol]:
        """``inner``, uvicorn's protocol factory, with the watch around what it makes."""
        return lambda **given: WatchedConnection(self, inner(**given))


class WatchedConnection(asyncio.Protocol):
    """Passes everything on to uvicorn's protocol and keeps the time."""

    def __init__(self, all_: Connections, inner: asyncio.Protocol) -> None:
        self._all, self._inner = all_, inner
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
        self._reading: asyncio.TimerHandle | None = None  # runs out when no request has begun in time
        self._writing: asyncio.TimerHandle | None = None  # runs while the client does not take what is sent
        self._unsent = 0

    # The application's side.

    def request_begins(self) -> None:
        """A whole header has come."""
        self._stop_reading_timer()

    def request_ends(self, *, body_read: bool) -> None:
        """The answer is sent; the next header may take its time, a body that nobody reads may not."""
        self._start_reading_timer(KEEP_ALIVE_S + self._all.read_s if body_read else min(LINGER_S, self._all.read_s))

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch, or refuse."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._all.open) >= self._all.limit:
            self._all.refused()
            self._transport.write(_FULL)
            self._transport.write_eof()
            self._start_reading_timer(REFUSED_LINGER_S)  # closed at once, what the client is sending would take the answer from it
            return
        peer = transport.get_extra_info("peername")
        self._peer = (str(peer[0]), int(peer[1]))
        self._all.open[self._peer] = self
        self._start_reading_timer(self._all.read_s)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever brought it."""
        self._stop_reading_timer()
        self._stop_writing_timer()
        if self._peer is not None:
            self._all.open.pop(self._peer, None)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._peer is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The client sends no more."""
        return self._inner.eof_received() if self._peer is not None else None

    def pause_writing(self) -> None:
        """The client takes less than is sent."""
        self._inner.pause_writing()
        assert self._transport is not None
        self._unsent = self._transport.get_write_buffer_size()
        self._start_writing_timer()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._stop_writing_timer()
        self._inner.resume_writing()

    # The clock.

    def _start_reading_timer(self, seconds: float) -> None:
        self._stop_reading_timer()
        self._reading = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _stop_reading_timer(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _start_writing_timer(self) -> None:
        self._writing = asyncio.get_running_loop().call_later(self._all.read_s, self._check_writing)

    def _stop_writing_timer(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _check_writing(self) -> None:
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        if self._unsent - unsent < MIN_RATE * self._all.read_s:
            self._abort()
            return
        self._unsent = unsent
        self._start_writing_timer()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


_BODY = error_body("too many connections; try again")
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (RETRY_AFTER_S, len(_BODY), _BODY)
)
