"""INT8 against OpenVINO with NNCF: deploy graphs (image in, class map out), every backend in a process of its own, taking turns.

    python -m venv /some/venv && /some/venv/bin/pip install openvino nncf
    python benchmarks/openvino_int8.py --arch deeplabv3 --openvino-python /some/venv/bin/python
    python benchmarks/openvino_int8.py --bundle BUNDLE --openvino-python /some/venv/bin/python

Needs the extras train, cpu (or gpu) and openvino here; NNCF only there. Without --bundle the weights are random: latency does not depend
on them, agreement then means little and mIoU nothing. With a bundle trained on drawn scenes both are measured on its val split. Everybody
calibrates on the same images. Prints JSON; ratios are medians over rounds of (backend / NNCF) of the same round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from int8_cpu import make_bundle  # beside this file

from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig, DataConfig
from gddctl.data.open import open_dataset
from gddctl.data.preprocess import resize_image, restore_mask
from gddctl.data.score import ConfusionMatrix
from gddctl.export.calibration.collect import calibrate
from gddctl.export.deploy_graph import to_deploy
from gddctl.export.int8 import quantize
from gddctl.export.onnx_graph import export_logits

WORKER = Path(__file__).with_name("openvino_worker.py")
WARMUP = 2  # rounds not counted
SETTLE = 2  # untimed runs at the start of a turn: the others' threads may still be spinning
BASE = "nncf int8"
TRUSTED = "ort fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="deeplabv3", help="of a student with random weights")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--bundle", type=Path, help="a trained student instead")
    parser.add_argument("--openvino-python", default=sys.executable, help="a Python with openvino and nncf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="per turn")
    parser.add_argument("--calibrate", type=int, default=16, metavar="IMAGES")
    parser.add_argument("--images", type=int, default=24, help="validation images to score")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = options.bundle or make_bundle(folder / "bundle", options.arch, tuple(options.size))
        print(json.dumps(compare(folder, bundle, options), indent=2))


def compare(folder: Path, bundle: Path, options: argparse.Namespace) -> dict[str, object]:
    data = read_card(bundle).data
    files, shown = export_all(folder, bundle, data, options.calibrate)
    np.save(folder / "calibration.npy", shown)
    ours: dict[str, Any] = {"kind": "gddctl", "device": "cpu"}
    theirs = {"kind": "nncf", "path": str(files["fp32"].path), "images": str(folder / "calibration.npy")}
    plan = {
        TRUSTED: {**ours, "path": str(files["fp32"].path)},
        "ort int8": {**ours, "path": str(files["ort-cpu"].path)},
        "openvino fp32": {**ours, "path": str(files["fp32"].path), "device": "openvino"},
        BASE: {**theirs, "floats": "f32"},
        "nncf int8, its own float type": {**theirs, "floats": None},
        "openvino int8": {**ours, "path": str(files["openvino"].path)},
    }
    workers = {
        name: Worker(options.openvino_python if what["kind"] == "nncf" else sys.executable, folder, threads=options.threads, **what)
        for name, what in plan.items()
    }
    try:
        times = take_turns(workers, options.rounds, options.runs)
        scores = judge(workers, folder, data, options.images)
    finally:
        for worker in workers.values():
            worker.close()
    rows = {name: {**latency(times, name), **scores[name], "environment": workers[name].environment} for name in workers}
    return {"bundle": str(options.bundle or "random weights"), "size": list(data.preprocess.size), "rounds": options.rounds, "rows": rows}


def export_all(folder: Path, bundle: Path, data: DataConfig, images: int) -> tuple[dict[str, Artifact], Any]:
    """Deploy graphs by kind, and the images that everybody calibrates on, at network size."""
    train = open_dataset(data, data.train_split)
    logits = export_logits(bundle, folder / "fp32.logits.onnx")
    record = calibrate(logits, train, CalibrationConfig(images=images, method="minmax"), held_out=None)
    files = {"fp32": to_deploy(logits, folder / "fp32.deploy.onnx")}
    for target in ("ort-cpu", "openvino"):
        int8 = quantize(logits, record, folder / f"{target}.logits.onnx", target=target)  # type: ignore[arg-type]
        files[target] = to_deploy(int8, folder / f"{target}.deploy.onnx")
    names = {train.name(index): index for index in range(len(train))}
    chosen = [train[names[image.name]].image for image in record.images]
    return files, np.stack([resize_image(image, data.preprocess)[0] for image in chosen])


class Worker:
    """One backend in its own process."""

    def __init__(self, python: str, folder: Path, **what: Any) -> None:
        self._process = subprocess.Popen(
            [python, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "worker.log").open("a"), text=True
        )
        self._log = folder / "worker.log"
        self.environment = self.ask(do="open", image=str(folder / "calibration.npy"), **what)

    def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a worker ended:\n{self._log.read_text()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def take_turns(workers: dict[str, Worker], rounds: int, runs: int) -> dict[str, Any]:
    """Milliseconds by backend, (rounds, runs, 2): clock, processor; each round starts with another backend."""
    taken: dict[str, list[Any]] = {name: [] for name in workers}
    names = list(workers)
    for turn in range(WARMUP + rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            found = workers[name].ask(do="turn", runs=runs, settle=SETTLE)
            if turn >= WARMUP:
                taken[name].append(found)
    return {name: np.array(values) for name, values in taken.items()}


def latency(times: dict[str, Any], name: str) -> dict[str, float]:
    """By the clock, and the least processor time: on a busy machine only the latter means something, best with one thread."""
    (own, cpu), (base, base_cpu) = (np.moveaxis(times[key], -1, 0) for key in (name, BASE))
    return {
        "p50_ms": round(float(np.median(own)), 2),
        "min_ms": round(float(own.min()), 2),
        "ratio": round(float(np.median(np.median(own, axis=1) / np.median(base, axis=1))), 4),
        "ratio_of_minima": round(float(own.min() / base.min()), 4),
        "min_cpu_ms": round(float(cpu.min()), 2),
        "ratio_of_min_cpu": round(float(cpu.min() / base_cpu.min()), 4),
    }


def judge(workers: dict[str, Worker], folder: Path, data: DataConfig, count: int) -> dict[str, dict[str, float]]:
    """mIoU of every backend's masks, and their agreement with the trusted one's."""
    val = open_dataset(data, data.val_split)
    samples = [val[index] for index in range(min(count, len(val)))]
    resized = [resize_image(sample.image, data.preprocess) for sample in samples]
    np.save(folder / "val.npy", np.stack([image for image, _ in resized]))
    masks = {
        name: np.load(worker.ask(do="masks", images=str(folder / "val.npy"), out=str(folder / f"{place}.npy")))
        for place, (name, worker) in enumerate(workers.items())
    }
    scores = {}
    for name, found in masks.items():
        matrix = ConfusionMatrix(len(val.classes))
        for mask, sample, (_, geometry) in zip(found, samples, resized, strict=True):
            matrix.update(restore_mask(mask, geometry), sample.label)
        agreement = float(np.mean(found == masks[TRUSTED]))
        scores[name] = {"miou_percent": round(100 * matrix.scores().miou, 3), "agreement_percent": round(100 * agreement, 3)}
    return scores


if __name__ == "__main__":
    main()
