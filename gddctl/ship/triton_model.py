"""Which file of a release Triton serves, with which backend and where; and which it does not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.tensors import tensor_specs
from gddctl.core.config.sections import EngineConfig
from gddctl.ship.choice import engine_name
from gddctl.ship.shipped import Shipped

Backend = Literal["onnxruntime", "tensorrt"]
Kind = Literal["KIND_CPU", "KIND_GPU", "KIND_AUTO"]

MOST_BATCH = 8  # of a model without a profile of its own; also the largest batch of our engines unless told otherwise
BATCH_BYTES = 256 * 2**20  # most that one batch's tensors may take: logits of 1024 x 2048 are 152 MiB for each image


@dataclass(frozen=True)
class Profile:
    """The batches a model answers, and the one it is tuned for."""

    smallest: int
    usual: int
    largest: int


@dataclass(frozen=True)
class TritonModel:
    """One folder of the repository. Its name is the file's stem, as ``gddctl serve`` names it."""

    name: str
    info: ModelInfo
    backend: Backend
    kind: Kind
    batches: Profile
    source: Shipped | None  # the file to serve; None: a plan that is built first, from ``onnx``
    onnx: Shipped | None = None  # what a plan is built from, where the release has it

    @property
    def file(self) -> str:
        """What Triton looks for in the version's folder (model_repository.md, "Model Files")."""
        match self.backend:
            case "onnxruntime":
                return "model.onnx"
            case "tensorrt":
                return "model.plan"
            case _ as never:
                assert_never(never)

    @property
    def platform(self) -> str:
        """The name of backend and format that model_config.proto calls ``platform``."""
        match self.backend:
            case "onnxruntime":
                return "onnxruntime_onnx"
            case "tensorrt":
                return "tensorrt_plan"
            case _ as never:
                assert_never(never)


@dataclass(frozen=True)
class LeftOut:
    """A file of the release that no Triton backend serves as it was proven."""

    file: str
    reason: str


def choose(models: Sequence[Shipped]) -> tuple[tuple[TritonModel, ...], tuple[LeftOut, ...]]:
    """The repository's models, by name, and the files that are left out.

    Where a TensorRT plan is wanted it is taken from the release, or left to be built from the ONNX file by the TensorRT that will run it.
    """
    onnx = {item.path.name: item for item in models if item.format == "onnx"}
    found: dict[str, TritonModel] = {}
    left: list[LeftOut] = []
    for item in sorted(models, key=lambda item: (item.format != "engine", item.path.as_posix())):  # a ready plan before one to be built
        made = _of_engine(item, onnx) if item.format == "engine" else _of_onnx(item)
        for model in made:
            if isinstance(model, LeftOut):
                left.append(model)
            else:
                found.setdefault(model.name, model)
    return tuple(found[name] for name in sorted(found)), tuple(left)


def _of_onnx(item: Shipped) -> list[TritonModel | LeftOut]:
    """What ONNX Runtime serves of it, and the plan that TensorRT makes of it."""
    info, name = item.info, item.path.name
    match info.precision:
        case "fp32":
            return [_on_onnxruntime(item, "KIND_AUTO")]
        case "fp16":  # ONNX Runtime's CPU provider has no FP16 kernels: casts around FP32
            return [_on_onnxruntime(item, "KIND_GPU"), _to_build(item)]
        case "int8":
            match info.target:
                case "tensorrt":
                    return [_to_build(item)]
                case "openvino":
                    return [LeftOut(name, "INT8 for OpenVINO; Triton's OpenVINO backend was not tried with it: use gddctl serve")]
                case "ort-cpu" | "ort-cuda" | "any":
                    return [_on_onnxruntime(item, "KIND_CPU" if info.target == "ort-cpu" else "KIND_GPU")]
                case _ as never:
                    assert_never(never)
        case _ as other:
            assert_never(other)


def _of_engine(item: Shipped, onnx: dict[str, Shipped]) -> list[TritonModel | LeftOut]:
    record = item.engine
    if record is None:
        return [LeftOut(item.path.name, "an engine without its record")]
    source = onnx.get(record.onnx)
    parent = source if source is not None and source.sha256 == record.onnx_sha256 else None
    batches = Profile(record.min_batch, record.opt_batch, record.max_batch)
    match record.builder:
        case "tensorrt":
            ready: Shipped | None = item
        case "tensorrt-rtx":
            ready = None
            if parent is None:
                return [
                    LeftOut(item.path.name, f"built by TensorRT-RTX, which Triton does not load, and {record.onnx} is not in this release")
                ]
        case _ as never:
            assert_never(never)
    return [TritonModel(item.path.stem, item.info, "tensorrt", "KIND_GPU", batches, ready, parent)]


def _on_onnxruntime(item: Shipped, kind: Kind) -> TritonModel:
    largest = largest_batch(item.info)
    return TritonModel(item.path.stem, item.info, "onnxruntime", kind, Profile(1, 1, largest), item)


def _to_build(item: Shipped) -> TritonModel:
    usual = EngineConfig()
    name = engine_name(item).removesuffix(".engine")
    batches = Profile(usual.min_batch, usual.opt_batch, min(usual.max_batch, largest_batch(item.info)))
    return TritonModel(name, item.info, "tensorrt", "KIND_GPU", batches, None, item)


def largest_batch(info: ModelInfo) -> int:
    """The largest power of two up to ``MOST_BATCH`` whose tensors stay within ``BATCH_BYTES``."""
    specs = tensor_specs(info)
    each = sum(spec.item_bytes for spec in (*specs.inputs, *specs.outputs))
    batch = MOST_BATCH
    while batch > 1 and batch * each > BATCH_BYTES:
        batch //= 2
    return batch
