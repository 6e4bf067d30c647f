"""How many pixels may be decoded at once: images enter in their order, and wait while those before them fill the memory."""

from __future__ import annotations

import threading


class Closed(Exception):
    """The work has been stopped; whoever waited for room goes home. Never leaves this package."""


class Room:
    """Room for ``pixels`` pixels, and for ``least`` images however large they are.

    Turns count from 0 and every one must come, with :meth:`enter` or :meth:`skip`: in order, so that an image that is waited for is never
    kept out by those behind it. ``least`` is the batch: a consumer that collects so many before it works would otherwise wait for ever.
    """

    def __init__(self, pixels: int, least: int) -> None:
        self._limit, self._least = pixels, least
        self._held = self._inside = self._turn = 0
        self._open = True
        self._changed = threading.Condition()

    def enter(self, turn: int, pixels: int) -> None:
        """Wait for the turn and for room. Every enter needs a :meth:`leave` with the same pixels."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or (turn == self._turn and self._fits(pixels)))
            if not self._open:
                raise Closed
            self._held, self._inside, self._turn = self._held + pixels, self._inside + 1, turn + 1
            self._changed.notify_all()

    def skip(self, turn: int) -> None:
        """Let the turn pass: there is no image."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or turn == self._turn)
            self._turn += 1
            self._changed.notify_all()

    def leave(self, pixels: int) -> None:
        """The image is done with."""
        with self._changed:
            self._held, self._inside = self._held - pixels, self._inside - 1
            self._changed.notify_all()

    def close(self) -> None:
        """Send everyone home."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _fits(self, pixels: int) -> bool:
        return self._inside < self._least or self._held + pixels <= self._limit
