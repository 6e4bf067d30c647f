"""The exported FP32 graph is what it says, answers like torch, and a failed export leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.info import METADATA_KEY
from gddctl.core.errors import ArtifactError, GddctlError, RunFailed
from gddctl.data.preprocess import normalise
from gddctl.export import onnx_graph
from gddctl.export.census import census_of
from gddctl.export.graph_file import check_graph, load_model, save_model
from gddctl.export.onnx_graph import export_logits
from gddctl.runtime.onnx_header import read_header
from gddctl.runtime.open import open_runtime, read_info

FP32_TOLERANCE = 1e-4  # logits of a few units; another order of summation leaves about 1e-6 of that
ARCHITECTURES = ("pspnet", "deeplabv3")


@pytest.fixture
def traced(psp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds and is not what these tests break: it gives the graph that was traced before."""
    monkeypatch.setattr(onnx_graph, "_trace", lambda network, size, opset: load_model(psp.fp32.path))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_answers_like_torch_at_any_batch(make_exported: Callable[[str], Any], arch: str) -> None:
    exported = make_exported(arch)
    batch = np.stack([normalise(exported.val[index].image, exported.fp32.info.preprocess) for index in range(3)])
    with open_runtime(exported.bundle, threads=1) as torch_runtime, open_runtime(exported.fp32.path, threads=1) as ort_runtime:
        for count in (1, 3):
            wanted = torch_runtime.run(batch[:count])
            assert wanted.std() > 100 * FP32_TOLERANCE
            np.testing.assert_allclose(ort_runtime.run(batch[:count]), wanted, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_file_is_what_it_says(make_exported: Callable[[str], Any], arch: str) -> None:
    exported = make_exported(arch)
    header, info = read_header(exported.fp32.path), read_info(exported.fp32.path)
    card_info = read_info(exported.bundle)
    assert header.opsets == {"": 20} and header.ir_version <= 10
    assert info == exported.fp32.info
    assert info.parent_sha256 == info.weights_sha256 == card_info.weights_sha256
    assert info.model_copy(update={"opset": 0, "census": {}, "parent_sha256": None}) == card_info
    names = header.metadata["classes"].split(",")
    assert tuple(names) == info.classes.names and header.metadata["input_size"] == "64x96"
    assert METADATA_KEY in header.metadata
    model = load_model(exported.fp32.path)
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds and "ReduceMean" not in kinds
    assert kinds.count("MatMul") == (6 if arch == "pspnet" else 0)  # two products for each of 2x2, 3x3 and 6x6
    assert not any("aux" in item.name for item in model.graph.initializer)
    assert len(kinds) < 120
    shapes = [node for node in model.graph.node if node.op_type == "Shape"]
    assert [list(node.input) for node in shapes] == [["image"]]  # of all tensors only the image is asked for its batch


def test_nothing_of_the_build_machine_is_inside(psp: Any) -> None:
    data = psp.fp32.path.read_bytes()
    for word in (b"site-packages", b"stack_trace", str(Path(onnx_graph.__file__).parent).encode()):
        assert word not in data


@pytest.mark.slow
def test_the_same_bundle_gives_the_same_bytes(psp: Any, tmp_path: Path) -> None:
    assert export_logits(psp.bundle, tmp_path / "again.onnx").sha256 == psp.fp32.sha256


def test_another_opset_is_honoured(psp: Any, tmp_path: Path) -> None:
    artifact = export_logits(psp.bundle, tmp_path / "x.onnx", opset=18)
    assert read_header(artifact.path).opsets == {"": 18} and artifact.info.opset == 18


def test_a_failing_exporter_leaves_nothing(psp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RunFailed, match="no such operator"):
        export_logits(psp.bundle, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RunFailed("answers differently"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_export_that_stops_half_way_leaves_nothing(
    psp: Any, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """It stops when the file is written but not yet proven; an older file of that name still stands."""
    (tmp_path / "x.onnx").write_bytes(b"older")

    def stop(network: object, path: Path, info: object) -> None:
        assert path.stat().st_size > 1_000_000  # the new file is there, under its temporary name
        raise error

    monkeypatch.setattr(onnx_graph, "_compare", stop)
    with pytest.raises((GddctlError, KeyboardInterrupt)):
        export_logits(psp.bundle, tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"] and (tmp_path / "x.onnx").read_bytes() == b"older"


def test_a_graph_that_answers_differently_is_refused(psp: Any, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of the graph is changed between export and comparison."""

    def spoil(model: Any, info: Any, path: Path) -> None:
        import onnx

        tensor = next(item for item in model.graph.initializer if item.name.endswith("classifier.weight"))
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name))
        save_model(model, info, path)

    monkeypatch.setattr(onnx_graph, "save_model", spoil)
    with pytest.raises(RunFailed, match="answers differently from torch"):
        export_logits(psp.bundle, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def _ignored_opset(model: Any) -> None:
    model.opset_import[0].version = 18


def _contrib_operator(model: Any) -> None:
    import onnx

    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _newer_ir(model: Any) -> None:
    model.ir_version = 11


def _batch_norm(model: Any) -> None:
    model.graph.node[0].op_type = "BatchNormalization"


def _unrolled(model: Any) -> None:
    for _ in range(2000):
        model.graph.node.append(model.graph.node[0])


def _outside(model: Any) -> None:
    model.graph.initializer[0].data_location = 1


def _fixed_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def _more_classes(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 19


def _half_output(model: Any) -> None:
    model.graph.output[0].type.tensor_type.elem_type = 10


def _renamed(model: Any) -> None:
    model.graph.output[0].name = "out"


def _dangling(model: Any) -> None:
    model.graph.node[3].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_ignored_opset, "opset is 18, not the 20"),
        (_contrib_operator, "outside the ONNX standard"),
        (_newer_ir, "IR version is 11"),
        (_batch_norm, "1 BatchNormalization"),
        (_unrolled, "unrolled"),
        (_outside, "outside the file"),
        (_fixed_batch, "'image' is"),
        (_more_classes, "'logits' is"),
        (_half_output, "FLOAT16"),
        (_renamed, "its output is 'out'"),
        (_dangling, "not valid ONNX"),
    ],
)
def test_each_check_of_the_graph_can_fail(psp: Any, spoil: Callable[[Any], None], words: str) -> None:
    model = load_model(psp.fp32.path)
    check_graph(model, psp.fp32.info)
    spoil(model)
    with pytest.raises(ArtifactError, match=words):
        check_graph(model, psp.fp32.info)


def test_the_census_counts_what_is_there(psp: Any) -> None:
    model = load_model(psp.fp32.path)
    found = census_of(model)
    convs = sum(node.op_type == "Conv" for node in model.graph.node)
    assert (found["conv.float"], found["conv.int8"], found["matmul.float"], found["nodes"]) == (convs, 0, 6, len(model.graph.node))
    assert found == psp.fp32.info.census
