"""Engines built for real, by TensorRT-RTX without a GPU: every precision, graph and architecture; and what is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.artifact.engine import PORTABLE, read_record
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import EngineConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, RunFailed, UsageError
from gddctl.export import trt_engine
from gddctl.export.trt import resources
from gddctl.export.trt.progress import logged_progress
from gddctl.export.trt.resources import available_memory, check_resources
from gddctl.export.trt_engine import build_engine

PLAIN = EngineConfig(cache=False)
CONVS = {"pspnet": 26, "deeplabv3": 28}  # 20 of a ResNet-18 with its three shortcuts, the rest the heads'


@pytest.mark.parametrize("graph", ["logits", "deploy"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_an_engine_is_what_it_is_called(rtx: Any, artifact_of: Any, tmp_path: Path, arch: Any, precision: str, graph: str) -> None:
    source: Artifact = artifact_of(arch, precision, graph)
    engine = build_engine(source, tmp_path / "x.engine", EngineConfig(min_batch=1, opt_batch=2, max_batch=4, cache=False))
    total = CONVS[arch]
    wanted = {"fp32": {"conv.float": total}, "fp16": {"conv.fp16": total}, "int8": {"conv.int8": total - 1, "conv.fp16": 1}}[precision]
    assert {name: count for name, count in engine.info.census.items() if name.startswith("conv") and count} == wanted
    assert (engine.format, engine.info.target, engine.info.precision, engine.graph) == ("engine", "tensorrt", precision, graph)
    assert engine.info.parent_sha256 == source.sha256
    assert engine.sha256 == sha256_file(engine.path)
    record = read_record(engine.path)
    assert record.info == engine.info and record.engine_sha256 == engine.sha256
    assert (record.builder, record.version, record.device) == ("tensorrt-rtx", rtx.__version__, PORTABLE)
    assert (record.min_batch, record.opt_batch, record.max_batch) == (1, 2, 4)
    assert record.onnx_sha256 == source.sha256 and record.onnx == source.path.name
    assert sum(record.layers.values()) == record.info.census["layers"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.engine", "x.engine.json"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_uint8_is_entered_and_left_by_floats(rtx: Any, artifact_of: Any, tmp_path: Path, precision: str) -> None:
    """TensorRT's headers know no other conversions of it; the ONNX file casts class ids straight to UINT8."""
    layers = read_record(build_engine(artifact_of("pspnet", precision, "deploy"), tmp_path / "x.engine", PLAIN).path).layers
    casts = {name: count for name, count in layers.items() if name.startswith("CAST") and "UINT8" in name}
    assert casts == {"CAST UINT8 -> FLOAT": 1, "CAST FLOAT -> UINT8": 1}


def test_half_the_bits_are_half_the_bytes(rtx: Any, artifact_of: Any, tmp_path: Path) -> None:
    """Weights are what an engine of these consists of: each precision halves it, but for kernels and scales."""
    sizes = {
        name: build_engine(artifact_of("pspnet", name, "logits"), tmp_path / f"{name}.engine", PLAIN).path.stat().st_size
        for name in ("fp32", "fp16", "int8")
    }
    assert 0.45 < sizes["fp16"] / sizes["fp32"] < 0.6
    assert 0.25 < sizes["int8"] / sizes["fp32"] < 0.4


FOUND = {"fp32": "26 FLOAT", "fp16": "26 FP16", "int8": "1 FP16, 25 INT8"}


@pytest.mark.parametrize(
    ("held", "called"), [("fp32", "fp16"), ("fp32", "int8"), ("fp16", "int8"), ("fp16", "fp32"), ("int8", "fp16"), ("int8", "fp32")]
)
def test_an_engine_of_another_precision_is_no_engine(rtx: Any, artifact_of: Any, tmp_path: Path, held: str, called: str) -> None:
    source = artifact_of("pspnet", held, "logits")
    lying = replace(source, info=source.info.model_copy(update={"precision": called, "target": "tensorrt"}))
    with pytest.raises(ArtifactError, match=f"asked for {called}, but the convolutions that TensorRT parsed are: .*{FOUND[held]}"):
        build_engine(lying, tmp_path / "x.engine", EngineConfig())
    assert list(tmp_path.iterdir()) == []


def test_integer_convolutions_between_fp32_are_refused(rtx: Any, psp: Any, tmp_path: Path) -> None:
    """All of them INT8, and yet everything between them would move as FP32: slow, and not what was asked for."""
    from dataclasses import replace as with_scale

    from gddctl.export.int8 import quantize
    from gddctl.quant.scheme import tensorrt_scheme

    scheme = with_scale(tensorrt_scheme(), scale="float32")
    source = quantize(psp.fp32, psp.record, tmp_path / "x.onnx", target="tensorrt", scheme=scheme)
    with pytest.raises(ArtifactError, match="25 INT8-FP32"):
        build_engine(source, tmp_path / "x.engine", PLAIN)


def test_an_int8_file_of_another_runtime_is_refused(psp: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="quantised for 'ort-cpu'") as caught:
        build_engine(psp.int8, tmp_path / "x.engine", PLAIN)
    assert "--target tensorrt" in str(caught.value)


