"""The frozen teacher stays frozen."""

from __future__ import annotations

import torch

from gddctl.core.config.sections import NetworkConfig
from gddctl.models.protocol import Batch
from gddctl.models.segmenter import build_segmenter
from gddctl.models.teacher import FrozenTeacher


def batch() -> Batch:
    return Batch(images=torch.randn(2, 3, 32, 64), labels=torch.zeros(2, 32, 64, dtype=torch.int64))


def test_teacher_neither_learns_nor_drifts() -> None:
    model = build_segmenter(NetworkConfig(output_stride=32), 3, aux=False)
    model.train()
    teacher = FrozenTeacher(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()  # somebody walks over all modules
    outputs = teacher(batch())
    assert not model.training
    assert not outputs.logits.requires_grad and not any(feature.requires_grad for feature in outputs.features.values())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    model.train()
    model(batch().images)  # the partner: in train mode the same call does move the statistics
    assert not torch.equal(before["encoder.bn1.running_mean"], model.state_dict()["encoder.bn1.running_mean"])


def test_its_answers_may_stand_in_a_loss() -> None:
    # inference_mode tensors may not be saved for a backward pass; no_grad ones may.
    outputs = FrozenTeacher(build_segmenter(NetworkConfig(output_stride=32), 3, aux=False))(batch())
    scale = torch.ones(1, requires_grad=True)
    torch.autograd.backward((scale * outputs.logits).sum())
    assert scale.grad is not None
