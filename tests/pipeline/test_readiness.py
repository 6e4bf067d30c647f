"""``gddctl doctor`` on predict, serve, ship and bench: what is here works, what is not is named with its remedy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gddctl.pipeline import readiness
from gddctl.pipeline.finding import Finding
from gddctl.prove.sensors.nvml import NvmlSensor

NAMES = ["predict: films", "predict: cameras", "serve", "ship and verify", "ship --sign", "bench: power", "bench: clocks"]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def doctor(*blocked: str, path: str | None = None) -> dict[str, Finding]:
    """What ``gddctl doctor --json`` finds in a process in which the modules ``blocked`` are not installed."""
    code = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {blocked!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from gddctl.cli import main\nmain()\n"
    )
    env = {**os.environ, **({} if path is None else {"PATH": path})}
    done = subprocess.run([sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return {item["name"]: Finding(**item) for item in json.loads(done.stdout)["findings"]}


def test_every_question_is_answered_in_order() -> None:
    found = list(readiness.readiness())
    assert [item.name for item in found] == NAMES
    assert all(item.detail for item in found)
    assert all(item.remedy for item in found if item.state != "ok"), "what is not ready has a remedy"


def test_what_is_not_installed_is_named_with_its_remedy(tmp_path: Path) -> None:
    """Torch-free too: nothing of this asks for it."""
    found = doctor("uvicorn", "onnxruntime", "torch", path=str(tmp_path))
    assert (found["serve"].state, found["serve"].detail) == ("missing", "uvicorn is not installed")
    assert found["serve"].remedy == 'pip install "gddctl[serve]"'
    assert found["ship and verify"].state == "missing" and "gddctl[cpu]" in (found["ship and verify"].remedy or "")
    assert found["ship --sign"].state == "missing" and "openssh" in (found["ship --sign"].remedy or "")
    assert found["predict: films"].state == "ok"


def test_what_is_installed_is_ready() -> None:
    for module in readiness.SERVE_MODULES:
        pytest.importorskip(module)
    pytest.importorskip("onnxruntime")
    assert (readiness.serving().state, readiness.golden().state, readiness.films().state) == ("ok", "ok", "ok")


def test_a_film_that_cannot_be_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partner: a codec that this OpenCV does not have."""
    monkeypatch.setattr("gddctl.serve.files.film_files._CODEC", "zzzz")
    found = readiness.films()
    assert found.state == "broken" and "opencv-python-headless" in (found.remedy or "")


def test_a_taken_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in readiness.SERVE_MODULES:
        pytest.importorskip(module)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        monkeypatch.setattr(readiness, "_PORT", holder.getsockname()[1])
        found = readiness.serving()
        assert found.state == "ok" and "is taken" in found.detail and "--port 0" in (found.remedy or "")
    assert "is free" in readiness.serving().detail


def test_cameras(tmp_path: Path) -> None:
    assert readiness.cameras(tmp_path).state == "missing"
    root = write(tmp_path, {"dev/video10": "", "dev/video2": "", "dev/video-codec": ""})
    found = readiness.cameras(root)
    assert (found.state, found.detail) == ("ok", "camera:2, camera:10")
    (root / "dev/video2").chmod(0)
    closed = readiness.cameras(root)
    if os.geteuid() == 0:  # root may open anything
        assert closed.state == "ok"
    else:
        assert closed.state == "missing" and "video2" in closed.detail and "group" in (closed.remedy or "")


def test_power_of_a_jetson_and_of_a_cpu(tmp_path: Path) -> None:
    jetson = write(
        tmp_path / "jetson",
        {
            "sys/class/hwmon/hwmon3/name": "ina3221\n",
            "sys/class/hwmon/hwmon3/in1_label": "VDD_IN\n",
            "sys/class/hwmon/hwmon3/in1_input": "5000\n",
            "sys/class/hwmon/hwmon3/curr1_input": "1200\n",
        },
    )
    assert readiness.power(jetson).detail.endswith("rail VDD_IN")
    domain = "sys/class/powercap/intel-rapl:0"
    cpu = write(
        tmp_path / "cpu", {f"{domain}/name": "package-0\n", f"{domain}/max_energy_range_uj": "262143328850\n", f"{domain}/energy_uj": "1\n"}
    )
    assert "RAPL, package-0" in readiness.power(cpu).detail


def test_no_meter_and_a_closed_meter_are_told_apart(tmp_path: Path) -> None:
    if NvmlSensor().here:
        pytest.skip("this machine's GPU has a meter")
    none = readiness.power(tmp_path / "nothing")
    assert none.state == "missing" and "n/a" in (none.remedy or "")
    domain = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(tmp_path, {"sys/class/powercap/intel-rapl:0/name": "package-0\n"})
    (domain / "energy_uj").mkdir()  # there, and unreadable even to root
    closed = readiness.power(tmp_path)
    assert closed.state == "missing" and "root alone" in closed.detail and "chmod" in (closed.remedy or "")


def test_clocks_and_the_governor(tmp_path: Path) -> None:
    cpus = {f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq": "2400000\n" for number in range(os.cpu_count() or 1)}
    saving = write(tmp_path / "saving", {**cpus, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n"})
    found = readiness.clocks(saving)
    assert found.state == "ok" and "CPU 2400 MHz" in found.detail and "governor powersave" in found.detail
    assert "cpupower" in (found.remedy or "")
    steady = write(tmp_path / "steady", {**cpus, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n"})
    assert readiness.clocks(steady).remedy is None
