"""Power rails of a Jetson: read by their labels, since every module has others, and never added up, since they feed each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gddctl.prove.sensors.reading import Reading
from gddctl.prove.sensors.sysfs import read_number, read_text

_DRIVERS = ("ina3221", "ina238", "ina219", "ina226")
_CHANNELS = (1, 2, 3)  # of an INA3221; its in4 to in7 are shunt voltages and their sum, in7 with a label that looks like a rail's
# The rail that feeds the whole module, by NVIDIA's names (Orin NX and Nano, Xavier NX; TX2; Nano; Thor). An AGX Orin has none: its three
# rails cannot be added without knowing what feeds what, so its power is told rail by rail and its energy is not told.
INPUT_RAILS = ("VDD_IN", "VIN", "POM_5V_IN", "5V_IN")


@dataclass(frozen=True)
class Rail:
    """Where one rail is read."""

    label: str
    power: Path | None  # microwatts
    voltage: Path | None  # millivolts
    current: Path | None  # milliamperes

    def watts(self) -> float | None:
        """Now; None where a file does not answer."""
        if self.power is not None:
            microwatts = read_number(self.power)
            return None if microwatts is None else microwatts / 1e6
        if self.voltage is None or self.current is None:
            return None
        millivolts, milliamperes = read_number(self.voltage), read_number(self.current)
        return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


class RailSensor:
    """Every labelled rail."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.rails = find_rails(root)

    def read(self) -> Reading:
        """See :class:`gddctl.prove.sensors.reading.Sensor`; watts by rail."""
        found = {f"rail {rail.label}": rail.watts() for rail in self.rails}
        return Reading(power_w={name: watts for name, watts in found.items() if watts is not None})


def find_rails(root: Path) -> tuple[Rail, ...]:
    """The rails under ``/sys/class/hwmon`` that one of the power monitors measures and that have a label of their own."""
    found: dict[str, Rail] = {}
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if read_text(folder / "name") not in _DRIVERS:
            continue
        for channel in _CHANNELS:
            label = read_text(folder / f"in{channel}_label") or read_text(folder / f"power{channel}_label")
            if not label or label == "NC" or label in found:  # NC: not connected
                continue
            power, voltage, current = (folder / f"{kind}{channel}_input" for kind in ("power", "in", "curr"))
            if power.is_file():
                found[label] = Rail(label, power, None, None)
            elif voltage.is_file() and current.is_file():
                found[label] = Rail(label, None, voltage, current)
    return tuple(found.values())


def input_rail(power_w: Mapping[str, float]) -> str | None:
    """The key of the rail that holds all others; None where no such rail is known."""
    return next((f"rail {name}" for name in INPUT_RAILS if f"rail {name}" in power_w), None)
