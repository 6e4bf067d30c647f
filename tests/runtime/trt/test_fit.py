"""An engine that is not for this machine is refused in words, with the command that builds it here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gddctl.core.artifact.engine import EngineRecord, read_record, sidecar_path, write_record
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.runtime.open import open_runtime, read_info
from gddctl.runtime.trt_bindings import Bindings
from gddctl.runtime.trt_fit import check_engine_file, check_fit

REBUILD = "gddctl export student-fp32-any.logits.onnx --trt"


def fit(made: tuple[Path, EngineRecord], open_cuda: Any, builder: Any = "tensorrt", version: str = "10.3.0.26") -> None:
    check_fit(*made, Bindings(ModuleType("tensorrt"), builder, version), open_cuda())


def test_it_fits_where_it_was_built(engine_file: Any, open_cuda: Any) -> None:
    fit(engine_file(), open_cuda)


@pytest.mark.parametrize(
    ("builder", "version", "words"),
    [
        ("tensorrt", "10.3.0.27", r"built with TensorRT 10\.3\.0\.26, here is TensorRT 10\.3\.0\.27"),
        ("tensorrt", "11.4.0.106", r"built with TensorRT 10\.3\.0\.26, here is TensorRT 11\.4"),
        ("tensorrt-rtx", "10.3.0.26", r"built with TensorRT 10\.3\.0\.26, here is TensorRT-RTX"),
    ],
)
def test_another_builder_or_version(engine_file: Any, open_cuda: Any, builder: str, version: str, words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as caught:
        fit(engine_file(), open_cuda, builder, version)
    assert REBUILD in str(caught.value)


def test_another_architecture(engine_file: Any, open_cuda: Any, driver: Any) -> None:
    driver.capability, driver.name = (11, 0), "Thor"
    with pytest.raises(
        ArtifactError, match=r"built for Orin \(compute capability 8\.7\), here is Thor \(compute capability 11\.0\)"
    ) as caught:
        fit(engine_file(), open_cuda)
    assert REBUILD in str(caught.value)


def test_another_card_of_the_same_architecture_is_said(
    engine_file: Any, open_cuda: Any, driver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    driver.name = "Orin Nano"
    fit(engine_file(), open_cuda)
    assert "built on Orin and runs on Orin Nano" in caplog.text


@pytest.mark.parametrize(("capability", "fits"), [((8, 0), True), ((12, 1), True), ((7, 5), False)])
def test_portable_engines_run_from_ampere_on(
    engine_file: Any, open_cuda: Any, driver: Any, capability: tuple[int, int], fits: bool
) -> None:
    driver.capability = capability
    made = engine_file(builder="tensorrt-rtx", version="1.7.1.116", compute_capabilities=())
    if fits:
        fit(made, open_cuda, "tensorrt-rtx", "1.7.1.116")
        return
    with pytest.raises(ArtifactError, match=r"compute capability 8\.0 or later"):
        fit(made, open_cuda, "tensorrt-rtx", "1.7.1.116")


def test_the_record_travels_whole(engine_file: Any) -> None:
    path, record = engine_file()
    assert read_record(path) == record and check_engine_file(path) == record
    assert read_info(path) == record.info


def test_an_engine_without_its_record(engine_file: Any) -> None:
    path, _ = engine_file()
    sidecar_path(path).unlink()
    for opener in (read_info, open_runtime):
        with pytest.raises(ArtifactError, match="nobody knows what this engine is") as caught:
            opener(path)
        assert "--trt" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": 1, "builder": "tensorrt"}'])
def test_a_record_that_is_none(engine_file: Any, text: str) -> None:
    path, _ = engine_file()
    sidecar_path(path).write_text(text)
    with pytest.raises(ArtifactError, match=r"student\.logits\.engine\.json"):
        read_info(path)


def test_a_record_by_hand_with_a_mistake(engine_file: Any) -> None:
    path, record = engine_file()
    write_record(path, record.model_copy(update={"max_batch": 0}))
    with pytest.raises(ArtifactError, match="max_batch") as caught:
        read_info(path)
    assert isinstance(caught.value.__cause__, ConfigError)


def test_an_engine_changed_or_exchanged(engine_file: Any) -> None:
    path, _ = engine_file()
    path.write_bytes(b"another engine")
    with pytest.raises(ArtifactError, match="not the engine that its record describes"):
        open_runtime(path)


def test_no_such_engine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_runtime(tmp_path / "x.engine")
