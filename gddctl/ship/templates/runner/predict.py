"""Image in, class ids out: numpy, opencv-python-headless, pillow and onnxruntime, Python 3.10 or later; ``predict.py IMAGE MASK.png``."""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageOps

# <from the card>
MODEL, SIZE = "models/model.onnx", (64, 96)
RESIZE, INTERPOLATION, PAD_VALUE = "stretch", "area", 114
PALETTE = ((128, 128, 128), (128, 64, 128))
# </from the card>
RELEASE = Path(__file__).resolve().parent.parent
Pixels = NDArray[np.uint8]


def read(path: Path) -> Pixels:
    """(H, W, 3) RGB, upright by EXIF; of 16-bit channels the high byte."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "F":
        raise ValueError(f"{path}: floating-point pixels, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        return np.repeat((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def fit(height: int, width: int) -> tuple[int, int]:
    """The part of the network's input, from its top left corner, that shows an image of this size; the rest is padding."""
    ratio = min(SIZE[0] / height, SIZE[1] / width)
    shown = min(SIZE[0], max(1, round(height * ratio))), min(SIZE[1], max(1, round(width * ratio)))
    return SIZE if RESIZE == "stretch" else shown


def prepare(image: Pixels) -> Pixels:
    """(h, w, 3) RGB as the network takes it: shrunk by INTERPOLATION or grown bilinearly, then padded."""
    (height, width), (h, w) = image.shape[:2], fit(*image.shape[:2])
    how = cv2.INTER_AREA if INTERPOLATION == "area" and h <= height and w <= width else cv2.INTER_LINEAR
    padded = np.full((*SIZE, 3), PAD_VALUE, np.uint8)
    padded[:h, :w] = image if (h, w) == (height, width) else cv2.resize(image, (w, h), interpolation=how)
    return padded


def predict(model: Path, image: Pixels, provider: str = "CPUExecutionProvider", threads: int = 0) -> Pixels:
    """(H, W) class ids at the image's own size. ValueError: a provider that does not load, a model that it does not run."""
    options, cpu = ort.SessionOptions(), Path("/proc/cpuinfo")
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if cpu.exists() and " avx" in (flags := cpu.read_text()) and "vnni" not in flags:  # its 8-bit products saturate: widen them
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(model), options, providers=[provider])
    info = json.loads(session.get_modelmeta().custom_metadata_map["gddctl.info"])
    foreign = info["graph"] != "deploy" or (info["precision"] == "int8" and info["target"] not in ("any", "ort-cpu"))
    if foreign or provider not in session.get_providers():  # ONNX Runtime itself would take the CPU instead
        raise ValueError(f"{model.name}: {info['precision']} {info['graph']} for {info['target']} does not run on {provider} here")
    answer: Pixels = session.run(["mask"], {"image": prepare(image)[None]})[0][0]
    rows, columns = ((2 * np.arange(to) + 1) * of // (2 * to) for of, to in zip(fit(*image.shape[:2]), image.shape))  # nearest centres
    mask: Pixels = answer.take(columns, axis=1).take(rows, axis=0)
    return mask


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path, help="a new PNG: class ids, with the classes' colours as its palette")
    parser.add_argument("--model", type=Path, default=RELEASE / MODEL, required=not MODEL)
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--input", action="store_true", help="write what the network takes instead, as the C++ examples read it: INPUT.ppm")
    args = parser.parse_args()
    if args.out.exists() or args.out.suffix != (".ppm" if args.input else ".png"):
        parser.error(f"{args.out}: there already, or of another kind; expected a new {'.ppm' if args.input else '.png'} file")
    try:
        picture = Image.fromarray(prepare(read(args.image)) if args.input else predict(args.model, read(args.image), args.provider))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if not args.input:
        picture.putpalette([part for color in PALETTE for part in color])
    picture.save(args.out)
