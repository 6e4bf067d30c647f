"""Scores of teachers that see the label: each way of showing it apart, entropy from its definition, the same in any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import ClassTable
from gddctl.core.config.label_assisted import TeacherKind
from gddctl.core.errors import ArtifactError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.reports.assisted import Plane
from gddctl.core.reports.evaluation import EvalReport
from gddctl.data.synthetic.scenes import SyntheticDataset
from gddctl.prove.assisted import evaluate_assisted, masks_with_label, summed_entropy

SIZE = (48, 64)
SURE = 6.0  # logit of the class that is told, over zeros


class Told:
    """A teacher that says what it is told, and the first class where it is told nothing: its scores can be computed by hand."""

    kind: TeacherKind = "label_assisted"
    planes: tuple[Plane, ...] = ("teaching", "zero")

    def __init__(self, classes: ClassTable) -> None:
        self.sha256 = "0" * 64
        self.asked: list[tuple[int, ...]] = []
        self.info = ModelInfo(
            name="told", graph="logits", precision="fp32", target="any", classes=classes, preprocess=PreprocessSpec(size=SIZE),
            architecture="none", output_stride=1, weights_sha256=self.sha256, gddctl_version="0",
        )  # fmt: skip

    def run(self, images: NDArray[Any], labels: NDArray[np.uint8], indices: Sequence[int], plane: Plane) -> NDArray[np.float32]:
        self.asked.append(tuple(indices))
        shown = labels if plane == "teaching" else np.zeros_like(labels)
        count = len(self.info.classes)
        return np.stack([SURE * (shown == k) for k in range(count)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def dataset() -> SyntheticDataset:
    return SyntheticDataset(7, 3, *SIZE)


def test_with_the_label_and_without_are_told_apart(dataset: SyntheticDataset) -> None:
    report = evaluate_assisted(Told(dataset.classes), dataset, split="val", batch=2)
    assert report.assisted is not None
    told, blind = (report.assisted.of(plane) for plane in ("teaching", "zero"))
    assert told is not None and blind is not None and report.assisted.of("training") is None
    assert told.miou == 1.0 == report.miou
    labels = np.concatenate([dataset[index].label.ravel() for index in range(len(dataset))])
    labels = labels[labels != 255]
    assert blind.aacc == pytest.approx((labels == 0).mean())
    assert report.condition == "with the label plane" and "privileged" in report.protocol
    rest = (len(dataset.classes) - 1) * math.exp(-SURE)
    entropy = math.log(1 + rest) + rest * SURE / (1 + rest)  # log of the sum, minus the mean logit, from the definition
    assert told.entropy == pytest.approx(entropy, rel=1e-6) == blind.entropy


def test_the_report_survives_json_and_a_plain_one_has_no_such_key(dataset: SyntheticDataset) -> None:
    report = evaluate_assisted(Told(dataset.classes), dataset, split="val")
    assert EvalReport.from_json(report.to_json()) == report
    value = report.to_json()
    value.pop("assisted")
    plain = EvalReport.from_json(value)  # as files from before
    assert plain.condition == "" and "assisted" not in plain.to_json()


def test_entropy_is_its_definition_over_labelled_places() -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 3, (4, 5, 6)).astype(np.float32), rng.integers(0, 4, (5, 6)).astype(np.uint8)
    label[0] = 255
    wanted = 0.0
    for i in range(1, 5):
        for j in range(6):
            weights = [math.exp(value) for value in logits[:, i, j]]
            wanted -= sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights)
    total, places = summed_entropy(logits, label)
    assert total == pytest.approx(wanted, rel=1e-5) and places == 24
    uniform, _ = summed_entropy(np.zeros((4, 2, 2), np.float32), np.zeros((2, 2), np.uint8))
    assert uniform == pytest.approx(4 * math.log(4))
    assert summed_entropy(logits, np.full((5, 6), 255, np.uint8)) == (0.0, 0)


def test_every_image_keeps_its_index_whatever_the_batch(dataset: SyntheticDataset) -> None:
    alone, together = Told(dataset.classes), Told(dataset.classes)
    assert evaluate_assisted(alone, dataset, split="val") == evaluate_assisted(together, dataset, split="val", batch=3)
    assert alone.asked == [(index,) for index in range(3) for _ in Told.planes] and together.asked == [(0, 1, 2)] * 2


def test_masks_for_pictures_are_with_the_label(dataset: SyntheticDataset) -> None:
    sample = dataset[1]
    mask = masks_with_label(Told(dataset.classes), sample, 1)
    assert (mask == sample.label)[sample.label != 255].all()


def test_other_classes_are_refused(dataset: SyntheticDataset) -> None:
    fewer = ClassTable(classes=dataset.classes.classes[:-1])
    with pytest.raises(ArtifactError, match="teacher 'told' knows"):
        evaluate_assisted(Told(fewer), dataset, split="val")
