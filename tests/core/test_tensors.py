"""The tensors a file's description promises are those of the graph in the file."""

from __future__ import annotations

import math

import onnx
import pytest

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.artifact.tensors import ANY, TensorSpecs, tensor_specs
from tests.conftest import Exported

ELEMENT = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}


def differences(artifact: Artifact, specs: TensorSpecs) -> list[str]:
    """What the graph's own doors say otherwise than ``specs``."""
    graph = onnx.load(str(artifact.path), load_external_data=False).graph
    found = []
    for values, expected in ((graph.input, specs.inputs), (graph.output, specs.outputs)):
        if [value.name for value in values] != [spec.name for spec in expected]:
            found.append(f"names {[value.name for value in values]}")
            continue
        for value, spec in zip(values, expected, strict=True):
            tensor = value.type.tensor_type
            shape = tuple(ANY if dim.dim_param else dim.dim_value for dim in tensor.shape.dim)
            if tensor.elem_type != ELEMENT[spec.dtype]:
                found.append(f"{value.name}: type {tensor.elem_type}")
            if shape != spec.shape:
                found.append(f"{value.name}: shape {shape}")
    return found


@pytest.mark.parametrize("which", ["fp32", "fp32_deploy", "int8", "int8_deploy"])
def test_the_description_says_what_the_graph_takes_and_gives(psp: Exported, which: str) -> None:
    artifact: Artifact = getattr(psp, which)
    assert differences(artifact, tensor_specs(artifact.info)) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"graph": "logits"}, ["image: type", "image: shape", "names ['mask']"]),
        ({"preprocess": {"size": (64, 104)}}, ["image: shape", "mask: shape"]),
    ],
)
def test_another_description_is_seen_to_differ(psp: Exported, change: dict[str, object], named: list[str]) -> None:
    """Partner: were the graph or the size another, the comparison above would say so."""
    artifact = psp.fp32_deploy
    other = ModelInfo.model_validate({**artifact.info.model_dump(), **change})
    found = differences(artifact, tensor_specs(other))
    assert len(found) == len(named)
    assert all(any(line.startswith(start) for line in found) for start in named)


def test_words_of_the_protocols(psp: Exported) -> None:
    deploy, logits = tensor_specs(psp.fp32_deploy.info, batch=4), tensor_specs(psp.fp32.info)
    (image,), (mask,) = deploy.inputs, deploy.outputs
    height, width = psp.fp32.info.preprocess.size
    assert image.to_json() == {"name": "image", "datatype": "UINT8", "shape": [4, height, width, 3]}
    assert mask.to_json() == {"name": "mask", "datatype": "UINT8", "shape": [4, height, width]}
    assert (image.triton_type, image.item_shape, image.item_bytes) == ("TYPE_UINT8", (height, width, 3), height * width * 3)
    (answer,) = logits.outputs
    assert (answer.triton_type, answer.shape[0]) == ("TYPE_FP32", ANY)
    assert answer.item_bytes == 4 * math.prod(answer.item_shape)
    assert all(len(spec.axes) == len(spec.shape) for specs in (deploy, logits) for spec in (*specs.inputs, *specs.outputs))
