"""Correlations, similarities and masked divergences against slow loops written from their equations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gddctl.distill.losses import (
    channel_kl,
    class_correlation,
    labelled_pixels,
    mean_squared_error,
    pixel_kl,
    resized_labels,
    squared_error_per_image,
)
from gddctl.distill.methods.cirkd import cross_image_kl, memory_kl
from tests.distill.plain import similarity_kl

EXACT = 1e-7  # float64 through; DIST's guard against a zero denominator is 1e-8
GUARDED = 1e-3  # the same guard, against probabilities that differ by 1e-3


def pair(*shape: int, scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher


def softmax(values: Sequence[float], temperature: float) -> list[float]:
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def kl(student: Sequence[float], teacher: Sequence[float], temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def pearson(left: Sequence[float], right: Sequence[float]) -> float:
    means = sum(left) / len(left), sum(right) / len(right)
    products = sum((a - means[0]) * (b - means[1]) for a, b in zip(left, right, strict=True))
    return products / math.sqrt(sum((a - means[0]) ** 2 for a in left) * sum((b - means[1]) ** 2 for b in right))


# Squared errors


def test_squared_errors_are_sums_and_means() -> None:
    student, teacher = pair(2, 3, 4, 5)
    total = sum((a - b) ** 2 for a, b in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    assert squared_error_per_image(student, teacher).item() == pytest.approx(total / 2)
    assert mean_squared_error(student, teacher).item() == pytest.approx(total / (2 * 3 * 4 * 5))


def test_masked_squared_errors_are_those_of_the_kept() -> None:
    student, teacher = pair(2, 3, 4, 5)
    kept = torch.zeros(2, 4, 5, dtype=torch.bool)
    kept[0, 1:3, 2], kept[1, 0] = True, True
    total = sum(((student - teacher)[n, :, y, x] ** 2).sum().item() for n, y, x in kept.nonzero().tolist())
    assert squared_error_per_image(student, teacher, kept).item() == pytest.approx(total / 2)
    assert mean_squared_error(student, teacher, kept).item() == pytest.approx(total / (7 * 3))
    assert mean_squared_error(student, teacher, torch.zeros_like(kept)).item() == 0


# DIST


def loop_correlation(student: Tensor, teacher: Tensor, temperature: float, kept: Tensor) -> tuple[float, float]:
    """(1 - mean correlation over classes per pixel, 1 - mean correlation over pixels per class), times the temperature squared."""
    batch, classes, height, width = student.shape
    places = [(n, y, x) for n in range(batch) for y in range(height) for x in range(width) if kept[n, y, x]]
    own = [softmax(student[n, :, y, x].tolist(), temperature) for n, y, x in places]
    wanted = [softmax(teacher[n, :, y, x].tolist(), temperature) for n, y, x in places]
    inter = [pearson(a, b) for a, b in zip(own, wanted, strict=True)]
    intra = [pearson([row[c] for row in own], [row[c] for row in wanted]) for c in range(classes)]
    return temperature**2 * (1 - sum(inter) / len(inter)), temperature**2 * (1 - sum(intra) / len(intra))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("masked", [False, True])
def test_class_correlation_is_the_equation(temperature: float, masked: bool) -> None:
    student, teacher = pair(2, 4, 3, 5)
    kept = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1)) > (0.4 if masked else -1)
    found = class_correlation(student, teacher, temperature, kept if masked else None)
    assert [value.item() for value in found] == pytest.approx(loop_correlation(student, teacher, temperature, kept), rel=EXACT)


@given(scale=st.floats(0.2, 5), offset=st.floats(-0.1, 0.1))
@settings(max_examples=20, deadline=None)
def test_correlation_ignores_scale_and_offset_of_the_probabilities(scale: float, offset: float) -> None:
    # Two classes: a pixel's probabilities are (p, 1 - p), and any other pair is a scaled and shifted one or its mirror.
    teacher, _ = pair(1, 2, 4, 4)
    ordered, _ = torch.sort(teacher, dim=1)
    inter, _ = class_correlation(ordered * scale + offset, ordered, 1.0)
    assert inter.item() == pytest.approx(0, abs=GUARDED)
    assert class_correlation(ordered.flip(1), ordered, 1.0)[0].item() == pytest.approx(2, abs=GUARDED)


def test_correlation_of_a_constant_is_finite_with_a_finite_gradient() -> None:
    _, teacher = pair(1, 3, 4, 4)
    student = torch.zeros(1, 3, 4, 4, requires_grad=True)
    torch.autograd.backward(sum(class_correlation(student, teacher.float(), 1.0), torch.zeros(())))
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_correlation_of_no_pixel_is_zero() -> None:
    student, teacher = pair(1, 3, 4, 4)
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert [value.item() for value in class_correlation(student, teacher, 1.0, nothing)] == [0, 0]


# Pixels without a label


def test_masked_pixel_kl_is_the_mean_over_the_kept() -> None:
    student, teacher = pair(2, 3, 3, 4)
    kept = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    places = kept.nonzero().tolist()
    expected = 4 * sum(kl(student[n, :, y, x].tolist(), teacher[n, :, y, x].tolist(), 2.0) for n, y, x in places) / len(places)
    assert pixel_kl(student, teacher, 2.0, kept).item() == pytest.approx(expected)
    assert pixel_kl(student, teacher, 2.0, torch.zeros_like(kept)).item() == 0


def test_masked_channel_kl_is_that_of_the_kept_places() -> None:
    student, teacher = pair(2, 3, 3, 4)
    kept = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    rows = [kl(student[n, c][kept[n]].tolist(), teacher[n, c][kept[n]].tolist(), 2.0) for n in range(2) for c in range(3)]
    assert channel_kl(student, teacher, 2.0, kept).item() == pytest.approx(4 * sum(rows) / len(rows))
    student.requires_grad_()
    torch.autograd.backward(channel_kl(student, teacher, 2.0, kept))
    assert student.grad is not None and torch.isfinite(student.grad).all()
    assert student.grad.movedim(1, -1)[~kept].abs().max() == 0 < student.grad.movedim(1, -1)[kept].abs().max()
    assert channel_kl(student, teacher, 2.0, torch.zeros_like(kept)).item() == 0


def test_labels_are_brought_to_the_features_size_by_nearest_neighbour() -> None:
    labels = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [255, 255, 2, 2], [255, 255, 2, 2]]])
    feature = torch.zeros(1, 7, 2, 2)
    assert resized_labels(labels, feature).tolist() == [[[0, 1], [255, 2]]]
    assert labelled_pixels(labels, feature).tolist() == [[[True, True], [False, True]]]


# CIRKD


def unit(rows: list[list[float]]) -> list[list[float]]:
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]


def rows_of(feature: Tensor) -> list[list[float]]:
    """(C, h, w) -> h * w rows of unit length."""
    channels, height, width = feature.shape
    return unit([[float(feature[c, y, x]) for c in range(channels)] for y in range(height) for x in range(width)])


def similarities(row: list[float], keys: list[list[float]]) -> list[float]:
    return [sum(a * b for a, b in zip(row, key, strict=True)) for key in keys]


def loop_relation(own: list[list[float]], wanted: list[list[float]], own_keys: list[list[float]], keys: list[list[float]]) -> float:
    pairs = zip(own, wanted, strict=True)
    return sum(kl(similarities(a, own_keys), similarities(b, keys), 0.1) for a, b in pairs) / len(own)


def test_cross_image_kl_is_the_equation() -> None:
    student, _ = pair(3, 4, 2, 3)
    student.requires_grad_()
    _, teacher = pair(3, 6, 2, 3)
    own, wanted = [rows_of(image) for image in student.detach()], [rows_of(image) for image in teacher]
    expected = sum(loop_relation(own[i], wanted[i], own[j], wanted[j]) for i in range(3) for j in range(3)) / 9
    found = cross_image_kl(student, teacher, 0.1)
    assert found.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(found, student)
    step = torch.zeros_like(student)
    step[0, 1, 1, 2] = 1e-6  # as a key of all three images and as a pixel of its own
    with torch.no_grad():
        slope = (cross_image_kl(student + step, teacher, 0.1) - cross_image_kl(student - step, teacher, 0.1)).item() / 2e-6
    assert gradient[0, 1, 1, 2].item() == pytest.approx(slope, rel=1e-4)
    pooled = cross_image_kl(F.avg_pool2d(student.detach(), 2, ceil_mode=True), F.avg_pool2d(teacher, 2, ceil_mode=True), 0.1)
    assert cross_image_kl(student, teacher, 0.1, pool=True).item() == pytest.approx(pooled.item())


def test_masked_cross_image_kl_is_the_mean_over_the_kept_pixels() -> None:
    student, _ = pair(2, 4, 2, 3)
    _, teacher = pair(2, 6, 2, 3)
    kept = torch.tensor([[[True, False, True], [False, False, True]], [[False, True, False], [False, False, False]]])
    own, wanted = [rows_of(image) for image in student], [rows_of(image) for image in teacher]
    found = []
    for i in range(2):
        for j in range(2):
            for k in [k for k in range(6) if kept[i].flatten()[k]]:
                found.append(loop_relation([own[i][k]], [wanted[i][k]], own[j], wanted[j]))
    assert cross_image_kl(student, teacher, 0.1, labelled=kept).item() == pytest.approx(sum(found) / len(found))
    assert cross_image_kl(student, teacher, 0.1, labelled=torch.zeros_like(kept)).item() == 0


def test_cross_image_kl_does_not_see_the_features_length() -> None:
    student, teacher = pair(2, 4, 2, 3)
    scale = torch.rand(2, 1, 2, 3, dtype=torch.float64) + 0.5
    plain = cross_image_kl(student, teacher, 0.1).item()
    assert cross_image_kl(student * scale, teacher, 0.1).item() == pytest.approx(plain)
    assert cross_image_kl(teacher, teacher, 0.1).item() == pytest.approx(0, abs=1e-12)


def test_memory_kl_is_the_equation() -> None:
    student, teacher = (F.normalize(x, dim=1) for x in pair(2, 4, 2, 3))
    keys = F.normalize(pair(5, 4)[0], dim=1)
    own, wanted = [rows_of(image) for image in student], [rows_of(image) for image in teacher]
    labelled = torch.tensor([[[True, False, True], [False, False, False]], [[True, True, True], [True, False, True]]])
    kept = [place for place in range(12) if labelled.flatten()[place]]
    rows = [[image[i] for image in both for i in range(6)] for both in (own, wanted)]
    expected = loop_relation([rows[0][i] for i in kept], [rows[1][i] for i in kept], keys.tolist(), keys.tolist())
    assert memory_kl(student, teacher, keys, 0.1, labelled).item() == pytest.approx(expected)
    assert memory_kl(student, teacher, keys, 0.1, torch.zeros_like(labelled)).item() == 0


def test_gradients_formed_beside_the_loss_are_those_of_the_plain_formula() -> None:
    student, teacher = (F.normalize(x, dim=1) for x in pair(3, 4, 2, 3))
    keys = F.normalize(pair(5, 4)[0], dim=1)
    kept = torch.tensor([[[True, False, True]] * 2, [[True] * 3] * 2, [[False] * 3] * 2])

    def memory_plainly(leaf: Tensor) -> Tensor:
        rows = [x.flatten(2).transpose(1, 2).flatten(0, 1) for x in (leaf, teacher)]
        return similarity_kl(rows[0], rows[1], keys, keys, 0.1)[kept.flatten()].mean()

    def images_plainly(leaf: Tensor) -> Tensor:
        own, wanted = (list(x.flatten(2).transpose(1, 2)) for x in (leaf, teacher))
        found = [similarity_kl(own[i], wanted[i], own[j], wanted[j], 0.1)[kept[i].flatten()] for i in range(3) for j in range(3)]
        return torch.cat(found).mean()

    def memory(leaf: Tensor) -> Tensor:
        return memory_kl(leaf, teacher, keys, 0.1, kept)

    def images(leaf: Tensor) -> Tensor:
        return cross_image_kl(leaf, teacher, 0.1, labelled=kept)

    for plainly, ours in ((memory_plainly, memory), (images_plainly, images)):
        leaf, same = student.clone().requires_grad_(), student.clone().requires_grad_()
        expected, found = plainly(F.normalize(leaf, dim=1)), ours(F.normalize(same, dim=1))
        torch.testing.assert_close(found, expected)
        (first,), (second,) = torch.autograd.grad(3 * expected, leaf), torch.autograd.grad(3 * found, same)
        torch.testing.assert_close(second, first)
        assert first.abs().max() > 0
