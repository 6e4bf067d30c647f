"""NVML through the real package's names and constants, over a stand-in for the driver that this machine does not have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gddctl.prove.sensors.nvml import BOARD, NvmlSensor
from gddctl.prove.sensors.reading import Reading


class Gpu:
    """Answers like ``pynvml`` on a GPU; functions named in ``refused`` answer that they are not supported, as on a Jetson."""

    def __init__(self, refused: tuple[str, ...] = (), reasons: int = 0) -> None:
        self._real = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed here: it comes with the extra gpu")
        self._refused, self._reasons = refused, reasons

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)  # a name that the package lacks is an error here as it would be there
        answers: dict[str, Any] = {
            "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
            "nvmlDeviceGetPowerUsage": lambda handle: 250_500,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 7_000_500,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
            "nvmlDeviceGetClockInfo": lambda handle, kind: {self._real.NVML_CLOCK_SM: 1980, self._real.NVML_CLOCK_MEM: 2619}[kind],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self._reasons,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=3 << 30),
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
        }
        if name in self._refused:
            return self._refuse
        return answers.get(name, real)

    def _refuse(self, *arguments: Any) -> Any:
        raise self._real.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)


def test_what_a_gpu_tells() -> None:
    sensor = NvmlSensor(Gpu())
    assert sensor.read() == Reading(
        gpu_mhz=1980.0,
        memory_mhz=2619.0,
        throttle=frozenset(),
        temperature_c={"GPU": 61.0},
        power_w={BOARD: 250.5},
        energy_j={BOARD: 7000.5},
    )
    assert sensor.used_memory() == 3 << 30
    assert sensor.facts() == {"NVIDIA driver": "580.95.05", "GPU power limit": "700 W"}


def test_reasons_for_lower_clocks_in_words() -> None:
    import_check = Gpu()
    bits = import_check.nvmlClocksEventReasonSwPowerCap | import_check.nvmlClocksEventReasonHwThermalSlowdown
    assert NvmlSensor(Gpu(reasons=bits)).read().throttle == frozenset({"power cap", "thermal (hardware)"})
    idle = import_check.nvmlClocksEventReasonGpuIdle | import_check.nvmlClocksEventReasonApplicationsClocksSetting
    assert NvmlSensor(Gpu(reasons=idle)).read().throttle == frozenset()  # idle and set clocks are no throttling


def test_what_it_does_not_tell_stays_away_and_the_rest_comes() -> None:
    refused = (
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetMemoryInfo",
    )
    sensor = NvmlSensor(Gpu(refused))
    reading = sensor.read()
    assert reading.power_w == {} and reading.energy_j == {} and reading.throttle is None and reading.gpu_mhz == 1980.0
    assert sensor.used_memory() is None


def test_without_a_gpu_there_is_nothing() -> None:
    sensor = NvmlSensor(Gpu(("nvmlDeviceGetHandleByIndex",)))
    assert not sensor.here and sensor.read() == Reading() and sensor.used_memory() is None and sensor.facts() == {}
