"""Teachers that see the label, by path: which bundles are such, their scores, their masks for pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.sections import DataConfig
from gddctl.core.reports.evaluation import EvalReport
from gddctl.data.dataset import Sample
from gddctl.pipeline.datasets import open_usable
from gddctl.prove.assisted import evaluate_assisted, masks_with_label
from gddctl.runtime.protocol import Device


def sees_label(model: Path) -> bool:
    """Whether ``model`` is the bundle of a teacher that reads the label: nothing that runs on images alone."""
    return is_bundle(model) and read_card(model).kind != "network"


def evaluate_teacher(bundle: Path, data: DataConfig, *, split: str, device: Device = "cpu", threads: int | None = None) -> EvalReport:
    """Its scores on ``split`` of ``data``, with the label plane and with a zero plane."""
    from gddctl.runtime.torch_teacher import TorchTeacher

    teacher = TorchTeacher(bundle, device="cpu" if device in ("cpu", "openvino") else "cuda", threads=threads)
    return evaluate_assisted(teacher, open_usable(data, split), split=split)


def draw_with_label(bundle: Path, samples: list[tuple[int, Sample]]) -> list[NDArray[np.uint8]]:
    """Its masks of ``samples``, each with its index in the split, with the label as it teaches."""
    from gddctl.runtime.torch_teacher import TorchTeacher

    teacher = TorchTeacher(bundle)
    return [masks_with_label(teacher, sample, index) for index, sample in samples]
