"""An NVIDIA GPU through NVML: clocks, reasons for lower ones, temperature, power, energy, memory. No driver, no values."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from gddctl.prove.sensors.reading import Reading

log = logging.getLogger(__name__)

T = TypeVar("T")

BOARD = "NVML, the board of GPU 0"
# What lowers clocks, by NVML's bits; GpuIdle, a set clock and the display are no throttling.
_REASONS = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "thermal (software)",
    "HwThermalSlowdown": "thermal (hardware)",
    "HwPowerBrakeSlowdown": "power brake",
    "SyncBoost": "sync boost",
}


class NvmlSensor:
    """GPU 0. What this GPU or driver does not tell, a Jetson's most of it, stays away."""

    def __init__(self, library: Any = None) -> None:
        self._nvml = library if library is not None else _load()
        self._handle: Any = None
        if self._nvml is not None:
            self._handle = self._ask(lambda: self._nvml.nvmlDeviceGetHandleByIndex(0))

    @property
    def here(self) -> bool:
        """Whether there is a GPU that answers."""
        return self._handle is not None

    def read(self) -> Reading:
        """See :class:`gddctl.prove.sensors.reading.Sensor`."""
        if not self.here:
            return Reading()
        nvml, handle, ask = self._nvml, self._handle, self._ask
        power = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))  # mW; the mean of the last second on most GPUs
        energy = ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))  # mJ since the driver was loaded
        degrees = ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        return Reading(
            gpu_mhz=ask(lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
            memory_mhz=ask(lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))),
            throttle=self._throttle(),
            temperature_c={} if degrees is None else {"GPU": float(degrees)},
            power_w={} if power is None else {BOARD: power / 1000.0},
            energy_j={} if energy is None else {BOARD: energy / 1000.0},
        )

    def used_memory(self) -> int | None:
        """Bytes in use on the GPU, by anyone."""
        if not self.here:
            return None
        used = self._ask(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return None if used is None else int(used)

    def facts(self) -> dict[str, str]:
        """Driver and power limit."""
        if not self.here:
            return {}
        driver = self._ask(self._nvml.nvmlSystemGetDriverVersion)
        limit = self._ask(lambda: self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        facts = {"NVIDIA driver": driver.decode() if isinstance(driver, bytes) else driver or ""}
        return {
            key: value for key, value in {**facts, "GPU power limit": "" if limit is None else f"{limit / 1000:.0f} W"}.items() if value
        }

    def _throttle(self) -> frozenset[str] | None:
        nvml = self._nvml
        ask = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        bits = self._ask(lambda: ask(self._handle))
        if bits is None:
            return None
        names = {words: getattr(nvml, f"nvmlClocksEventReason{name}", None) or getattr(nvml, f"nvmlClocksThrottleReason{name}", 0)
                 for name, words in _REASONS.items()}  # fmt: skip
        return frozenset(words for words, bit in names.items() if bits & bit)

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError:
            return None


def _load() -> Any:
    """NVML, ready; None without the package or a driver. Both are no fault: most machines have no NVIDIA GPU."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.debug("NVML does not answer: %s", error)
        return None
    return nvml
