"""The census and its limits: every one is seen to hold and to break, on networks that a parser made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError
from gddctl.export.trt.census import check_engine_census, count_layers, engine_census


def parsed(trt: Any, path: Path, nodes: list[Any], constants: dict[str, Any]) -> Any:
    """A network of an image (1, 4, 8, 8) and its parser, which must stay alive."""
    import onnx

    given = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 4, 8, 8])
    answer = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(
        nodes, "g", [given], [answer], [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    )
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]), str(path))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [parser.get_error(index).desc() for index in range(parser.num_errors)]
    return network, parser, builder


def quantised(kind: Any, *, image: bool, kernel: bool) -> tuple[list[Any], dict[str, Any]]:
    """Cast -> [Q -> DQ ->] Conv -> Cast, the kernel as codes or as numbers of ``kind``."""
    import onnx

    make, to = onnx.helper.make_node, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    constants = {"scale": kind(0.1), "zero": np.int8(0), "w_scale": np.full(4, 0.1, kind), "w_zero": np.zeros(4, np.int8)}
    nodes = [make("Cast", ["image"], ["x"], to=to)]
    if image:
        nodes += [make("QuantizeLinear", ["x", "scale", "zero"], ["q"]), make("DequantizeLinear", ["q", "scale", "zero"], ["x_dq"])]
    if kernel:
        constants["w"] = np.ones((4, 4, 3, 3), np.int8)
        nodes.append(make("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], axis=0))
    else:
        constants["w_dq"] = np.ones((4, 4, 3, 3), kind)
    nodes += [make("Conv", ["x_dq" if image else "x", "w_dq"], ["y"]), make("Cast", ["y"], ["logits"], to=onnx.TensorProto.FLOAT)]
    read = {name for node in nodes for name in node.input}
    return nodes, {name: value for name, value in constants.items() if name in read}


@pytest.mark.parametrize(
    ("kind", "image", "kernel", "found"),
    [
        (np.float16, True, True, "conv.int8"),
        (np.float32, True, True, "conv.int8-fp32"),
        (np.float16, True, False, "conv.fp16"),
        (np.float16, False, True, "conv.fp16"),
        (np.float16, False, False, "conv.fp16"),
        (np.float32, False, False, "conv.float"),
    ],
)
def test_what_a_convolution_computes_in(rtx: Any, tmp_path: Path, kind: Any, image: bool, kernel: bool, found: str) -> None:
    """Integer only where image and kernel both come from codes: one alone leaves the product in float."""
    network, *alive = parsed(rtx, tmp_path / "x.onnx", *quantised(kind, image=image, kernel=kernel))
    counts = engine_census(network)
    assert {name for name, count in counts.items() if name.startswith("conv") and count} == {found}
    assert sum(count_layers(network).values()) == network.num_layers == counts["layers"]
    assert any(name.startswith("CONVOLUTION ") for name in count_layers(network))
    assert alive


INT8 = {"conv.int8": 25, "conv.fp16": 1}


@pytest.mark.parametrize(
    ("counts", "precision", "kept"),
    [
        ({"conv.float": 26}, "fp32", 0),
        ({"conv.fp16": 26}, "fp16", 0),
        ({"conv.fp16": 25, "conv.float": 1}, "fp16", 1),
        (INT8, "int8", 0),
        ({"conv.int8": 5, "conv.fp16": 21}, "int8", 20),  # recovery left twenty in FP16; the classifier is one more
        ({"conv.int8": 24, "conv.fp16": 1, "conv.float": 1}, "int8", 1),
    ],
)
def test_what_passes(counts: dict[str, int], precision: Any, kept: int) -> None:
    check_engine_census({**counts, "quantize": 3, "layers": 99}, precision, "x.engine", kept=kept)


@pytest.mark.parametrize(
    ("counts", "precision", "kept"),
    [
        ({}, "fp32", 0),
        ({"conv.float": 25, "conv.fp16": 1}, "fp32", 0),
        ({"conv.float": 26}, "fp16", 0),
        ({"conv.fp16": 25, "conv.float": 1}, "fp16", 0),
        ({"conv.fp16": 24, "conv.float": 2}, "fp16", 1),
        ({"conv.fp16": 25, "conv.bf16": 1}, "fp16", 1),
        ({"conv.fp16": 26}, "int8", 0),
        ({"conv.int8": 23, "conv.fp16": 3}, "int8", 0),
        ({"conv.int8": 25, "conv.float": 1}, "int8", 0),
        ({"conv.int8-fp32": 25, "conv.float": 1}, "int8", 0),
        ({"conv.int8": 4, "conv.fp16": 22}, "int8", 20),
    ],
)
def test_what_does_not(counts: dict[str, int], precision: Any, kept: int) -> None:
    with pytest.raises(ArtifactError, match=rf"x\.engine: asked for {precision}"):
        check_engine_census(counts, precision, "x.engine", kept=kept)
