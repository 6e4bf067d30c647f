"""Ctrl-C and SIGTERM, remembered until the step is done, so that a checkpoint can be written first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

BOTH = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within its block the first signal only sets :attr:`asked`; a second one ends the process as it would have without us.

    Args:
        signals: those that ask to stop.
    """

    def __init__(self, signals: Sequence[signal.Signals] = BOTH) -> None:
        self.asked = False
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other
            for number in self._signals:
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
