"""How far a bench is, on stderr: one line that is written over in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

EVERY = 10.0  # seconds between lines where lines stay


class BenchProgress:
    """Give ``turn`` and ``say`` to the bench, and close it before printing results."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet, self._terminal = quiet, self._stream.isatty()
        self._start, self._last, self._open = time.monotonic(), float("-inf"), False

    def say(self, text: str) -> None:
        """What begins now."""
        self._write(text, always=True)

    def turn(self, done: int, of: int) -> None:
        """A turn has ended."""
        passed = time.monotonic() - self._start
        self._write(f"turn {done} of {of}, {passed:.0f} s", always=done == of)

    def close(self) -> None:
        """Leave the line as it is and begin the next."""
        if self._open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._open = False

    def _write(self, text: str, *, always: bool) -> None:
        if self._quiet:
            return
        if self._terminal:
            room = shutil.get_terminal_size().columns - 1  # a line that wraps could not be written over
            self._stream.write(f"\r\x1b[K{text[:room]}")
            self._open = True
        elif always or time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._stream.write(f"{text}\n")
        self._stream.flush()