def test_the_parsers_complaint_names_the_node(rtx: Any, psp: Any, tmp_path: Path) -> None:
    """Asymmetric codes, smuggled in: the parser's own words reach the user, with the node."""
    lying = replace(psp.int8, info=psp.int8.info.model_copy(update={"target": "tensorrt"}))
    with pytest.raises(ArtifactError, match=r"TensorRT-RTX .* cannot take this graph: node '.+' \((De)?[Qq]uantizeLinear\)"):
        build_engine(lying, tmp_path / "x.engine", PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_a_builder_that_gives_nothing_is_an_error_in_its_own_words(rtx: Any, artifact_of: Any, tmp_path: Path) -> None:
    """Turing has no FP32 matrix product in TensorRT-RTX, and PSPNet's pooling is made of them: a build that really fails."""
    config = EngineConfig(compute_capabilities=("7.5",), cache=False)
    with pytest.raises(RunFailed, match=r"could not build the engine: .*\w") as caught:
        build_engine(artifact_of("pspnet", "fp32", "logits"), tmp_path / "x.engine", config)
    assert "it gave no reason" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_devices_are_named_ahead_or_refused(rtx: Any, artifact_of: Any, tmp_path: Path) -> None:
    source = artifact_of("pspnet", "fp16", "logits")
    record = read_record(build_engine(source, tmp_path / "x.engine", EngineConfig(compute_capabilities=("8.6", "8.9"), cache=False)).path)
    assert record.compute_capabilities == ("8.6", "8.9")
    with pytest.raises(UsageError, match=r"compute capability 8\.7: .* SM86"):
        build_engine(source, tmp_path / "y.engine", EngineConfig(compute_capabilities=("8.7",), cache=False))


def test_an_open_batch_needs_its_profile(rtx: Any, artifact_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partner of the profile: without it the builder refuses, and says what is missing."""
    monkeypatch.setattr(trt_engine._Batches, "of", classmethod(lambda cls, parsed, config: cls(1, 1, 1, True)))
    with pytest.raises(RunFailed, match="optimization profile"):
        build_engine(artifact_of("deeplabv3", "fp16", "logits"), tmp_path / "x.engine", PLAIN)


def test_a_batch_that_is_baked_in_is_the_profile(rtx: Any, psp: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(psp.fp32.path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    path = tmp_path / "fixed.onnx"
    onnx.save(model, str(path))
    record = read_record(build_engine(replace(psp.fp32, path=path, sha256=sha256_file(path)), tmp_path / "x.engine", PLAIN).path)
    assert (record.min_batch, record.opt_batch, record.max_batch) == (3, 3, 3)


@pytest.mark.parametrize("kept", [0.3, 0.98])
def test_a_file_that_ends_too_early(psp: Any, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.onnx"
    data = psp.fp32.path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ArtifactError, match=r"cut\.onnx"):
        build_engine(replace(psp.fp32, path=path, sha256=sha256_file(path)), tmp_path / "x.engine", PLAIN)
    assert [item.name for item in tmp_path.iterdir()] == ["cut.onnx"]


def test_a_file_changed_since_it_was_made(psp: Any, tmp_path: Path) -> None:
    path = tmp_path / "changed.onnx"
    data = bytearray(psp.fp32.path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="changed since it was made"):
        build_engine(replace(psp.fp32, path=path), tmp_path / "x.engine", PLAIN)


def test_another_graph_than_described(rtx: Any, psp: Any, tmp_path: Path) -> None:
    """The right file under the wrong description."""
    lying = replace(psp.fp32, info=psp.fp32_deploy.info)
    with pytest.raises(ArtifactError, match=r"expected \['image', 'mask'\]"):
        build_engine(lying, tmp_path / "x.engine", PLAIN)


def test_progress_is_told(rtx: Any, artifact_of: Any, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(artifact_of("pspnet", "fp16", "logits"), tmp_path / "x.engine", PLAIN, progress=lambda *step: told.append(step))
    assert len({phase for phase, _, _ in told}) > 3
    assert all(0 <= done <= of for _, done, of in told)


def test_without_a_listener_it_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    times = iter([0.0, 1.0, 4.9, 5.0, 5.0, 6.0, 11.0, 11.0])
    tell = logged_progress(5.0, lambda: next(times))
    for step in range(5):
        tell("Timing tactics", step, 9)
    assert [record.getMessage() for record in caplog.records] == ["engine: timing tactics, 2 of 9", "engine: timing tactics, 4 of 9"]


def fail(*step: object) -> None:
    raise ValueError("the screen is gone")


def interrupt(*step: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("progress", "error"), [(fail, ValueError), (interrupt, KeyboardInterrupt)])
def test_what_happens_in_a_callback_is_raised_after_the_build(
    rtx: Any, artifact_of: Any, tmp_path: Path, progress: Callable[..., None], error: type[BaseException]
) -> None:
    """Raised inside, it would end the process; and Ctrl-C works as before, once the build is over."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        build_engine(artifact_of("pspnet", "fp16", "logits"), tmp_path / "x.engine", EngineConfig(), progress=progress)
    assert signal.getsignal(signal.SIGINT) is before
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_or_disk_is_said_before_the_build(psp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_resources(50_000_000, tmp_path / "not" / "yet", tunes=False)
    monkeypatch.setattr(resources, "available_memory", lambda: 100 * 2**20)
    with pytest.raises(RunFailed, match=r"takes about \d+ MiB of memory, 100 MiB are free") as caught:
        check_resources(50_000_000, tmp_path, tunes=False)
    assert caught.value.exit_code == 6
    monkeypatch.setattr(resources, "available_memory", lambda: None)  # nobody tells: no reason to refuse
    with pytest.raises(RunFailed, match="MiB of disk"):
        check_resources(2**50, tmp_path, tunes=False)


def test_free_memory_is_the_smaller_of_machine_and_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 40 kB\nSwapFree: 2 kB\nHugePages_Total: 0\n")
    assert available_memory(meminfo, tmp_path) == 42 * 1024
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("10000\n")
    assert available_memory(meminfo, tmp_path) == 20000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path) == 42 * 1024
    assert available_memory(tmp_path / "none", tmp_path / "none") is None
