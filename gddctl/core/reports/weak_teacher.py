"""Whether a teacher is better than those it is to teach, or has taught."""

from __future__ import annotations

from dataclasses import dataclass

from gddctl.core.reports.evaluation import EvalReport

BASELINE = "the same network without distillation"
START = "the student it starts from"
STUDENT = "the student it taught"


@dataclass(frozen=True)
class TeacherMargin:
    """Two scores 0..1 of one split. True where the teacher is better."""

    teacher: float  # mIoU
    other: float  # mIoU
    who: str  # has the other score
    split: str
    protocols: tuple[str, str] | None = None  # the teacher's and the other's, where they differ: of the network's input size, say

    def __bool__(self) -> bool:
        return self.teacher > self.other

    @property
    def warning(self) -> str:
        """Both numbers, and what to make of them; empty where the teacher is better."""
        if self:
            return ""
        told = "" if self.protocols is None else f" (scored otherwise: {self.protocols[0]}; against {self.protocols[1]})"
        return (
            f"the teacher is no better than {self.who}: {100 * self.teacher:.2f} against {100 * self.other:.2f} % mIoU on '{self.split}'"
            f"{told}; train it longer or take a larger one, else distillation can show no more than how fast a student starts"
        )


def teacher_margin(teacher: EvalReport | None, other: EvalReport | None, who: str) -> TeacherMargin | None:
    """The margin of ``teacher`` over ``other``; None where one has no score, or the scores are not of the same images and classes.

    A teacher with another input size has another protocol: what it reaches is what it has to teach, so it is held against the other all
    the same. One that was told the answer is held against nobody.
    """
    if teacher is None or other is None:
        return None
    if (teacher.split, teacher.images, set(teacher.per_class)) != (other.split, other.images, set(other.per_class)):
        return None
    if teacher.condition != other.condition:
        return None
    protocols = None if teacher.protocol == other.protocol else (teacher.protocol, other.protocol)
    return TeacherMargin(teacher.miou, other.miou, who, teacher.split, protocols)


def weak_teacher(teacher: EvalReport | None, others: dict[str, EvalReport | None]) -> tuple[str, ...]:
    """The warnings: one for each of ``others``, by who has the score, that the teacher is no better than."""
    margins = (teacher_margin(teacher, other, who) for who, other in others.items())
    return tuple(margin.warning for margin in margins if margin is not None and margin.warning)
