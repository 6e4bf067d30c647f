"""Losses against slow loops written from their equations, and their invariances."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gddctl.distill.losses import channel_kl, masked_cross_entropy, pixel_kl

EXACT = 1e-9  # float64 in, float64 through
FLOAT32 = 1e-5  # relative, sums of some hundred float32 numbers


def loop_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    """KL(softmax(teacher / T) || softmax(student / T)), one term after the other."""

    def softmax(values: list[float]) -> list[float]:
        top = max(values)
        powers = [math.exp((value - top) / temperature) for value in values]
        return [power / sum(powers) for power in powers]

    return sum(t * (math.log(t) - math.log(s)) for s, t in zip(softmax(student), softmax(teacher), strict=True))


def loop_channel_kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    batch, channels, _, _ = student.shape
    total = 0.0
    for n in range(batch):
        for c in range(channels):
            total += loop_kl(student[n, c].flatten().tolist(), teacher[n, c].flatten().tolist(), temperature)
    return temperature**2 * total / (batch * channels)  # alpha * T^2 / (N * C), alpha = 1


def loop_pixel_kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    batch, _, height, width = student.shape
    total = 0.0
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                total += loop_kl(student[n, :, y, x].tolist(), teacher[n, :, y, x].tolist(), temperature)
    return temperature**2 * total / (batch * height * width)


def pair(*shape: int, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_channel_kl_is_the_equation(temperature: float) -> None:
    student, teacher = pair(2, 3, 4, 5)
    expected = loop_channel_kl(student, teacher, temperature)
    assert channel_kl(student, teacher, temperature).item() == pytest.approx(expected, rel=EXACT)
    assert channel_kl(student.float(), teacher.float(), temperature).item() == pytest.approx(expected, rel=FLOAT32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_pixel_kl_is_the_equation(temperature: float) -> None:
    student, teacher = pair(2, 3, 4, 5)
    assert pixel_kl(student, teacher, temperature).item() == pytest.approx(loop_pixel_kl(student, teacher, temperature), rel=EXACT)


def test_the_wrong_reductions_are_far_off() -> None:
    student, teacher = pair(2, 3, 4, 5)
    right = channel_kl(student, teacher, 1.0).item()
    logs = F.log_softmax(student.flatten(2), -1), F.log_softmax(teacher.flatten(2), -1)
    places, channels = 4 * 5, 3
    assert F.kl_div(*logs, reduction="none", log_target=True).mean().item() == pytest.approx(right / places)
    assert F.kl_div(*logs, reduction="batchmean", log_target=True).item() == pytest.approx(right * channels)


@given(shift=st.floats(-50, 50), temperature=st.floats(0.5, 8))
@settings(max_examples=25, deadline=None)
def test_channel_kl_ignores_how_strong_a_channel_is(shift: float, temperature: float) -> None:
    student, teacher = pair(2, 3, 4, 4)
    assert channel_kl(teacher + shift, teacher, temperature).item() == pytest.approx(0, abs=EXACT)
    offset = shift * torch.arange(3, dtype=torch.float64)[:, None, None]
    plain = channel_kl(student, teacher, temperature).item()
    assert channel_kl(student + offset, teacher, temperature).item() == pytest.approx(plain, rel=1e-7)
    assert channel_kl(student, teacher + offset, temperature).item() == pytest.approx(plain, rel=1e-7)


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8), scale=st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_kl_is_zero_for_equals_and_positive_for_others(seed: int, temperature: float, scale: float) -> None:
    student, teacher = pair(1, 2, 3, 3, scale=scale, seed=seed)
    for loss in (channel_kl, pixel_kl):
        assert loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=EXACT)
        assert loss(student, teacher, temperature).item() > 0


def test_channel_kl_does_not_know_the_size_of_the_map() -> None:
    student, teacher = pair(2, 3, 6, 8)
    tiled = channel_kl(student.tile(2, 2), teacher.tile(2, 2), 4.0).item()
    assert tiled == pytest.approx(channel_kl(student, teacher, 4.0).item(), rel=1e-6)


def test_at_high_temperature_it_is_half_the_variance_of_the_difference() -> None:
    student, teacher = pair(2, 4, 64, 64, scale=1.0)
    expected = 0.5 * (student - teacher).flatten(2).var(dim=-1, correction=0).mean().item()
    assert channel_kl(student, teacher, 4.0).item() == pytest.approx(expected, rel=0.02)  # a second-order expansion in 1/T


@pytest.mark.parametrize("loss", [channel_kl, pixel_kl])
def test_gradient_is_finite_for_large_inputs_and_none_reaches_the_teacher(loss: object) -> None:
    assert callable(loss)
    student, teacher = (1e3 * x.float() for x in pair(2, 3, 8, 8, scale=1.0))
    student.requires_grad_(), teacher.requires_grad_()
    value = loss(student, teacher, 4.0)
    torch.autograd.backward(value)
    assert torch.isfinite(value) and student.grad is not None and torch.isfinite(student.grad).all()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


def test_softmax_then_log_breaks_on_the_same_inputs() -> None:
    student, teacher = (1e3 * x.float() for x in pair(2, 3, 8, 8, scale=1.0))
    p_student, p_teacher = (F.softmax(x.flatten(2) / 4, dim=-1) for x in (student, teacher))
    assert not torch.isfinite((p_teacher * (p_teacher.log() - p_student.log())).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", [channel_kl, pixel_kl])
def test_autocast_computes_in_float32(loss: object, dtype: torch.dtype) -> None:
    assert callable(loss)
    student, teacher = (x.to(dtype) for x in pair(2, 3, 16, 16))
    expected = loss(student.float(), teacher.float(), 4.0)
    with torch.autocast("cpu", dtype=dtype):
        found = loss(student, teacher, 4.0)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 3\)"):
        channel_kl(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4), 4.0)


# Cross entropy


def loop_cross_entropy(logits: Tensor, labels: Tensor, weights: list[float] | None) -> float:
    total, count = 0.0, 0.0
    for n in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = int(labels[n, y, x])
                if label == 255:
                    continue
                values = logits[n, :, y, x].tolist()
                weight = 1.0 if weights is None else weights[label]
                total += weight * (math.log(sum(math.exp(value) for value in values)) - values[label])
                count += weight
    return total / count


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
def test_cross_entropy_is_the_equation(weights: list[float] | None) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = 255
    found = masked_cross_entropy(logits, labels, None if weights is None else torch.tensor(weights)).item()
    assert found == pytest.approx(loop_cross_entropy(logits, labels, weights), rel=FLOAT32)
    reference = F.cross_entropy(logits, labels, None if weights is None else torch.tensor(weights), ignore_index=255)
    assert found == pytest.approx(reference.item(), rel=FLOAT32)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_nothing_labelled_is_zero_with_a_gradient(weights: Tensor | None) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    loss = masked_cross_entropy(logits, labels, weights)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))
    assert F.cross_entropy(logits, labels, ignore_index=255).isnan()  # what torch's own mean would have given


def test_ignored_pixels_get_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, 2:] = 255
    torch.autograd.backward(masked_cross_entropy(logits, labels))
    assert logits.grad is not None
    assert logits.grad[:, :, 2:].abs().max() == 0 and logits.grad[:, :, :2].abs().min() > 0


def test_cross_entropy_under_autocast_is_float32() -> None:
    logits = torch.full((1, 2, 64, 64), 30.0, dtype=torch.float16)
    logits[:, 1] = -30.0
    labels = torch.ones(1, 64, 64, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = masked_cross_entropy(logits, labels)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(60.0)  # a half-precision sum would be 60 * 4096 > 65504
