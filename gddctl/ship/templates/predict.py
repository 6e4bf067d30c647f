#!/usr/bin/env python3
"""Image in, class ids out, with numpy, opencv-python-headless, pillow and onnxruntime alone, on Python 3.10 or later.

    predict.py IMAGE MASK.png          predict.py --verify          predict.py IMAGE INPUT.ppm --input
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

# <from the card>
MODEL, SIZE, RESIZE, INTERPOLATION, PAD_VALUE = "models/model.onnx", (64, 96), "stretch", "area", 114
PALETTE = ((128, 128, 128), (128, 64, 128))
# </from the card>
RELEASE = Path(__file__).resolve().parent.parent


def read(path):  # upright (H, W, 3) uint8 RGB; of 16-bit channels the high byte
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            sys.exit(f"{path}: floating-point pixels, expected 8 or 16 bits")
        if image.mode.startswith("I"):
            return np.repeat((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
        return np.array(image.convert("RGB"))


def fit(height, width):  # the part of the network's input, from its top left corner, that shows the image
    ratio = min(SIZE[0] / height, SIZE[1] / width)
    boxed = (min(SIZE[0], max(1, round(height * ratio))), min(SIZE[1], max(1, round(width * ratio))))
    return SIZE if RESIZE == "stretch" else boxed


def prepare(image):  # (h, w, 3) uint8 RGB, what the network takes; growing is always bilinear
    h, w = fit(*image.shape[:2])
    area = INTERPOLATION == "area" and h <= image.shape[0] and w <= image.shape[1]
    if (h, w) != image.shape[:2]:
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
    padded = np.full((*SIZE, 3), PAD_VALUE, np.uint8)
    padded[:h, :w] = image
    return padded


def predict(path, image, provider, threads):  # the mask (H, W) uint8 of class ids, or why this model cannot give one here
    options, flags = ort.SessionOptions(), Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if " avx" in flags and "vnni" not in flags:  # x86 whose 8-bit products saturate: widen them
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(path), options, providers=[provider])
    info = json.loads(session.get_modelmeta().custom_metadata_map["gddctl.info"])
    if info["graph"] != "deploy" or (info["precision"] == "int8" and info["target"] not in ("any", "ort-cpu")):
        return f"an {info['precision']} {info['graph']} file for {info['target']}: not for this runner"
    (mask,) = session.run(["mask"], {"image": prepare(image)[None]})
    rows, columns = ((2 * np.arange(b) + 1) * a // (2 * b) for a, b in zip(fit(*image.shape[:2]), image.shape))  # whose centre it is
    return mask[0].take(columns, axis=1).take(rows, axis=0)


def verify(provider):  # 0: all that run here agree with the golden mask; 3: one does not; 4: none runs here
    manifest, shares = json.loads((RELEASE / "manifest.json").read_text(encoding="utf-8")), []
    image, expected = read(RELEASE / manifest["golden"]["image"]), np.array(Image.open(RELEASE / manifest["golden"]["mask"]))
    for row in manifest["models"]:
        mask = predict(RELEASE / row["file"], image, provider, 1) if row["format"] == "onnx" else "an engine: gddctl verify runs it"
        share = None if isinstance(mask, str) else float(np.mean(mask == expected))
        shares += [] if share is None else [share - row["expect"]["min_agreement"]]
        print(row["file"], mask if share is None else f"{100 * share:.4f} %, at least {100 * row['expect']['min_agreement']:.4f} %")
    return 4 if not shares else 3 if min(shares) < 0 else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--model", type=Path, default=RELEASE / MODEL)
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--threads", type=int, default=0, help="0: every core")
    parser.add_argument("--input", action="store_true", help="write what the network takes, for the C++ examples")
    parser.add_argument("--verify", action="store_true", help="run the golden image through every model")
    args = parser.parse_args()
    if args.verify:
        sys.exit(verify(args.provider))
    if args.out is None or args.out.exists():
        parser.error("name an image and a new file to write" if args.out is None else f"{args.out} is there already")
    image = read(args.image)
    mask = prepare(image) if args.input else predict(args.model, image, args.provider, args.threads)
    if isinstance(mask, str):
        sys.exit(f"{args.model}: {mask}")
    picture = Image.fromarray(mask)
    if not args.input:
        picture.putpalette([part for color in PALETTE for part in color])  # pixels stay class ids; viewers show colours
    picture.save(args.out)


if __name__ == "__main__":
    main()
