"""Are predict, serve, ship, verify and bench ready here? Each tried: a film is written and read, an address bound, a sensor read."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np

from gddctl.core.errors import GddctlError
from gddctl.pipeline.finding import Finding
from gddctl.prove.sensors.nvml import NvmlSensor
from gddctl.prove.sensors.rails import RailSensor
from gddctl.prove.sensors.reading import Sensor, merge
from gddctl.prove.sensors.sysfs import CpuSensor, RaplSensor, TegraGpuSensor, machine_facts
from gddctl.runtime import probe
from gddctl.runtime.cpu import usable_cores

SERVE_MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_PORT = 8000  # of gddctl serve, unless told otherwise
_FILM = (3, 48, 64)  # frames, height, width of the film that is tried


def readiness(root: Path = Path("/")) -> Iterator[Finding]:
    """One finding per question. ``root``: where devices and sensors are looked for."""
    yield films()
    yield cameras(root)
    yield serving()
    yield golden()
    yield signing()
    yield power(root)
    yield clocks(root)


def films() -> Finding:
    """Whether OpenCV here writes the films that ``gddctl predict`` writes, and reads them back."""
    name = "predict: films"
    from gddctl.serve.files.film import Capture
    from gddctl.serve.files.film_files import Movie
    from gddctl.serve.files.inputs import Film

    count, height, width = _FILM
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, :, : width // 2] = 200
    try:
        with tempfile.TemporaryDirectory(prefix="gddctl-doctor-") as folder:
            path = Path(folder) / "film.mp4"
            with Movie(path, 25.0) as movie:
                for frame in frames:
                    movie.put(frame)
            with Capture(Film("film", path), max_pixels=height * width) as capture:
                read = 0
                while capture.read() is not None:
                    read += 1
    except (GddctlError, OSError) as error:
        words = error.message if isinstance(error, GddctlError) else str(error)
        remedy = "pip install --force-reinstall opencv-python-headless; single images are predicted all the same"
        return Finding(name, "broken", f"a film of {count} frames could not be written and read ({words})", remedy)
    if read != count:
        return Finding(
            name, "broken", f"{read} of {count} frames of a film were read back", "pip install --force-reinstall opencv-python-headless"
        )
    return Finding(name, "ok", f"OpenCV {_version('opencv-python-headless') or 'without a version'} writes and reads .mp4")


def cameras(root: Path = Path("/")) -> Finding:
    """Which cameras the system knows, and whether this user may open them. None is opened: that would light its lamp."""
    name = "predict: cameras"
    found = sorted((path for path in (root / "dev").glob("video*") if path.name[5:].isdigit()), key=lambda path: int(path.name[5:]))
    if not found:
        return Finding(name, "missing", "the system knows none", "plug one in; in a container: --device /dev/video0")
    closed = [path.name for path in found if not os.access(path, os.R_OK | os.W_OK)]
    known = ", ".join(f"camera:{path.name[5:]}" for path in found)
    if closed:
        return Finding(
            name,
            "missing",
            f"{known}; no right to open {', '.join(closed)}",
            "sudo usermod --append --groups video $USER, and log in again",
        )
    return Finding(name, "ok", known)


def serving() -> Finding:
    """Whether the server's libraries import, and loopback takes a server."""
    remedy = 'pip install "gddctl[serve]"'
    for module in SERVE_MODULES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            return Finding("serve", "missing", f"{module} is not installed", remedy)
        except Exception as error:  # a half-installed package may raise anything while importing, and doctor must go on
            return Finding("serve", "broken", f"{module} does not import ({type(error).__name__}: {_first_line(error)})", remedy)
    versions = ", ".join(f"{package} {_version(package)}" for package in ("fastapi", "uvicorn"))
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        return Finding(
            "serve", "broken", f"{versions}; 127.0.0.1 takes no server ({error.strerror or error})", "allow loopback: ip link set lo up"
        )
    with suppress(OSError), socket.create_server(("127.0.0.1", _PORT)):
        return Finding("serve", "ok", f"{versions}; port {_PORT} is free")
    return Finding("serve", "ok", f"{versions}; port {_PORT} is taken", "choose another with --port; --port 0 takes a free one")


def golden() -> Finding:
    """Whether the golden image of a release can run: the FP32 deploy graph gives its mask, on ONNX Runtime's CPU provider."""
    name, remedy = "ship and verify", 'pip install "gddctl[cpu]"'
    try:
        loads, reason = probe.ort_provider("CPUExecutionProvider")
    except ModuleNotFoundError:
        return Finding(name, "missing", "no ONNX Runtime: hashes can be checked, the golden image cannot run", remedy)
    except Exception as error:  # a half-installed package may raise anything while importing, and doctor must go on
        return Finding(name, "broken", f"ONNX Runtime does not import ({type(error).__name__}: {_first_line(error)})", remedy)
    return Finding(name, "ok", "ONNX Runtime runs on the CPU") if loads else Finding(name, "broken", reason, remedy)


def signing() -> Finding:
    """Whether OpenSSH is here, which signs and checks signatures."""
    found = shutil.which("ssh-keygen")
    if found is None:
        return Finding("ship --sign", "missing", "ssh-keygen is not installed", "apt install openssh-client; unsigned releases need it not")
    return Finding("ship --sign", "ok", "ssh-keygen is here")


def power(root: Path = Path("/")) -> Finding:
    """Which power meters answer; without one the bench writes n/a."""
    name = "bench: power"
    cpus = range(os.cpu_count() or 1)
    reading = merge([sensor.read() for sensor in (NvmlSensor(), RailSensor(root), RaplSensor(cpus, root))])
    told = sorted({*reading.power_w, *reading.energy_j})
    if told:
        return Finding(name, "ok", "; ".join(told))
    if list((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj")):
        remedy = "until the next boot: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        return Finding(name, "missing", "the CPU has a meter that root alone may read", remedy)
    if probe.nvidia_driver().devices and not _imports("pynvml"):
        return Finding(name, "missing", "a GPU is here, but not NVIDIA's library that reads its meter", "pip install nvidia-ml-py")
    return Finding(name, "missing", "this machine tells none", "power and energy are written as n/a; measure at the plug")


def clocks(root: Path = Path("/")) -> Finding:
    """Whether clocks can be watched, and whether the governor holds them."""
    name = "bench: clocks"
    sensors: list[Sensor] = [CpuSensor(range(usable_cores()), root), NvmlSensor(), TegraGpuSensor(root)]
    reading = merge([sensor.read() for sensor in sensors])
    facts = machine_facts(root)
    watched = [f"{what} {mhz:.0f} MHz" for what, mhz in (("CPU", reading.cpu_mhz), ("GPU", reading.gpu_mhz)) if mhz is not None]
    setting = [f"{key} {facts[key]}" for key in ("governor", "turbo", "power mode") if key in facts]
    if not watched:
        return Finding(
            name, "missing", "; ".join(["none can be read", *setting]), "clocks are written as n/a; compare with --rounds 5 or more"
        )
    governor = facts.get("governor", "performance")
    remedy = None if governor == "performance" else "steadier numbers: sudo cpupower frequency-set --governor performance"
    return Finding(name, "ok", "; ".join([*watched, *setting]), remedy)


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(error: BaseException) -> str:
    text = str(error)
    return text.splitlines()[0][:160] if text else ""
