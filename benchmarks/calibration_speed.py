"""Calibration against ONNX Runtime's own: seconds for the same images through the same FP32 graph, taking turns.

    python benchmarks/calibration_speed.py --arch pspnet --size 360 480 --images 16 --rounds 3

Everything is timed from the images' arrays to the result, preprocessing included: ONNX Runtime's ``quantize_static`` with MinMax
(whole, and its calibration alone), our MinMax, and our entropy + percentile + mse together; quantising once by our ranges and the
scoring of ``auto`` are timed apart. Weights are random: times do not depend on them. Prints JSON; ratios are medians over rounds of
(ours / ONNX Runtime's) of the same round.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig
from gddctl.data.dataset import Sample
from gddctl.data.synthetic.scenes import SyntheticDataset
from gddctl.export.calibration.collect import calibrate, prepare
from gddctl.export.calibration.images import Selection, held_out_images, select_images
from gddctl.export.calibration.methods import range_of
from gddctl.export.calibration.observe import HistogramWatcher, RangeWatcher, choices_of, tensors_to_code
from gddctl.export.calibration.score import score_records
from gddctl.export.graph_file import load_artifact
from gddctl.export.int8 import quantize


class Held:
    """Drawn scenes, kept: drawing them is no part of what is timed."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self._base = SyntheticDataset(7, count, height, width)
        self._samples = [self._base[index] for index in range(count)]
        self.classes = self._base.classes

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def name(self, index: int) -> str:
        return self._base.name(index)

    def files(self, index: int) -> None:
        return None

    def content_sha256(self, index: int) -> str:
        return self._base.content_sha256(index)


class Reader:
    """What ``quantize_static`` reads images from."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="pspnet")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--scored-on", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from int8_cpu import export_all

    logging.disable(logging.WARNING)  # quantize_static advises to pre-process
    with tempfile.TemporaryDirectory() as folder:
        fp32 = export_all(Path(folder), options.arch, tuple(options.size))["fp32.logits"]
        dataset = Held(options.images + options.scored_on, *options.size)
        config = CalibrationConfig(images=options.images, scored_on=options.scored_on, balanced=False, method="minmax")
        print(json.dumps(measure(fp32, dataset, config, options.rounds, Path(folder)), indent=2))


def measure(fp32: Artifact, dataset: Held, config: CalibrationConfig, rounds: int, folder: Path) -> dict[str, object]:
    selection = select_images(dataset, config)
    record = calibrate(fp32, dataset, config, held_out=None, selection=selection)
    scored = held_out_images(dataset, record)
    tasks: dict[str, Callable[[], object]] = {
        "ort.quantize_static": lambda: ort_quantize(fp32, dataset, selection, folder),
        "ort.calibration": lambda: ort_calibrate(fp32, dataset, selection, folder),
        "ours.minmax": lambda: calibrate(fp32, dataset, config, held_out=None, selection=selection),
        "ours.entropy+percentile+mse": lambda: three_methods(fp32, dataset, selection),
        "ours.quantize": lambda: quantize(fp32, record, folder / "ours.onnx"),
        "ours.auto_scoring": lambda: score_records(fp32, dict.fromkeys(("a", "b", "c", "d"), record), scored, "ort-cpu"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    whole, alone = np.array(seconds["ort.quantize_static"]), np.array(seconds["ort.calibration"])
    rows = {
        name: {
            "median_s": round(float(np.median(times)), 3),
            "min_s": round(min(times), 3),
            "to_quantize_static": round(float(np.median(np.array(times) / whole)), 3),
            "to_its_calibration": round(float(np.median(np.array(times) / alone)), 3),
        }
        for name, times in seconds.items()
    }
    return {"images": len(selection.images), "scored_on": len(scored), "size": fp32.info.preprocess.size, "rounds": rounds, "rows": rows}


def three_methods(fp32: Artifact, dataset: Held, selection: Selection) -> object:
    """Both passes, and the three methods on one set of histograms."""
    model = load_artifact(fp32)
    watcher = RangeWatcher(model, str(fp32.path))
    for image in images_of(dataset, selection, fp32):
        watcher.observe(image)
    observed = watcher.ranges()
    del watcher
    counter = HistogramWatcher(model, observed, tensors_to_code(choices_of(model)))
    for image in images_of(dataset, selection, fp32):
        counter.observe(image)
    histograms = counter.histograms()
    return {name: [range_of(method, one) for method in ("entropy", "percentile", "mse")] for name, one in histograms.items()}


def images_of(dataset: Held, selection: Selection, fp32: Artifact) -> Iterator[np.ndarray]:
    return (prepare([dataset[index].image], fp32.info) for index in selection.calibration)


def ort_quantize(fp32: Artifact, dataset: Held, selection: Selection, folder: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(fp32.path),
        str(folder / "ort.onnx"),
        Reader(images_of(dataset, selection, fp32)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def ort_calibrate(fp32: Artifact, dataset: Held, selection: Selection, folder: Path) -> Any:
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    calibrator = create_calibrator(str(fp32.path), None, str(folder / "augmented.onnx"), CalibrationMethod.MinMax)
    calibrator.collect_data(Reader(images_of(dataset, selection, fp32)))
    return calibrator.compute_data()


if __name__ == "__main__":
    main()
