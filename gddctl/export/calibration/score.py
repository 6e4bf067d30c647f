"""Which method to keep: INT8 by each answers held-out training images, and is compared with FP32 pixel by pixel."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.calibration import CalibrationRecord, Score
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import Target
from gddctl.data.dataset import SegDataset
from gddctl.data.preprocess import normalise, resize_image
from gddctl.export.int8 import quantize
from gddctl.runtime.open import open_runtime

_EQUAL_DB = 200.0  # reported where nothing differs: float32 rounding alone stays below


def score_records(
    fp32: Artifact,
    records: Mapping[str, CalibrationRecord],
    images: SegDataset,
    target: Target,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """Quantise ``fp32`` for ``target`` by each record and compare its answers with those of FP32.

    A target that does not run here is computed by ONNX Runtime on the CPU, from that target's own graph.

    Args:
        fp32: the logits graph that the records were made on.
        records: by method.
        images: what to compare on, one at a time.
        target: whose scheme to quantise by.
        progress: told (done, of) after each image.
    """
    tallies = {method: Tally() for method in records}
    with tempfile.TemporaryDirectory(prefix="gddctl-score-") as folder, ExitStack() as stack:
        reference = stack.enter_context(open_runtime(fp32.path))
        candidates = {}
        for method, record in records.items():
            file = quantize(fp32, record, Path(folder) / f"{method}.onnx", target=target)
            candidates[method] = stack.enter_context(open_runtime(file.path, allow_foreign_target=True))
        for index in range(len(images)):
            image = normalise(resize_image(images[index].image, fp32.info.preprocess)[0], fp32.info.preprocess)[None]
            wanted = reference.run(image)
            for method, runtime in candidates.items():
                tallies[method].add(wanted, runtime.run(image))
            if progress is not None:
                progress(index + 1, len(images))
    return {method: tally.score() for method, tally in tallies.items()}


def best_of(scores: Mapping[str, Score]) -> str:
    """The method with the highest agreement; of equal ones the highest SQNR; of equal ones the first."""
    return max(scores, key=lambda method: (scores[method].agreement, scores[method].sqnr_db))


class Tally:
    """Sums over logits of both graphs."""

    def __init__(self) -> None:
        self._same = self._pixels = 0
        self._signal = self._noise = 0.0

    def add(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Take in the logits of one batch. Shape: both (B, K, h, w) float32."""
        same = reference.argmax(axis=1) == candidate.argmax(axis=1)
        self._same += int(np.count_nonzero(same))
        self._pixels += same.size
        apart = (candidate - reference).reshape(-1)
        flat = reference.reshape(-1)
        self._signal += float(np.dot(flat, flat))
        self._noise += float(np.dot(apart, apart))

    def score(self) -> Score:
        """Over everything seen; a graph that gave NaN loses to any other."""
        if not math.isfinite(self._noise):
            return Score(0.0, -_EQUAL_DB)
        if self._noise == 0.0 or self._signal == 0.0:
            return Score(self._same / self._pixels, _EQUAL_DB if self._noise == 0.0 else -_EQUAL_DB)
        sqnr = 10 * math.log10(self._signal / self._noise)
        return Score(self._same / self._pixels, max(-_EQUAL_DB, min(_EQUAL_DB, sqnr)))
