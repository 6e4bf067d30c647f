"""Somebody else's ONNX: what is fixed answers as before, what cannot be is explained, and each check lets its partner pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.preprocess import normalise
from gddctl.export.foreign import import_onnx
from gddctl.export.foreign_read import weights_digest
from gddctl.runtime.open import open_runtime
from tests.export.foreign_nets import SIZE, Net, card, edited, export, pixels

TOLERANCE = 2e-4  # of logits of order 1, FP32 sums in another order


def logits_of(path: Path, images: Any) -> Any:
    with open_runtime(path, threads=1) as runtime:
        return runtime.run(np.stack([normalise(image, runtime.info.preprocess) for image in images]))


def torch_logits(net: nn.Module, images: Any, spec: PreprocessSpec | None = None) -> Any:
    spec = spec or PreprocessSpec(size=SIZE)
    with torch.no_grad():
        return net(torch.from_numpy(np.stack([normalise(image, spec) for image in images]))).numpy()


def fixes(findings: Any) -> str:
    return " | ".join(str(finding) for finding in findings if finding.severity == "fixed")


@pytest.mark.parametrize(
    ("options", "fixed"),
    [
        ({}, ["opset raised from 17 to 20", "the batch, fixed at 1, is free", "input 'x' is called 'image'"]),
        ({"opset_version": 11}, ["opset raised from 11 to 20"]),
        ({"dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}}, ["height and width, open in the file, are 48 x 80"]),
        ({"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}, ["3 BatchNormalization nodes"]),
        ({"batch": 4}, ["the batch, fixed at 4, is free now"]),
        ({"dynamo": True, "external_data": True}, ["weights lay in theirs.onnx.data; they are inside now", "fixed at 1"]),
        (
            {"dynamo": True, "batch": 2, "dynamic_shapes": ({0: "n", 2: "h", 3: "w"},), "optimize": False},
            ["3 BatchNorm", "height and width"],
        ),
    ],
)
def test_what_torch_exports_answers_as_torch(tmp_path: Path, options: dict[str, Any], fixed: list[str]) -> None:
    net = Net()
    path = export(net, tmp_path / "theirs.onnx", **options)
    artifact, findings = import_onnx(path, card(), tmp_path / "out" / "ours.onnx")
    assert not [finding for finding in findings if finding.severity != "fixed"]
    assert all(words in fixes(findings) for words in fixed), fixes(findings)
    images = pixels()
    np.testing.assert_allclose(logits_of(artifact.path, images), torch_logits(net, images), atol=TOLERANCE)
    info = artifact.info
    assert (info.graph, info.precision, info.target, info.opset) == ("logits", "fp32", "any", 20)
    assert info.parent_sha256 == sha256_file(path) and artifact.sha256 == sha256_file(artifact.path)
    assert info.census["batchnorm"] == 0 and info.census["conv.float"] == 4


def test_tensors_are_named_by_module_whoever_exported(tmp_path: Path) -> None:
    """Ranges and sensitivity tables speak of these names; folded weights have none of their own in TorchScript's files."""
    names = []
    for dynamo in (True, False):
        path = export(Net(), tmp_path / f"{dynamo}.onnx", dynamo=dynamo)
        artifact, _ = import_onnx(path, card(), tmp_path / f"ours-{dynamo}.onnx")
        names.append({node.output[0] for node in onnx.load(str(artifact.path)).graph.node if node.op_type in ("Conv", "Relu", "Add")})
    assert names[0] == names[1]
    assert {"stem.0", "stem.0.relu", "down.0", "block.0", "head"} < names[0]


def test_auxiliary_heads_go_with_what_only_they_need(tmp_path: Path) -> None:
    path = export(Net(aux=True), tmp_path / "aux.onnx", outputs=("out", "aux"))
    artifact, findings = import_onnx(path, card(), tmp_path / "ours.onnx")
    assert artifact.info.census["conv.float"] == 4
    assert "aux" in fixes(findings) and [finding.where for finding in findings if finding.severity == "note"] == ["out"]
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels()), atol=TOLERANCE)


def test_outputs_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    path = export(Net(aux=True), tmp_path / "two.onnx", outputs=("first", "second"))
    with pytest.raises(ArtifactError, match=r"2 outputs \(first, second\); name the logits in the card: output: first"):
        import_onnx(path, card(), tmp_path / "ours.onnx")
    with pytest.raises(ArtifactError, match="no output 'frist'; did you mean 'first'"):
        import_onnx(path, card(output="frist"), tmp_path / "ours.onnx")
    artifact, _ = import_onnx(path, card(output="first"), tmp_path / "ours.onnx")
    assert artifact.info.census["conv.float"] == 4


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize(("end", "kind"), [("argmax", "ArgMax"), ("softmax", "Softmax")])
def test_closing_decisions_are_taken_off(tmp_path: Path, end: str, kind: str, opset: int) -> None:
    """Before opset 13, where Softmax ran over all axes behind its own, TorchScript stands it between two Transposes."""
    path = export(Net(end=end), tmp_path / "end.onnx", opset_version=opset)
    artifact, findings = import_onnx(path, card(), tmp_path / "ours.onnx")
    assert f"the closing {kind} was removed" in fixes(findings)
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels()), atol=TOLERANCE)


