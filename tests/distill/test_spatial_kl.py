"""The fused loss against the one written with library functions: value, gradient, layouts, precision, and what it keeps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gddctl.distill import spatial_kl as module
from gddctl.distill.losses import channel_kl
from gddctl.distill.spatial_kl import spatial_kl

EXACT = 1e-9  # float64 in, float64 through
BFLOAT16 = 2**-7  # relative to the largest entry: a gradient is rounded to 8 bits twice

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def pair(dtype: torch.dtype = torch.float64, shape: tuple[int, int, int, int] = (3, 4, 5, 6)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def with_gradient(loss: Tensor, student: Tensor) -> tuple[float, Tensor]:
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.item(), gradient


@pytest.mark.parametrize("temperature", [0.5, 4.0])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("teacher_layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_value_and_gradient_are_those_of_the_reference(
    temperature: float, layout: torch.memory_format, teacher_layout: torch.memory_format, masked: bool
) -> None:
    student, teacher = pair()
    student = student.detach().contiguous(memory_format=layout).requires_grad_()
    teacher = teacher.contiguous(memory_format=teacher_layout)
    labelled = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(1)) > 0.4 if masked else None
    expected, wanted = with_gradient(channel_kl(student, teacher, temperature, labelled), student)
    found, gradient = with_gradient(spatial_kl(student, teacher, temperature, labelled=labelled), student)
    assert found == pytest.approx(expected, rel=EXACT)
    torch.testing.assert_close(gradient, wanted, rtol=EXACT, atol=1e-12)
    assert gradient.is_contiguous(memory_format=layout)


def test_images_worked_on_together_or_one_by_one_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = pair()
    whole = with_gradient(spatial_kl(student, teacher, 4.0), student)
    monkeypatch.setattr(module, "CHUNK", 1)
    found = with_gradient(spatial_kl(student, teacher, 4.0), student)
    assert found[0] == pytest.approx(whole[0], rel=EXACT)
    assert torch.equal(found[1], whole[1])


def test_a_factor_multiplies_the_teachers_channels() -> None:
    student, teacher = pair()
    factor = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    expected = with_gradient(channel_kl(student, teacher * factor[:, None, None], 4.0), student)
    for layout in LAYOUTS:
        laid = student.detach().contiguous(memory_format=layout).requires_grad_()
        found = with_gradient(spatial_kl(laid, teacher, 4.0, factor), laid)
        assert found[0] == pytest.approx(expected[0], rel=EXACT)
        torch.testing.assert_close(found[1], expected[1], rtol=EXACT, atol=1e-12)
    assert spatial_kl(student, teacher, 4.0).item() != pytest.approx(expected[0], rel=0.1)


def test_gradient_is_the_derivative() -> None:
    student, teacher = pair(shape=(2, 2, 3, 2))
    assert torch.autograd.gradcheck(lambda x: 5 * spatial_kl(x, teacher, 1.5), student)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = pair(dtype)
    expected, wanted = with_gradient(channel_kl(student, teacher, 4.0), student)
    with torch.autocast("cpu", dtype=dtype):
        loss = spatial_kl(student, teacher, 4.0)
    found, gradient = with_gradient(loss, student)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    assert found == pytest.approx(expected, rel=1e-5)  # both in float32
    bound = BFLOAT16 * wanted.abs().max().item() if dtype == torch.bfloat16 else 1e-6
    assert (gradient.float() - wanted.float()).abs().max().item() < bound


def test_a_float16_gradient_survives_what_a_scaler_multiplies() -> None:
    # The gradient itself (1e-8 here) is below float16's range; times 65536 it is not, if nothing was rounded before.
    student, teacher = pair(torch.float16, (2, 512, 32, 32))
    scale = 65536.0
    expected = torch.autograd.grad(scale * channel_kl(student, teacher, 4.0), student)[0]
    found = torch.autograd.grad(scale * spatial_kl(student, teacher, 4.0), student)[0]
    torch.testing.assert_close(found, expected, rtol=2**-10, atol=1e-6)
    assert found.abs().max() > 1e-3


def kept_bytes(loss: object, student: Tensor, teacher: Tensor) -> int:
    """What autograd saves for the backward pass, every storage once."""
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    assert callable(loss)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        value = loss(student * 1, teacher, 4.0)
    assert torch.isfinite(value)
    return sum(storages.values())


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_one_map_is_kept_for_the_backward_pass(dtype: torch.dtype, size: int) -> None:
    student, teacher = pair(dtype, (4, 16, 8, 8))
    assert kept_bytes(spatial_kl, student, teacher) == student.numel() * size
    assert kept_bytes(channel_kl, student, teacher) >= 2 * student.numel() * 4  # the partner: two maps at least, in float32


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    student, teacher = pair()
    assert spatial_kl(student.detach(), teacher, 4.0).item() == spatial_kl(student, teacher, 4.0).item()
    assert kept_bytes(spatial_kl, student.detach(), teacher) == 0


def test_no_gradient_reaches_the_teacher_and_no_second_one_is_promised() -> None:
    student, teacher = pair()
    teacher.requires_grad_()
    loss = spatial_kl(student, teacher, 4.0)
    torch.autograd.backward(loss, retain_graph=True)
    assert teacher.grad is None and student.grad is not None
    (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad|once_differentiable"):  # rather than a wrong one
        torch.autograd.backward(gradient.square().sum())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_offsets_of_channels_and_the_size_of_the_map_do_not_matter(layout: torch.memory_format) -> None:
    student, teacher = (x.detach().contiguous(memory_format=layout) for x in pair())
    plain = spatial_kl(student, teacher, 4.0).item()
    offset = 50 * torch.arange(4, dtype=torch.float64)[:, None, None]
    assert spatial_kl(student + offset, teacher, 4.0).item() == pytest.approx(plain, rel=1e-7)
    assert spatial_kl(student, teacher - offset, 4.0).item() == pytest.approx(plain, rel=1e-7)
    assert spatial_kl(student.tile(2, 2), teacher.tile(2, 2), 4.0).item() == pytest.approx(plain, rel=1e-6)
    assert spatial_kl(student * 2, teacher, 4.0).item() != pytest.approx(plain, rel=0.1)  # strength does


def test_it_tends_to_half_the_variance_of_the_difference() -> None:
    student, teacher = (x.detach() / 3 for x in pair(shape=(2, 4, 64, 64)))
    expected = 0.5 * (student - teacher).flatten(2).var(dim=-1, correction=0).mean().item()
    assert spatial_kl(student, teacher, 4.0).item() == pytest.approx(expected, rel=0.02)  # a second-order expansion in 1 / T


def test_features_of_magnitude_1e3_give_finite_gradients() -> None:
    student, teacher = (1e3 * x.detach().float() for x in pair())
    loss, gradient = with_gradient(spatial_kl(student.requires_grad_(), teacher, 4.0), student)
    assert math.isfinite(loss) and torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_maps_of_other_shapes_are_refused() -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match=r"student \(3, 4, 5, 6\) and teacher \(3, 4, 5, 5\)"):
        spatial_kl(student, teacher[..., :5], 4.0)
