"""What was built once is not built again, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gddctl.core.artifact.engine import read_record, sidecar_path
from gddctl.core.config.sections import EngineConfig
from gddctl.core.digest import sha256_file
from gddctl.export import trt_engine
from gddctl.export.trt import cache
from gddctl.export.trt.device import BuildDevice
from gddctl.export.trt.network import parse_network
from gddctl.export.trt_engine import build_engine
from gddctl.runtime.trt_bindings import Bindings, find_bindings


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry per real build."""
    done: list[str] = []

    def counted(bindings: Any, onnx: Path, info: Any) -> Any:
        done.append(onnx.name)
        return parse_network(bindings, onnx, info)

    monkeypatch.setattr(trt_engine, "parse_network", counted)
    return done


def kept() -> list[Path]:
    return sorted(cache.cache_folder().glob("*.engine"))


def test_the_same_build_is_taken_from_the_cache(rtx: Any, artifact_of: Any, tmp_path: Path, builds: list[str]) -> None:
    source = artifact_of("pspnet", "fp16", "logits")
    first = build_engine(source, tmp_path / "a.engine", EngineConfig())
    second = build_engine(source, tmp_path / "b.engine", EngineConfig())
    assert len(builds) == 1 and len(kept()) == 1
    assert first.sha256 == second.sha256 == sha256_file(second.path)
    assert read_record(second.path) == read_record(first.path)


@pytest.mark.parametrize("change", [{"max_batch": 4}, {"workspace_mb": 512}, {"compute_capabilities": ("8.6",)}, {"optimization_level": 2}])
def test_other_settings_are_another_engine(rtx: Any, artifact_of: Any, tmp_path: Path, builds: list[str], change: dict[str, Any]) -> None:
    source = artifact_of("pspnet", "fp16", "logits")
    build_engine(source, tmp_path / "a.engine", EngineConfig())
    build_engine(source, tmp_path / "b.engine", EngineConfig(**change))
    assert len(builds) == 2 and len(kept()) == 2


def test_so_are_another_version_device_or_file(rtx: Any, artifact_of: Any) -> None:
    source, bindings, device = artifact_of("pspnet", "fp16", "logits"), find_bindings("rtx"), BuildDevice("Orin", ("8.7",))

    def key(source: Any = source, bindings: Bindings = bindings, device: BuildDevice = device) -> str:
        return cache.engine_key(trt_engine._key_parts(source, bindings, device, EngineConfig()))

    others = [
        key(bindings=Bindings(bindings.trt, "tensorrt", bindings.version)),
        key(bindings=Bindings(bindings.trt, bindings.builder, "1.7.2")),
        key(device=BuildDevice("Orin", ("8.6",))),
        key(device=BuildDevice("Orin Nano", ("8.7",))),
        key(source=artifact_of("pspnet", "fp16", "deploy")),
    ]
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key()


@pytest.mark.parametrize("harm", ["engine", "record", "no record"])
def test_a_damaged_one_is_built_anew(rtx: Any, artifact_of: Any, tmp_path: Path, builds: list[str], harm: str) -> None:
    source = artifact_of("pspnet", "fp16", "logits")
    build_engine(source, tmp_path / "a.engine", EngineConfig())
    (engine,) = kept()
    if harm == "engine":
        data = bytearray(engine.read_bytes())
        data[1000] ^= 1
        engine.write_bytes(data)
    elif harm == "record":
        sidecar_path(engine).write_text("{")
    else:
        sidecar_path(engine).unlink()
    again = build_engine(source, tmp_path / "b.engine", EngineConfig())
    assert len(builds) == 2
    assert read_record(again.path).engine_sha256 == sha256_file(again.path) == sha256_file(kept()[0])


def test_it_can_be_left_alone(rtx: Any, artifact_of: Any, tmp_path: Path, builds: list[str]) -> None:
    source = artifact_of("pspnet", "fp16", "logits")
    for name in ("a", "b"):
        build_engine(source, tmp_path / f"{name}.engine", EngineConfig(cache=False))
    assert len(builds) == 2 and not cache.cache_folder().exists()


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    rtx: Any, artifact_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    build_engine(artifact_of("pspnet", "fp16", "logits"), tmp_path / "a.engine", EngineConfig())
    assert "engine cache: not kept" in caplog.text and (tmp_path / "a.engine").is_file()


def test_it_does_not_grow_for_ever(rtx: Any, artifact_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 30_000_000)  # one FP16 PSPNet is 26 MB
    source = artifact_of("pspnet", "fp16", "logits")
    for batch in (1, 2, 3):
        build_engine(source, tmp_path / "a.engine", EngineConfig(max_batch=batch))
        assert len(kept()) == 1
    assert read_record(kept()[0]).max_batch == 3  # the newest stays
    assert len(list(cache.cache_folder().iterdir())) == 2


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "gddctl" / "tensorrt"
    for empty in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", empty)
        assert cache.cache_folder() == Path.home() / ".cache" / "gddctl" / "tensorrt"
