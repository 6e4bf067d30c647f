"""A classifier split by taps gives what it gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from gddctl.export.classifier import MAX_CLASSES, split_taps

ANOTHER_ORDER = 1e-4  # of outputs of some tens: float32 sums of 16 channels times up to 15 taps


def graph(classes: int = 5, taps: tuple[int, int] = (3, 3), bias: bool = True, **attributes: Any) -> Any:
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array(rng.standard_normal((classes, 16, *taps)).astype(np.float32), "weight")]
    if bias:
        weights.append(numpy_helper.from_array(rng.standard_normal(classes).astype(np.float32), "bias"))
    told = {"kernel_shape": list(taps), "pads": [taps[0] // 2, taps[1] // 2] * 2, **attributes}
    node = helper.make_node("Conv", ["x", *(item.name for item in weights)], ["y"], **told)
    values = [helper.make_tensor_value_info("x", 1, ["B", 16, 7, 10])], [helper.make_tensor_value_info("y", 1, ["B", classes, None, None])]
    return helper.make_model(helper.make_graph([node], "g", *values, weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answer(model: Any, image: Any) -> Any:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]


@pytest.mark.parametrize(("taps", "bias"), [((3, 3), True), ((3, 3), False), ((1, 3), True), ((5, 3), True)])
def test_the_same_sums(taps: tuple[int, int], bias: bool) -> None:
    model, image = graph(taps=taps, bias=bias), np.random.default_rng(0).standard_normal((2, 16, 7, 10)).astype(np.float32)
    before = answer(model, image)
    assert split_taps(model) == 1
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv"]
    np.testing.assert_allclose(answer(model, image), before, atol=ANOTHER_ORDER, rtol=0)
    assert split_taps(model) == 0  # done once, done


def test_a_tap_in_the_wrong_place_would_be_seen() -> None:
    """The partner: two taps exchanged."""
    model, image = graph(), np.random.default_rng(0).standard_normal((1, 16, 7, 10)).astype(np.float32)
    before = answer(model, image)
    split_taps(model)
    (places,) = [item for item in model.graph.initializer if item.name == "y_places"]
    value = numpy_helper.to_array(places).copy()
    value[:, [0, 1]] = value[:, [1, 0]]
    places.CopyFrom(numpy_helper.from_array(value, places.name))
    assert np.abs(answer(model, image) - before).max() > 100 * ANOTHER_ORDER


@pytest.mark.parametrize(
    "changes", [{"taps": (1, 1)}, {"classes": 1}, {"classes": MAX_CLASSES + 1}, {"strides": [2, 2]}, {"dilations": [2, 2]}], ids=str
)
def test_others_stay(changes: dict[str, Any]) -> None:
    model = graph(**changes)
    before = model.SerializeToString()
    assert split_taps(model) == 0
    assert model.SerializeToString() == before
