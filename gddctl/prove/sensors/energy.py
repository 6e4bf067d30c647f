"""From readings to joules and watts over the very calls that were timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.prove.sensors.rails import input_rail
from gddctl.prove.sensors.reading import Reading
from gddctl.prove.sensors.sampler import Trace

# Seconds of timed calls from which an integral is told. A counter is exact at its ticks (about 0.1 s); power is a mean of what came
# before, so that a short run still shows the time before it.
MIN_SECONDS = {"counter": 5.0, "power": 30.0}

Window = tuple[int, int]  # nanoseconds of the monotonic clock: start and end of timed calls


@dataclass(frozen=True)
class Drawn:
    """Energy over the windows."""

    joules: float
    seconds: float
    by: str  # "counter" or "power"

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds

    @property
    def long_enough(self) -> bool:
        """Whether the integral is worth telling."""
        return self.seconds >= MIN_SECONDS[self.by]


def source_of(reading: Reading, *, on_gpu: bool) -> str | None:
    """What to measure a row by: the module's input on a Jetson, the GPU's board for what runs on it, else the CPU's packages.

    A CPU row never takes the GPU's board, nor a GPU row the CPU's package: neither would be the energy of that run.
    """
    if (rail := input_rail(reading.power_w)) is not None:
        return rail
    wanted = "NVML" if on_gpu else "RAPL"
    known = {**reading.power_w, **reading.energy_j}
    return next((name for name in sorted(known) if name.startswith(wanted)), None)


def drawn(traces: Sequence[Trace], windows: Sequence[Sequence[Window]], source: str) -> Drawn | None:
    """Joules of ``source`` over the windows of each trace: by its counter where it has one, else by the trapezoids of its power.

    None where any window lies outside what was read: a part is not the whole.
    """
    joules, nanoseconds, kind = 0.0, 0, "counter"
    for trace, inside in zip(traces, windows, strict=True):
        by_counter = all(source in reading.energy_j for reading in trace.readings)
        kind = kind if by_counter else "power"  # one turn by power makes the whole no better
        values = [(reading.energy_j if by_counter else reading.power_w).get(source) for reading in trace.readings]
        known = [(moment, value) for moment, value in zip(trace.moments, values, strict=True) if value is not None]
        moments = np.array([moment for moment, _ in known], dtype=np.int64)
        for start, end in inside:
            if len(known) < 2 or start < moments[0] or end > moments[-1]:
                return None
            at = (moments - start) / 1e9  # seconds; differences first, so that no precision is lost
            numbers = np.array([value for _, value in known], dtype=np.float64)
            joules += _counted(at, numbers, (end - start) / 1e9) if by_counter else _integrated(at, numbers, (end - start) / 1e9)
            nanoseconds += end - start
    return Drawn(joules, nanoseconds / 1e9, kind) if nanoseconds else None


def _counted(at: NDArray[np.float64], joules: NDArray[np.float64], length: float) -> float:
    start, end = np.interp([0.0, length], at, joules)
    return float(end - start)


def _integrated(at: NDArray[np.float64], watts: NDArray[np.float64], length: float) -> float:
    grid = np.concatenate([[0.0], at[(at > 0.0) & (at < length)], [length]])
    values = np.interp(grid, at, watts)
    return float(np.sum(np.diff(grid) * (values[1:] + values[:-1]) / 2.0))
