"""The golden image: one picture, the mask that the FP32 deploy graph gives for it, and how near every model must come."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import GatesConfig, Precision
from gddctl.core.errors import ArtifactError, EnvironmentMissing
from gddctl.core.reports.parity import Rung
from gddctl.data.decode import decode_image, read_file
from gddctl.data.preprocess import resize_image
from gddctl.data.synthetic.scenes import draw_scene
from gddctl.prove.gates import limits_for
from gddctl.prove.predict import predict_mask
from gddctl.runtime.cpu import NOTABLE, this_cpu
from gddctl.runtime.describe import ENGINE_SUFFIX
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Device
from gddctl.runtime.trt_fit import check_engine_file
from gddctl.ship.manifest import Expectation, Golden, Machine

MOST_PIXELS = 100_000_000  # of a golden image; a release may be a stranger's, and its pictures are read like one's
THREADS = 1  # golden masks are computed on one thread, so that no sum is split differently from one machine to the next
FP32_ELSEWHERE = 0.9999  # of an FP32 file on another machine: sums in another order, which turn only pixels on the very edge

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")  # of a given image, which keeps it

# The drawn scene of the default golden image: no one's photo. Its series is no training or validation series of a small seed.
_SCENE = (202, 0)
_DRAWN_SCALE = 1.25  # of the network's input: so that the test covers resizing on the way in and out


@dataclass(frozen=True)
class Picture:
    """The golden image: the file's bytes as they ship, and its pixels."""

    name: str  # "image.png"
    data: bytes
    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, upright
    source: str  # "drawn", or the name of the file that was given


@dataclass(frozen=True)
class Answer:
    """One model's mask of the golden image, or why there is none."""

    mask: NDArray[np.uint8] | None
    reason: str = ""


def picture_of(given: Path | None, info: ModelInfo) -> Picture:
    """The image that was given, byte for byte as it is; else a drawn scene, which shows nobody and belongs to nobody.

    Raises:
        UsageError: no such file.
        DataError: it is no image.
    """
    if given is not None:
        data = read_file(given)
        suffix = given.suffix.lower() if _SUFFIX.fullmatch(given.suffix) else ""
        return Picture(f"image{suffix}", data, decode_image(data, str(given), max_pixels=MOST_PIXELS), given.name)
    height, width = (round(_DRAWN_SCALE * side) + 1 for side in info.preprocess.size)
    pixels = draw_scene(*_SCENE, height, width).image
    return Picture("image.png", png(pixels), pixels, "drawn")


def read_golden(folder: Path, golden: Golden) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The golden image (H, W, 3) RGB of the release in ``folder``, and its expected mask (H, W) of class ids.

    Raises:
        DataError: one is damaged, of an uncommon format, or of more pixels than any golden image has.
    """
    image, mask = (folder / golden.image, folder / golden.mask)
    pixels, ids = (decode_image(read_file(path), str(path), max_pixels=MOST_PIXELS) for path in (image, mask))
    return pixels, ids[:, :, 0]  # a mask is grey: its three channels are one


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) RGB or (H, W) ids as a PNG file; equal pixels give equal bytes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=False, compress_level=9)
    return stream.getvalue()


def ppm(pixels: NDArray[np.uint8], info: ModelInfo) -> bytes:
    """The golden image as the network takes it: (h, w, 3) RGB at network size, in a binary PPM file."""
    resized, _ = resize_image(pixels, info.preprocess)
    height, width = resized.shape[:2]
    return f"P6\n{width} {height}\n255\n".encode() + np.ascontiguousarray(resized).tobytes()


def this_machine() -> Machine:
    """Where this process computes."""
    cpu = this_cpu()
    return Machine(machine=cpu.machine, instructions=tuple(sorted(cpu.flags & set(NOTABLE))), packages=_packages())


def answer(path: Path, info: ModelInfo, pixels: NDArray[np.uint8], device: Device = "cpu") -> Answer:
    """The mask that the file at ``path`` gives for the golden image, where this machine can run it on ``device``.

    An engine runs on its GPU whatever ``device`` says; an INT8 file runs on its own target's runtime or not at all.

    Raises:
        ArtifactError: the file is broken, or answers with NaN.
    """
    engine = path.suffix == ENGINE_SUFFIX
    if engine:
        check_engine_file(path)  # a broken one is an error; what follows asks whether it fits this machine
    elif other := _elsewhere(info, device):
        return Answer(None, other)
    try:
        runtime = open_runtime(path, device=device, threads=THREADS)
    except EnvironmentMissing as error:
        return Answer(None, str(error))
    except ArtifactError as error:
        if not engine:
            raise
        return Answer(None, str(error))
    with runtime:
        return Answer(predict_mask(runtime, pixels))


def agreement(mask: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Share of pixels with the same class, 0..1; 0 for masks of different sizes."""
    return float(np.mean(mask == expected)) if mask.shape == expected.shape else 0.0


def expectation(
    artifact: Artifact, found: Answer, expected: NDArray[np.uint8], reference: Artifact, rungs: tuple[Rung, ...]
) -> Expectation:
    """What ``artifact`` must answer from now on.

    Args:
        artifact: the file.
        found: its answer here and now.
        expected: the golden mask.
        reference: the FP32 deploy graph that gave it.
        rungs: what parity said of the file, for its limit where it cannot run here.
    """
    if artifact.sha256 == reference.sha256:
        return Expectation(
            exact_on=this_machine(),
            min_agreement=FP32_ELSEWHERE,
            measured=1.0,
            why="it gave the expected mask: equal with the same instruction sets and packages, and nearly so elsewhere",
        )
    precision = artifact.info.precision
    if found.mask is None:
        limits = [rung.limits.min_agreement for rung in rungs if rung.precision == precision and rung.limits.min_agreement is not None]
        gate = min(limits) if limits else limits_for(precision, GatesConfig()).min_agreement or 0.0
        return Expectation(min_agreement=gate, why=f"the limit of its parity gate; not run when it was shipped ({found.reason})")
    measured, margin = agreement(found.mask, expected), _margin(precision)
    return Expectation(
        min_agreement=max(0.0, measured - margin),
        measured=measured,
        why=f"{100 * measured:.4f} % when it was shipped, less a margin of {100 * margin:g} points for other instruction sets",
    )


def _margin(precision: Precision) -> float:
    """How much of the image may turn on another instruction set: rounding differs there, and with it pixels whose classes nearly tie.

    FP32: a logits graph or another file of the same numbers. FP16 and INT8: half of what the default parity gates allow against FP32.
    """
    match precision:
        case "fp32":
            return 1 - FP32_ELSEWHERE
        case "fp16":
            return 0.0025
        case "int8":
            return 0.0125
        case _:
            assert_never(precision)


def _elsewhere(info: ModelInfo, device: str) -> str:
    """Why an ONNX file does not belong on this device; empty where it does."""
    if info.precision != "int8" or info.target == "any":
        return ""
    if info.target == "openvino" and device in ("cpu", "openvino"):
        return "" if find_spec("openvino") is not None else "quantised for OpenVINO, which is not installed here"
    here = device if device in ("tensorrt", "openvino") else f"ort-{device}"
    return "" if info.target == here else f"quantised for '{info.target}', this is '{here}'"


def _packages() -> dict[str, str]:
    """Versions of what touches a pixel between the file and the mask; one that is not installed is left out."""
    found: dict[str, str] = {}
    for module in ("PIL", "cv2", "onnxruntime"):
        with suppress(ImportError):
            found[module] = str(import_module(module).__version__)
    return found
