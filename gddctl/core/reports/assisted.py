"""What a teacher that sees the label scores with it and without it: the numbers that tell whether it has anything to teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gddctl.core.config.label_assisted import TeacherKind

Plane = Literal["teaching", "training", "zero"]

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

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AssistedScores:
        """Read back what ``dataclasses.asdict`` gave."""
        return cls(value["kind"], tuple(PlaneScore(**score) for score in value["planes"]))
