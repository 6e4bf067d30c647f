"""Ranges to scales: golden numbers derived here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gddctl.quant.scheme import (
    Affine,
    Scheme,
    activation_affine,
    bias_safe,
    cpu_scheme,
    quantise_bias,
    quantise_weight,
    scheme_for,
    tensorrt_scheme,
    weight_scales,
)

VNNI = cpu_scheme(x86=True, saturates=False)
SCHEMES = {
    "vnni": VNNI,
    "no vnni": cpu_scheme(x86=True, saturates=True),
    "arm": cpu_scheme(x86=False, saturates=False),
    "trt": tensorrt_scheme(),
}


def test_the_schemes() -> None:
    assert (VNNI.activation, VNNI.symmetric, VNNI.weight_bits) == ("uint8", False, 8)
    assert SCHEMES["no vnni"].weight_bits == 7 and SCHEMES["arm"].activation == "int8"
    assert tensorrt_scheme().symmetric and tensorrt_scheme().limits == (-127, 127)


@pytest.mark.parametrize(
    ("low", "high", "scheme", "wanted"),
    [
        (0.0, 255.0, VNNI, Affine(1.0, 0)),  # after a ReLU: zero is code 0
        (5.0, 255.0, VNNI, Affine(1.0, 0)),  # a range that misses zero is widened to it
        (-255.0, 0.0, VNNI, Affine(1.0, 255)),
        (-127.5, 127.5, VNNI, Affine(1.0, 128)),  # 0 - (-127.5) = 127.5, ties to even
        (0.0, 255.0, SCHEMES["arm"], Affine(1.0, -128)),
        (-127.0, 3.0, SCHEMES["trt"], Affine(1.0, 0)),
    ],
)
def test_golden_codes(low: float, high: float, scheme: Scheme, wanted: Affine) -> None:
    assert activation_affine(low, high, scheme) == wanted


@given(low=st.floats(-1e4, 1e4), width=st.floats(0, 1e4), name=st.sampled_from(sorted(SCHEMES)))
@settings(max_examples=200, deadline=None)
def test_every_value_in_range_comes_back_within_half_a_step(low: float, width: float, name: str) -> None:
    scheme = SCHEMES[name]
    code = activation_affine(low, low + width, scheme)
    smallest, largest = scheme.limits
    assert smallest <= code.zero_point <= largest and code.scale > 0
    values = np.linspace(min(low, 0), max(low + width, 0), 31)
    codes = np.clip(np.rint(values / code.scale) + code.zero_point, smallest, largest)
    # half a step, and at the ends up to half a step more, since the zero point is rounded to a whole code
    assert np.abs((codes - code.zero_point) * code.scale - values).max() <= code.scale * 1.001
    assert (code.zero_point - code.zero_point) * code.scale == (0.0 - 0.0)


@pytest.mark.parametrize("bounds", [(float("nan"), 1.0), (0.0, float("inf")), (1.0, 0.0)])
def test_no_range(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no range"):
        activation_affine(*bounds, VNNI)


def test_weights_have_a_scale_each_channel() -> None:
    weight = np.array([[1.27, -0.5], [0.0, 0.0], [-254.0, 2.0]], np.float32)
    scales = weight_scales(weight, VNNI)
    assert scales[[0, 2]] == pytest.approx([0.01, 2.0]) and 0 < scales[1] < 1e-6
    np.testing.assert_array_equal(quantise_weight(weight, scales, VNNI), [[127, -50], [0, 0], [-127, 1]])
    assert np.abs(quantise_weight(weight, weight_scales(weight, SCHEMES["no vnni"]), SCHEMES["no vnni"])).max() == 63


def test_seven_bit_weights_cannot_saturate_a_pair() -> None:
    """Without VNNI two u8 x s8 products are summed in 16 bits: 2 * 255 * 63 fits, 2 * 255 * 127 does not."""
    assert 2 * 255 * SCHEMES["no vnni"].weight_limit <= 32767 < 2 * 255 * VNNI.weight_limit


def test_a_bias_fits_its_32_bits() -> None:
    scales, bias = np.array([1e-9, 0.01], np.float32), np.array([50.0, 0.3], np.float32)
    widened = bias_safe(scales, bias, 0.02)
    assert widened[0] > scales[0] and widened[1] == scales[1]
    codes = quantise_bias(bias, 0.02, widened)
    assert np.abs(codes).max() <= 2**30 + 64  # float32 keeps 24 bits of the scale
    np.testing.assert_allclose(codes * 0.02 * widened, bias, rtol=1e-3)
    with np.errstate(all="ignore"):
        assert abs(bias[0] / (0.02 * scales[0])) > 2**31  # without the widening it would not have fitted


def test_fp16_scales_are_fp16_numbers_that_clip_nothing() -> None:
    """A scale that FP16 rounded down would clip the very value that set it."""
    scheme = tensorrt_scheme()
    rng = np.random.default_rng(0)
    for peak in 10.0 ** rng.uniform(-6, 4, 200):
        scale = activation_affine(-peak, peak / 3, scheme).scale
        assert scale == float(np.float16(scale)) and scale * 127 >= peak
    weight = rng.standard_normal((64, 3, 3, 3)).astype(np.float32) * 10.0 ** rng.uniform(-7, 1, (64, 1, 1, 1)).astype(np.float32)
    scales = weight_scales(weight, scheme)
    assert np.array_equal(scales, scales.astype(np.float16).astype(np.float32))
    assert (scales * 127 >= np.abs(weight).reshape(64, -1).max(1)).all()
    rounded_to_nearest = (np.abs(weight).reshape(64, -1).max(1) / 127).astype(np.float16).astype(np.float32)
    assert (rounded_to_nearest * 127 < np.abs(weight).reshape(64, -1).max(1)).any()  # so it was the rounding up that did it


def test_every_target_has_its_scheme_or_a_reason() -> None:
    assert scheme_for("tensorrt", x86=True, saturates=True) == tensorrt_scheme()
    assert scheme_for("ort-cpu", x86=True, saturates=True).weight_bits == 7
    assert scheme_for("ort-cpu", x86=False, saturates=False).activation == "int8"
    for target in ("any", "ort-cuda"):
        with pytest.raises(ValueError, match=target):
            scheme_for(target, x86=True, saturates=False)
