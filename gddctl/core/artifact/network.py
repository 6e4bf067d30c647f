"""The network a card describes: one of ours, or one that was imported; enough to build it again without its old files."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag
from typing_extensions import assert_never

from gddctl.core.config.external import MmsegArch, MmsegDepth, TorchvisionArch
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.preprocess import Side
from gddctl.core.section import Section

_OURS = "gddctl"
_FULL_STRIDE = 32  # pyramids take an undilated encoder, whatever ``output_stride`` says


class _Imported(Section):
    """What every imported network has."""

    outputs: PositiveInt  # channels of its own logits
    order: tuple[NonNegativeInt, ...]  # class k of the card is channel ``order[k]`` of them
    stride: PositiveInt  # of the logits, as one image showed
    features: dict[str, PositiveInt]  # channels of the features that it gives
    multiple: PositiveInt = 1  # images are resized to the next multiple of this, height and width
    size: tuple[Side, Side] | None = None  # or to this size, where it takes no other


class SmpNetwork(_Imported):
    """Of segmentation_models_pytorch."""

    kind: Literal["smp"] = "smp"
    arch: str
    encoder: str
    options: dict[str, Any] = Field(default_factory=dict)


class TorchvisionNetwork(_Imported):
    """Of torchvision.models.segmentation."""

    kind: Literal["torchvision"] = "torchvision"
    arch: TorchvisionArch


class TransformersNetwork(_Imported):
    """Of transformers."""

    kind: Literal["transformers"] = "transformers"
    config: dict[str, Any]  # its config.json


class MmsegNetwork(_Imported):
    """Of mmsegmentation."""

    kind: Literal["mmseg"] = "mmseg"
    arch: MmsegArch
    depth: MmsegDepth
    channels: PositiveInt | None = None


ImportedNetwork: TypeAlias = SmpNetwork | TorchvisionNetwork | TransformersNetwork | MmsegNetwork


def _kind(value: Any) -> str:
    found = value.get("kind", _OURS) if isinstance(value, dict) else getattr(value, "kind", _OURS)
    return str(found)


AnyNetwork: TypeAlias = Annotated[
    Annotated[NetworkConfig, Tag(_OURS)]
    | Annotated[SmpNetwork, Tag("smp")]
    | Annotated[TorchvisionNetwork, Tag("torchvision")]
    | Annotated[TransformersNetwork, Tag("transformers")]
    | Annotated[MmsegNetwork, Tag("mmseg")],
    Discriminator(_kind),
]


def architecture_of(network: NetworkConfig | ImportedNetwork) -> str:
    """Architecture, encoder and real stride in one name.

    >>> architecture_of(NetworkConfig(arch="fpn", encoder="resnet18", output_stride=8))
    'fpn-resnet18-s32'
    """
    match network:
        case NetworkConfig():
            return f"{network.arch}-{network.encoder}-s{stride_of(network)}"
        case SmpNetwork():
            return f"smp-{network.arch}-{network.encoder}-s{network.stride}"
        case TorchvisionNetwork():
            return f"torchvision-{network.arch}-s{network.stride}"
        case TransformersNetwork():
            return f"transformers-{network.config.get('model_type', 'model')}-s{network.stride}"
        case MmsegNetwork():
            return f"mmseg-{network.arch}-r{network.depth}-s{network.stride}"
        case other:
            assert_never(other)


def stride_of(network: NetworkConfig | ImportedNetwork) -> int:
    """The stride of the logits."""
    if not isinstance(network, NetworkConfig):
        return network.stride
    return _FULL_STRIDE if network.arch in ("fpn", "upernet") else network.output_stride
