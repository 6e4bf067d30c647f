"""What every running model looks like: numpy in, numpy out, one description, one environment."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError

OrtDevice = Literal["cpu", "cuda", "tensorrt"]  # tensorrt: an ONNX file through ONNX Runtime's provider of that name
Device = Literal[OrtDevice, "openvino"]  # openvino: an ONNX file on OpenVINO's CPU plugin


class Runtime(Protocol):
    """A finished model that answers. Usable right after it was opened, and again after ``with`` closed it.

    ``logits`` graph: float32 (B, 3, H, W), normalised -> float32 (B, K, H, W).
    ``deploy`` graph: uint8 (B, H, W, 3), RGB -> uint8 (B, H, W).
    A result is the caller's own: the next run never writes into it.
    """

    @property
    def info(self) -> ModelInfo:
        """What the file says of itself."""
        ...

    @property
    def backend(self) -> str:
        """Runtime and device: ``"torch-cpu"``, ``"onnxruntime-cpu"``."""
        ...

    @property
    def sha256(self) -> str:
        """Of the file; of the weights for a bundle."""
        ...

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch. A wrong shape or dtype is an ArtifactError."""
        ...

    def environment(self) -> dict[str, str]:
        """Provider, versions, threads, instruction set: what a number measured here must be read with."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def check_input(batch: NDArray[Any], info: ModelInfo, place: str) -> NDArray[Any]:
    """The batch, contiguous, once its dtype and shape are those that the graph takes.

    Raises:
        ArtifactError: another dtype or shape, or an empty batch.
    """
    height, width = info.preprocess.size
    match info.graph:
        case "logits":
            dtype, shape, words = "float32", (3, height, width), f"float32 (B, 3, {height}, {width}), normalised"
        case "deploy":
            dtype, shape, words = "uint8", (height, width, 3), f"uint8 (B, {height}, {width}, 3), RGB"
        case _ as never:
            assert_never(never)
    if not isinstance(batch, np.ndarray) or batch.dtype != dtype or batch.ndim != 4 or batch.shape[0] < 1 or batch.shape[1:] != shape:
        found = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
        raise ArtifactError(
            f"{place}: its {info.graph} graph takes {words}; got {found}", remedy="preprocess images with gddctl.data.preprocess"
        )
    return np.ascontiguousarray(batch)


def check_target(info: ModelInfo, device: Device, place: str) -> None:
    """Refuse a file that was quantised for another runtime than this.

    Raises:
        ArtifactError: an INT8 file of another target. Its numbers here would be those of no deployment.
    """
    here = device if device in ("tensorrt", "openvino") else f"ort-{device}"
    if info.precision == "int8" and info.target not in ("any", here):
        raise ArtifactError(
            f"{place}: quantised for '{info.target}', opened on '{here}'",
            remedy=f"export the INT8 file for this target: gddctl export BUNDLE --precision int8 --target {here}",
        )
