"""How a runtime computes INT8: types, symmetry, bits. And the rule from ranges to scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from gddctl.core.config.sections import Target
from gddctl.quant.choice import Placement

# Raised whenever the same ranges and weights would give other codes: what was trained under one rule is not what another makes of it.
RULE_VERSION = 1

# Smallest scale, of a tensor or channel that is zero everywhere: any scale is right there, but a denormal one is slow or imprecise.
_MIN_SCALE = {"float32": 1e-9, "float16": 2.0**-14}


@dataclass(frozen=True)
class Scheme:
    """Types of the quantised graph. Weights are always signed, symmetric, one scale per output channel."""

    activation: Literal["uint8", "int8"]
    symmetric: bool  # activations: zero point at 0
    weight_bits: Literal[7, 8]
    placement: Placement = "codes"
    bias: Literal["int32", "float"] = "int32"  # int32: codes at the accumulator's scale
    scale: Literal["float32", "float16"] = "float32"  # float16: every scale is a number of that type, so that casting changes no code

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest activation code."""
        if self.activation == "uint8":
            return 0, 255
        return (-127, 127) if self.symmetric else (-128, 127)

    @property
    def weight_limit(self) -> int:
        """Largest weight code; the smallest is its negative."""
        return 127 if self.weight_bits == 8 else 63


@dataclass(frozen=True)
class Affine:
    """value = scale * (code - zero_point)."""

    scale: float  # a float32 number
    zero_point: int


def cpu_scheme(*, x86: bool, saturates: bool) -> Scheme:
    """What ONNX Runtime's CPU kernels compute fastest without losing sums.

    Source: the guidance in onnxruntime.quantization: u8 x s8 on x86, there 7-bit weights where 16-bit partial sums saturate (no VNNI);
    s8 x s8 on Arm.
    """
    if x86:
        return Scheme(activation="uint8", symmetric=False, weight_bits=7 if saturates else 8)
    return Scheme(activation="int8", symmetric=False, weight_bits=8)


def tensorrt_scheme() -> Scheme:
    """What TensorRT's parser accepts: s8, zero point 0 everywhere, no int32 bias; the graph around the pairs is FP16."""
    return Scheme(activation="int8", symmetric=True, weight_bits=8, placement="inputs", bias="float", scale="float16")


def openvino_scheme() -> Scheme:
    """What OpenVINO's integer kernels on x86 take: u8 activations, s8 weights, float bias.

    Measured with 2026.4: pairs on the inputs of convolutions run as fast as pairs around them, and round less; symmetric s8 activations
    are a little slower and lose 3 dB; an int32 bias changes nothing.
    """
    return Scheme(activation="uint8", symmetric=False, weight_bits=8, placement="inputs", bias="float")


def scheme_for(target: Target, *, x86: bool, saturates: bool) -> Scheme:
    """The scheme of an INT8 file for ``target``; ``ort-cpu`` depends on the CPU it will run on.

    Raises:
        ValueError: no INT8 file is made for this target.
    """
    match target:
        case "ort-cpu":
            return cpu_scheme(x86=x86, saturates=saturates)
        case "openvino":
            return openvino_scheme()
        case "tensorrt":
            return tensorrt_scheme()
        case "any" | "ort-cuda":
            raise ValueError(f"no INT8 scheme for target '{target}'")
        case _:
            assert_never(target)


def activation_affine(low: float, high: float, scheme: Scheme) -> Affine:
    """The code of a tensor seen within ``low..high``; zero always has an exact code, for padding and ReLU.

    >>> activation_affine(0.0, 255.0, cpu_scheme(x86=True, saturates=False))
    Affine(scale=1.0, zero_point=0)
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"no range: {low}..{high}")
    low, high = min(low, 0.0), max(high, 0.0)
    smallest, largest = scheme.limits
    if scheme.symmetric:
        return Affine(_scale(max(-low, high) / largest, scheme), 0)
    scale = _scale((high - low) / (largest - smallest), scheme)
    return Affine(scale, int(np.clip(round(smallest - low / scale), smallest, largest)))


def weight_scales(weight: NDArray[np.float32], scheme: Scheme) -> NDArray[np.float32]:
    """One scale per output channel (axis 0). Shape: (O, ...) -> (O,)."""
    peak = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1)
    return _representable(np.maximum(peak / scheme.weight_limit, _MIN_SCALE[scheme.scale]), scheme)


def bias_safe(scales: NDArray[np.float32], bias: NDArray[np.float32], input_scale: float) -> NDArray[np.float32]:
    """Weight scales, widened where a bias would overflow its 32-bit code at input_scale * weight_scale. Shapes: (O,), (O,) -> (O,)."""
    needed = np.abs(bias) / (input_scale * float(2**30))
    widened: NDArray[np.float32] = np.maximum(scales, needed).astype(np.float32)
    return widened


def quantise_weight(weight: NDArray[np.float32], scales: NDArray[np.float32], scheme: Scheme) -> NDArray[np.int8]:
    """Round to the nearest code, ties to even. Shape: (O, ...), (O,) -> (O, ...)."""
    steps = scales.reshape(-1, *([1] * (weight.ndim - 1)))
    codes: NDArray[np.int8] = np.clip(np.rint(weight / steps), -scheme.weight_limit, scheme.weight_limit).astype(np.int8)
    return codes


def quantise_bias(bias: NDArray[np.float32], input_scale: float, scales: NDArray[np.float32]) -> NDArray[np.int32]:
    """Codes at the accumulator's scale. Shapes: (O,), (O,) -> (O,)."""
    codes: NDArray[np.int32] = np.rint(bias.astype(np.float64) / (np.float32(input_scale) * scales).astype(np.float64)).astype(np.int32)
    return codes


def _scale(value: float, scheme: Scheme) -> float:
    return float(_representable(np.array([max(value, _MIN_SCALE[scheme.scale])]), scheme)[0])


def _representable(scales: NDArray[np.floating], scheme: Scheme) -> NDArray[np.float32]:
    """The scales as numbers of the scheme's type. FP16 ones are rounded up: a scale that shrank would clip what set it."""
    if scheme.scale == "float32":
        return scales.astype(np.float32)
    half = scales.astype(np.float16)
    short = half.astype(np.float64) < scales
    half[short] = np.nextafter(half[short], np.float16(np.inf))
    return half.astype(np.float32)
