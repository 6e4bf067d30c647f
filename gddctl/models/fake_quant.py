"""A student that computes as its INT8 graph will: folded weights, biases and activations rounded, gradients straight through.

Which tensors and which codes is decided by :mod:`gddctl.quant`, the same rule that the exporter reads; here it only meets tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.models.protocol import FEATURES, Outputs
from gddctl.models.segmenter import Segmenter
from gddctl.models.traced import IMAGE, Activation, Constant, Convolution, Operation, Parameter, Traced, filled
from gddctl.quant.choice import Choice, choose
from gddctl.quant.scheme import Affine, Scheme, activation_affine, bias_safe, quantise_bias, weight_scales

Size = tuple[int, int]  # (height, width)


class RoundToCode(torch.autograd.Function):
    """``scale * (clip(round(x / scale) + zero, low, high) - zero)``; gradient 1 where nothing was clipped, else 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
        """Shape: x any, scale broadcast against it -> as x, float32. Halves go to the even code."""
        codes = (x.float() / scale).round_().add_(zero)
        ctx.save_for_backward((codes >= low) & (codes <= high))
        return codes.clamp_(low, high).sub_(zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None, None


class Replace(torch.autograd.Function):
    """The second tensor, with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, replacement: Tensor) -> Tensor:
        """Shape: both the same."""
        return replacement.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through."""
        return gradients[0], None


class Ranges(nn.Module):
    """Lowest and highest value of every quantised tensor, widened by what is seen, then left alone."""

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self._place = {name: index for index, name in enumerate(self.names)}
        self.register_buffer("low", torch.full((len(names),), float("inf")))
        self.register_buffer("high", torch.full((len(names),), float("-inf")))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # images
        self._plain: dict[str, tuple[float, float]] = {}
        self._plain_of: tuple[int, int] | None = None  # versions of the tensors that it was read from

    def widen(self, name: str, values: Tensor) -> None:
        """Take ``values`` of the tensor ``name`` into account."""
        low, high = torch.aminmax(values.detach().float())
        place = self._place[name]
        self.low[place] = torch.minimum(self.low[place], low)
        self.high[place] = torch.maximum(self.high[place], high)

    def plain(self) -> Mapping[str, tuple[float, float]]:
        """(lowest, highest) by tensor."""
        now = self.low._version, self.high._version
        if self._plain_of != now:
            self._plain = dict(zip(self.names, zip(self.low.tolist(), self.high.tolist(), strict=True), strict=True))
            self._plain_of = now
        return self._plain


class FakeQuantised(nn.Module):
    """Runs ``network`` by its live weights as an INT8 graph would.

    The network stays what it is: its parameters train, its state dict is what ships, its batch norms' statistics never change, and
    dropout and auxiliary head take no part.

    Args:
        network: the student, without auxiliary head.
        scheme: types, bits and placement of the target.
        traced: its steps by the size of the images that will come; the first is that of the exported graph.
        ranges: of the quantised tensors, shared with another; None: none are known yet.

    Raises:
        ValueError: the network has other tensors at another size.
    """

    def __init__(self, network: Segmenter, scheme: Scheme, traced: Mapping[Size, Traced], ranges: Ranges | None = None) -> None:
        super().__init__()
        self.network = network
        self.scheme = scheme
        self._traced = dict(traced)
        choices = [choose(found.ops(), [found.logits], scheme.placement) for found in self._traced.values()]
        self.choice: Choice = choices[0]
        if any(choice != self.choice for choice in choices):
            raise ValueError(f"the network has other tensors at {' and '.join(map(str, self._traced))}")
        self.ranges = ranges or Ranges(self.choice.tensors)
        self._constants: dict[Size, list[str]] = {}
        for place, (size, found) in enumerate(self._traced.items()):
            self._constants[size] = [f"constant_{place}_{index}" for index in range(len(found.constants))]
            for name, value in zip(self._constants[size], found.constants, strict=True):
                self.register_buffer(name, value, persistent=False)
        self._codes: dict[str, tuple[Tensor, Affine]] = {}
        self._coded_from: tuple[Mapping[str, tuple[float, float]], torch.device] | None = None

    def of(self, network: Segmenter) -> FakeQuantised:
        """The same for another network of the same form, on the same ranges."""
        return FakeQuantised(network, self.scheme, self._traced, self.ranges).to(self.ranges.low.device)

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised, of one of the sizes -> logits at the head's size, features as later layers read them."""
        codes = self._codes_on(images.device)
        # What is judged is what ships: training may multiply in half precision, everything else is float32.
        halves = nullcontext() if self.training else torch.autocast(images.device.type, enabled=False)

        with halves:
            return self._run(images, lambda name, value: self._coded(codes, name, value), self._kernels(codes))

    def predict_logits(self, images: Tensor) -> Tensor:
        """Logits at the input's size. Shape: (B, 3, H, W) -> (B, K, H, W)."""
        return F.interpolate(self(images).logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    @torch.no_grad()
    def observe(self, images: Tensor) -> None:
        """Widen the ranges by what the network, folded but not rounded, makes of ``images``."""
        quantised = set(self.ranges.names)

        def activation(name: str, value: Tensor) -> Tensor:
            if name in quantised:
                self.ranges.widen(name, value)
            return value

        self._run(images, activation, {})
        self.ranges.seen += len(images)

    @torch.no_grad()
    def extremes(self, images: Tensor) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of every tensor, the rounded ones before they are rounded, as ``images`` make them."""
        codes, found = self._codes_on(images.device), dict[str, Tensor]()

        def activation(name: str, value: Tensor) -> Tensor:
            found[name] = torch.stack(torch.aminmax(value))
            return self._coded(codes, name, value)

        self._run(images, activation, self._kernels(codes))
        return {
            name: (float(low), float(high)) for name, (low, high) in zip(found, torch.stack(list(found.values())).tolist(), strict=True)
        }

    def _coded(self, codes: Mapping[str, tuple[Tensor, Affine]], name: str, value: Tensor) -> Tensor:
        if name not in codes:
            return value
        scale, code = codes[name]
        return _rounded(value, scale, code.zero_point, self.scheme.limits)

    def _run(
        self, images: Tensor, activation: Callable[[str, Tensor], Tensor], kernels: Mapping[str, tuple[Tensor, Tensor | None]]
    ) -> Outputs:
        """All steps; ``kernels`` are the rounded weights and biases by output, the others are folded as they are."""
        size = (images.shape[-2], images.shape[-1])
        if size not in self._traced:
            raise ValueError(f"images of {size[0]}x{size[1]}; traced for {', '.join(f'{h}x{w}' for h, w in self._traced)}")
        traced, constants = self._traced[size], self._constants[size]
        last = traced.last_use()
        values = {IMAGE: activation(IMAGE, images)}

        def look_up(item: Activation | Parameter | Constant) -> Tensor:
            match item:
                case Activation():
                    return values[item.name]
                case Parameter():
                    return _tensor(self.network, item.path)
                case Constant():
                    return self.get_buffer(constants[item.index])
                case _:
                    assert_never(item)

        for index, step in enumerate(traced.steps):
            match step:
                case Convolution():
                    weight, bias = kernels[step.output] if step.output in kernels else fold(self.network, step)
                    made = F.conv2d(values[step.source], weight, bias, *step.geometry).float()
                case Operation():
                    with torch.autocast(images.device.type, enabled=False):
                        made = step.call(*filled(step, look_up))
                case _:
                    assert_never(step)
            values[step.output] = activation(step.output, made)
            for name in step.sources:
                if last[name] == index:
                    values.pop(name, None)
        features = dict(zip(FEATURES, (values[name] for name in traced.features), strict=True))
        return Outputs(logits=values[traced.logits], features=features)

    def _kernels(self, codes: Mapping[str, tuple[Tensor, Affine]]) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Folded and rounded weight and bias of every integer convolution, by output.

        The scales are found by the rule itself, from peaks and biases that go to the host together, once for the whole network.
        """
        traced = next(iter(self._traced.values()))
        steps = [step for step in traced.steps if isinstance(step, Convolution) and step.output not in self.choice.float_convs]
        folded = [fold(self.network, step) for step in steps]
        peaks = _to_host([weight.detach().abs().amax((1, 2, 3)) for weight, _ in folded])
        biases = _to_host([weight.new_zeros(0) if bias is None else bias.detach() for weight, bias in folded])
        scales, rounded = [], []
        for step, peak, bias in zip(steps, peaks, biases, strict=True):
            found, input_scale = weight_scales(peak[:, None], self.scheme), codes[step.source][1].scale
            if self.scheme.bias == "int32" and bias.size:
                found = bias_safe(found, bias, input_scale)
                bias = quantise_bias(bias, input_scale, found) * (np.float32(input_scale) * found)
            scales.append(found)
            rounded.append(bias.astype(np.float32))
        device, limit = folded[0][0].device, self.scheme.weight_limit
        kernels: dict[str, tuple[Tensor, Tensor | None]] = {}
        found_here = zip(steps, folded, _to_device(scales, device), _to_device(rounded, device), strict=True)
        for step, (weight, plain_bias), scale, bias_value in found_here:
            kernel = _rounded(weight, scale[:, None, None, None], 0, (-limit, limit))
            kernels[step.output] = kernel, None if plain_bias is None else _replaced(plain_bias, bias_value)
        return kernels

    def _codes_on(self, device: torch.device) -> dict[str, tuple[Tensor, Affine]]:
        """Scale (on ``device``) and code of every chosen tensor, made anew when the ranges are others."""
        ranges = self.ranges.plain()
        if self._coded_from is None or self._coded_from[0] is not ranges or self._coded_from[1] != device:
            affine = {name: _affine(ranges[self.choice.code_of(name)], self.scheme) for name in self.choice.tensors}
            self._codes = {name: (torch.tensor(code.scale, device=device), code) for name, code in affine.items()}
            self._coded_from = ranges, device
        return self._codes


def fold(network: nn.Module, step: Convolution) -> tuple[Tensor, Tensor | None]:
    """Weight (O, I, h, w) and bias (O,) of a convolution with its batch norm's frozen statistics in them, float32, differentiable."""
    weight = _tensor(network, step.weight).float()
    bias = None if step.bias is None else _tensor(network, step.bias).float()
    norm = step.norm
    if norm is None:
        return weight, bias
    factor = _tensor(network, norm.weight) / torch.sqrt(_tensor(network, norm.variance) + norm.eps)
    shifted = -_tensor(network, norm.mean) if bias is None else bias - _tensor(network, norm.mean)
    return weight * factor[:, None, None, None], _tensor(network, norm.bias) + shifted * factor


def _tensor(network: nn.Module, path: str) -> Tensor:
    """The parameter or buffer at ``path``."""
    module, _, name = path.rpartition(".")
    found = getattr(network.get_submodule(module), name)
    assert isinstance(found, Tensor)
    return found


def _to_host(parts: Sequence[Tensor]) -> list[NDArray[np.float32]]:
    """In one transfer."""
    whole: NDArray[np.float32] = torch.cat(list(parts)).cpu().numpy()
    return np.split(whole, np.cumsum([len(part) for part in parts])[:-1])


def _to_device(parts: Sequence[NDArray[np.float32]], device: torch.device) -> list[Tensor]:
    """In one transfer."""
    whole = torch.from_numpy(np.concatenate(parts)).to(device)
    return list(torch.split(whole, [len(part) for part in parts]))


def _affine(bounds: tuple[float, float], scheme: Scheme) -> Affine:
    return activation_affine(bounds[0], bounds[1], scheme)


def _rounded(x: Tensor, scale: Tensor, zero: int, limits: tuple[int, int]) -> Tensor:
    result: Tensor = RoundToCode.apply(x, scale, zero, *limits)
    return result


def _replaced(x: Tensor, value: Tensor) -> Tensor:
    result: Tensor = Replace.apply(x, value)
    return result
