"""Scores of a teacher that sees the label: with it in every way it is shown, and without; how sure it is; at full label resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import IGNORE, require_same_classes
from gddctl.core.config.label_assisted import TeacherKind
from gddctl.core.reports.assisted import WITH_PLANE, AssistedScores, Plane, PlaneScore
from gddctl.core.reports.evaluation import EvalReport
from gddctl.data.dataset import Sample, SegDataset
from gddctl.data.preprocess import Geometry, normalise, resize_image, resize_label, restore_logits
from gddctl.data.score import ConfusionMatrix, Scores
from gddctl.prove.evaluate import checked_label, protocol_of
from gddctl.prove.progress import Progress
from gddctl.prove.subject import chosen_images


class SeesLabels(Protocol):
    """A teacher that answers for images and labels; see :class:`gddctl.runtime.torch_teacher.TorchTeacher`."""

    info: ModelInfo
    sha256: str
    kind: TeacherKind

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The ways in which it can be shown a label."""
        ...

    def run(self, images: NDArray[Any], labels: NDArray[np.uint8], indices: Sequence[int], plane: Plane) -> NDArray[np.float32]:
        """(B, 3, h, w), (B, h, w) -> (B, K, h, w)."""
        ...


@dataclass
class _Tally:
    """What one way of showing the label adds up to."""

    confusion: ConfusionMatrix
    entropy: float = 0.0  # nats, summed over places
    places: int = 0

    def scores(self) -> Scores:
        return self.confusion.scores()


@dataclass(frozen=True)
class _Shown:
    """A batch as the teacher takes it."""

    samples: Sequence[Sample]
    geometries: list[Geometry] = field(default_factory=list)
    images: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.uint8]] = field(default_factory=list)


def evaluate_assisted(
    teacher: SeesLabels, dataset: SegDataset, *, split: str, batch: int = 1, limit: int | None = None, progress: Progress | None = None
) -> EvalReport:
    """Score ``teacher`` on ``dataset``, label and all. The report's own scores are with the label as it teaches: privileged, and named so.

    Each image's noise follows from its place in the split, so that the numbers do not depend on the batch.

    Raises:
        ArtifactError: its classes are not the dataset's.
        DataError: no images, or a label of another size than its image.
    """
    require_same_classes(teacher.info.classes, dataset.classes, who=f"teacher '{teacher.info.name}'")
    indices = chosen_images(dataset, limit)
    tallies = {plane: _Tally(ConfusionMatrix(len(dataset.classes))) for plane in teacher.planes}
    for start in range(0, len(indices), batch):
        group = indices[start : start + batch]
        shown = _shown([dataset[index] for index in group], teacher.info)
        for plane, tally in tallies.items():
            _add(tally, shown, teacher.run(np.stack(shown.images), np.stack(shown.labels), group, plane))
        if progress is not None:
            progress(start + len(group), len(indices))
    planes = tuple(_score(plane, tally) for plane, tally in tallies.items())
    scores = tallies[teacher.planes[0]].scores()
    protocol = protocol_of(teacher.info, judged=len(indices), total=len(dataset))
    return EvalReport(
        model=teacher.info.name,
        sha256=teacher.sha256,
        split=split,
        images=len(indices),
        protocol=f"{WITH_PLANE} (privileged: it is shown the label of what it is scored on), {protocol}",
        miou=scores.miou,
        aacc=scores.aacc,
        macc=scores.macc,
        per_class=dict(zip(dataset.classes.names, scores.per_class, strict=True)),
        assisted=AssistedScores(teacher.kind, planes),
    )


def masks_with_label(teacher: SeesLabels, sample: Sample, index: int) -> NDArray[np.uint8]:
    """Its mask (H, W) of one image, with the label as it teaches; for pictures."""
    shown = _shown([sample], teacher.info)
    logits = teacher.run(np.stack(shown.images), np.stack(shown.labels), [index], teacher.planes[0])
    return restore_logits(logits[0], shown.geometries[0])


def summed_entropy(logits: NDArray[np.float32], label: NDArray[np.uint8]) -> tuple[float, int]:
    """Entropy of the class distribution (temperature 1), summed over the labelled places, in nats; and how many those are.

    Shape: (K, h, w) float, (h, w) uint8, 255 = ignore.
    """
    kept = np.asarray(logits, np.float64)[:, label != IGNORE]  # (K, places)
    shifted = kept - kept.max(0, keepdims=True)
    total = np.exp(shifted).sum(0)
    entropy = np.log(total) - (np.exp(shifted) * shifted).sum(0) / total
    return float(entropy.sum()), int(kept.shape[1])


def _shown(samples: Sequence[Sample], info: ModelInfo) -> _Shown:
    shown = _Shown(samples)
    for sample in samples:
        image, geometry = resize_image(sample.image, info.preprocess)
        shown.images.append(normalise(image, info.preprocess))
        shown.geometries.append(geometry)
        shown.labels.append(resize_label(checked_label(sample), info.preprocess))
    return shown


def _add(tally: _Tally, shown: _Shown, answers: NDArray[np.float32]) -> None:
    for sample, geometry, label, answer in zip(shown.samples, shown.geometries, shown.labels, answers, strict=True):
        tally.confusion.update(restore_logits(answer, geometry), sample.label)
        entropy, places = summed_entropy(answer, label)
        tally.entropy += entropy
        tally.places += places


def _score(plane: Plane, tally: _Tally) -> PlaneScore:
    scores = tally.scores()
    return PlaneScore(plane, scores.miou, scores.aacc, tally.entropy / max(1, tally.places))
