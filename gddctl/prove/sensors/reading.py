"""What all sensors said at one moment; a value that no sensor gave is simply not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol


@dataclass(frozen=True)
class Reading:
    """Of one sensor, or of all after :func:`merge`. Keys name what a value covers, in words for people."""

    cpu_mhz: float | None = None
    gpu_mhz: float | None = None
    memory_mhz: float | None = None
    throttle: frozenset[str] | None = None  # None: nobody tells
    throttle_counts: Mapping[str, int] = field(default_factory=dict)  # events since boot, by reason
    temperature_c: Mapping[str, float] = field(default_factory=dict)
    power_w: Mapping[str, float] = field(default_factory=dict)  # averages of the last moment
    energy_j: Mapping[str, float] = field(default_factory=dict)  # counters that only grow


class Sensor(Protocol):
    """Something that can be read again and again, in well under a millisecond per value."""

    def read(self) -> Reading:
        """What it says now; never raises for a value that is not to be had."""
        ...


def merge(readings: list[Reading]) -> Reading:
    """One reading of several sensors'; for a single value the first that has it speaks."""
    found: dict[str, object] = {}
    for item in fields(Reading):
        values = [getattr(reading, item.name) for reading in readings]
        if item.name == "throttle":
            told = [value for value in values if value is not None]
            found[item.name] = frozenset().union(*told) if told else None
        elif item.name.endswith("_mhz"):
            found[item.name] = next((value for value in values if value is not None), None)
        else:
            found[item.name] = {key: value for mapping in values for key, value in mapping.items()}
    return Reading(**found)  # type: ignore[arg-type]
