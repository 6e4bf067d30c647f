"""How much a server takes on: the limits a user sets, and the bytes that are held at this moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gddctl.serve.http.refusal import overloaded, too_large

MEBIBYTE = 1 << 20
MIN_RATE = 16 * 1024  # bytes per second below which a body, or the reading of an answer, counts as stalled once the grace is over


@dataclass(frozen=True)
class Limits:
    """What one server allows. Times are seconds, sizes bytes.

    Attributes:
        queue: requests per model that may wait for their turn; the next one is a 503.
        max_batch: images that run together; also the largest batch one request may bring.
        batch_delay_s: longest that a batch waits for requests that are on their way already.
        body_bytes: of one request, compressed or not.
        pixels: width times height that an image's header may claim.
        timeout_s: from the last byte of a request to its answer.
        read_s: for a request's header; longest that a body may stand still; and the grace after which it must have come at ``MIN_RATE``.
        connections: open at once.
        memory_bytes: of request bodies and decoded images, all requests together.
        drain_s: for what is in flight when the server is told to end.
    """

    queue: int = 256
    max_batch: int = 8
    batch_delay_s: float = 0.002
    body_bytes: int = 64 * MEBIBYTE
    pixels: int = 40_000_000
    timeout_s: float = 30.0
    read_s: float = 10.0
    connections: int = 512
    memory_bytes: int = 1024 * MEBIBYTE
    drain_s: float = 20.0


class Holding:
    """Bytes that one request holds of the server's allowance, given back when it is done."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._bytes, self._over = memory, 0, False
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Hold ``count`` bytes more.

        Raises:
            Refusal: 503, the allowance is used up by others; or the request is over, and a thread still works for it. 413, it is too
                small for this alone.
        """
        with self._lock:
            if self._over:
                raise overloaded("timeout", "the request is over")
            self._memory.take(count)
            self._bytes += count

    def give_back(self) -> None:
        """All of it, for good."""
        with self._lock:
            count, self._bytes, self._over = self._bytes, 0, True
            self._memory.give_back(count)


class Memory:
    """The allowance that all requests share. Safe to use from several threads."""

    def __init__(self, allowed: int) -> None:
        self._allowed, self._held, self._lock = allowed, 0, threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def take(self, count: int) -> None:
        """Hold ``count`` bytes more.

        Raises:
            Refusal: 503 while others hold them, 413 when one request wants more than all may hold.
        """
        if count > self._allowed:
            raise too_large(f"the request takes {count} bytes of memory, expected at most {self._allowed} (--max-memory-mb)")
        with self._lock:
            if self._held + count > self._allowed:
                raise overloaded("memory", "the server holds as much as it may; try again")
            self._held += count

    def give_back(self, count: int) -> None:
        """Hold ``count`` bytes less."""
        with self._lock:
            self._held -= count

    @contextmanager
    def holding(self) -> Iterator[Holding]:
        """What one request holds, until the block ends."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            holding.give_back()
