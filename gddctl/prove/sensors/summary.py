"""The readings of a row's turns, in the words of its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gddctl.core.reports.latency_parts import Range, Sensed
from gddctl.prove.sensors.energy import MIN_SECONDS, Window, drawn, source_of
from gddctl.prove.sensors.reading import Reading
from gddctl.prove.sensors.sampler import Trace


def sensed(traces: Sequence[Trace], windows: Sequence[Sequence[Window]], *, images: int, on_gpu: bool, steady: bool) -> Sensed:
    """What the sensors said during the timed calls.

    Args:
        traces: one per turn.
        windows: of each turn, the timed calls.
        images: how many images those calls answered.
        on_gpu: whether the row computes on the GPU.
        steady: whether warm-up ended by the median having settled; energy is told of steady runs alone.
    """
    inside = [reading for trace, spans in zip(traces, windows, strict=True) for reading in _within(trace, spans)]
    every = [reading for trace in traces for reading in trace.readings]
    if not every:
        return Sensed()
    source = source_of(every[0], on_gpu=on_gpu)
    energy = drawn(traces, windows, source) if source else None
    why_not = ""
    if source and energy is None:
        why_not = "the sensor missed a part of the run"
    elif energy is not None and not energy.long_enough:
        why_not = f"{energy.seconds:.0f} s timed; by this sensor {MIN_SECONDS[energy.by]:.0f} s are needed"
    elif energy is not None and not steady:
        why_not = "the run was not steady"
    first, last = every[0].temperature_c, every[-1].temperature_c
    return Sensed(
        cpu_mhz=None if on_gpu and every[0].cpu_mhz is None else _range(inside, lambda reading: reading.cpu_mhz),
        gpu_mhz=_range(inside, lambda reading: reading.gpu_mhz) if on_gpu else None,
        memory_mhz=_range(inside, lambda reading: reading.memory_mhz) if on_gpu else None,
        throttle=_throttle(every, inside, on_gpu),
        temperature_c={name: (first[name], last[name]) for name in first if name in last} or None,
        power_w=energy.watts if energy else None,
        power_source=source.removeprefix("rail ") if source and energy else "",
        rails_w=_rails(inside),
        energy_per_image_j=energy.joules / images if energy and not why_not and images else None,
        energy_why_not=why_not,
    )


def _within(trace: Trace, spans: Sequence[Window]) -> list[Reading]:
    pairs = zip(trace.moments, trace.readings, strict=True)
    return [reading for moment, reading in pairs if any(start <= moment <= end for start, end in spans)]


def _range(readings: Sequence[Reading], value_of: Callable[[Reading], float | None]) -> Range | None:
    values = [value for reading in readings if (value := value_of(reading)) is not None]
    return Range(min(values), float(np.median(values)), max(values)) if values else None


def _throttle(every: Sequence[Reading], inside: Sequence[Reading], on_gpu: bool) -> tuple[str, ...] | None:
    """Reasons seen: the GPU's for what runs there, and the CPU's counters that grew. None where nobody tells."""
    told = [reading.throttle for reading in inside if reading.throttle is not None] if on_gpu else []
    first, last = every[0].throttle_counts, every[-1].throttle_counts
    if not told and not last:
        return None
    grown = {name for name, count in last.items() if count > first.get(name, count)}
    return tuple(sorted(grown.union(*told)))


def _rails(readings: Sequence[Reading]) -> dict[str, float] | None:
    found: dict[str, list[float]] = {}
    for reading in readings:
        for name, watts in reading.power_w.items():
            if name.startswith("rail "):
                found.setdefault(name.removeprefix("rail "), []).append(watts)
    return {name: float(np.mean(values)) for name, values in found.items()} or None
