"""How far a prediction is: a bar on a terminal, a line now and then elsewhere, warnings alone when quiet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from gddctl.serve.files.predict import Watcher

_EVERY = 5.0  # seconds between two lines
_WARNING = "warning: "


def watcher_on(stream: TextIO, *, quiet: bool) -> Watcher:
    """The one that fits ``stream``."""
    if quiet:
        return Warnings(stream)
    return Bar(stream) if stream.isatty() else Lines(stream)


class Warnings:
    """Only what is wrong."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, what: str, total: int | None) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Warnings alone."""
        if text.startswith(_WARNING):
            print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """Nothing."""


class Lines:
    """A line when a part begins, and every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._what, self._done = "", 0
        self._total: int | None = None
        self._start = self._said = 0.0

    def begin(self, what: str, total: int | None) -> None:
        """Say what begins."""
        self._what, self._total, self._done = what, total, 0
        self._start = self._said = time.monotonic()
        self.note(f"{what}: {'until interrupted' if total is None else total}")

    def tick(self) -> None:
        """One more; a line when the last one is old."""
        self._done += 1
        now = time.monotonic()
        if now - self._said >= _EVERY:
            self._said = now
            speed = self._done / (now - self._start)
            of = f"/{self._total}" if self._total else ""
            self.note(f"{self._what} {self._done}{of}  {speed:.1f} per s{eta(self._total, self._done, speed)}")

    def note(self, text: str) -> None:
        """Write it."""
        print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """Nothing to tidy."""


class Bar:
    """A rich progress bar that keeps its place on the terminal, notes above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=stream)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console)
        self._task: Any = None

    def begin(self, what: str, total: int | None) -> None:
        """Draw it."""
        self._task = self._progress.add_task(what, total=total)
        self._progress.start()

    def tick(self) -> None:
        """Move it; rich itself draws ten times a second at most."""
        self._progress.advance(self._task)

    def note(self, text: str) -> None:
        """Write it above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Leave its last state on the terminal."""
        self._progress.stop()
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def eta(total: int | None, done: int, speed: float) -> str:
    """The time that is left, for the end of a line.

    >>> eta(100, 40, 2.0), eta(None, 40, 2.0)
    ('  30 s left', '')
    """
    return f"  {(total - done) / speed:.0f} s left" if total and speed > 0 else ""
