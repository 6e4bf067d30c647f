"""torchvision's segmentation networks: FCN, DeepLabV3 and LR-ASPP, with the features on their way."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gddctl.core.artifact.network import TorchvisionNetwork
from gddctl.core.config.external import TorchvisionArch, TorchvisionSource
from gddctl.core.lazy import require
from gddctl.models.found import Found
from gddctl.models.pickled import read_checkpoint, with_counters
from gddctl.models.protocol import HEAD, STAGES, Outputs
from gddctl.models.weights import load_strictly

AUX_PREFIX = "aux_classifier."
_CLASSIFIERS = {"fcn": "classifier.4.weight", "deeplabv3": "classifier.4.weight", "lraspp": "classifier.low_classifier.weight"}


class TorchvisionBody(nn.Module):
    """One of torchvision's networks taken apart at its seams, so that features come out and logits stay at their own size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # Under the names of torchvision's own state dict.
        self.backbone = cast(nn.Module, model.backbone)
        self.classifier = cast(nn.Module, model.classifier)

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised -> logits at stride 8 (16: mobilenet's deeplabv3)."""
        maps: dict[str, Tensor] = {}
        x = images
        for name, layer in cast(nn.ModuleDict, self.backbone).items():
            x = layer(x)
            maps[name] = x
        features = {stage: maps[name] for stage, name in zip(STAGES, _stage_ends(self.backbone), strict=True)}
        if not isinstance(self.classifier, nn.Sequential):  # LR-ASPP: two classifiers added up, so no one feature is read
            read = {word: maps[name] for name, word in cast(dict[str, str], self.backbone.return_layers).items()}
            return Outputs(logits=self.classifier(read), features=features)
        for layer in list(self.classifier)[:-1]:
            x = layer(x)
        return Outputs(logits=self.classifier[-1](x), features={**features, HEAD: x})


def build_torchvision(arch: TorchvisionArch, outputs: int) -> nn.Module:
    """The network without its auxiliary head, with random weights."""
    return TorchvisionBody(_model(arch, outputs, aux=False))


def read_torchvision(source: TorchvisionSource) -> Found:
    """A state dict, with or without the auxiliary head.

    Raises:
        UsageError, ArtifactError: no such file; damaged; other keys or shapes than this network's.
    """
    checkpoint = read_checkpoint(source.path)
    classifier = checkpoint.state.get(_CLASSIFIERS[source.arch.partition("_")[0]])
    outputs = classifier.shape[0] if classifier is not None else 1
    has_aux = not source.arch.startswith("lraspp") and any(key.startswith(AUX_PREFIX) for key in checkpoint.state)
    model = _model(source.arch, outputs, aux=has_aux)
    load_strictly(model, with_counters(checkpoint.state, model), place=str(source.path), expected=f"torchvision's {source.arch}")
    return Found(
        body=TorchvisionBody(model),
        outputs=outputs,
        describe=lambda common: TorchvisionNetwork(arch=source.arch, **common),
    )


def _model(arch: TorchvisionArch, outputs: int, *, aux: bool) -> nn.Module:
    segmentation = require("torchvision.models.segmentation", extra="train", why=f"a teacher from torchvision ({arch})")
    more = {} if arch.startswith("lraspp") else {"aux_loss": aux}
    model: nn.Module = getattr(segmentation, arch)(weights=None, weights_backbone=None, num_classes=outputs, **more)
    return model


def _stage_ends(backbone: nn.Module) -> list[str]:
    """The layers that end the last four stages: ResNet's own, or of MobileNet those before a layer that strides (or dilates instead)."""
    layers = cast(nn.ModuleDict, backbone)
    names = list(layers.keys())
    if "layer4" in names:
        return ["layer1", "layer2", "layer3", "layer4"]
    starts = [place for place, name in enumerate(names) if place > 0 and getattr(layers[name], "_is_cn", False)]
    return [*(names[place - 1] for place in starts[-3:]), names[-1]]
