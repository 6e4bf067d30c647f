"""Confusion counts of every image by itself: what a bootstrap over images resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import require_same_classes
from gddctl.data.dataset import SegDataset
from gddctl.data.score import ConfusionMatrix
from gddctl.prove.evaluate import checked_label
from gddctl.prove.progress import Progress
from gddctl.prove.views import ONCE, Views, masks_by_views, require_logits
from gddctl.runtime.protocol import Runtime


def image_counts(
    runtime: Runtime, dataset: SegDataset, *, batch: int = 1, views: Views = ONCE, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Count pixels by (label, prediction) image by image, at full label resolution, as :func:`gddctl.prove.evaluate.evaluate` does.

    Args:
        runtime: the opened model.
        dataset: labelled images; its class names must be the model's.
        batch: images, or windows of one, per call of the runtime.
        views: what is shown of each image.
        progress: called with (done, of) images after every batch.

    Returns:
        (images, K, K) int64, rows = label, columns = prediction; summed over images it is the matrix that evaluation scores.

    Raises:
        UsageError: the views need logits and the model answers with masks.
        ArtifactError: the classes differ, or the model answers with NaN.
        DataError: a label of another size than its image.
    """
    require_logits(views, runtime.info)
    require_same_classes(runtime.info.classes, dataset.classes, who=f"model '{runtime.info.name}'")
    size = len(dataset.classes)
    counts = np.zeros((len(dataset), size, size), np.int64)
    for start in range(0, len(dataset), batch):
        samples = [dataset[index] for index in range(start, min(start + batch, len(dataset)))]
        masks = masks_by_views(runtime, [sample.image for sample in samples], views, batch=batch)
        for offset, (sample, mask) in enumerate(zip(samples, masks, strict=True)):
            confusion = ConfusionMatrix(size)
            confusion.update(mask, checked_label(sample))
            counts[start + offset] = confusion.matrix
        if progress is not None:
            progress(start + len(samples), len(dataset))
    return counts
