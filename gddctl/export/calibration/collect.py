"""Calibration: images chosen, shown once or twice to the FP32 graph, and the ranges of its activations decided by a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.calibration import CalibrationRecord, preprocess_sha256
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig, Target
from gddctl.core.errors import ArtifactError
from gddctl.data.dataset import SegDataset
from gddctl.data.preprocess import normalise, resize_image
from gddctl.export.calibration.images import Selection, held_out_images, select_images
from gddctl.export.calibration.methods import METHODS, SETTINGS, MethodName, Range, range_of
from gddctl.export.calibration.observe import HistogramWatcher, RangeWatcher, choices_of, tensors_to_code
from gddctl.export.calibration.reuse import reusable
from gddctl.export.calibration.score import best_of, score_records
from gddctl.export.graph_file import load_artifact
from gddctl.quant.choice import Choice

Progress = Callable[[int, int], None]


def calibrate(
    fp32: Artifact,
    dataset: SegDataset,
    config: CalibrationConfig,
    *,
    held_out: SegDataset | None,
    batch: int = 1,
    split: str = "train",
    progress: Progress | None = None,
    target: Target = "ort-cpu",
    selection: Selection | None = None,
) -> CalibrationRecord:
    """Ranges of every float activation, over images drawn from ``dataset`` by seed.

    Args:
        fp32: the logits graph whose activations are watched.
        dataset: training images.
        config: how many images, by which seed, by which method.
        held_out: the split that scores are measured on; an image of it among the chosen ones is refused by content.
        batch: images per pass; changes nothing in the result.
        split: what to call ``dataset`` in the record.
        progress: told (done, of) after each step; minmax shows each image once, the others twice, ``auto`` then scores.
        target: the runtime that ``auto`` compares the methods for; the ranges themselves serve every target.
        selection: what :func:`select_images` gave for the same arguments, where it is known already.

    Raises:
        DataError: no images, one that is held out, or, for ``auto``, none left to score on.
        ArtifactError: ``fp32`` is not an FP32 logits graph, or its values are not finite.
    """
    if fp32.info.graph != "logits" or fp32.info.precision != "fp32":
        raise ArtifactError(f"{fp32.path}: calibration watches an fp32 logits graph, this is {fp32.info.precision} {fp32.info.graph}")
    selection = selection or select_images(dataset, config, held_out=held_out)
    methods: tuple[MethodName, ...] = METHODS if config.method == "auto" else (config.method,)
    report = _Steps(progress, len(selection.images), methods != ("minmax",), len(selection.scored_on) if config.method == "auto" else 0)
    base = CalibrationRecord(
        method=config.method,
        kept=methods[0],
        settings=SETTINGS,
        seed=config.seed,
        split=split,
        chosen_by=selection.chosen_by,
        preprocess_sha256=preprocess_sha256(fp32.info.preprocess.model_dump_json()),
        weights_sha256=fp32.info.weights_sha256,
        images=selection.images,
        scored_on=selection.scored_on,
        ranges={},
        observed={},
    )
    if config.method == "auto":
        held_out_images(dataset, base)  # an empty one is better known before the passes than after
    records: dict[str, CalibrationRecord] = {
        method: replace(base, kept=method, ranges=ranges, observed=observed)
        for method, (ranges, observed) in _observe(fp32, dataset, selection, methods, batch, report).items()
    }
    if config.method != "auto":
        return records[config.method]
    scores = score_records(fp32, records, held_out_images(dataset, base), target, progress=report.scored)
    return replace(records[best_of(scores)], scores=scores, scored_for=target)


def calibrate_or_reuse(
    path: Path,
    fp32: Artifact,
    dataset: SegDataset,
    config: CalibrationConfig,
    *,
    held_out: SegDataset | None,
    split: str = "train",
    progress: Progress | None = None,
    target: Target = "ort-cpu",
    selection: Selection | None = None,
) -> CalibrationRecord:
    """The record at ``path`` where it still holds, else a new one, written there. Arguments and errors as :func:`calibrate`."""
    selection = selection or select_images(dataset, config, held_out=held_out)
    record = reusable(path, fp32, config, selection, split=split, target=target)
    if record is None:
        record = calibrate(fp32, dataset, config, held_out=held_out, split=split, progress=progress, target=target, selection=selection)
        record.write(path)
    return record


def prepare(images: Sequence[NDArray[np.uint8]], info: ModelInfo) -> NDArray[np.float32]:
    """Exactly the deployed preprocessing. Shape: n times (H, W, 3) uint8 -> (n, 3, h, w) float32."""
    return np.stack([normalise(resize_image(image, info.preprocess)[0], info.preprocess) for image in images])


def complete(observed: Mapping[str, Range], coded: Mapping[str, Range], choices: Iterable[Choice]) -> dict[str, Range]:
    """A range for every tensor: the method's where it decided, its leader's for one that shares a code, else what was seen."""
    ranges = {**observed, **coded}
    for choice in choices:
        ranges.update({name: ranges[choice.code_of(name)] for name in choice.tensors if name not in coded})
    return {name: ranges[name] for name in observed}


def _observe(
    fp32: Artifact, dataset: SegDataset, selection: Selection, methods: Sequence[MethodName], batch: int, report: _Steps
) -> dict[MethodName, tuple[dict[str, Range], dict[str, Range]]]:
    """By method: the ranges it decides, and what was seen. One pass for ranges, one more for all the others together."""
    model = load_artifact(fp32)
    watcher = RangeWatcher(model, str(fp32.path))
    for images in _batches(dataset, selection, batch, fp32.info):
        watcher.observe(images)
        report.shown(len(images))
    observed = watcher.ranges()
    del watcher
    choices = choices_of(model)
    names = tensors_to_code(choices)
    missing = [name for name in names if name not in observed]
    if missing:
        raise ArtifactError(f"{fp32.path}: the type of tensor '{missing[0]}' cannot be told", remedy="export the graph again")
    if tuple(methods) == ("minmax",):
        return {"minmax": (complete(observed, {name: observed[name] for name in names}, choices), observed)}
    counter = HistogramWatcher(model, observed, names)
    for images in _batches(dataset, selection, batch, fp32.info):
        counter.observe(images)
        report.shown(len(images))
    histograms = counter.histograms()
    return {
        method: (complete(observed, {name: range_of(method, histogram) for name, histogram in histograms.items()}, choices), observed)
        for method in methods
    }


def _batches(dataset: SegDataset, selection: Selection, batch: int, info: ModelInfo) -> Iterable[NDArray[np.float32]]:
    chosen = selection.calibration
    for start in range(0, len(chosen), batch):
        yield prepare([dataset[index].image for index in chosen[start : start + batch]], info)


class _Steps:
    """Counts images shown and scored, for whoever watches."""

    def __init__(self, progress: Progress | None, images: int, twice: bool, scored: int) -> None:
        self._progress, self._done = progress, 0
        self._shown = images * (2 if twice else 1)
        self._all = self._shown + scored

    def shown(self, images: int) -> None:
        self._done += images
        self._tell(self._done)

    def scored(self, done: int, _of: int) -> None:
        self._tell(self._shown + done)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._all)
