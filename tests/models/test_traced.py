"""A student's steps carry the names of its exported graph, and compute what the student computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.errors import ConfigError
from gddctl.export.graph_file import load_model
from gddctl.export.onnx_graph import export_logits
from gddctl.export.onnx_ops import choice_of
from gddctl.models.checkpoint import load_bundle, save_bundle
from gddctl.models.fake_quant import fold
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.traced import Convolution, Traced, trace
from gddctl.quant.choice import Placement, choose

Made = tuple[Segmenter, Traced, Any]
NETWORKS = [
    *("resnet18", "pspnet", "deeplabv3", "deeplabv3plus"),
    *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("fpn", "upernet")),  # large heads: half a minute of exporting
]
PLACEMENTS: tuple[Placement, ...] = ("codes", "inputs")


@pytest.fixture(scope="module")
def made(psp: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Name -> the network, its steps, its exported graph: the shared ResNet-18 PSPNet, or an architecture on a tiny encoder."""
    found: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in found:
            bundle, exported = (psp.bundle, psp.fp32) if name == "resnet18" else _tiny(psp, name, tmp_path_factory.mktemp(name))
            network, card = load_bundle(bundle)
            found[name] = network, trace(network, card.preprocess.size), load_model(exported.path)
        return found[name]

    return make


def _tiny(psp: Any, arch: str, folder: Path) -> tuple[Path, Artifact]:
    card = read_card(psp.bundle)
    network = NetworkConfig.model_validate({"arch": arch, "encoder": "tu-test_resnet", "output_stride": 32})
    torch.manual_seed(0)
    model = build_segmenter(network, len(card.classes), aux=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = 0.1 * torch.randn_like(module.weight), 0.5 + torch.rand_like(module.weight)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    save_bundle(folder / "bundle", model, card.model_copy(update={"network": network}))
    return folder / "bundle", export_logits(folder / "bundle", folder / "fp32.onnx")


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("arch", NETWORKS)
def test_training_and_export_quantise_the_same_tensors(made: Callable[[str], Made], arch: str, placement: Placement) -> None:
    _, traced, model = made(arch)
    exported = choice_of(model, placement)
    assert choose(traced.ops(), [traced.logits], placement) == exported
    assert len(exported.tensors) > 20  # or both chose nothing


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_another_step_would_show(made: Callable[[str], Made], placement: Placement) -> None:
    """Partner of the comparison: a network without its pooling, or under another placement's rule, is told apart."""
    _, traced, model = made("resnet18")
    exported = choice_of(model, placement)
    assert choose(traced.ops(), [traced.logits], PLACEMENTS[placement == "codes"]) != exported
    pool = next(op for op in traced.ops() if op.kind == "MaxPool")
    others = [replace(op, inputs=tuple(pool.inputs[0] if name == pool.output else name for name in op.inputs)) for op in traced.ops()]
    assert choose([op for op in others if op.kind != "MaxPool"], [traced.logits], placement) != exported


@pytest.mark.parametrize("arch", NETWORKS)
def test_folded_weights_are_the_exporters(made: Callable[[str], Made], arch: str) -> None:
    from onnx import numpy_helper

    network, traced, model = made(arch)
    constants = {item.name: item for item in model.graph.initializer}
    exported = {node.output[0]: [numpy_helper.to_array(constants[name]) for name in node.input[1:]] for node in convs(model)}
    steps = [step for step in traced.steps if isinstance(step, Convolution)]
    assert {step.output for step in steps} == exported.keys()
    for step in steps:
        weight, bias = fold(network, step)
        torch.testing.assert_close(weight.detach(), torch.from_numpy(exported[step.output][0].copy()), rtol=1e-5, atol=1e-6)
        if bias is not None:
            zeros = np.zeros(len(weight), np.float32)  # the exporter leaves out a bias of zeros
            found = exported[step.output][1] if len(exported[step.output]) > 1 else zeros
            torch.testing.assert_close(bias.detach(), torch.from_numpy(found.copy()), rtol=1e-4, atol=1e-5)


def convs(model: Any) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def test_the_networks_mode_stays_as_it_was() -> None:
    network = build_segmenter(NetworkConfig(encoder="tu-test_resnet", output_stride=32), 3, aux=False)
    trace(network.train(), (64, 96))
    assert network.training and all(module.training for module in network.modules())


class Stages(nn.Module):
    """An encoder of four stages, the first as given, the others pooled from it."""

    out_channels = (4, 4, 4, 4)

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first = first

    def forward(self, images: Tensor) -> list[Tensor]:
        found = [self.first(images)]
        for _ in range(3):
            found.append(torch.max_pool2d(found[-1], 2))
        return found


class Last(nn.Module):
    """A head of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(4, 3, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.classifier(features[-1]), features[-1]


class Branching(nn.Module):
    """A convolution that more than its batch norm reads: it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.relu(self.norm(y) + y)


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU()), "silu"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), "batch_norm"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)), "batch_norm"),
        (Branching(), "batch_norm"),
        (nn.ConvTranspose2d(3, 4, 1), "conv_transpose2d"),
    ],
    ids=["silu", "norm after relu", "norm of the image", "branch before the norm", "transposed"],
)
def test_what_is_not_known_is_named(first: nn.Module, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"does not know the operation aten\.{named}"):
        trace(Segmenter(Stages(first), Last(), 3), (32, 32))


def test_what_is_known_is_followed() -> None:
    """Partner of the refusals above: the same frame around a convolution with its norm."""
    first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    traced = trace(Segmenter(Stages(first), Last(), 3), (32, 32))
    assert [op.output for op in traced.ops()] == [
        "encoder.first.0",
        "encoder.first.0.relu",
        "encoder.first.0.relu.maxpool",
        "encoder.first.0.relu.maxpool.maxpool",
        "encoder.first.0.relu.maxpool.maxpool.maxpool",
        "head.classifier",
    ]
