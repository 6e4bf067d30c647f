"""INT8 against FP32 on ONNX Runtime's CPU provider: latencies measured taking turns in one process, and their ratio.

    python benchmarks/int8_cpu.py --arch deeplabv3 --size 360 480 --threads 2 --rounds 30

Weights are random: latency does not depend on them. Prints JSON. A round runs every file once, so that a busy moment of the machine
strikes all alike; ratios are medians over rounds of (file / fp32 logits) of the same round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from gddctl import __version__
from gddctl.core.artifact.card import Card, TrainingRecord
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig, DataConfig, NetworkConfig, SyntheticConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.open import open_dataset
from gddctl.export.calibration.collect import calibrate
from gddctl.export.deploy_graph import to_deploy
from gddctl.export.int8 import quantize
from gddctl.export.onnx_graph import export_logits
from gddctl.models.checkpoint import save_bundle
from gddctl.models.segmenter import build_segmenter
from gddctl.runtime.open import open_runtime

WARMUP = 5  # rounds not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="deeplabv3")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(Path(folder), options.arch, tuple(options.size))
        print(json.dumps(measure(files, options.threads, options.rounds, options.batch), indent=2))


def make_bundle(folder: Path, arch: str, size: tuple[int, int], images: int = 16) -> Path:
    """A student with random weights that belongs to drawn scenes."""
    drawn = SyntheticConfig(train_images=images, val_images=4, height=size[0], width=size[1])
    data = DataConfig(preprocess=PreprocessSpec(size=size), synthetic=drawn)
    train = open_dataset(data, data.train_split)
    network = NetworkConfig(arch=arch)
    torch.manual_seed(0)
    model = build_segmenter(network, len(train.classes), aux=False).eval()
    training = TrainingRecord(iterations=0, best_iteration=0, seconds=0.0, images_seen=0, seed=0, devices=1, precision="fp32")
    card = Card(
        name=arch,
        role="student",
        network=network,
        parameters=0,
        classes=train.classes,
        preprocess=data.preprocess,
        data=data,
        weights_sha256="",
        config_digest="",
        training=training,
        gddctl_version=__version__,
    )
    save_bundle(folder, model, card)
    return folder


def export_all(folder: Path, arch: str, size: tuple[int, int]) -> dict[str, Artifact]:
    bundle = make_bundle(folder / "bundle", arch, size)
    data = read_card(bundle).data
    train = open_dataset(data, data.train_split)
    fp32 = export_logits(bundle, folder / "fp32.logits.onnx")
    record = calibrate(fp32, train, CalibrationConfig(images=4, method="minmax"), held_out=None)
    int8 = quantize(fp32, record, folder / "int8.logits.onnx")
    return {
        "fp32.logits": fp32,
        "int8.logits": int8,
        "fp32.deploy": to_deploy(fp32, folder / "fp32.deploy.onnx"),
        "int8.deploy": to_deploy(int8, folder / "int8.deploy.onnx"),
    }


def measure(files: dict[str, Artifact], threads: int, rounds: int, batch: int) -> dict[str, object]:
    runtimes = {name: open_runtime(item.path, threads=threads) for name, item in files.items()}
    height, width = next(iter(files.values())).info.preprocess.size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    planes = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
    taken: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(WARMUP + rounds):
        for name, runtime in runtimes.items():
            image = planes if files[name].info.graph == "logits" else pixels
            start = time.perf_counter()
            runtime.run(image)
            if turn >= WARMUP:
                taken[name].append(1e3 * (time.perf_counter() - start))
    times = {name: np.array(values) for name, values in taken.items()}
    base = times["fp32.logits"]
    rows = {
        name: {
            "p50_ms": round(float(np.median(value)), 2),
            "min_ms": round(float(value.min()), 2),
            "ratio": round(float(np.median(value / base)), 4),
            "ratio_of_minima": round(float(value.min() / base.min()), 4),
            "census": files[name].info.census,
        }
        for name, value in times.items()
    }
    return {"size": [height, width], "batch": batch, "rounds": rounds, "environment": runtimes["fp32.logits"].environment(), "rows": rows}


if __name__ == "__main__":
    main()