def test_a_softmax_before_the_resize_stays_and_is_noted(tmp_path: Path) -> None:
    """Softmax, then bilinear: taking it out would change which class wins between two places."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(resize=False, end="softmax")

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(self.net(image), size=image.shape[-2:], mode="bilinear")

    net = Late().eval()
    artifact, findings = import_onnx(export(net, tmp_path / "late.onnx"), card(), tmp_path / "ours.onnx")
    assert [finding for finding in findings if finding.severity == "note" and "probabilities (Softmax)" in finding.what]
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(net, pixels()), atol=TOLERANCE)


def test_small_logits_get_a_bilinear_resize(tmp_path: Path) -> None:
    path = export(Net(resize=False), tmp_path / "small.onnx", dynamic_axes={"x": {0: "n"}})
    artifact, findings = import_onnx(path, card(), tmp_path / "ours.onnx")
    assert "12 x 20: a bilinear Resize to 48 x 80 was appended" in fixes(findings) and artifact.info.output_stride == 4
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels()), atol=TOLERANCE)


class Bytes(nn.Module):
    """uint8 pixels in, normalised inside, as deployed files often are; transposed before or after the cast."""

    def __init__(self, cast_first: bool) -> None:
        super().__init__()
        self.net, self.cast_first = Net(), cast_first
        spec = PreprocessSpec(size=SIZE)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, 3, 1, 1) * 255)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        planes = image.float().permute(0, 3, 1, 2) if self.cast_first else image.permute(0, 3, 1, 2).float()
        logits: torch.Tensor = self.net((planes - self.get_buffer("mean")) / self.get_buffer("std"))
        return logits


@pytest.mark.parametrize("cast_first", [True, False])
def test_bytes_are_never_transposed(tmp_path: Path, cast_first: bool) -> None:
    path = export(Bytes(cast_first).eval(), tmp_path / "bytes.onnx", example=torch.zeros(1, *SIZE, 3, dtype=torch.uint8))
    artifact, findings = import_onnx(path, card(), tmp_path / "ours.onnx")
    assert "takes uint8 pixels" in fixes(findings) and "transposes floats, not bytes" in fixes(findings)
    assert artifact.info.preprocess.mean == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels()), atol=TOLERANCE)
    kinds = [node.op_type for node in onnx.load(str(artifact.path)).graph.node]
    assert "Cast" not in kinds


def test_bytes_that_are_computed_with_are_explained(tmp_path: Path) -> None:
    def halve(model: Any) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(2, np.uint8), "two"))
        model.graph.node.insert(0, helper.make_node("Div", ["x", "two"], ["halved"], name="halve"))
        model.graph.node.insert(1, helper.make_node("Cast", ["halved"], ["as_float"], to=TensorProto.FLOAT))
        for node in list(model.graph.node)[2:]:
            for place, name in enumerate(node.input):
                node.input[place] = "as_float" if name == "x" else name
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8

    path = edited(export(Net(), tmp_path / "halve.onnx"), halve)
    with pytest.raises(ArtifactError, match=r"halve \(Div\) computes with uint8 pixels; TensorRT does not; cast to float first"):
        import_onnx(path, card(), tmp_path / "ours.onnx")


def test_channels_last_is_turned_around(tmp_path: Path) -> None:
    """As TensorFlow's converters write it: (batch, H, W, 3) in, (batch, H, W, classes) out."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.net(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return logits

    path = export(Last().eval(), tmp_path / "last.onnx", example=torch.zeros(1, *SIZE, 3))
    artifact, _ = import_onnx(path, card(), tmp_path / "ours.onnx")
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels()), atol=TOLERANCE)
    assert "Transpose" not in [node.op_type for node in onnx.load(str(artifact.path)).graph.node]


def test_bgr_networks_are_compared_in_bgr(tmp_path: Path) -> None:
    spec = PreprocessSpec(size=SIZE, channel_order="bgr")
    artifact, _ = import_onnx(export(Net(), tmp_path / "bgr.onnx"), card(preprocess=spec), tmp_path / "ours.onnx")
    np.testing.assert_allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels(), spec), atol=TOLERANCE)
    assert not np.allclose(logits_of(artifact.path, pixels()), torch_logits(Net(), pixels()), atol=TOLERANCE)


def test_the_weights_digest_knows_values_only(tmp_path: Path) -> None:
    path = export(Net(), tmp_path / "a.onnx")
    model = onnx.load(str(path))
    first = weights_digest(model)
    turned = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(turned)
    assert weights_digest(model) == first
    onnx.save(model, str(tmp_path / "b.onnx"), save_as_external_data=True, location="b.data", size_threshold=0)
    beside, findings = import_onnx(tmp_path / "b.onnx", card(), tmp_path / "ours.onnx")
    assert beside.info.weights_sha256 == first and "weights lay in b.data" in fixes(findings)
    model = onnx.load(str(path))
    value = onnx.numpy_helper.to_array(model.graph.initializer[0]) + 1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(value, model.graph.initializer[0].name))
    assert weights_digest(model) != first


def test_a_file_of_ours_needs_no_card(psp: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exported by gddctl, it describes itself; leave --card out"):
        import_onnx(psp.fp32.path, card(), tmp_path / "ours.onnx")
    assert list(tmp_path.iterdir()) == []
