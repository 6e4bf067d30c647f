"""Where a method takes its tensors from: logits or a named feature, of student and teacher alike, brought to one size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.errors import ConfigError
from gddctl.models.protocol import Outputs

LOGITS = "logits"


class Asked(Mapping[str, int]):
    """Channels by place that remembers which were asked for: what a method that was built from it reads."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        self._channels = channels
        self.places: set[str] = set()

    def __getitem__(self, place: str) -> int:
        channels = self._channels[place]
        self.places.add(place)
        return channels

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)


def take(outputs: Outputs, place: str) -> Tensor:
    """The tensor (B, C, h, w) at ``place``: ``"logits"`` or the name of a feature."""
    return outputs.logits if place == LOGITS else outputs.features[place]


def like(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's map at the teacher's size: bilinear, corners not aligned, where their strides differ; untouched where they do not.

    Shape: (B, C, h, w), (B, ?, H, W) -> (B, C, H, W).
    """
    if student.shape[-2:] == teacher.shape[-2:]:
        return student
    return F.interpolate(student, size=teacher.shape[-2:], mode="bilinear", align_corners=False)


def channels_at(method: str, place: str, student: Mapping[str, int], teacher: Mapping[str, int]) -> tuple[int, int]:
    """Channels of student and teacher at ``place``.

    Raises:
        ConfigError: one of them has no such place, or their logits are of different numbers of classes; the message lists both.
    """
    if place not in student or place not in teacher:
        raise ConfigError(
            f"distill.method: {method} compares '{place}'; the student has {_listed(student)}, the teacher {_listed(teacher)}",
            remedy="name a place that both have",
        )
    if place == LOGITS and student[place] != teacher[place]:
        raise ConfigError(
            f"distill.method: {method} compares logits; the student's have {student[place]} channels, the teacher's {teacher[place]}",
            remedy="take a teacher of the same classes",
        )
    return student[place], teacher[place]


def project(student_channels: int, teacher_channels: int, *, bias: bool) -> nn.Module:
    """A 1x1 convolution to the teacher's channels; nothing where they are the student's."""
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, 1, bias=bias)


def _listed(channels: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in channels.items())
