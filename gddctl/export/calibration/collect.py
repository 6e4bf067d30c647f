"""Streaming calibration: each image passes through the FP32 graph once and leaves only two numbers per tensor behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.errors import ArtifactError, DataError
from gddctl.core.lazy import require
from gddctl.data.dataset import SegDataset
from gddctl.data.preprocess import normalise, resize_image
from gddctl.export.calibration.record import CalibrationImage, CalibrationRecord, preprocess_sha256
from gddctl.export.graph_file import load_artifact
from gddctl.export.onnx_ops import choice_of
from gddctl.runtime.cpu import usable_cores

Ranges = dict[str, tuple[float, float]]


def calibrate(
    fp32: Artifact,
    dataset: SegDataset,
    config: CalibrationConfig,
    *,
    held_out: SegDataset | None,
    batch: int = 1,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> CalibrationRecord:
    """Ranges of every tensor that the quantiser needs, over images drawn from ``dataset`` by seed.

    Args:
        fp32: the logits graph whose activations are watched.
        dataset: training images.
        config: how many images, by which seed, by which method.
        held_out: the split that scores are measured on; an image of it among the chosen ones is refused by content.
        batch: images per pass; changes nothing in the result.
        split: what to call ``dataset`` in the record.
        progress: told (done, of) after each pass.

    Raises:
        DataError: no images, or one that is held out.
        ArtifactError: ``fp32`` is not an FP32 logits graph, or its values are not finite.
    """
    if fp32.info.graph != "logits" or fp32.info.precision != "fp32":
        raise ArtifactError(f"{fp32.path}: calibration watches an fp32 logits graph, this is {fp32.info.precision} {fp32.info.graph}")
    chosen = choose_images(len(dataset), config.images, config.seed)
    images = tuple(CalibrationImage(dataset.name(index), dataset.content_sha256(index)) for index in chosen)
    _refuse_overlap(images, held_out)
    watcher = MinMaxWatcher(fp32)
    for start in range(0, len(chosen), batch):
        watcher.observe(prepare([dataset[index].image for index in chosen[start : start + batch]], fp32.info))
        if progress is not None:
            progress(min(start + batch, len(chosen)), len(chosen))
    return CalibrationRecord(
        method=config.method,
        seed=config.seed,
        split=split,
        preprocess_sha256=preprocess_sha256(fp32.info.preprocess.model_dump_json()),
        weights_sha256=fp32.info.weights_sha256,
        images=images,
        ranges=watcher.ranges(),
    )


def choose_images(available: int, wanted: int, seed: int) -> list[int]:
    """Indices of ``wanted`` different images of ``available``, in ascending order; all of them where there are fewer.

    Raises:
        DataError: there is none.
    """
    if available == 0:
        raise DataError("calibration needs training images, the split is empty", remedy="name the dataset with --data")
    order = np.random.default_rng(seed).permutation(available)
    return sorted(int(index) for index in order[:wanted])


def prepare(images: Sequence[NDArray[np.uint8]], info: ModelInfo) -> NDArray[np.float32]:
    """Exactly the deployed preprocessing. Shape: n times (H, W, 3) uint8 -> (n, 3, h, w) float32."""
    return np.stack([normalise(resize_image(image, info.preprocess)[0], info.preprocess) for image in images])


class MinMaxWatcher:
    """The lowest and highest value of each watched tensor, over all images shown. Memory does not grow with their number."""

    def __init__(self, fp32: Artifact) -> None:
        self._path = fp32.path
        ort = require("onnxruntime", extra="cpu", why="calibrating")
        model = load_artifact(fp32)
        self._names = choice_of(model).tensors
        options = ort.SessionOptions()
        options.log_severity_level = 4  # fatal only: what matters reaches us as exceptions
        options.intra_op_num_threads, options.inter_op_num_threads = usable_cores(), 1
        options.enable_cpu_mem_arena = False  # the arena keeps the largest of everything it ever held
        watched = add_reductions(model, self._names)
        self._session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._low = np.full(len(self._names), np.inf)
        self._high = np.full(len(self._names), -np.inf)

    def observe(self, batch: NDArray[np.float32]) -> None:
        """Show one batch, (B, 3, h, w) normalised."""
        count = len(self._names)
        found: list[Any] = self._session.run(None, {"image": batch})
        low, high, peak = (np.array([float(value) for value in found[k * count : (k + 1) * count]]) for k in range(3))
        broken = ~(np.isfinite(low) & np.isfinite(high) & np.isfinite(peak))
        if broken.any():
            name = self._names[int(np.argmax(broken))]
            raise ArtifactError(
                f"{self._path}: NaN or infinity in tensor '{name}' while calibrating",
                remedy="the student's weights are broken; train it again",
            )
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def ranges(self) -> Ranges:
        """(lowest, highest) by tensor."""
        return {name: (float(low), float(high)) for name, low, high in zip(self._names, self._low, self._high, strict=True)}


def add_reductions(model: Any, names: Sequence[str]) -> Any:
    """A copy of ``model`` that gives, for each name, its minimum, maximum and largest magnitude instead of the logits.

    The sum of magnitudes is there for NaN, which a minimum or maximum may step over.
    """
    onnx = require("onnx", extra="export", why="calibrating")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    del graph.output[:]
    for kind in ("ReduceMin", "ReduceMax", "ReduceL1"):
        for place, name in enumerate(names):
            output = f"{kind}_{place}"
            graph.node.append(onnx.helper.make_node(kind, [name], [output], name=output, keepdims=0))
            graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    return watched


def _refuse_overlap(images: Sequence[CalibrationImage], held_out: SegDataset | None) -> None:
    if held_out is None:
        return
    seen = {held_out.content_sha256(index): held_out.name(index) for index in range(len(held_out))}
    for image in images:
        if image.sha256 in seen:
            raise DataError(
                f"calibration image '{image.name}' is also in the held-out split, as '{seen[image.sha256]}'",
                remedy="calibrate on training images only; see: gddctl data check",
            )
