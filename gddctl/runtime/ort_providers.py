"""ONNX Runtime's providers by device: how each is asked for, and proof that it did the computing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.tensors import tensor_specs
from gddctl.core.errors import EnvironmentMissing
from gddctl.runtime.protocol import OrtDevice

Provider = str | tuple[str, dict[str, str]]

# ONNX Runtime puts arithmetic on shapes on the CPU by itself, on purpose. That is why "session.disable_cpu_ep_fallback" is not used: it
# refuses every graph with an open batch. What else lies on the CPU is a fall-back.
_SHAPE_ARITHMETIC = frozenset(
    {
        "Shape",
        "Size",
        "Gather",
        "Slice",
        "Concat",
        "Squeeze",
        "Unsqueeze",
        "Cast",
        "Constant",
        "Identity",
        "Add",
        "Mul",
        "Sub",
        "Div",
    }
)
# Optimizations of ONNX Runtime that break graphs with FP16 scales; both seen with 1.31.1. The first re-creates 32-bit biases at the product
# of two scales, which leaves FP16's range: wrong answers without a word. The second fuses a concatenation of codes into a kernel that
# takes FP32 scales alone: the session does not come up.
FAULTY_WITH_HALF_SCALES = ("WeightBiasQuantization", "QDQSelectorActionTransformer")


def provider_name(device: OrtDevice) -> str:
    """The provider that must do the computing."""
    match device:
        case "cpu":
            return "CPUExecutionProvider"
        case "cuda":
            return "CUDAExecutionProvider"
        case "tensorrt":
            return "TensorrtExecutionProvider"
        case _ as never:
            assert_never(never)


def providers_of(device: OrtDevice, info: ModelInfo, max_batch: int | None = None) -> list[Provider]:
    """Providers in order of preference, with their options.

    With ``max_batch``, TensorRT builds one engine for batches from 1 to it. Without, it builds one for the first batch, and again for each
    that is smaller or larger than those before.

    TensorRT inside ONNX Runtime builds weakly typed networks: it refuses types that its flags do not allow, so the flags allow what the
    file holds and nothing more. No engine is cached: one of another file, version or device could be taken for ours.
    """
    cuda: Provider = ("CUDAExecutionProvider", {"use_tf32": "0"})  # FP32 means 23 bits of mantissa
    match device:
        case "cpu":
            return ["CPUExecutionProvider"]
        case "cuda":
            return [cuda]
        case "tensorrt":
            int8 = info.precision == "int8"
            options = {
                "trt_fp16_enable": "1" if int8 or info.precision == "fp16" else "0",
                "trt_int8_enable": "1" if int8 else "0",
                "trt_engine_cache_enable": "0",
                "trt_timing_cache_enable": "0",
                **({} if max_batch is None else _profile(info, max_batch)),
            }
            return [("TensorrtExecutionProvider", options), cuda]
        case _ as never:
            assert_never(never)


def _profile(info: ModelInfo, max_batch: int) -> dict[str, str]:
    """ONNX Runtime's documentation of the provider, "Explicit shape range for dynamic shape input": all three, or none of them counts."""
    taken = tensor_specs(info, max_batch).inputs[0]
    sides = "x".join(map(str, taken.item_shape))
    return {
        "trt_profile_min_shapes": f"{taken.name}:1x{sides}",
        "trt_profile_opt_shapes": f"{taken.name}:{max_batch}x{sides}",
        "trt_profile_max_shapes": f"{taken.name}:{max_batch}x{sides}",
    }


def disabled_optimizers(info: ModelInfo) -> list[str]:
    """Graph optimizations of ONNX Runtime that this file must be spared."""
    return list(FAULTY_WITH_HALF_SCALES) if info.precision == "int8" and info.target == "tensorrt" else []


def placement(session: Any) -> dict[str, Counter[str]] | None:
    """How many nodes of each kind every provider got; None where ONNX Runtime does not tell (before 1.24)."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return None
    found: dict[str, Counter[str]] = {}
    for part in tell():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def check_placement(placed: dict[str, Counter[str]] | None, device: OrtDevice) -> None:
    """Refuse a session in which the CPU computes what the device was asked for.

    Raises:
        EnvironmentMissing: naming the kinds of nodes that fell back.
    """
    if device == "cpu" or placed is None:
        return
    fallen = sorted(set(placed.get("CPUExecutionProvider", Counter())) - _SHAPE_ARITHMETIC)
    if fallen:
        raise missing(provider_name(device), f"{', '.join(fallen)} fell back to the CPU")


def describe_placement(placed: dict[str, Counter[str]] | None) -> dict[str, str]:
    """For people: ``{"nodes": "CPUExecutionProvider 43"}``; empty where ONNX Runtime does not tell."""
    if placed is None:
        return {}
    return {"nodes": ", ".join(f"{name} {counts.total()}" for name, counts in sorted(placed.items()))}


def missing(provider: str, found: str) -> EnvironmentMissing:
    """The error of a provider that is not there, or does not do its work."""
    needs = "an NVIDIA driver, CUDA 13 and cuDNN 9"
    if provider == "TensorrtExecutionProvider":
        needs += ", and TensorRT 10 (libnvinfer.so.10), which the published wheels are linked to; 11 does not serve"
    return EnvironmentMissing(
        f"ONNX Runtime's {provider} does not load here: {found}",
        remedy=f'it needs {needs}: pip install "gddctl[gpu]"; see: gddctl doctor; or choose the device cpu',
    )
