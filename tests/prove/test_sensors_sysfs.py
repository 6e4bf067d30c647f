"""Sensors over a drawn tree of /sys and /proc: Jetsons, an x86 machine, and one that tells nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gddctl.prove.sensors.energy import source_of
from gddctl.prove.sensors.rails import RailSensor, find_rails, input_rail
from gddctl.prove.sensors.reading import Reading, Sensor, merge
from gddctl.prove.sensors.sysfs import CpuSensor, RaplSensor, TegraGpuSensor, is_tegra, machine_facts


def write(root: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def monitor(number: int, driver: str, rails: list[tuple[str, int, int]]) -> dict[str, Any]:
    """A power monitor's files: (label, mV, mA) per channel."""
    folder = f"sys/class/hwmon/hwmon{number}"
    files: dict[str, Any] = {f"{folder}/name": driver}
    for channel, (label, millivolts, milliamperes) in enumerate(rails, 1):
        files |= {
            f"{folder}/in{channel}_label": label,
            f"{folder}/in{channel}_input": millivolts,
            f"{folder}/curr{channel}_input": milliamperes,
        }
    return files


@pytest.fixture
def orin_nx(tmp_path: Path) -> Path:
    rails = monitor(3, "ina3221", [("VDD_IN", 5000, 1600), ("VDD_CPU_GPU_CV", 5000, 600), ("VDD_SOC", 5000, 300)])
    shunts = {f"sys/class/hwmon/hwmon3/in{channel}_input": 900 for channel in (4, 5, 6, 7)}
    extra = {
        **shunts,
        "sys/class/hwmon/hwmon3/in7_label": "sum of shunt voltages",
        "sys/class/hwmon/hwmon3/curr4_input": 2500,
        "sys/class/hwmon/hwmon0/name": "tmp451",
        "sys/class/hwmon/hwmon0/in1_label": "no power monitor",
        "sys/class/hwmon/hwmon0/in1_input": 1,
        "sys/class/devfreq/17000000.gpu/cur_freq": 918000000,
        "sys/class/devfreq/15340000.vic/cur_freq": 601600000,
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": 48500,
        "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
        "sys/class/thermal/thermal_zone1/temp": 47000,
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 1984000,
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
        "var/lib/nvpmodel/status": "pmode:0000",
    }
    return write(tmp_path, rails | extra)


def test_an_orin_nx_tells_its_rails_and_the_input_is_the_total(orin_nx: Path) -> None:
    reading = RailSensor(orin_nx).read()
    assert reading.power_w == pytest.approx({"rail VDD_IN": 8.0, "rail VDD_CPU_GPU_CV": 3.0, "rail VDD_SOC": 1.5})
    for on_gpu in (True, False):
        assert source_of(reading, on_gpu=on_gpu) == "rail VDD_IN"  # 8 W, not the 12.5 W of all rails together


def test_shunt_voltages_are_no_rails(orin_nx: Path) -> None:
    """in4 to in7 of an INA3221 are voltages over its resistors; the label of in7 looks like a rail's."""
    assert [rail.label for rail in find_rails(orin_nx)] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]


def test_an_agx_orin_has_no_total(tmp_path: Path) -> None:
    rails = monitor(1, "ina3221", [("VDD_GPU_SOC", 20000, 400), ("VDD_CPU_CV", 20000, 100), ("VIN_SYS_5V0", 5000, 1000)])
    root = write(tmp_path, rails | monitor(2, "ina3221", [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 100), ("NC", 0, 0)]))
    reading = RailSensor(root).read()
    assert sorted(reading.power_w) == ["rail VDDQ_VDD2_1V8AO", "rail VDD_CPU_CV", "rail VDD_GPU_SOC", "rail VIN_SYS_5V0"]
    assert input_rail(reading.power_w) is None and source_of(reading, on_gpu=True) is None


def test_a_monitor_that_tells_microwatts(tmp_path: Path) -> None:
    folder = "sys/class/hwmon/hwmon5"
    root = write(tmp_path, {f"{folder}/name": "ina238", f"{folder}/power1_input": 42_500_000, f"{folder}/in1_label": "VIN"})
    assert RailSensor(root).read().power_w == {"rail VIN": 42.5}


