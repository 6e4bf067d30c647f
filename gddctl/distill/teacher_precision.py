"""In which numbers a teacher computes: the training's, or its own; its weights are cast once and not at every step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from typing_extensions import assert_never

from gddctl.core.config.sections import TeacherPrecision
from gddctl.core.errors import ConfigError
from gddctl.distill.teachers import Teaching
from gddctl.models.protocol import Batch, Outputs

Training = str  # train.precision: "fp32", "bf16" or "fp16"

_CAST = (nn.modules.conv._ConvNd, nn.Linear)  # what autocast computes in low precision; norms stay float32


class PreciseTeacher:
    """A teacher that computes under an autocast of its own, whatever the one around it.

    Args:
        teacher: answers.
        device: "cpu" or "cuda".
        dtype: low precision, or None for float32.
    """

    def __init__(self, teacher: Teaching, device: str, dtype: torch.dtype | None) -> None:
        self._teacher, self._device, self._dtype = teacher, device, dtype

    @property
    def feature_channels(self) -> dict[str, int]:
        """The teacher's."""
        return self._teacher.feature_channels

    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's answer. The images have the training's precision, to which the wrapper around a step rounds them."""
        with torch.autocast(self._device, self._dtype or torch.bfloat16, enabled=self._dtype is not None):
            return self._teacher(replace(batch, images=batch.images.float()))


def low_precision(wanted: TeacherPrecision, training: Training, device: str) -> torch.dtype | None:
    """The low precision in which the teacher's convolutions compute; None: float32.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    if wanted == "fp16" and device == "cpu":
        raise ConfigError("distill.teacher_precision: 'fp16' computes on CUDA only", remedy="use bf16, fp32 or same on a CPU")
    match wanted:
        case "same":
            return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[training]
        case "fp32":
            return None
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
        case other:
            assert_never(other)


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights of convolutions and linear layers to ``dtype``, in place: what autocast does anew at every call of a frozen model.

    The answers under autocast to ``dtype`` are the same to the bit. Biases are rounded too, as autocast does.
    """
    for module in model.modules():
        if isinstance(module, _CAST):
            module.to(dtype)


def with_precision(teacher: Teaching, model: nn.Module | None, wanted: TeacherPrecision, training: Training, device: str) -> Teaching:
    """``teacher`` computing as asked for.

    Args:
        teacher: answers.
        model: its frozen network, whose weights may be cast; None where it has none.
        wanted: ``distill.teacher_precision``.
        training: ``train.precision``; its autocast is around every call.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: see :func:`low_precision`.
    """
    dtype = low_precision(wanted, training, device)
    if model is not None and dtype is not None:
        cast_weights(model, dtype)
    return teacher if wanted in ("same", training) else PreciseTeacher(teacher, device, dtype)
