"""Fake quantisation is the exporter's arithmetic with a gradient: equal to numpy by the rule, and nothing but weights trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gddctl.core.config.sections import NetworkConfig
from gddctl.models.fake_quant import FakeQuantised, Ranges, RoundToCode, fold
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.traced import Convolution, Traced, trace
from gddctl.quant.scheme import (
    Scheme,
    activation_affine,
    bias_safe,
    cpu_scheme,
    openvino_scheme,
    quantise_bias,
    quantise_weight,
    tensorrt_scheme,
    weight_scales,
)

SCHEMES = {
    "vnni": cpu_scheme(x86=True, saturates=False),
    "seven bits": cpu_scheme(x86=True, saturates=True),
    "arm": cpu_scheme(x86=False, saturates=False),
    "openvino": openvino_scheme(),
    "tensorrt": tensorrt_scheme(),
}
Quantise = Callable[[Scheme], FakeQuantised]
SIZE = (48, 64)
NETWORK = NetworkConfig(encoder="tu-test_resnet", output_stride=32)


@pytest.fixture(params=list(SCHEMES.values()), ids=list(SCHEMES))
def scheme(request: pytest.FixtureRequest) -> Scheme:
    found: Scheme = request.param
    return found


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def settled(images: torch.Tensor) -> Segmenter:
    """A small student whose batch norms have seen something."""
    torch.manual_seed(0)
    network = build_segmenter(NETWORK, 5, aux=False).train()
    with torch.no_grad():
        for _ in range(20):
            network(images + 0.1 * torch.randn_like(images))
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def traced(settled: Segmenter) -> dict[tuple[int, int], Traced]:
    return {SIZE: trace(settled, SIZE)}


@pytest.fixture
def quantised(settled: Segmenter, traced: dict[tuple[int, int], Traced], images: torch.Tensor) -> Quantise:
    """Scheme -> a copy of the student that computes by it, its ranges those of ``images``."""

    def make(scheme: Scheme) -> FakeQuantised:
        found = FakeQuantised(copy.deepcopy(settled), scheme, traced)
        found.observe(images)
        return found

    return make


def rounded(x: Any, low: float, high: float, scheme: Scheme) -> torch.Tensor:
    code = activation_affine(low, high, scheme)
    result: torch.Tensor = RoundToCode.apply(x, torch.tensor(code.scale), code.zero_point, *scheme.limits)
    return result


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.0, 7.3), (-1e-3, 2e-3), (0.0, 0.0)])
def test_activations_equal_numpy_bit_for_bit(scheme: Scheme, low: float, high: float) -> None:
    x: NDArray[np.float32] = np.random.default_rng(0).normal(0, max(high, 1.0), 20_000).astype(np.float32)
    code = activation_affine(low, high, scheme)
    codes = np.clip(np.rint(x / np.float32(code.scale)) + code.zero_point, *scheme.limits)
    wanted = ((codes - code.zero_point) * np.float32(code.scale)).astype(np.float32)
    assert np.array_equal(rounded(torch.from_numpy(x), low, high, scheme).numpy(), wanted)


def test_halves_go_to_the_even_code() -> None:
    # scale 1, codes 0..255: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2; what is beyond is clipped
    x = torch.tensor([0.5, 1.5, 2.5, -4.0, 300.0])
    assert rounded(x, 0.0, 255.0, SCHEMES["vnni"]).tolist() == [0.0, 2.0, 2.0, 0.0, 255.0]


def test_the_gradient_is_one_inside_and_zero_outside() -> None:
    # scale 1, zero point 100: values -100..155
    x = torch.tensor([-101.0, -100.0, 0.3, 155.0, 156.0], requires_grad=True)
    torch.autograd.backward(rounded(x, -100.0, 155.0, SCHEMES["vnni"]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]


def test_weights_and_biases_equal_numpy_bit_for_bit(quantised: Quantise, images: torch.Tensor, scheme: Scheme) -> None:
    fake = quantised(scheme)
    codes = fake._codes_on(images.device)
    kernels = fake._kernels(codes)
    steps = [step for step in fake._traced[SIZE].steps if isinstance(step, Convolution)]
    assert {step.output for step in steps} - kernels.keys() == {"head.classifier"}
    with_bias = 0
    for step in steps:
        if step.output not in kernels:
            continue
        weight, bias = (None if part is None else part.detach().numpy() for part in fold(fake.network, step))
        assert weight is not None
        input_scale = codes[step.source][1].scale
        scales = weight_scales(weight, scheme)
        if scheme.bias == "int32" and bias is not None:
            scales = bias_safe(scales, bias, input_scale)
            bias = quantise_bias(bias, input_scale, scales).astype(np.float32) * (np.float32(input_scale) * scales)
            with_bias += 1
        found_weight, found_bias = kernels[step.output]
        wanted = quantise_weight(weight, scales, scheme).astype(np.float32) * scales[:, None, None, None]
        assert np.array_equal(found_weight.detach().numpy(), wanted)
        if bias is not None:
            assert found_bias is not None and np.array_equal(found_bias.detach().numpy(), bias)
    assert with_bias == (0 if scheme.bias == "float" else len(kernels))


def test_a_bias_beyond_its_code_widens_the_scale(quantised: Quantise, images: torch.Tensor) -> None:
    """A channel that is nearly all bias: at the weights' own scale its 32-bit code would overflow."""
    fake = quantised(SCHEMES["vnni"])
    step = next(step for step in fake._traced[SIZE].steps if isinstance(step, Convolution) and step.norm is not None)
    assert step.norm is not None
    with torch.no_grad():
        fake.network.get_parameter(step.norm.weight)[0] = 1e-9
        fake.network.get_parameter(step.norm.bias)[0] = 5.0
    _, bias = fake._kernels(fake._codes_on(images.device))[step.output]
    assert bias is not None
    assert float(bias.detach()[0]) == pytest.approx(5.0, rel=1e-6)


