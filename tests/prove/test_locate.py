"""Drift: a weight or a scale broken in the middle of a real graph is named, exactly; a healthy pair names nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.manifest import Artifact
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError
from gddctl.prove import locate as module
from gddctl.prove.ladder import Member
from gddctl.prove.locate import locate

CONV, BEHIND = "encoder.layer2.0.conv2", "encoder.layer3.1.conv1"


@dataclasses.dataclass(frozen=True)
class Files:
    fp32: Artifact
    fp16: Artifact
    cpu: Artifact
    tensorrt: Artifact
    tensorrt_deploy: Artifact


@pytest.fixture(scope="module")
def files(psp: Any, tmp_path_factory: pytest.TempPathFactory) -> Files:
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.fp16 import to_fp16
    from gddctl.export.int8 import quantize

    folder = tmp_path_factory.mktemp("locate")
    fp16 = to_fp16(psp.fp32, folder / "fp16.onnx", record=psp.record)
    tensorrt = quantize(psp.fp32, psp.record, folder / "trt.onnx", target="tensorrt")
    return Files(psp.fp32, fp16, psp.int8, tensorrt, to_deploy(tensorrt, folder / "deploy.onnx"))


def member(artifact: Artifact) -> Member:
    return Member(artifact.path, artifact.sha256, artifact.info, "onnx")


def broken(artifact: Artifact, path: Path, change: Callable[[dict[str, Any]], None]) -> Artifact:
    """A copy of ``artifact`` with other constants."""
    import onnx

    model = onnx.load(str(artifact.path))
    constants = {item.name: onnx.numpy_helper.to_array(item).copy() for item in model.graph.initializer}
    change(constants)
    for item in model.graph.initializer:
        item.CopyFrom(onnx.numpy_helper.from_array(constants[item.name], item.name))
    path.write_bytes(model.SerializeToString())
    return dataclasses.replace(artifact, path=path, sha256=sha256_file(path))


@pytest.mark.parametrize("name", ["fp32", "fp16", "cpu", "tensorrt", "tensorrt_deploy"])
def test_a_healthy_pair_names_nothing(psp: Any, files: Files, name: str) -> None:
    report = locate(member(files.fp32), member(getattr(files, name)), psp.val, images=2)
    assert report.first is None, report.first
    assert len(report.tensors) > 60 and report.tensors[0].name == "image" and report.tensors[-1].name == "logits"
    if name == "fp32":
        assert all(tensor.sqnr_db == 200.0 for tensor in report.tensors)
    else:
        assert any(tensor.sqnr_db < 100 for tensor in report.tensors)  # it did look at two different graphs


def scaled(*names: str, by: float) -> Callable[[dict[str, Any]], None]:
    def change(constants: dict[str, Any]) -> None:
        for name in names:
            (full,) = [key for key in constants if key.endswith(name)]
            constants[full] = (constants[full] * by).astype(constants[full].dtype)

    return change


@pytest.mark.parametrize(
    ("name", "constant", "found"),
    [
        ("fp32", f"{CONV}.weight", CONV),
        ("fp16", f"{CONV}.weight_half", CONV),
        ("cpu", f"{CONV}.weight_scale", CONV),
        ("tensorrt", f"{CONV}.weight_scale_half", CONV),
        ("tensorrt_deploy", f"{CONV}.weight_scale_half", CONV),
    ],
)
def test_a_broken_convolution_in_the_middle_is_named(psp: Any, files: Files, tmp_path: Path, name: str, constant: str, found: str) -> None:
    wrong = broken(getattr(files, name), tmp_path / "wrong.onnx", scaled(constant, by=1.6))
    report = locate(member(files.fp32), member(wrong), psp.val, images=2)
    assert report.first is not None and report.first.name == found and report.first.kind == "Conv"
    assert report.worst(1)[0].name == found  # what follows is as bad, but not by its own making
    assert report.to_json()["first"] == found


def test_a_wrong_range_is_named_by_the_tensor_that_it_rounds(psp: Any, files: Files, tmp_path: Path) -> None:
    report = locate(
        member(files.fp32), member(broken(files.cpu, tmp_path / "wrong.onnx", scaled(f"{BEHIND}.relu_scale", by=0.1))), psp.val, images=2
    )
    assert report.first is not None and report.first.name == f"{BEHIND}.relu"


def test_the_first_of_two_faults_is_named_and_nan_is_a_fault(psp: Any, files: Files, tmp_path: Path) -> None:
    def change(constants: dict[str, Any]) -> None:
        for name, value in constants.items():
            if name.endswith(f"{BEHIND}.weight") or name.endswith(f"{CONV}.weight"):
                value.flat[0] = np.nan

    report = locate(member(files.fp32), member(broken(files.fp32, tmp_path / "wrong.onnx", change)), psp.val, images=2)
    assert report.first is not None and report.first.name == CONV and report.first.nan > 0
    assert next(tensor for tensor in report.tensors if tensor.name == BEHIND).nan > 0


def test_groups_bound_what_is_held_at_once_and_change_nothing(psp: Any, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = locate(member(files.fp32), member(files.fp16), psp.val, images=1)
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "_BUDGET", 1 << 20)
    parts = locate(member(files.fp32), member(files.fp16), psp.val, images=1, progress=lambda done, of: calls.append((done, of)))
    assert len(calls) > 2 and calls[-1] == (len(parts.tensors), len(parts.tensors))
    for one, other in zip(whole.tensors, parts.tensors, strict=True):
        assert one.name == other.name and one.sqnr_db == pytest.approx(other.sqnr_db, abs=3.0)  # other fusions, other roundings


def test_what_has_no_inner_tensors_is_refused(psp: Any, files: Files) -> None:
    bundle = Member(psp.bundle, "0", files.fp32.info, "bundle")
    with pytest.raises(ArtifactError, match="bundle shows no inner tensors"):
        locate(bundle, member(files.fp32), psp.val)
    engine = Member(Path("x.engine"), "0", files.fp32.info, "engine")
    with pytest.raises(ArtifactError, match="engine shows no inner tensors"):
        locate(member(files.fp32), engine, psp.val)


def test_a_broken_file_is_named(psp: Any, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(files.fp32.path.read_bytes()[:5000])
    with pytest.raises(ArtifactError, match="cut.onnx: not a readable ONNX file"):
        locate(Member(path, "0", files.fp32.info, "onnx"), member(files.fp32), psp.val)
