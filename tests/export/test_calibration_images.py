"""Which images calibrate: by seed, balanced over classes, no content twice, none of them held out."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.calibration import CalibrationImage
from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.errors import ArtifactError, DataError
from gddctl.data.dataset import Sample
from gddctl.export.calibration.collect import calibrate
from gddctl.export.calibration.images import held_out_images, prominent, rarest_first, select_images

CLASSES = ClassTable(classes=tuple(SegClass(name=name, color=(0, 0, k)) for k, name in enumerate(("road", "car", "sign"))))


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Tiny images, each of its own content unless said otherwise, that show the classes they are told."""

    shown: Sequence[Sequence[int]]
    contents: Sequence[int] | None = None
    classes: ClassTable = CLASSES
    prefix: str = "t"

    def __len__(self) -> int:
        return len(self.shown)

    def __getitem__(self, index: int) -> Sample:
        content = self.contents[index] if self.contents else index
        image = np.full((2, 4, 3), content % 256, np.uint8)
        label = np.full((2, 4), 255, np.uint8)
        label[0, : len(self.shown[index])] = self.shown[index]
        return Sample(image, label, self.name(index))

    def name(self, index: int) -> str:
        return f"{self.prefix}{index}"

    def files(self, index: int) -> None:
        return None

    def content_sha256(self, index: int) -> str:
        return hashlib.sha256(self[index].image.tobytes()).hexdigest()


def config(images: int, seed: int = 0, *, balanced: bool = True, scored_on: int = 4) -> CalibrationConfig:
    return CalibrationConfig(images=images, seed=seed, balanced=balanced, scored_on=scored_on)


def common_and_rare() -> Labelled:
    """100 images: all show road, every second a car, only numbers 17 and 71 a sign."""
    return Labelled([[0] + ([1] if n % 2 else []) + ([2] if n in (17, 71) else []) for n in range(100)])


def test_rare_classes_are_seen() -> None:
    """Drawn blindly, 8 of 100 images miss a class of two images in 84 of 100 draws; balanced, it is missed only where both lie aside."""
    data = common_and_rare()

    def sees_sign(seed: int, balanced: bool) -> bool:
        selection = select_images(data, config(24, seed, balanced=balanced, scored_on=1))
        return bool({17, 71} & set(selection.calibration))

    assert all(sees_sign(seed, True) for seed in range(20))
    assert not all(sees_sign(seed, False) for seed in range(20))


def test_the_rule_by_hand() -> None:
    """Signs are rarest: row 3. Then the class seen least: cars and signs were seen once, road never: row 0. Then car: row 1; …"""
    shown = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    assert rarest_first(shown) == [3, 0, 2, 5, 1, 4]


def test_prominent_is_at_least_the_average_of_those_that_have_it() -> None:
    shares = np.array([[900, 0, 10], [900, 100, 10], [900, 300, 0], [900, 200, 0]])
    assert prominent(shares).tolist() == [[True, False, True], [True, False, True], [True, True, False], [True, True, False]]


def test_a_selection_depends_on_the_seed_alone() -> None:
    data = common_and_rare()
    first = select_images(data, config(8))
    assert first == select_images(data, config(8)) != select_images(data, config(8, seed=1))
    assert first.chosen_by == "classes" and len(first.calibration) == 8 and len(first.held_out) == 4
    assert list(first.calibration) == sorted(set(first.calibration))
    assert not set(first.calibration) & set(first.held_out)
    assert [image.name for image in first.images] == [data.name(index) for index in first.calibration]
    blind = select_images(data, config(8, balanced=False))
    assert blind.chosen_by == "seed" and blind.held_out == first.held_out and blind.calibration != first.calibration


def test_without_labels_the_seed_chooses() -> None:
    data = Labelled([[]] * 100)
    selection = select_images(data, config(8))
    assert selection.chosen_by == "seed"
    assert selection == select_images(data, config(8, balanced=False))


@pytest.mark.parametrize(("available", "calibrating", "aside"), [(1, 1, 0), (3, 3, 0), (8, 6, 2), (9, 7, 2), (100, 8, 4)])
def test_a_small_set_leaves_a_quarter_aside(available: int, calibrating: int, aside: int) -> None:
    selection = select_images(Labelled([[0]] * available), config(8))
    assert (len(selection.calibration), len(selection.held_out)) == (calibrating, aside)


def test_an_image_twice_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    data = Labelled([[0]] * 12, contents=[0, 1, 2, 3, 4, 5] * 2)
    with caplog.at_level(logging.WARNING):
        selection = select_images(data, config(9, balanced=False, scored_on=3))
    contents = [image.sha256 for image in (*selection.images, *selection.scored_on)]
    assert len(set(contents)) == len(contents) and len(contents) <= 6
    assert "shows what another chosen image shows; left out" in caplog.text
    assert "left out" not in _log_of(Labelled([[0]] * 12), caplog)


def _log_of(data: Labelled, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    select_images(data, config(9, balanced=False, scored_on=3))
    return caplog.text


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="the split is empty") as caught:
        select_images(Labelled([]), config(8))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("among", ["calibration", "held_out"])
def test_a_held_out_image_is_refused_by_content(among: str) -> None:
    """The same pixels under another name in val. The partner is the same call with another val."""
    data = common_and_rare()
    leaked = getattr(select_images(data, config(8)), among)[1]
    val = Labelled([[0]] * 3, contents=[200, leaked, 201], prefix="v")
    with pytest.raises(DataError, match=f"'t{leaked}' is also in the held-out split, as 'v1'"):
        select_images(data, config(8), held_out=val)
    assert select_images(data, config(8), held_out=Labelled([[0]] * 3, contents=[200, 202, 201])).images


def test_held_out_images_are_found_again(psp: Any) -> None:
    record = psp.record
    found = held_out_images(psp.train, record)
    assert [found.name(index) for index in range(len(found))] == [image.name for image in record.scored_on]
    assert len(found) == 6  # a quarter of 24
    for changed in (CalibrationImage("elsewhere", record.scored_on[0].sha256), CalibrationImage(record.scored_on[0].name, "0" * 64)):
        with pytest.raises(ArtifactError, match="is gone or was changed"):
            held_out_images(psp.train, dataclasses.replace(record, scored_on=(changed,)))


def test_auto_without_an_image_to_score_on_is_refused_before_the_passes(psp: Any) -> None:
    from gddctl.data.subset import Subset

    shown: list[int] = []
    few = Subset(psp.train, [0, 1, 2])
    with pytest.raises(DataError, match="no training image was left to score on") as caught:
        calibrate(psp.fp32, few, CalibrationConfig(method="auto"), held_out=None, progress=lambda done, of: shown.append(done))
    assert "at least four images" in str(caught.value.remedy) and not shown
    assert calibrate(psp.fp32, few, CalibrationConfig(method="minmax"), held_out=None).scored_on == ()
