"""Settings to a distiller: the one place that knows every method."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from typing_extensions import assert_never

from gddctl.core.config.methods import Gdd, Method, NoMethod
from gddctl.distill.methods.gdd import GddDistiller, build_gdd


def build_distiller(
    method: Method,
    student_channels: Mapping[str, int],
    teacher_channels: Mapping[str, int],
    *,
    generator: torch.Generator | None = None,
) -> GddDistiller | None:
    """The distiller a config names, an ``nn.Module`` that keeps the ``Distiller`` protocol; None for no distillation.

    Args:
        method: its settings.
        student_channels: channels by stage, ``Segmenter.feature_channels``.
        teacher_channels: the same of the teacher.
        generator: draws whatever the method draws, on the device it runs on; None: the device's default generator.
    """
    match method:
        case NoMethod():
            return None
        case Gdd():
            return build_gdd(method, student_channels, teacher_channels, generator)
        case other:
            assert_never(other)
