"""What the kernel tells without rights: CPU clocks, thermal zones, a Jetson's GPU clock and power mode, and a CPU package's energy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.prove.sensors.reading import Reading

_CPUS = "sys/devices/system/cpu"
# Names of a Tegra's GPU among the devices with scaled clocks: "17000000.gpu", "gpu-gpc-0", "57000000.gpu", "17000000.ga10b", "…gv11b".
_GPU_NAMES = ("gpu", "gv11b", "ga10b", "gb10b", "gp10b")


def read_text(path: Path) -> str | None:
    """A file's stripped text; None where it cannot be read. Sysfs answers some reads with an error although the file is there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """A file's number; None where there is none."""
    text = read_text(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None


class CpuSensor:
    """Clocks and throttling of the CPUs that are measured on, temperature of every zone.

    The clock is ``scaling_cur_freq``, else ``/proc/cpuinfo``'s where the CPU counts its cycles (``aperfmperf``): without, that line is a
    constant, as in most virtual machines.
    """

    def __init__(self, cpus: Sequence[int], root: Path = Path("/")) -> None:
        self._root, self._cpus = root, tuple(cpus)
        self._zones = _zones(root)
        info = read_text(root / "proc/cpuinfo") or ""
        self._cpuinfo = " aperfmperf" in info

    def read(self) -> Reading:
        """See :class:`gddctl.prove.sensors.reading.Sensor`."""
        counts: dict[str, int] = {}
        for kind in ("core", "package"):
            found = [read_number(self._root / _CPUS / f"cpu{cpu}/thermal_throttle/{kind}_throttle_count") for cpu in self._cpus]
            if told := [int(value) for value in found if value is not None]:
                counts[f"CPU {kind} too hot"] = sum(told) if kind == "core" else max(told)
        temperatures = {name: read_number(path) for name, path in self._zones.items()}
        return Reading(
            cpu_mhz=self._mhz(),
            throttle_counts=counts,
            temperature_c={name: value / 1000.0 for name, value in temperatures.items() if value is not None},  # files hold thousandths
        )

    def _mhz(self) -> float | None:
        told = [read_number(self._root / _CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in self._cpus]  # kHz
        values = [value / 1000.0 for value in told if value is not None]
        if not values and self._cpuinfo:
            lines = (read_text(self._root / "proc/cpuinfo") or "").splitlines()
            by_cpu = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
            values = [by_cpu[cpu] for cpu in self._cpus if cpu < len(by_cpu)]
        return sum(values) / len(values) if values else None


class TegraGpuSensor:
    """The GPU clock of a Jetson."""

    def __init__(self, root: Path = Path("/")) -> None:
        folders = sorted((root / "sys/class/devfreq").glob("*")) if (root / "sys/class/devfreq").is_dir() else []
        self._files = [folder / "cur_freq" for folder in folders if any(name in folder.name for name in _GPU_NAMES)]

    def read(self) -> Reading:
        """See :class:`gddctl.prove.sensors.reading.Sensor`."""
        found = [value for path in self._files if (value := read_number(path)) is not None]
        return Reading(gpu_mhz=max(found) / 1e6 if found else None)  # the files hold Hz


class RaplSensor:
    """Energy of the packages that the measured CPUs are on, as one counter.

    Only domains named ``package-N``: cores and memory beside them are parts of these, or overlap.
    """

    def __init__(self, cpus: Sequence[int], root: Path = Path("/")) -> None:
        self._files: dict[str, tuple[Path, float]] = {}
        told = {read_number(root / _CPUS / f"cpu{cpu}/topology/physical_package_id") for cpu in cpus} - {None}
        wanted = {f"package-{number:.0f}" for number in told if number is not None}
        for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
            name, limit = read_text(folder / "name"), read_number(folder / "max_energy_range_uj")
            if name is None or not name.startswith("package-") or (wanted and name not in wanted):
                continue
            if read_number(folder / "energy_uj") is not None:  # root's alone on most systems
                self._files[name] = (folder / "energy_uj", limit or 0.0)
        self._last: dict[str, float] = {}
        self._turns: dict[str, float] = {}  # what wrapping around has swallowed so far

    def read(self) -> Reading:
        """See :class:`gddctl.prove.sensors.reading.Sensor`; joules, grown past where the counter starts again."""
        total = 0.0
        for name, (path, limit) in self._files.items():
            value = read_number(path)
            if value is None:
                return Reading()
            if value < self._last.get(name, 0.0):
                self._turns[name] = self._turns.get(name, 0.0) + limit
            self._last[name] = value
            total += (value + self._turns.get(name, 0.0)) / 1e6
        return Reading(energy_j={f"RAPL, {' + '.join(sorted(self._files))}": total} if self._files else {})


def machine_facts(root: Path = Path("/")) -> dict[str, str]:
    """What does not change while measuring but decides clocks: governor, turbo, the Jetson's module, release and power mode."""
    governors = {text for path in sorted((root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")) if (text := read_text(path))}
    no_turbo = read_text(root / _CPUS / "intel_pstate/no_turbo")
    boost = read_text(root / _CPUS / "cpufreq/boost")
    turbo = {"0": "on", "1": "off"}.get(no_turbo or "") or {"0": "off", "1": "on"}.get(boost or "")
    facts = {
        "governor": ", ".join(sorted(governors)),
        "turbo": turbo or "",
        "module": read_text(root / "proc/device-tree/model") or "",
        "L4T": (read_text(root / "etc/nv_tegra_release") or "").partition(", GCID")[0].lstrip("# "),
        "power mode": read_text(root / "var/lib/nvpmodel/status") or "",
    }
    return {key: value for key, value in facts.items() if value}


def is_tegra(root: Path = Path("/")) -> bool:
    """Whether this is a Jetson, where CPU and GPU share one memory."""
    return (root / "etc/nv_tegra_release").is_file() or "nvidia,tegra" in (read_text(root / "proc/device-tree/compatible") or "")


def _zones(root: Path) -> dict[str, Path]:
    """Thermal zones by their type; a number tells those of one type apart."""
    found: dict[str, Path] = {}
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name = read_text(folder / "type") or folder.name
        if read_number(folder / "temp") is not None:
            found[name if name not in found else f"{name} {folder.name.removeprefix('thermal_zone')}"] = folder / "temp"
    return found
