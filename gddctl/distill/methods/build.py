"""Settings to a distiller: the one place that knows every method."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from typing_extensions import assert_never

from gddctl.core.config.methods import Cirkd, Combined, Cwd, DiffKd, Dist, Gdd, Kd, Method, Mgd, NoMethod
from gddctl.distill.methods.cirkd import build_cirkd
from gddctl.distill.methods.combined import CombinedDistiller
from gddctl.distill.methods.cwd import build_cwd
from gddctl.distill.methods.diffkd import build_diffkd
from gddctl.distill.methods.dist import build_dist
from gddctl.distill.methods.gdd import build_gdd
from gddctl.distill.methods.kd import build_kd
from gddctl.distill.methods.mgd import build_mgd


def build_distiller(
    method: Method,
    student_channels: Mapping[str, int],
    teacher_channels: Mapping[str, int],
    *,
    generator: torch.Generator | None = None,
) -> nn.Module | None:
    """The distiller a config names, an ``nn.Module`` that keeps the ``Distiller`` protocol; None for no distillation.

    Args:
        method: its settings.
        student_channels: channels by place: ``Segmenter.feature_channels``, and ``"logits"``.
        teacher_channels: the same of the teacher.
        generator: draws whatever the method draws, on the device it runs on; None: the device's default generator.

    Raises:
        ConfigError: student or teacher lack a place that the method compares, or their logits differ in classes.
    """
    own, wanted = student_channels, teacher_channels
    match method:
        case NoMethod():
            return None
        case Kd():
            return build_kd(method, own, wanted)
        case Cwd():
            return build_cwd(method, own, wanted)
        case Mgd():
            return build_mgd(method, own, wanted, generator)
        case Dist():
            return build_dist(method, own, wanted)
        case Cirkd():
            return build_cirkd(method, own, wanted, generator)
        case DiffKd():
            return build_diffkd(method, own, wanted, generator)
        case Gdd():
            return build_gdd(method, own, wanted, generator)
        case Combined():
            built = ((inner.kind, build_distiller(inner, own, wanted, generator=generator)) for inner in method.methods)
            return CombinedDistiller([(kind, module) for kind, module in built if module is not None])
        case other:
            assert_never(other)
