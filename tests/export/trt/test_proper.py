"""The path of TensorRT proper, walked with TensorRT-RTX's bindings in its place: they share their names, timing cache included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gddctl.core.artifact.engine import read_record
from gddctl.core.config.sections import EngineConfig
from gddctl.core.errors import RunFailed
from gddctl.export.trt import cache
from gddctl.export.trt.device import BuildDevice
from gddctl.export.trt_engine import build_engine
from gddctl.runtime.trt_bindings import Bindings

pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")  # its timing cache does nothing


@pytest.fixture
def orin(rtx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an Orin with JetPack 6.1."""
    monkeypatch.setattr("gddctl.export.trt_engine.find_bindings", lambda choice: Bindings(rtx, "tensorrt", "10.3.0.26"))
    monkeypatch.setattr("gddctl.export.trt_engine.build_device", lambda *arguments: BuildDevice("Orin", ("8.7",)))


def timings() -> list[Path]:
    return sorted(cache.cache_folder().glob("*.timings"))


def test_it_is_for_the_device_that_is_here(orin: None, artifact_of: Any, tmp_path: Path) -> None:
    record = read_record(build_engine(artifact_of("pspnet", "int8", "deploy"), tmp_path / "x.engine", EngineConfig()).path)
    assert (record.builder, record.version, record.device, record.compute_capabilities) == ("tensorrt", "10.3.0.26", "Orin", ("8.7",))
    assert record.built_for == "Orin (compute capability 8.7)" and record.flags == ("STRONGLY_TYPED", "TF32 off")


def test_timings_are_kept_and_used_again(orin: None, artifact_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    real = cache.read_timings

    def reading(name: str) -> bytes:
        read.append(real(name))
        return read[-1]

    monkeypatch.setattr(cache, "read_timings", reading)
    source = artifact_of("pspnet", "fp16", "logits")
    for batch in (1, 2):
        build_engine(source, tmp_path / f"{batch}.engine", EngineConfig(max_batch=batch))
    assert len(timings()) == 1 and read[0] == b"" and read[1] == timings()[0].read_bytes() != b""


def test_damaged_timings_are_left(orin: None, artifact_of: Any, tmp_path: Path) -> None:
    source = artifact_of("pspnet", "fp16", "logits")
    build_engine(source, tmp_path / "a.engine", EngineConfig(max_batch=1))
    timings()[0].write_bytes(b"no timings at all")
    build_engine(source, tmp_path / "b.engine", EngineConfig(max_batch=2))
    assert (tmp_path / "b.engine").is_file()


def test_no_cache_means_no_timings_either(orin: None, artifact_of: Any, tmp_path: Path) -> None:
    build_engine(artifact_of("pspnet", "fp16", "logits"), tmp_path / "a.engine", EngineConfig(cache=False))
    assert not cache.cache_folder().exists()


def test_a_weakly_typed_network_is_refused(orin: None, rtx: Any, artifact_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 11 a network that does not say it is strongly typed would be built in whatever types TensorRT likes."""

    class Weak:
        """A builder whose networks forget what they were asked for."""

        def __init__(self, logger: Any) -> None:
            self._builder = builder(logger)

        def create_network(self, flags: int) -> Any:
            assert flags == 1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            return type("Network", (), {"get_flag": lambda self, flag: False})()

    builder = rtx.Builder
    monkeypatch.setattr(rtx, "Builder", Weak)
    with pytest.raises(RunFailed, match="made a weakly typed network"):
        build_engine(artifact_of("pspnet", "fp16", "logits"), tmp_path / "x.engine", EngineConfig())
    assert list(tmp_path.iterdir()) == []
