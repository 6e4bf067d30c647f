"""What a teacher that sees the label scores with it and without it: the numbers that tell whether it has anything to teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gddctl.core.config.label_assisted import TeacherKind

Plane = Literal["teaching", "training", "zero"]

NOTHING_POINTS = 1.0  # mIoU; equal trainings of one configuration differ by as much (PSPNet on Cityscapes: 73.8, 75.1, 74.6)
WITH_PLANE = "with the label plane"  # stands beside every such score: it is of one that was told the answer
WITHOUT_PLANE = "with a zero plane"
BLIND_MIOU = "miou_zero_plane"  # in the records of a training; where it stands, ``miou`` is privileged
WORDS: dict[Plane, str] = {
    "teaching": f"{WITH_PLANE}, as it teaches",
    "training": f"{WITH_PLANE}, as it was trained",
    "zero": WITHOUT_PLANE,
}


@dataclass(frozen=True)
class PlaneScore:
    """One way to show the label: scores 0..1, entropy in nats."""

    plane: Plane
    miou: float
    aacc: float
    entropy: float  # mean over labelled pixels of the class distribution's, at temperature 1; ln(classes) is total ignorance

    @property
    def words(self) -> str:
        """How the label was shown."""
        return WORDS[self.plane]


@dataclass(frozen=True)
class AssistedScores:
    """All of them. Smoothed labels have the first alone: without a label there is no answer."""

    kind: TeacherKind
    planes: tuple[PlaneScore, ...]

    def of(self, plane: Plane) -> PlaneScore | None:
        """That one; None where it does not apply."""
        return next((score for score in self.planes if score.plane == plane), None)

    @property
    def gain_points(self) -> float | None:
        """mIoU as it teaches over that with a zero plane, in points; None for smoothed labels."""
        told, blind = self.of("teaching"), self.of("zero")
        return None if told is None or blind is None else 100 * (told.miou - blind.miou)

    @property
    def warning(self) -> str:
        """That it makes nothing of the label; empty where it does."""
        gain = self.gain_points
        if gain is None or gain > NOTHING_POINTS:
            return ""
        return (
            f"the teacher makes nothing of the label: its plane adds {gain:+.2f} points of mIoU; a student learns from it what any network "
            "of its size could teach. Train it longer, or lower teacher.noising.consistency"
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AssistedScores:
        """Read back what ``dataclasses.asdict`` gave."""
        return cls(value["kind"], tuple(PlaneScore(**score) for score in value["planes"]))
