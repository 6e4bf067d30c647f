"""The facts of a GPU, over a stand-in for the driver's libraries; those of the CUDA libraries over the real ones, which need no GPU."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gddctl.runtime.gpu_facts import NOT_KNOWN, gpu_facts
from gddctl.runtime.open import open_runtime


def put(value: int) -> Any:
    """A function that writes ``value`` through the pointer among its arguments, as the driver's do."""

    def write(*arguments: Any) -> int:
        next(argument._obj for argument in arguments if hasattr(argument, "_obj")).value = value
        return 0

    return write


def say(text: bytes) -> Any:
    """A function that writes ``text`` into the buffer among its arguments."""

    def write(*arguments: Any) -> int:
        next(argument for argument in arguments if isinstance(argument, ctypes.Array)).value = text
        return 0

    return write


def libraries(**changes: Any) -> Any:
    """Loads stand-ins by name; a change to None takes a library away."""
    cuda = SimpleNamespace(
        cuInit=lambda flags: 0, cuDeviceGet=put(0), cuDeviceGetName=say(b"NVIDIA L4"), cuDriverGetVersion=put(12060),
        cuDeviceGetAttribute=lambda pointer, which, device: put({75: 8, 76: 9}[which])(pointer),
    )  # fmt: skip
    nvml = SimpleNamespace(nvmlInit_v2=lambda: 0, nvmlSystemGetDriverVersion=say(b"550.54.15"), nvmlShutdown=lambda: 0)
    runtime = SimpleNamespace(cudaRuntimeGetVersion=put(12040))
    cudnn = SimpleNamespace(cudnnGetProperty=lambda which, pointer: put((9, 5, 1)[which])(pointer))
    known = {"libcuda.so.1": cuda, "libnvidia-ml.so.1": nvml, "/x/libcudart.so.12": runtime, "/x/libcudnn.so.9": cudnn} | changes

    def load(name: str) -> Any:
        if known.get(name) is None:
            raise OSError(name)
        return known[name]

    return load


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    path = tmp_path / "maps"
    lines = ("7f00-7f01 r-xp 0 00:01 9  /x/libcudnn_graph.so.9", "7f01-7f02 r-xp 0 00:01 7  /x/libcudnn.so.9", "7f03 rw-p 0 00:00 0",
             "7f04-7f05 r-xp 0 00:01 8  /x/libcudart.so.12")  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def test_everything_is_told(maps: Path) -> None:
    assert gpu_facts(libraries(), maps) == {
        "gpu": "NVIDIA L4", "compute capability": "8.9", "driver": "12.6", "NVIDIA driver": "550.54.15", "cuda": "12.4", "cudnn": "9.5.1"
    }  # fmt: skip


def test_what_nobody_tells_is_not_known_and_the_rest_is(maps: Path, tmp_path: Path) -> None:
    refusing = SimpleNamespace(nvmlInit_v2=lambda: 9)  # NVML_ERROR_DRIVER_NOT_LOADED
    assert gpu_facts(libraries(**{"libnvidia-ml.so.1": refusing}), maps)["NVIDIA driver"] == NOT_KNOWN
    found = gpu_facts(libraries(**{"libnvidia-ml.so.1": None, "/x/libcudnn.so.9": None}), maps)
    assert (found["NVIDIA driver"], found["cudnn"], found["gpu"], found["cuda"]) == (NOT_KNOWN, NOT_KNOWN, "NVIDIA L4", "12.4")
    assert set(gpu_facts(libraries(**{"libcuda.so.1": None, "libnvidia-ml.so.1": None}), tmp_path / "none").values()) == {NOT_KNOWN}
    assert gpu_facts(libraries(**{"libcuda.so.1": SimpleNamespace(cuInit=lambda flags: 100)}), maps)["gpu"] == NOT_KNOWN


def test_the_real_libraries_of_cuda_tell_their_versions_without_a_gpu() -> None:
    """The names and signatures are those of the libraries themselves, loaded into a process of their own."""
    root = next((Path(path) / "nvidia" for path in sys.path if (Path(path) / "nvidia").is_dir()), Path("/none"))
    found = [next(root.rglob(name), None) for name in ("libcudart.so.*", "libcudnn.so.*")]
    if None in found:
        pytest.skip("the libraries of CUDA are not installed here: they come with the extra gpu")
    code = (
        "import ctypes, json, sys\nfrom gddctl.runtime.gpu_facts import gpu_facts\nbefore = gpu_facts()\n"
        "for path in sys.argv[1:]: ctypes.CDLL(path)\nprint(json.dumps([before, gpu_facts()]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, found)], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert before["cuda"] == before["cudnn"] == NOT_KNOWN
    majors = [str(path).rpartition(".")[2] for path in found]
    assert [after[name].partition(".")[0] for name in ("cuda", "cudnn")] == majors


def test_a_session_on_a_gpu_names_it_and_one_on_the_cpu_none(psp: Any, monkeypatch: pytest.MonkeyPatch, maps: Path) -> None:
    """No machine of these tests has a GPU: a session on the CPU is told that it is on one."""
    monkeypatch.setattr("gddctl.runtime.ort_runtime.gpu_facts", lambda: gpu_facts(libraries(), maps))
    with open_runtime(psp.fp32.path, threads=1) as runtime:
        assert "gpu" not in runtime.environment()
        monkeypatch.setattr(runtime, "_device", "cuda")
        assert gpu_facts(libraries(), maps).items() <= runtime.environment().items()
