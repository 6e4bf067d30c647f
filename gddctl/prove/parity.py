"""Does a candidate answer like its reference: both run over real images, compared by pixels, by mIoU and by logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE, require_same_classes
from gddctl.core.config.sections import Limits
from gddctl.core.errors import ArtifactError
from gddctl.core.reports.parity import Rung
from gddctl.data.dataset import Sample, SegDataset
from gddctl.data.preprocess import Geometry, restore_logits, restore_mask
from gddctl.data.score import ConfusionMatrix
from gddctl.prove.difference import Difference, StreamingDifference
from gddctl.prove.evaluate import checked_label
from gddctl.prove.predict import network_input
from gddctl.prove.progress import Progress
from gddctl.prove.subject import chosen_images, label_of
from gddctl.runtime.protocol import Runtime

_INF_LOGIT = 1e6  # stands for Inf when a mask is made of broken logits; the NaN count has failed the rung by then


def parity(
    reference: Runtime,
    candidate: Runtime,
    dataset: SegDataset,
    limits: Limits,
    *,
    max_images: int | None = None,
    progress: Progress | None = None,
) -> Rung:
    """Compare ``candidate`` with ``reference`` on the images of ``dataset``.

    Two logits graphs are compared as evaluation scores them: logits bilinear to label size, then argmax. As soon as one of the two is
    a deploy graph, both are taken as masks at network size and brought to label size by nearest neighbour, so that the rule of
    resizing is no difference between the models; fields about logits are then None.

    Args:
        reference: the model to trust.
        candidate: the model to test.
        dataset: labelled images; agreement counts labelled pixels only.
        limits: what the rung is held to.
        max_images: compare on this many images only, spread evenly.
        progress: called with (done, of) images after each.

    Raises:
        ArtifactError: classes or preprocessing of the two differ, or the reference itself answers with NaN.
    """
    _require_comparable(reference, candidate)
    require_same_classes(candidate.info.classes, dataset.classes, who=f"model '{candidate.info.name}'")
    indices = chosen_images(dataset, max_images)
    compared = _Compared(len(dataset.classes), logits=reference.info.graph == candidate.info.graph == "logits")
    for done, index in enumerate(indices, start=1):
        sample = dataset[index]
        answers = [_answer(runtime, sample) for runtime in (reference, candidate)]
        compared.take(sample, *answers)
        if progress is not None:
            progress(done, len(indices))
    return compared.rung(reference, candidate, limits, images=len(indices))


@dataclass(frozen=True)
class _Answer:
    output: NDArray[Any]  # (K, h, w) float32 logits or (h, w) uint8 mask
    geometry: Geometry


class _Compared:
    """The running sums of one comparison."""

    def __init__(self, classes: int, *, logits: bool) -> None:
        self._agreeing = self._labelled = 0
        self._nan = 0
        self._matrices = (ConfusionMatrix(classes), ConfusionMatrix(classes))
        self._difference = StreamingDifference() if logits else None

    def take(self, sample: Sample, reference: _Answer, candidate: _Answer) -> None:
        label = checked_label(sample)
        if not np.isfinite(reference.output).all():
            raise ArtifactError(f"{sample.name}: the reference answers with NaN or Inf, so there is nothing to compare with")
        if self._difference is not None:
            self._difference.update(reference.output, candidate.output)
        else:
            self._nan += int(np.count_nonzero(~np.isfinite(candidate.output)))
        masks = [_mask(answer, as_logits=self._difference is not None) for answer in (reference, candidate)]
        labelled = label != IGNORE
        self._labelled += int(np.count_nonzero(labelled))
        self._agreeing += int(np.count_nonzero((masks[0] == masks[1]) & labelled))
        for matrix, mask in zip(self._matrices, masks, strict=True):
            matrix.update(mask, label)

    def rung(self, reference: Runtime, candidate: Runtime, limits: Limits, *, images: int) -> Rung:
        scores = [matrix.scores() for matrix in self._matrices]
        worst, delta = worst_class(candidate.info.classes.names, scores[0].per_class, scores[1].per_class)
        apart = Difference(None, None, None, None, self._nan) if self._difference is None else self._difference.result()
        return Rung(
            reference=label_of(reference),
            candidate=label_of(candidate),
            reference_sha256=reference.sha256,
            candidate_sha256=candidate.sha256,
            precision=candidate.info.precision,
            images=images,
            agreement=self._agreeing / self._labelled,
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


def _answer(runtime: Runtime, sample: Sample) -> _Answer:
    array, geometry = network_input(sample.image, runtime.info)
    return _Answer(runtime.run(array[None])[0], geometry)


def _mask(answer: _Answer, *, as_logits: bool) -> NDArray[np.uint8]:
    """A mask at label size, by the rule of the comparison; broken logits are mended first so that there is one."""
    if answer.output.ndim == 2:
        return restore_mask(answer.output, answer.geometry)
    logits = np.nan_to_num(answer.output, nan=0.0, posinf=_INF_LOGIT, neginf=-_INF_LOGIT)
    if as_logits:
        return restore_logits(logits, answer.geometry)
    return restore_mask(logits.argmax(axis=0).astype(np.uint8), answer.geometry)


def _require_comparable(reference: Runtime, candidate: Runtime) -> None:
    """Both models have the same classes and see the same pixels.

    Raises:
        ArtifactError: they do not.
    """
    left, right = reference.info, candidate.info
    if left.classes.names != right.classes.names:
        raise ArtifactError(
            f"'{label_of(reference)}' has the classes ({', '.join(left.classes.names)}) "
            f"and '{label_of(candidate)}' ({', '.join(right.classes.names)})",
            remedy="compare two files made from the same student",
        )
    if left.preprocess != right.preprocess:
        before, after = left.preprocess.model_dump(), right.preprocess.model_dump()
        apart = ", ".join(f"{key} {before[key]} and {after[key]}" for key in before if before[key] != after[key])
        raise ArtifactError(
            f"'{label_of(reference)}' and '{label_of(candidate)}' prepare images differently: {apart}",
            remedy="compare two files made from the same student with the same input size",
        )