def test_a_rail_that_stops_answering_is_left_out(orin_nx: Path) -> None:
    sensor = RailSensor(orin_nx)
    (orin_nx / "sys/class/hwmon/hwmon3/curr2_input").unlink()
    (orin_nx / "sys/class/hwmon/hwmon3/in3_input").write_text("garbage")
    assert set(sensor.read().power_w) == {"rail VDD_IN"}


def test_a_jetsons_clocks_and_facts(orin_nx: Path) -> None:
    assert TegraGpuSensor(orin_nx).read().gpu_mhz == 918.0  # not the video unit's 601.6
    reading = CpuSensor([0, 1], orin_nx).read()
    assert reading.cpu_mhz == 1984.0 and reading.temperature_c == {"cpu-thermal": 48.5, "gpu-thermal": 47.0}
    assert is_tegra(orin_nx)
    assert machine_facts(orin_nx) == {
        "governor": "schedutil",
        "module": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "L4T": "R36 (release), REVISION: 4.3",
        "power mode": "pmode:0000",
    }


def rapl(package: int, energy: int) -> dict[str, Any]:
    folder = f"sys/class/powercap/intel-rapl:{package}"
    core = f"sys/class/powercap/intel-rapl:{package}:0"
    return {
        f"{folder}/name": f"package-{package}", f"{folder}/energy_uj": energy, f"{folder}/max_energy_range_uj": 1_000_000,
        f"{core}/name": "core", f"{core}/energy_uj": 700_000, f"{core}/max_energy_range_uj": 1_000_000,
    }  # fmt: skip


def test_a_packages_energy_grows_past_its_wrap_and_parts_do_not_count(tmp_path: Path) -> None:
    root = write(
        tmp_path, rapl(0, 900_000) | {"sys/class/powercap/intel-rapl:1/name": "psys", "sys/class/powercap/intel-rapl:1/energy_uj": 5}
    )
    sensor = RaplSensor([0], root)
    assert sensor.read().energy_j == pytest.approx({"RAPL, package-0": 0.9})
    write(root, {"sys/class/powercap/intel-rapl:0/energy_uj": 200_000})
    assert sensor.read().energy_j == pytest.approx({"RAPL, package-0": 1.2})  # 0.9 to its end at 1.0, and 0.2 more


def test_only_the_packages_that_are_measured_on_count(tmp_path: Path) -> None:
    ids = {f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id": cpu for cpu in (0, 1)}
    root = write(tmp_path, rapl(0, 100_000) | rapl(1, 300_000) | ids)
    assert RaplSensor([1], root).read().energy_j == pytest.approx({"RAPL, package-1": 0.3})
    assert RaplSensor([0, 1], root).read().energy_j == pytest.approx({"RAPL, package-0 + package-1": 0.4})


def test_a_virtual_machines_constant_clock_is_not_a_clock(tmp_path: Path) -> None:
    lines = "processor : 0\ncpu MHz\t\t: 2596.148\nflags : fpu"
    root = write(tmp_path, {"proc/cpuinfo": lines})
    assert CpuSensor([0], root).read().cpu_mhz is None
    write(root, {"proc/cpuinfo": f"{lines} aperfmperf"})
    assert CpuSensor([0], root).read().cpu_mhz == 2596.148


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    sensors: list[Sensor] = [CpuSensor([0], tmp_path), RaplSensor([0], tmp_path), TegraGpuSensor(tmp_path), RailSensor(tmp_path)]
    assert merge([sensor.read() for sensor in sensors]) == Reading()
    assert machine_facts(tmp_path) == {} and not is_tegra(tmp_path)


def test_throttle_counters_are_of_the_measured_cpus(tmp_path: Path) -> None:
    counts = {f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count": 10 * cpu for cpu in (1, 2, 3)}
    assert CpuSensor([1, 2], write(tmp_path, counts)).read().throttle_counts == {"CPU core too hot": 30}
