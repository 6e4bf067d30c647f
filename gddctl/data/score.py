"""One confusion matrix over a whole split, and the published scores from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.core.errors import DataError


@dataclass(frozen=True)
class Scores:
    """Scores from 0 to 1.

    Attributes:
        miou: mean IoU over the classes that occur in label or prediction.
        aacc: share of labelled pixels that are right.
        macc: mean recall over the classes that occur in the label.
        per_class: IoU by train id; None where the class occurs in neither.
        pixels: labelled pixels behind the scores.
    """

    miou: float
    aacc: float
    macc: float
    per_class: tuple[float | None, ...]
    pixels: int


class ConfusionMatrix:
    """Counts of pixels by (label, prediction); ignored pixels count nowhere."""

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes {num_classes}: expected 1 to {IGNORE}")
        self.matrix: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)  # rows = label

    def update(self, prediction: NDArray[np.integer], label: NDArray[np.uint8]) -> None:
        """Add one image or batch.

        Args:
            prediction: class ids, any shape.
            label: uint8 train ids of the same shape, 255 = ignore.

        Raises:
            DataError: shapes differ, or an id has no class; the message gives the id and its pixel count.
        """
        if prediction.shape != label.shape:
            raise DataError(f"prediction of shape {prediction.shape} against a label of shape {label.shape}: expected the same")
        k = self.matrix.shape[0]
        wrong = (prediction < 0) | (prediction >= k)
        if wrong.any():
            value = int(prediction[wrong][0])
            raise DataError(f"prediction holds id {value} in {int((prediction == value).sum())} pixels, expected 0 to {k - 1}")
        # label * k + prediction is at most 255 * 255 + 254, which still fits 16 bits; one bincount does the rest.
        joint = label.astype(np.uint16) * np.uint16(k) + prediction.astype(np.uint16)
        counts = np.bincount(joint.ravel(), minlength=256 * k)[: 256 * k].reshape(256, k)
        stray = np.flatnonzero(counts[k:IGNORE].sum(axis=1)) + k
        if stray.size:
            value = int(stray[0])
            pixels = int(counts[value].sum())
            raise DataError(f"label holds id {value} in {pixels} pixels, expected 0 to {k - 1}, or {IGNORE} for ignore")
        self.matrix += counts[:k]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add another matrix over the same classes."""
        if other.matrix.shape != self.matrix.shape:
            raise ValueError(f"matrices over {self.matrix.shape[0]} and {other.matrix.shape[0]} classes")
        self.matrix += other.matrix

    def scores(self) -> Scores:
        """The scores of everything added so far.

        Raises:
            DataError: not one labelled pixel was added.
        """
        pixels = int(self.matrix.sum())
        if pixels == 0:
            raise DataError("no labelled pixel to score: every label is ignore", remedy="look at the labels with: gddctl data check")
        right = np.diag(self.matrix)
        in_label, in_prediction = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        union = in_label + in_prediction - right
        per_class = tuple(float(r) / float(u) if u else None for r, u in zip(right, union, strict=True))
        present = [iou for iou in per_class if iou is not None]
        recalls = [float(r) / float(n) for r, n in zip(right, in_label, strict=True) if n]
        return Scores(
            miou=sum(present) / len(present),
            aacc=float(right.sum()) / pixels,
            macc=sum(recalls) / len(recalls),
            per_class=per_class,
            pixels=pixels,
        )
