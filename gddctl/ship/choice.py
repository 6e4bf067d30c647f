"""Which file of a release a server should be started with, on a GPU, on a CPU, on a Jetson."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gddctl.core.artifact.manifest import artifact_name
from gddctl.ship.shipped import Shipped


def for_gpu(models: Sequence[Shipped]) -> Shipped | None:
    """An ONNX file that ONNX Runtime's CUDA provider runs as it was proven: FP16 before FP32, deploy graphs before logits."""
    return _first(models, [("fp16", "any"), ("fp16", "ort-cuda"), ("fp32", "any"), ("fp32", "ort-cuda")])


def for_cpu(models: Sequence[Shipped]) -> Shipped | None:
    """An ONNX file for ONNX Runtime's CPU provider: INT8 before FP32, deploy graphs before logits."""
    return _first(models, [("int8", "ort-cpu"), ("fp32", "any"), ("fp32", "ort-cpu")])


def for_tensorrt(models: Sequence[Shipped]) -> Shipped | None:
    """An ONNX file that TensorRT builds an engine from: INT8 before FP16 before FP32, deploy graphs before logits."""
    return _first(models, [("int8", "tensorrt"), ("fp16", "any"), ("fp32", "any")])


def engine_name(item: Shipped) -> str:
    """What ``gddctl export FILE.onnx --trt`` calls the engine of an ONNX file: ``NAME-{precision}-tensorrt.{graph}.engine``."""
    return artifact_name(student_name(item), item.info.precision, "tensorrt", item.info.graph, suffix=".engine")


def student_name(item: Shipped) -> str:
    """The student's name in a file's, by the rule that the exporter names by; of a file named otherwise, the one its description gives."""
    info = item.info
    ending = artifact_name("", info.precision, info.target, info.graph, suffix="")
    return item.path.stem.removesuffix(ending) if item.path.stem.endswith(ending) and item.path.stem != ending else info.name


def _first(models: Iterable[Shipped], wanted: list[tuple[str, str]]) -> Shipped | None:
    found = [item for item in models if item.format == "onnx" and (item.info.precision, item.info.target) in wanted]

    def rank(item: Shipped) -> tuple[bool, int, str]:
        return item.info.graph != "deploy", wanted.index((item.info.precision, item.info.target)), item.path.as_posix()

    return min(found, key=rank, default=None)
