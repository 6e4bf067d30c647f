"""Somebody else's file as it was given, answering through ONNX Runtime: what our form of it is held to."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.lazy import require
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.preprocess import normalise
from gddctl.export.foreign_ends import Ends

MIN_SQNR_DB = 80.0  # both FP32, they differ by the order of sums and by folding (100 dB and more)
IMAGES = 2  # one alone, then both: a batch that is baked in shows
RAW_PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # of a network that normalises for itself

Floats = NDArray[np.float32]


def noise_images(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Random RGB pixels, (:data:`IMAGES`, H, W, 3), the same every time; half of it coarse, since networks answer noise all alike."""
    random = np.random.default_rng(0)
    fine = random.integers(0, 256, (IMAGES, *size, 3), dtype=np.uint8)
    coarse = random.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    blocks = np.stack([cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST) for image in coarse])
    mixed: NDArray[np.uint8] = ((fine.astype(np.uint16) + blocks) // 2).astype(np.uint8)
    return mixed


def answers_as_given(model: Any, ends: Ends, spec: PreprocessSpec, images: NDArray[np.uint8], place: str) -> Floats:
    """What the file itself says, one image at a time. Shape: (N, H, W, 3) -> (N, K, h, w), whatever its layout.

    Raises:
        ArtifactError: ONNX Runtime cannot load it, or run it at this size.
    """
    session = open_model(model, place)
    answers = []
    for image in (*images, images[0]):
        feed = image if spec.channel_order == "rgb" else image[:, :, ::-1]
        one = feed.transpose(2, 0, 1) if ends.pixels else normalise(image, spec)
        one = one if ends.layout == "nchw" else one.transpose(1, 2, 0)
        batch = np.ascontiguousarray(np.stack([one] * max(ends.batch, 1)))
        try:
            (answer,) = session.run([ends.logits], {ends.image: batch})
        except Exception as error:  # the binding's errors share no narrower base
            height, width = spec.size
            remedy = (
                "some layer is fixed to another size; set preprocess.size in the card to the one it was exported at, or export it again"
            )
            raise ArtifactError(f"{place}: it does not run at {height} x {width} ({_first_line(error)})", remedy=remedy) from error
        answers.append(np.asarray(answer)[0])
    if not np.array_equal(answers[0], answers.pop(), equal_nan=True):
        what = "it answers the same image otherwise the second time: dropout or other randomness is inside"
        raise ArtifactError(f"{place}: {what}", remedy="export it again after model.eval()")
    found: Floats = np.stack(answers)
    return found


def answers_of_ours(model: Any, spec: PreprocessSpec, images: NDArray[np.uint8], batch: int, place: str) -> Floats:
    """What our form of it says, ``batch`` images at a time. Shape: (N, H, W, 3) -> (N, K, H, W).

    Raises:
        RunFailed: it does not run so.
    """
    session = open_model(model, place)
    inputs = np.stack([normalise(image, spec) for image in images])
    try:
        found = [session.run(["logits"], {"image": inputs[start : start + batch]})[0] for start in range(0, len(inputs), batch)]
    except Exception as error:  # likewise
        raise RunFailed(f"{place}: a batch of {batch} does not run ({_first_line(error)})") from error
    result: Floats = np.concatenate(found)
    return result


def open_model(model: Any, place: str, *, level: str = "ORT_DISABLE_ALL", save_as: str | None = None) -> Any:
    """A session on the CPU, by default with the nodes exactly as they stand.

    Raises:
        ArtifactError: ONNX Runtime cannot load it.
    """
    ort = require("onnxruntime", extra="cpu", why="importing an ONNX file from elsewhere")
    ort.set_default_logger_severity(4)  # fatal only: what matters reaches us as exceptions
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if save_as is not None:
        options.optimized_model_filepath = save_as
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # likewise
        raise ArtifactError(f"{place}: ONNX Runtime cannot load it ({_first_line(error)})", remedy="export it again") from error


def sqnr_db(reference: Floats, found: Floats) -> float:
    """Signal over noise of ``found``, decibels; NaN anywhere gives minus infinity."""
    noise = float(np.square(found - reference, dtype=np.float64).sum())
    signal = float(np.square(reference, dtype=np.float64).sum())
    if not (np.isfinite(noise) and np.isfinite(signal)):
        return -np.inf
    return np.inf if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))


def enlarged(logits: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear to (H, W), half-pixel centres, by OpenCV: the check on the Resize that was appended. Shape: (N, K, h, w) -> (N, K, H, W)."""
    if logits.shape[2:] == size:
        return logits
    maps = [[cv2.resize(channel, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for channel in one] for one in logits]
    result: Floats = np.array(maps, np.float32)
    return result


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:240]
