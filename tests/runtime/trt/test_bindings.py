"""Which TensorRT is found, and what is said where there is none or one too old."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gddctl.core.config.sections import EngineConfig
from gddctl.core.errors import EnvironmentMissing, UsageError
from gddctl.export.trt import device as device_module
from gddctl.export.trt.device import build_device
from gddctl.export.trt_engine import build_engine
from gddctl.runtime.probe import Driver
from gddctl.runtime.trt_bindings import find_bindings


class Untouchable(ModuleType):
    """A TensorRT of which nothing but its version may be asked."""

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__version__ = version

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for tensorrt.{name}")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put modules in place: a version, or None for one that does not import."""

    def put(**versions: str | None) -> None:
        for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
            version = versions.get(name)
            monkeypatch.setitem(sys.modules, name, None if version is None else Untouchable(version))

    return put


def test_tensorrt_proper_comes_first(install: Any) -> None:
    install(tensorrt="10.3.0", tensorrt_rtx="1.7.1.116")
    found = find_bindings()
    assert (found.builder, found.version, found.name, found.is_rtx) == ("tensorrt", "10.3.0", "TensorRT 10.3.0", False)
    assert find_bindings("rtx").name == "TensorRT-RTX 1.7.1.116"


@pytest.mark.parametrize(("version", "weak"), [("10.3.0", True), ("10.16.2.10", True), ("11.0.0.114", False)])
def test_until_11_typing_must_be_asked_for(install: Any, version: str, weak: bool) -> None:
    install(tensorrt=version, tensorrt_rtx="1.7.1")
    assert find_bindings("tensorrt").can_be_weak == weak
    assert not find_bindings("rtx").can_be_weak


@pytest.mark.parametrize("module", ["tensorrt_rtx", "tensorrt_rtx_bindings"])
def test_rtx_under_either_name(install: Any, module: str) -> None:
    install(**{module: "1.7.1.116"})
    assert find_bindings().is_rtx and find_bindings("rtx").is_rtx


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0.19"])
def test_one_too_old_is_not_taken(install: Any, version: str) -> None:
    install(tensorrt=version)
    with pytest.raises(EnvironmentMissing, match=rf"TensorRT {version} is older than 10\.3"):
        find_bindings("tensorrt")
    install(tensorrt=version, tensorrt_rtx="1.7.1")
    assert find_bindings().is_rtx


@pytest.mark.parametrize(("choice", "words"), [("auto", "TensorRT or TensorRT-RTX"), ("tensorrt", "TensorRT"), ("rtx", "TensorRT-RTX")])
def test_without_any_it_says_what_to_install(install: Any, choice: Any, words: str) -> None:
    install()
    with pytest.raises(EnvironmentMissing, match=f"no usable {words} here") as caught:
        find_bindings(choice)
    assert caught.value.exit_code == 4
    text = str(caught.value)
    assert ("gddctl[trt]" in text and "Jetson" in text) == (choice != "rtx")
    assert ("gddctl[rtx]" in text) == (choice != "tensorrt")


def test_tensorrt_proper_without_a_gpu_is_left_alone(install: Any, psp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is touched but its version: a builder or a runtime can end the process there."""
    install(tensorrt="10.3.0")
    monkeypatch.setattr(device_module, "nvidia_driver", lambda: Driver(0, reason="cuInit answers 100"))
    with pytest.raises(EnvironmentMissing, match="only on the GPU they are for, and none is usable here: cuInit answers 100") as caught:
        build_engine(psp.fp32, tmp_path / "x.engine", EngineConfig())
    assert "--builder rtx" in str(caught.value)
    monkeypatch.setattr(device_module, "nvidia_driver", lambda: Driver(1, "12.6"))
    with pytest.raises(AssertionError, match=r"asked for tensorrt\."):  # partner: with a GPU it would be
        device = type("Device", (), {"name": lambda self: "Orin", "compute_capability": lambda self: "8.7", "close": lambda self: None})
        found = build_device(find_bindings(), (), open_cuda=device)
        assert (found.name, found.compute_capabilities) == ("Orin", ("8.7",))
        monkeypatch.setattr("gddctl.export.trt_engine.build_device", lambda *arguments: found)
        build_engine(psp.fp32, tmp_path / "x.engine", EngineConfig())
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_proper_builds_for_no_other_device(install: Any) -> None:
    install(tensorrt="10.3.0")
    with pytest.raises(UsageError, match="for the GPU that is here and no other"):
        build_device(find_bindings(), ("8.6",))


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from gddctl.cli import main
main()
"""


def on_the_device(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"XDG_CACHE_HOME": str(cache)},
    )


def test_a_device_builds_without_torch_and_onnx_and_is_told_what_it_lacks_to_run(psp: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed here", exc_type=ImportError)
    out = tmp_path / "out"
    built = on_the_device("export", str(psp.fp32.path), "--trt", "--builder", "rtx", "--out", str(out), cache=tmp_path)
    assert built.returncode == 0, built.stderr
    (engine,) = out.glob("*.engine")
    assert (out / f"{engine.name}.json").is_file()
    if _has_gpu():
        pytest.skip("this machine has a GPU: the rest is about those that have none")
    run = on_the_device("eval", str(engine), cache=tmp_path)
    assert run.returncode == 4 and "no NVIDIA GPU is usable here" in run.stderr, run.stderr


def _has_gpu() -> bool:
    from gddctl.runtime.probe import nvidia_driver

    return nvidia_driver().devices > 0
