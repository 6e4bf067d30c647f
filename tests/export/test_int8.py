"""The INT8 graph: integer where it says so, close to FP32, refused when record, graph or census do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import normalise
from gddctl.export import int8
from gddctl.export.census import census, check_int8
from gddctl.export.graph_file import load_model
from gddctl.export.int8 import quantize
from gddctl.quant.choice import Choice
from gddctl.quant.scheme import cpu_scheme
from gddctl.runtime.open import open_runtime

# Random weights lose about one decibel per layer, since each batch norm stretches what little differs between places: 18 dB is left here,
# by ONNX Runtime's own quantiser as well. Trained students are held to the gate's 20 dB where they are judged.
MIN_SQNR_DB = 14.0


def sqnr_db(reference: Any, found: Any) -> float:
    noise = np.square(reference.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(reference, dtype=np.float64).sum() / noise))


def answers(exported: Any, *paths: Path) -> list[Any]:
    batch = np.stack([normalise(exported.val[index].image, exported.fp32.info.preprocess) for index in range(len(exported.val))])
    found = []
    for path in paths:
        with open_runtime(path, threads=1) as runtime:
            found.append(runtime.run(batch))
    return found


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_it_is_integer_and_close_to_fp32(make_exported: Callable[[str], Any], arch: str) -> None:
    exported = make_exported(arch)
    reference, found = answers(exported, exported.fp32.path, exported.int8.path)
    assert sqnr_db(reference, found) > MIN_SQNR_DB
    info = exported.int8.info
    assert (info.precision, info.target, info.parent_sha256) == ("int8", "ort-cpu", exported.fp32.sha256)
    assert info.calibration_sha256 == exported.record.digest
    assert info.census == census(exported.int8.path)
    assert info.census["conv.float"] == 1 and info.census["conv.int8"] >= 25  # the classifier alone stays float
    assert exported.int8.path.stat().st_size < 0.35 * exported.fp32.path.stat().st_size


def test_ranges_of_other_images_are_worse(psp: Any, tmp_path: Path) -> None:
    """Partner of the bar above: ranges ten times too narrow must fail it."""
    narrow = dataclasses.replace(psp.record, ranges={name: (low / 10, high / 10) for name, (low, high) in psp.record.ranges.items()})
    bad = quantize(psp.fp32, narrow, tmp_path / "narrow.onnx")
    reference, found = answers(psp, psp.fp32.path, bad.path)
    assert sqnr_db(reference, found) < MIN_SQNR_DB


@pytest.mark.parametrize(("x86", "saturates"), [(True, True), (False, False)], ids=["x86 without VNNI", "Arm"])
def test_other_processors_schemes_answer_too(psp: Any, tmp_path: Path, x86: bool, saturates: bool) -> None:
    other = quantize(psp.fp32, psp.record, tmp_path / "x.onnx", scheme=cpu_scheme(x86=x86, saturates=saturates))
    reference, found = answers(psp, psp.fp32.path, other.path)
    assert sqnr_db(reference, found) > MIN_SQNR_DB - 3  # seven-bit weights cost up to 6 dB of their own noise, half of it is seen
    assert other.sha256 != psp.int8.sha256


def test_quantising_again_gives_the_same_bytes(psp: Any, tmp_path: Path) -> None:
    assert quantize(psp.fp32, psp.record, tmp_path / "again.onnx").sha256 == psp.int8.sha256


def test_a_graph_whose_convolutions_stayed_float_is_refused(psp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that codes nothing: the census sees it, whatever the file calls itself."""
    monkeypatch.setattr(int8, "choice_of", lambda model, placement, keep: Choice(tensors=(), float_convs=frozenset(convs(model))))
    with pytest.raises(ArtifactError, match="only 0 of 26 convolutions compute in INT8"):
        quantize(psp.fp32, psp.record, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def convs(model: Any) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == "Conv"]


def test_the_census_limit() -> None:
    check_int8({"conv.int8": 9, "conv.float": 1}, "x")
    for counts in ({"conv.int8": 8, "conv.float": 2}, {"conv.int8": 0, "conv.float": 5}, {}):
        with pytest.raises(ArtifactError, match="at least 90%"):
            check_int8(counts, "x")


def test_a_record_of_another_student_or_graph_is_refused(psp: Any, make_exported: Callable[[str], Any], tmp_path: Path) -> None:
    other = make_exported("deeplabv3")
    with pytest.raises(ArtifactError, match="belongs to other weights"):
        quantize(psp.fp32, other.record, tmp_path / "x.onnx")
    ranges = {name: bounds for name, bounds in psp.record.ranges.items() if name != "image"}
    with pytest.raises(ArtifactError, match="lacks 1 tensors"):
        quantize(psp.fp32, dataclasses.replace(psp.record, ranges=ranges), tmp_path / "x.onnx")
    with pytest.raises(ArtifactError, match="other preprocessing"):
        quantize(psp.fp32, dataclasses.replace(psp.record, preprocess_sha256="0"), tmp_path / "x.onnx")
    for wrong in (psp.int8, psp.fp32_deploy):
        with pytest.raises(ArtifactError, match="starts from an fp32 logits graph"):
            quantize(wrong, psp.record, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_onnx_runtime_really_runs_integer_kernels(psp: Any, tmp_path: Path) -> None:
    """The graph as ONNX Runtime optimised it: the census counts QLinearConv there, not only Q/DQ pairs here."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(psp.int8.path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert kinds.count("QLinearConv") == psp.int8.info.census["conv.int8"]
    assert kinds.count("QLinearAdd") == 8 and "Relu" not in kinds  # eight residual sums of a ResNet-18


def test_weights_are_held_as_codes(psp: Any) -> None:
    import onnx

    sizes: dict[int, int] = {}
    for item in load_model(psp.int8.path).graph.initializer:
        sizes[item.data_type] = sizes.get(item.data_type, 0) + int(np.prod(item.dims))
    assert sizes[onnx.TensorProto.INT8] > 50 * sizes[onnx.TensorProto.FLOAT]
