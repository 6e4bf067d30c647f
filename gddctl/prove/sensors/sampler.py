"""Sensors read in the background, a few times a second, while a child process works."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType

from typing_extensions import Self

from gddctl.prove.sensors.reading import Reading, Sensor, merge

INTERVAL = 0.1  # seconds; a power monitor averages over some milliseconds, NVML over up to a second


@dataclass(frozen=True)
class Trace:
    """Readings in order, each with its moment in nanoseconds of the monotonic clock, which all processes of a machine share."""

    moments: tuple[int, ...]
    readings: tuple[Reading, ...]


class Sampler:
    """Reads ``sensors`` at the start, every ``INTERVAL``, and at the end of the ``with`` block; ``trace`` is what came of it."""

    def __init__(self, sensors: Sequence[Sensor], interval: float = INTERVAL) -> None:
        self._sensors, self._interval = tuple(sensors), interval
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._taken: list[tuple[int, Reading]] = []

    @property
    def trace(self) -> Trace:
        """What was read so far."""
        taken = list(self._taken)
        return Trace(tuple(moment for moment, _ in taken), tuple(reading for _, reading in taken))

    def __enter__(self) -> Self:
        self._take()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        self._take()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            self._take()

    def _take(self) -> None:
        reading = merge([sensor.read() for sensor in self._sensors])
        self._taken.append((perf_counter_ns(), reading))
