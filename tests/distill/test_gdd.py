"""GDD against the description of its equation and its known properties."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.gdd import Noise
from gddctl.distill.losses import channel_kl
from gddctl.distill.methods.denoise import GddLoss

CHANNELS = 6
CANCELLED = 1e-4  # float32 sums of CHANNELS * 9 products, against outputs of unit scale


def feature(channels: int = CHANNELS, size: tuple[int, int] = (5, 7), batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *size).relu()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def convolutions(loss: GddLoss) -> tuple[nn.Conv2d, nn.Conv2d]:
    first, last = loss.generator[0], loss.generator[2]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    return first, last


def make_identity(loss: GddLoss) -> None:
    """For non-negative features: identity, ReLU, identity."""
    for convolution in convolutions(loss):
        nn.init.dirac_(convolution.weight)
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)


def test_the_whole_is_the_equation() -> None:
    torch.manual_seed(0)
    loss = GddLoss(4, CHANNELS, weight=7.0, temperature=2.0, generator=seeded())
    student, teacher = feature(4), feature()
    noise = torch.randn(2, 1, 5, 7, generator=seeded())  # one field per image
    first, last = convolutions(loss)
    assert isinstance(loss.align, nn.Conv2d)
    aligned = F.conv2d(student, loss.align.weight, loss.align.bias) + noise
    generated = F.conv2d(F.conv2d(aligned, first.weight, first.bias, padding=1).relu(), last.weight, last.bias, padding=1)
    assert loss(student, teacher).item() == pytest.approx(7.0 * channel_kl(generated, teacher, 2.0).item(), rel=1e-5)


def test_zero_when_the_generator_is_the_identity_and_the_features_agree() -> None:
    loss = GddLoss(CHANNELS, CHANNELS, noise="none")
    make_identity(loss)
    teacher = feature()
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-3)  # weight 145 * T^2 times float32 rounding
    assert loss(feature(), teacher).item() > 1
    noisy = GddLoss(CHANNELS, CHANNELS, noise="shared")
    make_identity(noisy)
    assert noisy(teacher, teacher).item() > 1


def test_align_exists_only_when_channels_differ() -> None:
    assert isinstance(GddLoss(4, 4).align, nn.Identity)
    assert isinstance(GddLoss(4, 6).align, nn.Conv2d)


def test_a_student_of_another_size_is_resized() -> None:
    loss = GddLoss(CHANNELS, CHANNELS, noise="none")
    student, teacher = feature(size=(3, 4)), feature()
    resized = F.interpolate(student, size=(5, 7), mode="bilinear", align_corners=False)
    assert loss(student, teacher).item() == loss(resized, teacher).item()


@pytest.mark.parametrize(("noise", "channels"), [("shared", 1), ("channel", CHANNELS)])
def test_noise_is_one_field_or_one_per_channel_of_the_given_spread(noise: Noise, channels: int) -> None:
    loss = GddLoss(CHANNELS, CHANNELS, noise=noise, noise_std=0.5, generator=seeded())
    aligned = torch.zeros(4, CHANNELS, 64, 64)
    field = loss.with_noise(aligned)
    assert len({field[0, c].sum().item() for c in range(CHANNELS)}) == channels
    assert len({field[n, 0].sum().item() for n in range(4)}) == 4  # each image its own
    assert field.std().item() == pytest.approx(0.5, rel=0.02)  # 16384 draws at least: 0.6 % standard error
    assert field.mean().item() == pytest.approx(0, abs=0.02)
    assert not torch.equal(field, loss.with_noise(aligned))  # fresh at every call


def test_relative_noise_follows_the_features_spread_without_gradient() -> None:
    loss = GddLoss(CHANNELS, CHANNELS, noise="channel", noise_std=0.5, relative=True, generator=seeded())
    aligned = torch.randn(2, CHANNELS, 64, 64) * torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    aligned.requires_grad_()
    noisy = loss.with_noise(aligned)
    spread = (noisy - aligned).std(dim=(1, 2, 3)).tolist()
    assert spread == pytest.approx([0.5, 5.0], rel=0.05)
    torch.autograd.backward(noisy.sum())
    assert aligned.grad is not None and torch.equal(aligned.grad, torch.ones_like(aligned))


def test_no_noise_draws_nothing() -> None:
    torch.manual_seed(0)
    GddLoss(CHANNELS, CHANNELS, noise="none").with_noise(feature())
    after = torch.get_rng_state()
    torch.manual_seed(0)
    GddLoss(CHANNELS, CHANNELS), feature()
    assert torch.equal(after, torch.get_rng_state())


def test_a_generator_can_cancel_shared_noise_but_not_noise_per_channel() -> None:
    torch.manual_seed(0)
    student = feature()
    outputs = {}
    for noise in ("none", "shared", "channel"):
        torch.manual_seed(1)
        loss = GddLoss(CHANNELS, CHANNELS, noise=noise)
        first, _ = convolutions(loss)
        with torch.no_grad():
            first.weight -= first.weight.mean(dim=1, keepdim=True)  # nine sums per filter become zero
        outputs[noise] = loss.generator(loss.with_noise(student))
    assert (outputs["shared"] - outputs["none"]).abs().max() < CANCELLED
    assert (outputs["channel"] - outputs["none"]).abs().max() > 100 * CANCELLED


def test_diagnostics_show_the_cancelling() -> None:
    torch.manual_seed(0)
    loss = GddLoss(CHANNELS, 64)
    assert loss.diagnostics()["noise_gain"] == pytest.approx(1.0, abs=0.1)  # independent weights: the sum grows like the norm
    student = feature()
    loss(student, feature(64))
    assert loss.diagnostics()["aligned_std"] == pytest.approx(loss.align(student).std().item())
    first, _ = convolutions(loss)
    with torch.no_grad():
        first.weight -= first.weight.mean(dim=1, keepdim=True)
    assert loss.diagnostics()["noise_gain"] < 1e-5


def test_gradient_is_finite_for_features_of_magnitude_1e3() -> None:
    loss = GddLoss(4, CHANNELS)
    student = (1e3 * feature(4)).requires_grad_()
    torch.autograd.backward(loss(student, 1e3 * feature()))
    gradients = [student.grad, *(parameter.grad for parameter in loss.parameters())]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_a_finite_float32_loss_near_the_float32_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    loss = GddLoss(4, CHANNELS, noise="none")
    student, teacher = feature(4), feature()
    expected = loss(student, teacher)
    with torch.autocast("cpu", dtype=dtype):
        found = loss(student.to(dtype), teacher.to(dtype))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.05)  # bf16 convolutions: 8 bits of mantissa
    torch.autograd.backward(found)
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in loss.parameters())


def test_the_last_bias_cannot_matter() -> None:
    # A constant added to a channel leaves its spatial softmax as it is: this bias is in the published form and learns nothing.
    loss = GddLoss(CHANNELS, CHANNELS, noise="none")
    student, teacher = feature(), feature()
    before = loss(student, teacher).item()
    _, last = convolutions(loss)
    assert last.bias is not None
    with torch.no_grad():
        last.bias += torch.randn(CHANNELS)
    assert loss(student, teacher).item() == pytest.approx(before, rel=1e-4)
