"""A teacher that was trained with another normalisation sees the student's batch as it knows images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gddctl.core.config.methods import Kd
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.open import open_dataset
from gddctl.data.preprocess import normalise
from gddctl.distill.job import TrainJob
from gddctl.distill.teachers import open_teacher
from gddctl.models.checkpoint import load_bundle, save_bundle
from gddctl.models.protocol import Batch

ROUNDING = 1e-4  # of logits near 1: the images differ by float32's last bits


def test_its_answer_is_that_for_its_own_normalisation(tmp_path: Path, make_job: Callable[..., TrainJob], teacher_bundle: Path) -> None:
    model, card = load_bundle(teacher_bundle)
    own = PreprocessSpec(size=card.preprocess.size, mean=(0.3, 0.5, 0.6), std=(0.4, 0.5, 0.2), channel_order="bgr")
    save_bundle(tmp_path / "other", model, card.model_copy(update={"preprocess": own}))
    dataset = open_dataset(card.data, "val")
    pixels = dataset[0].image
    labels = torch.from_numpy(dataset[0].label.astype(np.int64))[None]

    def answer(bundle: Path) -> torch.Tensor:
        job = make_job(tmp_path / "student", role="student", job={"method": Kd(), "teacher": bundle}, channels_last=False)
        opened = open_teacher(job, dataset.classes, torch.device("cpu"))
        assert opened is not None
        return opened.teacher(Batch(torch.from_numpy(normalise(pixels, job.data.preprocess))[None], labels)).logits

    with torch.no_grad():
        expected = model(torch.from_numpy(normalise(pixels, own))[None]).logits
        as_given = model(torch.from_numpy(normalise(pixels, card.preprocess))[None]).logits
    assert torch.allclose(answer(tmp_path / "other"), expected, atol=ROUNDING)
    assert torch.equal(answer(teacher_bundle), as_given)  # the same normalisation: not a bit of difference
    assert not torch.allclose(expected, as_given, atol=100 * ROUNDING)  # the partner
