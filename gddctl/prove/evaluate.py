"""Accuracy of one model on one split, at full label resolution, from one confusion matrix over the whole set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import require_same_classes
from gddctl.core.errors import DataError
from gddctl.core.reports.evaluation import EvalReport
from gddctl.data.dataset import Sample, SegDataset
from gddctl.data.score import ConfusionMatrix
from gddctl.prove.progress import Progress
from gddctl.prove.subject import chosen_images, label_of
from gddctl.prove.views import ONCE, Views, masks_by_views, require_logits
from gddctl.runtime.protocol import Runtime


def evaluate(
    runtime: Runtime,
    dataset: SegDataset,
    *,
    split: str,
    batch: int = 1,
    limit: int | None = None,
    views: Views = ONCE,
    progress: Progress | None = None,
) -> EvalReport:
    """Score ``runtime`` on ``dataset``.

    IoU comes from one confusion matrix summed over the set (the published mIoU), never from means over images. Predictions are
    brought to the label's size; ignored pixels (255) count nowhere.

    Args:
        runtime: the opened model, torch or exported.
        dataset: labelled images; its class names must be the model's.
        split: its name, for the report.
        batch: images, or windows of one, per call of the runtime; the scores do not depend on it but for rounding.
        limit: judge on this many images only, spread evenly; the protocol says so.
        views: what is shown of each image; the protocol says so.
        progress: called with (done, of) images after every batch.

    Raises:
        UsageError: the views need logits and the model answers with masks.
        ArtifactError: the classes differ, or the model answers with NaN.
        DataError: no images, or a label of another size than its image.
    """
    require_logits(views, runtime.info)
    require_same_classes(runtime.info.classes, dataset.classes, who=f"model '{runtime.info.name}'")
    indices = chosen_images(dataset, limit)
    confusion = ConfusionMatrix(len(dataset.classes))
    for start in range(0, len(indices), batch):
        samples = [dataset[index] for index in indices[start : start + batch]]
        masks = masks_by_views(runtime, [sample.image for sample in samples], views, batch=batch)
        for sample, mask in zip(samples, masks, strict=True):
            confusion.update(mask, checked_label(sample))
        if progress is not None:
            progress(start + len(samples), len(indices))
    scores = confusion.scores()
    return EvalReport(
        model=label_of(runtime),
        sha256=runtime.sha256,
        split=split,
        images=len(indices),
        protocol=protocol_of(runtime.info, views, judged=len(indices), total=len(dataset)),
        miou=scores.miou,
        aacc=scores.aacc,
        macc=scores.macc,
        per_class=dict(zip(dataset.classes.names, scores.per_class, strict=True)),
    )


def protocol_of(info: ModelInfo, views: Views = ONCE, *, judged: int, total: int) -> str:
    """How the score was measured, in words, to stand beside the number."""
    match info.graph:
        case "logits":
            back = f"logits {'' if views.once else 'averaged, '}bilinear to label size, then argmax"
        case "deploy":
            back = "argmax at network size, mask nearest to label size"
        case _:
            assert_never(info.graph)
    parts = [*views.words(info), back, "with flip" if views.flip else "no flip", "full label resolution"]
    if judged < total:
        parts.append(f"{judged} of {total} images, evenly spaced")
    return ", ".join(parts)


def checked_label(sample: Sample) -> NDArray[np.uint8]:
    """The label of ``sample``, of the image's size.

    Raises:
        DataError: it has another size.
    """
    if sample.label.shape != sample.image.shape[:2]:
        raise DataError(
            f"{sample.name}: the label is {sample.label.shape[0]}x{sample.label.shape[1]} "
            f"but the image is {sample.image.shape[0]}x{sample.image.shape[1]}",
            remedy="run 'gddctl data check' on the dataset",
        )
    return sample.label
