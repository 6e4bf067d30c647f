"""Somebody else's network all the way: imported, calibrated, INT8 for two targets, deployed, and read by TensorRT-RTX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import normalise, resize_image
from gddctl.data.synthetic.scenes import SyntheticDataset
from gddctl.export.calibration.collect import calibrate
from gddctl.export.deploy_graph import to_deploy
from gddctl.export.foreign import import_onnx
from gddctl.export.foreign_run import answers_of_ours, sqnr_db
from gddctl.export.graph_file import load_model
from gddctl.export.int8 import quantize
from gddctl.runtime.open import open_runtime
from tests.export.foreign_nets import Net, card, export

MIN_SQNR_DB = 25.0  # three quantised convolutions with random weights; about 30 dB seen


@dataclass(frozen=True)
class Imported:
    fp32: Artifact
    record: CalibrationRecord
    images: Any  # (N, H, W, 3) uint8, at the network's size


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("imported")
    path = export(Net(aux=True, pool=4, end="softmax"), folder / "theirs.onnx", outputs=("out", "aux"))
    fp32, _ = import_onnx(path, card(), folder / "theirs-fp32-any.logits.onnx")
    train, val = SyntheticDataset(1, 8, 64, 96), SyntheticDataset(2, 4, 64, 96)
    record = calibrate(fp32, train, CalibrationConfig(images=8, method="minmax"), held_out=val)
    images = np.stack([resize_image(val[index].image, fp32.info.preprocess)[0] for index in range(len(val))])
    return Imported(fp32, record, images)


def answers(path: Path, images: Any) -> Any:
    with open_runtime(path, threads=1) as runtime:
        if runtime.info.graph == "deploy":
            return runtime.run(images)
        return runtime.run(np.stack([normalise(image, runtime.info.preprocess) for image in images]))


def test_int8_for_the_cpu_stays_close(imported: Imported, tmp_path: Path) -> None:
    int8 = quantize(imported.fp32, imported.record, tmp_path / "int8.onnx", target="ort-cpu")
    assert int8.info.census["conv.int8"] == 3 and int8.info.census["conv.float"] == 1
    assert int8.info.parent_sha256 == imported.fp32.sha256 and int8.info.weights_sha256 == imported.fp32.info.weights_sha256
    wanted = answers(imported.fp32.path, imported.images)
    assert sqnr_db(wanted, answers(int8.path, imported.images)) > MIN_SQNR_DB
    swapped = wanted[:, [1, 0, *range(2, wanted.shape[1])]]  # partner: two channels confused are far below the bar
    assert sqnr_db(wanted, swapped) < MIN_SQNR_DB


def test_int8_for_tensorrt_has_its_form(imported: Imported, tmp_path: Path) -> None:
    """ONNX Runtime computes FP16 scales rightly only with its optimisations off, and does not open the file for use."""
    int8 = quantize(imported.fp32, imported.record, tmp_path / "int8.onnx", target="tensorrt")
    assert int8.info.census["conv.int8"] == 3 and int8.info.census["conv.fp16"] == 1 and int8.info.census["conv.float"] == 0
    with pytest.raises(ArtifactError, match="tensorrt"):
        answers(int8.path, imported.images)
    found = answers_of_ours(load_model(int8.path), int8.info.preprocess, imported.images, len(imported.images), "int8")
    assert sqnr_db(answers(imported.fp32.path, imported.images), found) > MIN_SQNR_DB
    _parse(int8.path)


def test_the_deploy_graph_answers_the_argmax(imported: Imported, tmp_path: Path) -> None:
    deploy = to_deploy(imported.fp32, tmp_path / "deploy.onnx")
    wanted = answers(imported.fp32.path, imported.images).argmax(1)
    assert len(np.unique(wanted)) > 1
    np.testing.assert_array_equal(answers(deploy.path, imported.images), wanted)


def test_another_import_does_not_take_the_record(imported: Imported, tmp_path: Path) -> None:
    """Lineage works by the digest of the weights."""
    other = Net(pool=4)
    other.head.weight.data += 1
    fp32, _ = import_onnx(export(other, tmp_path / "other.onnx"), card(), tmp_path / "fp32.onnx")
    with pytest.raises(ArtifactError, match="belongs to other weights"):
        quantize(fp32, imported.record, tmp_path / "int8.onnx")


def test_tensorrt_rtx_reads_it(imported: Imported) -> None:
    _parse(imported.fp32.path)


def _parse(path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(path.read_bytes()), [parser.get_error(place).desc() for place in range(parser.num_errors)]
    assert network.num_layers > 0 and [network.get_input(0).name, network.get_output(0).name] == ["image", "logits"]
