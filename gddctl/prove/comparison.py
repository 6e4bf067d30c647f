"""Two streams of answers to the same images, compared pixel by pixel and logit by logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.core.config.sections import Limits
from gddctl.core.errors import ArtifactError
from gddctl.core.reports.parity import Rung
from gddctl.data.preprocess import Geometry, restore_logits, restore_margin, restore_mask
from gddctl.data.score import ConfusionMatrix
from gddctl.prove.border import BORDER_PX, near_border
from gddctl.prove.difference import Difference, StreamingDifference
from gddctl.prove.subject import is_emulated, label_of
from gddctl.runtime.protocol import Runtime

CONFIDENT_MARGIN = 1.0  # logits between the first and the second class: the first is e times as likely. Ties flip below it, not above
_INF_LOGIT = 1e6  # stands for Inf when a mask is made of broken logits; the NaN count has failed the rung by then


@dataclass(frozen=True)
class Answer:
    """What one model says of one image. Masks are made when first asked for, once, however often the answer is compared."""

    output: NDArray[Any]  # (K, h, w) float32 logits or (h, w) uint8 mask
    geometry: Geometry

    @cached_property
    def finite(self) -> bool:
        """No NaN, no Inf."""
        return self.output.dtype == np.uint8 or bool(np.isfinite(self.output).all())

    @cached_property
    def evaluated(self) -> NDArray[np.uint8]:
        """Mask (H, W) at label size as evaluation makes it: logits bilinear, then argmax; a mask by nearest neighbour."""
        return self.nearest if self.output.ndim == 2 else restore_logits(self._mended, self.geometry)

    @cached_property
    def nearest(self) -> NDArray[np.uint8]:
        """Mask (H, W) at label size as a deploy graph gives it: argmax at network size, then nearest neighbour."""
        mask = self.output if self.output.ndim == 2 else self._mended.argmax(axis=0).astype(np.uint8)
        return restore_mask(mask, self.geometry)

    @cached_property
    def margin(self) -> NDArray[np.float32]:
        """(H, W): by how many logits the first class leads at label size."""
        return restore_margin(self._mended, self.geometry)

    @cached_property
    def _mended(self) -> NDArray[np.float32]:
        """The logits, with broken ones replaced so that there is a mask."""
        logits: NDArray[np.float32] = self.output
        return logits if self.finite else np.nan_to_num(logits, nan=0.0, posinf=_INF_LOGIT, neginf=-_INF_LOGIT)


@dataclass(frozen=True)
class Truth:
    """The label of one image, and the pixels that count: for all rungs of a ladder at once."""

    name: str
    label: NDArray[np.uint8]  # (H, W)

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """Where it is not ignored."""
        labelled: NDArray[np.bool_] = self.label != IGNORE
        return labelled

    @cached_property
    def border(self) -> NDArray[np.bool_]:
        """Where it is labelled and near another class."""
        return near_border(self.label)


class _Share:
    """How many pixels of a region agree."""

    def __init__(self) -> None:
        self.agreeing = self.pixels = 0

    def take(self, same: NDArray[np.bool_], region: NDArray[np.bool_]) -> None:
        self.pixels += int(np.count_nonzero(region))
        self.agreeing += int(np.count_nonzero(same & region))

    @property
    def value(self) -> float | None:
        return self.agreeing / self.pixels if self.pixels else None


class Comparison:
    """The running sums of one comparison; memory does not grow with the number of images.

    With ``logits``, both models give them, and masks are those that evaluation scores. Without, both are taken as masks at network
    size and brought to label size by nearest neighbour, so that the rule of resizing is no difference between the models; fields
    about logits are then None.
    """

    def __init__(self, classes: int, *, logits: bool) -> None:
        self._labelled, self._border, self._confident = _Share(), _Share(), _Share()
        self._nan = 0
        self._matrices = (ConfusionMatrix(classes), ConfusionMatrix(classes))
        self._difference = StreamingDifference() if logits else None

    def take(self, truth: Truth, reference: Answer, candidate: Answer) -> None:
        """Take in one image.

        Raises:
            ArtifactError: the reference answers with NaN or Inf.
        """
        if not reference.finite:
            raise ArtifactError(f"{truth.name}: the reference answers with NaN or Inf, so there is nothing to compare with")
        if self._difference is not None:
            self._difference.update(reference.output, candidate.output)
            masks = (reference.evaluated, candidate.evaluated)
        else:
            self._nan += 0 if candidate.finite else int(np.count_nonzero(~np.isfinite(candidate.output)))
            masks = (reference.nearest, candidate.nearest)
        same = masks[0] == masks[1]
        self._labelled.take(same, truth.labelled)
        self._border.take(same, truth.border)
        if self._difference is not None:
            self._confident.take(same, (reference.margin >= CONFIDENT_MARGIN) & truth.labelled)
        for matrix, mask in zip(self._matrices, masks, strict=True):
            matrix.update(mask, truth.label)

    def rung(self, reference: Runtime, candidate: Runtime, limits: Limits, *, images: int) -> Rung:
        """The numbers so far, held to ``limits``.

        Raises:
            DataError: no pixel was labelled.
        """
        scores = [matrix.scores() for matrix in self._matrices]
        worst, delta = worst_class(candidate.info.classes.names, scores[0].per_class, scores[1].per_class)
        logits = self._difference is not None
        apart = Difference(None, None, None, None, self._nan) if self._difference is None else self._difference.result()
        return Rung(
            reference=label_of(reference),
            candidate=label_of(candidate),
            reference_sha256=reference.sha256,
            candidate_sha256=candidate.sha256,
            precision=candidate.info.precision,
            images=images,
            agreement=self._labelled.agreeing / self._labelled.pixels,
            reference_miou=scores[0].miou,
            candidate_miou=scores[1].miou,
            worst_class=worst,
            worst_class_delta_points=delta,
            sqnr_db=apart.sqnr_db,
            cosine=apart.cosine,
            max_abs_diff=apart.max_abs,
            p999_abs_diff=apart.p999_abs,
            nan=apart.nan,
            limits=limits,
            boundary_agreement=self._border.value,
            boundary_px=BORDER_PX,
            confident_agreement=self._confident.value,
            confident_margin=CONFIDENT_MARGIN if logits else None,
            confident_share=self._confident.pixels / self._labelled.pixels if logits else None,
            emulated=is_emulated(candidate),
        )


def worst_class(
    names: Sequence[str], reference: Sequence[float | None], candidate: Sequence[float | None]
) -> tuple[str | None, float | None]:
    """The class whose IoU fell most, and by how many points (candidate minus reference); classes without a score in one are left out.

    >>> worst_class(("sky", "road", "car"), (0.9, 0.8, None), (0.9, 0.75, 0.0))
    ('road', -5.0)
    """
    deltas = {
        name: round(100 * (after - before), 9)  # 9 decimals: a difference of doubles, without its last digits
        for name, before, after in zip(names, reference, candidate, strict=True)
        if before is not None and after is not None
    }
    if not deltas:
        return None, None
    worst = min(deltas, key=lambda name: deltas[name])
    return worst, deltas[worst]
