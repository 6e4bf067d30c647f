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
        stages = [maps[name] for name in _stage_names(self.backbone)]
        features = dict(zip(STAGES, stages, strict=True))
        if not isinstance(self.classifier, nn.Sequential):  # LR-ASPP: two classifiers added up, so no one feature is read
            return Outputs(logits=self.classifier({"low": stages[0], "high": stages[-1]}), features=features)
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


def _stage_names(backbone: nn.Module) -> list[str]:
    """Four layers whose outputs are the stages: ResNet's own, or the last four ends of MobileNet's, as its own heads count."""
    layers = cast(nn.ModuleDict, backbone)
    if "layer4" in layers:
        return ["layer1", "layer2", "layer3", "layer4"]
    names = list(layers.keys())
    ends = [names[0], *(name for name in names if getattr(layers[name], "_is_cn", False)), names[-1]]
    return ends[-4:]