def test_rounding_costs_little_and_is_really_there(settled: Segmenter, quantised: Quantise, images: torch.Tensor, scheme: Scheme) -> None:
    fake = quantised(scheme)
    with torch.no_grad():
        plain, found = settled.predict_logits(images), fake.predict_logits(images)
        again = fake(images)
    noise = float((found - plain).square().mean() / plain.square().mean())
    assert 1e-6 < noise < 0.1  # 10 to 60 dB: neither untouched nor another network
    outputs = settled(images)
    assert again.aux is None and again.features.keys() == outputs.features.keys()
    assert [value.shape for value in again.features.values()] == [value.shape for value in outputs.features.values()]


def test_without_rounding_it_is_the_network(settled: Segmenter, quantised: Quantise, images: torch.Tensor) -> None:
    """The steps by themselves, batch norms folded: equal to the network but for the order of sums."""
    fake = quantised(SCHEMES["vnni"])
    with torch.no_grad():
        found = fake._run(images, lambda name, value: value, {})
        wanted = settled(images)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    for name, value in wanted.features.items():
        torch.testing.assert_close(found.features[name], value, rtol=1e-4, atol=1e-4)


def test_weights_train_and_statistics_do_not(settled: Segmenter, quantised: Quantise, images: torch.Tensor, scheme: Scheme) -> None:
    fake = quantised(scheme).train()
    before = {name: value.clone() for name, value in fake.network.state_dict().items()}
    ranges = dict(fake.ranges.plain())
    optimizer = torch.optim.SGD(fake.parameters(), lr=0.05)
    fake(images).logits.square().mean().backward()
    assert all(parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()) for parameter in fake.network.parameters())
    optimizer.step()
    changed = {name for name, value in fake.network.state_dict().items() if not torch.equal(value, before[name])}
    parameters = {name for name, _ in fake.network.named_parameters()}
    assert changed <= parameters  # no running mean, no variance, no counter
    assert len(changed) > 0.9 * len(parameters)
    assert fake.ranges.plain() == ranges
    assert before.keys() == settled.state_dict().keys()


