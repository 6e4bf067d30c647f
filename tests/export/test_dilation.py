"""Cutting padding out of dilated integer convolutions changes no code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gddctl.data.preprocess import normalise
from gddctl.export import dilation
from gddctl.export.census import census_of
from gddctl.export.dilation import Stretch, share_inside, stretches, trim_padding
from gddctl.export.graph_file import load_model
from gddctl.export.int8 import insert_qdq
from gddctl.export.onnx_ops import choice_of
from gddctl.quant.scheme import cpu_scheme


def run(model: Any, batch: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"image": batch})[
        0
    ]


def whole(exported: Any) -> Any:
    model = load_model(exported.fp32.path)
    insert_qdq(model, choice_of(model), exported.record, cpu_scheme(x86=True, saturates=False))
    return model


@pytest.mark.parametrize(("size", "step"), [(45, 12), (45, 24), (45, 36), (8, 12), (6, 3), (5, 1), (1, 4)])
def test_stretches_are_the_taps_that_read_the_map(size: int, step: int) -> None:
    parts = stretches(size, 3, step)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]] and (parts[0].start, parts[-1].stop) == (0, size)
    inside = 0
    for part in parts:
        for place in range(part.start, part.stop):
            taps = [tap for tap in range(3) if 0 <= place + (tap - 1) * step < size]
            assert (taps[0], taps[-1]) == (part.first, part.last)
            inside += len(taps)
    assert share_inside(parts, 3) == pytest.approx(inside / (3 * size))


def test_same_answers_bit_for_bit(make_exported: Callable[[str], Any]) -> None:
    exported = make_exported("deeplabv3")
    batch = np.stack([normalise(exported.val[index].image, exported.fp32.info.preprocess) for index in range(2)])
    plain, cut = whole(exported), whole(exported)
    convs = census_of(cut)["conv.int8"]
    assert trim_padding(cut, min_saved=0) >= 3  # the three dilated branches; on this small map also the encoder's dilated stage
    assert census_of(cut)["conv.int8"] > convs
    np.testing.assert_array_equal(run(cut, batch), run(plain, batch))


def test_a_wrong_cut_would_be_seen(make_exported: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Partner of the above: regions that claim the wrong taps."""
    exported = make_exported("deeplabv3")
    batch = normalise(exported.val[0].image, exported.fp32.info.preprocess)[None]
    plain, cut = whole(exported), whole(exported)
    monkeypatch.setattr(dilation, "stretches", lambda size, taps, step: [Stretch(0, size, taps // 2, taps // 2)])
    assert trim_padding(cut, min_saved=0) > 0
    assert not np.array_equal(run(cut, batch), run(plain, batch))


def test_what_would_save_nothing_is_left_alone(make_exported: Callable[[str], Any]) -> None:
    """Convolutions that read the map, and those too small for the extra nodes to pay."""
    model = whole(make_exported("deeplabv3"))
    before = len(model.graph.node)
    assert trim_padding(model, max_share=0.0, min_saved=0) == trim_padding(model) == 0 and len(model.graph.node) == before
