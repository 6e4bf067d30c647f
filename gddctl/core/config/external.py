"""Teachers from elsewhere: which file or folder, whose library, which classes, how it wants its images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from gddctl.core.preprocess import Positive, Share, Side
from gddctl.core.section import Section

# Class names by reference: those of the dataset itself, in its order; or a published list.
NamedClasses = Literal["dataset", "camvid", "cityscapes", "voc", "ade20k", "cocostuff"]
TorchvisionArch = Literal[
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
]
MmsegArch = Literal["pspnet", "deeplabv3"]
MmsegDepth = Literal[18, 34, 50, 101]


class _Source(Section):
    """What every kind has. Null: what the checkpoint or its folder says, else the family's own."""

    path: Path  # file or folder
    classes: NamedClasses | tuple[str, ...] | Path | None = None  # in the order of its logits; a path is a classes.yaml
    drop_classes: bool = False  # leave out its classes that the dataset lacks, instead of refusing it
    mean: tuple[Share, Share, Share] | None = None  # RGB, of pixel / 255
    std: tuple[Positive, Positive, Positive] | None = None
    channel_order: Literal["rgb", "bgr"] | None = None
    size: tuple[Side, Side] | None = None  # (height, width) that it insists on: images are resized to it; null: it takes any
    licence: str | None = None

    @model_validator(mode="after")
    def _mean_and_std_go_together(self) -> _Source:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are set together or not at all")
        return self


class SmpSource(_Source):
    """segmentation_models_pytorch: a state dict, or the folder that its ``save_pretrained`` wrote."""

    kind: Literal["smp"] = "smp"
    arch: str | None = None  # as smp.create_model names it, e.g. "unetplusplus"; null: what the folder says
    encoder: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)  # further keywords of smp.create_model, e.g. {decoder_channels: [64, 32, 16]}


class TorchvisionSource(_Source):
    """torchvision.models.segmentation: a state dict."""

    kind: Literal["torchvision"] = "torchvision"
    arch: TorchvisionArch


class TransformersSource(_Source):
    """transformers, AutoModelForSemanticSegmentation: a local folder that ``save_pretrained`` wrote."""

    kind: Literal["transformers"] = "transformers"


class MmsegSource(_Source):
    """mmsegmentation, PSPNet and DeepLabV3 on ResNetV1c at output stride 8: a checkpoint file."""

    kind: Literal["mmseg"] = "mmseg"
    arch: MmsegArch
    depth: MmsegDepth
    channels: PositiveInt | None = None  # of the decode head; null: published, 512 from ResNet-50 on, 128 below


External: TypeAlias = Annotated[SmpSource | TorchvisionSource | TransformersSource | MmsegSource, Field(discriminator="kind")]