def test_half_precision_is_for_training_alone(quantised: Quantise, images: torch.Tensor) -> None:
    fake = quantised(SCHEMES["vnni"])
    with torch.no_grad():
        plain = fake.eval().predict_logits(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(fake.predict_logits(images), plain)
            training = fake.train()(images)
    assert training.logits.dtype == torch.float32
    assert not torch.equal(training.logits, fake(images).logits)
    with torch.autocast("cpu", torch.bfloat16):
        fake(images).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in fake.network.parameters())


def test_another_network_on_the_same_ranges(quantised: Quantise, images: torch.Tensor) -> None:
    fake = quantised(SCHEMES["vnni"]).eval()
    other = copy.deepcopy(fake.network)
    with torch.no_grad():
        other.get_parameter("head.classifier.bias").add_(1.0)
        found, plain = fake.of(other).eval()(images).logits, fake(images).logits
    assert fake.of(other).ranges is fake.ranges
    torch.testing.assert_close(found, plain + 1.0)


def test_extremes_are_those_of_the_rounded_network(quantised: Quantise, images: torch.Tensor) -> None:
    fake = quantised(SCHEMES["vnni"])
    with torch.no_grad():
        logits = fake(images).logits
    found = fake.extremes(images)
    assert found["head.classifier"] == (float(logits.min()), float(logits.max()))
    assert found["image"] == (float(images.min()), float(images.max()))  # before it is rounded
    assert found.keys() >= set(fake.ranges.names)


def test_ranges_only_widen_and_are_read_again_when_loaded() -> None:
    ranges = Ranges(["a", "b"])
    ranges.widen("a", torch.tensor([-1.0, 2.0]))
    ranges.widen("a", torch.tensor([0.5]))
    ranges.widen("b", torch.tensor([3.0]))
    assert ranges.plain() == {"a": (-1.0, 2.0), "b": (3.0, 3.0)}
    ranges.load_state_dict({**ranges.state_dict(), "high": torch.tensor([9.0, 9.0])})
    assert ranges.plain() == {"a": (-1.0, 9.0), "b": (3.0, 9.0)}


def test_new_ranges_give_new_codes(quantised: Quantise, images: torch.Tensor) -> None:
    fake = quantised(SCHEMES["vnni"])
    with torch.no_grad():
        before = fake(images).logits
        fake.ranges.high.mul_(0.5)
        assert not torch.equal(fake(images).logits, before)


def test_a_size_that_was_not_traced_is_refused(quantised: Quantise, images: torch.Tensor) -> None:
    fake = quantised(SCHEMES["vnni"])
    with pytest.raises(ValueError, match="images of 32x64; traced for 48x64"):
        fake(images[:, :, :32])


def test_other_tensors_at_another_size_are_refused(settled: Segmenter) -> None:
    """At 32 x 32 the deepest map is one place: no branch is resized any more."""
    with pytest.raises(ValueError, match="other tensors"):
        FakeQuantised(settled, SCHEMES["vnni"], {size: trace(settled, size) for size in (SIZE, (32, 32))})


def test_two_sizes_share_ranges_and_answer_each_for_itself(settled: Segmenter) -> None:
    sizes = [(64, 96), (64, 128)]  # the map is resized behind every pooling at both
    fake = FakeQuantised(settled, SCHEMES["tensorrt"], {size: trace(settled, size) for size in sizes})
    for size in sizes:
        fake.observe(torch.randn(1, 3, *size))
    assert int(fake.ranges.seen) == 2
    for height, width in sizes:
        assert fake.predict_logits(torch.randn(2, 3, height, width)).shape == (2, 5, height, width)
