"""Who is being judged, and on what: the name of a model, and the images chosen from a dataset."""

from __future__ import annotations

from typing import Literal

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import artifact_name
from gddctl.core.errors import DataError
from gddctl.data.dataset import SegDataset
from gddctl.runtime.protocol import Runtime

ModelKind = Literal["bundle", "onnx", "engine"]


def label_of(runtime: Runtime) -> str:
    """A name that tells the files of one run apart: ``student`` for a bundle, ``student-int8-ort-cpu.deploy`` for a file."""
    kind: ModelKind = "bundle" if runtime.backend.startswith("torch") else "engine" if runtime.backend.startswith("tensorrt") else "onnx"
    return label_of_info(runtime.info, kind)


def label_of_info(info: ModelInfo, kind: ModelKind) -> str:
    """:func:`label_of` for a model that is not open; engines say so, because the file they come from may have their name."""
    if kind == "bundle":
        return info.name
    return artifact_name(info.name, info.precision, info.target, info.graph, suffix=".engine" if kind == "engine" else "")


def is_emulated(runtime: Runtime) -> bool:
    """Whether this runtime only imitates the arithmetic that the file was made for.

    ONNX Runtime's CPU provider computes FP16 graphs mostly in FP32 between casts, and INT8 files of another target with other kernels
    than that target's: their values can be compared here, their speed cannot, and hardware may still differ.
    """
    info = runtime.info
    foreign = info.precision == "int8" and info.target not in ("any", "ort-cpu")
    return runtime.backend == "onnxruntime-cpu" and (info.precision == "fp16" or foreign)


def chosen_images(dataset: SegDataset, limit: int | None) -> list[int]:
    """Indices of the images to judge on: all, or ``limit`` of them spread evenly, because neighbours in a video are alike.

    Raises:
        DataError: the dataset is empty, or ``limit`` asks for none.
    """
    total = len(dataset)
    if total == 0:
        raise DataError("the split holds no images", remedy="check the dataset's folder and the split's name")
    if limit is None or limit >= total:
        return list(range(total))
    if limit < 1:
        raise DataError(f"asked to judge on {limit} images", remedy="give a limit of at least 1, or none")
    return [index * total // limit for index in range(limit)]
